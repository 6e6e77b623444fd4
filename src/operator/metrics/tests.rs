use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

use super::{
    resources::sample::{SampleCollector, users},
    *,
};

fn example(per_resource: bool) -> Metrics {
    let metrics = Metrics::with_collector(Arc::default(), Box::new(SampleCollector { per_resource }));
    metrics.record_call("123456789012", "CreateAccessKey", "OK", Duration::from_millis(20));
    metrics.record_call("444455556666", "AssumeRole", "AccessDenied", Duration::from_millis(20));
    metrics.record_throttle("123456789012");
    metrics.reconciled("ok", Duration::from_millis(30));
    metrics.acted(EffectVerb::Publish, None);
    metrics.rotated();
    metrics.verified(Duration::from_secs(3));
    metrics
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

/// Name -> type, labels and help, parsed from the text format.
fn parse(text: &str) -> BTreeMap<String, (String, Vec<String>, String)> {
    let mut families: BTreeMap<String, (String, Vec<String>, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().2 = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            let labels: Vec<String> = labels
                .split("\",")
                .filter_map(|label| label.split_once('=').map(|(label, _)| label.to_owned()))
                .filter(|label| label != "le")
                .collect();
            let family =
                ["_total", "_info", "_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            families.entry(family.unwrap_or(name).to_owned()).or_default().1 = labels;
        }
    }
    families
}

#[test]
fn reference_lists_exactly_the_exported_metrics() {
    let listed: BTreeMap<String, (String, Vec<String>, String)> = reference::ALL
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (format!("awsdeploy_{}", metric.name), (metric.kind.to_owned(), labels, metric.help.to_owned()))
        })
        .collect();
    assert_eq!(parse(&example(true).encode()), listed);
    for name in listed.keys() {
        assert!(reference::markdown().contains(&format!("`{name}")), "{name}");
    }
}

#[test]
fn calls_and_effects_are_counted_with_the_prefix() {
    let text = example(true).encode();
    assert_line(
        &text,
        r#"awsdeploy_aws_requests_total{account="123456789012",operation="CreateAccessKey",code="OK"} 1"#,
    );
    assert_line(
        &text,
        r#"awsdeploy_aws_requests_total{account="444455556666",operation="AssumeRole",code="AccessDenied"} 1"#,
    );
    assert_line(&text, r#"awsdeploy_aws_throttled_total{account="123456789012"} 1"#);
    assert_line(&text, r#"awsdeploy_aws_throttled_total{account="444455556666"} 0"#);
    assert_line(&text, r#"awsdeploy_effects_total{effect="Publish",result="ok"} 1"#);
    assert_line(&text, "awsdeploy_key_verification_seconds_sum 3.0");
    assert!(text.contains("awsdeploy_build_info{version="), "{text}");
}

#[test]
fn span_counters_are_exported_from_zero() {
    let metrics = Metrics::new(true);
    assert_line(&metrics.encode(), r#"awsdeploy_trace_spans_total{result="exported"} 0"#);
    let counters = metrics.span_counters();
    counters.exported.inc_by(3);
    counters.failed.inc_by(2);
    counters.dropped.inc();
    for line in [r#"{result="exported"} 3"#, r#"{result="failed"} 2"#, r#"{result="dropped"} 1"#] {
        assert_line(&metrics.encode(), &format!("awsdeploy_trace_spans_total{line}"));
    }
}

#[test]
fn key_attempts_are_counted_by_result() {
    let metrics = Metrics::new(true);
    let results = |metrics: &Metrics| {
        let text = metrics.encode();
        ROTATION_RESULTS.map(|result| {
            let line = format!("awsdeploy_rotations_total{{result=\"{result}\"}} ");
            text.lines().find_map(|found| found.strip_prefix(&line)).expect("a series from the start").to_owned()
        })
    };
    assert_eq!(results(&metrics), ["0", "0", "0", "0"]);
    metrics.rotated();
    metrics.acted(EffectVerb::AbandonAttempt, Some(Reason::KeyNotAccepted));
    metrics.acted(EffectVerb::AbandonAttempt, None);
    metrics.acted(EffectVerb::CreateKey, Some(Reason::LimitExceeded));
    assert_eq!(results(&metrics), ["1", "1", "1", "1"]);
    metrics.acted(EffectVerb::AbandonAttempt, Some(Reason::Conflict));
    metrics.acted(EffectVerb::CreateKey, None);
    assert_eq!(results(&metrics), ["1", "1", "1", "1"], "not the end of an attempt");
}

#[test]
fn resource_metrics_are_derived_from_status() {
    let text = example(true).encode();
    for line in [
        "awsdeploy_resources 3",
        r#"awsdeploy_conditions{type="Ready",status="True",reason="Reconciled"} 1"#,
        r#"awsdeploy_conditions{type="Ready",status="False",reason="CredentialsRevoked"} 1"#,
        r#"awsdeploy_keys{state="Superseded"} 1"#,
        r#"awsdeploy_keys{state="Foreign"} 0"#,
        "awsdeploy_oldest_key_created_timestamp_seconds 1793491200",
        "awsdeploy_earliest_rotation_timestamp_seconds 1796083200",
        r#"awsdeploy_earliest_previous_key_expiry_timestamp_seconds{reason="StillUsed"} 1794096000"#,
        r#"awsdeploy_ready{namespace="deploy",name="healthy"} 1"#,
        r#"awsdeploy_ready{namespace="deploy",name="revoked"} 0"#,
        r#"awsdeploy_credentials_revoked{namespace="deploy",name="revoked"} 1"#,
        r#"awsdeploy_key_created_timestamp_seconds{namespace="deploy",name="healthy"} 1793491200"#,
        r#"awsdeploy_next_rotation_timestamp_seconds{namespace="deploy",name="healthy"} 1796083200"#,
        r#"awsdeploy_previous_key_expiry_timestamp_seconds{namespace="deploy",name="healthy",reason="StillUsed"} 1794096000"#,
    ] {
        assert_line(&text, line);
    }
    assert!(
        !text.contains("AKIA") && !text.contains("_credentials_revoked{namespace=\"deploy\",name=\"healthy\""),
        "{text}"
    );
}

#[test]
fn no_metric_names_a_resource_without_per_resource_series() {
    let text = example(false).encode();
    assert_line(&text, "awsdeploy_resources 3");
    assert!(!text.contains("namespace="), "{text}");
}

#[test]
fn standby_replica_exports_no_resource_metrics() {
    let metrics = Metrics::new(true);
    assert_line(&metrics.encode(), "awsdeploy_leader 0");
    let (store, _writer) = kube::runtime::reflector::store();
    metrics.set_leader(vec![store]);
    assert_line(&metrics.encode(), "awsdeploy_leader 1");
    assert_line(&metrics.encode(), "awsdeploy_resources 0");
    metrics.set_standby();
    assert_line(&metrics.encode(), "awsdeploy_leader 0");
    assert!(!metrics.encode().contains("awsdeploy_resources"));
}

#[test]
fn quarantine_is_exported_while_it_and_its_resource_exist() {
    let metrics = Metrics::new(false);
    let (store, mut writer) = kube::runtime::reflector::store();
    let [healthy, revoked] = users().map(GuardedUser::from);
    writer.apply_watcher_event(&Event::Apply(healthy));
    writer.apply_watcher_event(&Event::Apply(revoked.clone()));
    metrics.set_leader(vec![store.clone()]);
    let exported = || metrics.encode().lines().filter(|line| line.starts_with("awsdeploy_quarantined{")).count();
    metrics.quarantined("deploy", "healthy", true);
    metrics.quarantined("deploy", "revoked", true);
    metrics.quarantined("deploy", "unknown", true);
    assert_line(&metrics.encode(), r#"awsdeploy_quarantined{namespace="deploy",name="healthy"} 1"#);
    assert_eq!(exported(), 2, "only of existing resources");
    metrics.quarantined("deploy", "healthy", false);
    assert_eq!(exported(), 1, "detached");
    writer.apply_watcher_event(&Event::Delete(revoked));
    assert_eq!(exported(), 0, "deleted");
    metrics.drop_deleted_resources();
    assert_eq!(metrics.resources.observation_count(), 1, "without a scrape");
    metrics.quarantined("deploy", "healthy", true);
    metrics.set_standby();
    metrics.set_leader(vec![store]);
    assert_eq!(exported(), 0, "observations of an earlier term are dropped, and the status has none");
}

#[test]
fn quarantine_in_status_is_exported_until_it_is_observed() {
    let metrics = Metrics::new(false);
    let (store, mut writer) = kube::runtime::reflector::store();
    for mut user in users() {
        // Any condition may have the reason: other problems may take precedence in Ready.
        if user.metadata.name.as_deref() == Some("healthy") {
            user.status.as_mut().expect("a status").conditions[1].reason = Reason::Quarantined.as_str().to_owned();
        }
        writer.apply_watcher_event(&Event::Apply(GuardedUser::from(user)));
    }
    let exported = || -> Vec<String> {
        let text = metrics.encode();
        text.lines().filter(|line| line.starts_with("awsdeploy_quarantined{")).map(str::to_owned).collect()
    };
    let healthy = r#"awsdeploy_quarantined{namespace="deploy",name="healthy"} 1"#;
    metrics.set_leader(vec![store.clone()]);
    assert_eq!(exported(), [healthy], "not observed yet");
    metrics.quarantined("deploy", "revoked", false);
    assert_eq!(exported(), [healthy], "another resource was observed");
    metrics.quarantined("deploy", "healthy", false);
    assert_eq!(exported(), [""; 0], "observed, and the status is not written yet");
    metrics.set_standby();
    metrics.set_leader(vec![store]);
    assert_eq!(exported(), [healthy], "a new leader has not observed it");
}
