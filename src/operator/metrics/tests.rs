use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

use super::{
    resources::sample::{Two, users},
    *,
};

fn example(each: bool) -> Metrics {
    let metrics = Metrics::with(Arc::default(), Box::new(Two { each }));
    metrics.record_call("123456789012", "CreateAccessKey", "OK", Duration::from_millis(20));
    metrics.record_call("444455556666", "AssumeRole", "AccessDenied", Duration::from_millis(20));
    metrics.record_throttle("123456789012");
    metrics.reconciled("ok", Duration::from_millis(30));
    metrics.acted(EffectVerb::Publish, None);
    metrics.rotated();
    metrics.verified(Duration::from_secs(3));
    metrics
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

/// Name -> type, labels and help, as the text tells them.
fn told(text: &str) -> BTreeMap<String, (String, Vec<String>, String)> {
    let mut told: BTreeMap<String, (String, Vec<String>, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            told.entry(name.to_owned()).or_default().2 = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            told.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            let labels: Vec<String> = labels
                .split("\",")
                .filter_map(|label| label.split_once('=').map(|(label, _)| label.to_owned()))
                .filter(|label| label != "le")
                .collect();
            let family =
                ["_total", "_info", "_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            told.entry(family.unwrap_or(name).to_owned()).or_default().1 = labels;
        }
    }
    told
}

#[test]
fn the_reference_is_what_a_scrape_tells() {
    let listed: BTreeMap<String, (String, Vec<String>, String)> = reference::ALL
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (format!("awsdeploy_{}", metric.name), (metric.kind.to_owned(), labels, metric.help.to_owned()))
        })
        .collect();
    assert_eq!(told(&example(true).text()), listed);
    for name in listed.keys() {
        assert!(reference::markdown().contains(&format!("`{name}")), "{name}");
    }
}

#[test]
fn what_is_done_is_counted_under_our_prefix() {
    let text = example(true).text();
    has(&text, r#"awsdeploy_aws_requests_total{account="123456789012",operation="CreateAccessKey",code="OK"} 1"#);
    has(&text, r#"awsdeploy_aws_requests_total{account="444455556666",operation="AssumeRole",code="AccessDenied"} 1"#);
    has(&text, r#"awsdeploy_aws_throttled_total{account="123456789012"} 1"#);
    has(&text, r#"awsdeploy_aws_throttled_total{account="444455556666"} 0"#);
    has(&text, r#"awsdeploy_effects_total{effect="Publish",result="ok"} 1"#);
    has(&text, "awsdeploy_key_verification_seconds_sum 3.0");
    assert!(text.contains("awsdeploy_build_info{version="), "{text}");
}

#[test]
fn an_attempt_at_a_key_is_counted_by_its_end() {
    let metrics = Metrics::new(true);
    let ends = |metrics: &Metrics| {
        let text = metrics.text();
        ROTATIONS.map(|result| {
            let line = format!("awsdeploy_rotations_total{{result=\"{result}\"}} ");
            text.lines().find_map(|found| found.strip_prefix(&line)).expect("from the start").to_owned()
        })
    };
    assert_eq!(ends(&metrics), ["0", "0", "0", "0"]);
    metrics.rotated();
    metrics.acted(EffectVerb::AbandonAttempt, Some(Reason::KeyNotAccepted));
    metrics.acted(EffectVerb::AbandonAttempt, None);
    metrics.acted(EffectVerb::CreateKey, Some(Reason::LimitExceeded));
    assert_eq!(ends(&metrics), ["1", "1", "1", "1"]);
    metrics.acted(EffectVerb::AbandonAttempt, Some(Reason::Conflict));
    metrics.acted(EffectVerb::CreateKey, None);
    assert_eq!(ends(&metrics), ["1", "1", "1", "1"], "not an end");
}

#[test]
fn resources_are_told_of_out_of_their_status() {
    let text = example(true).text();
    for line in [
        "awsdeploy_resources 3",
        r#"awsdeploy_conditions{type="Ready",status="True",reason="Reconciled"} 1"#,
        r#"awsdeploy_conditions{type="Ready",status="False",reason="Suspended"} 1"#,
        r#"awsdeploy_keys{state="Superseded"} 1"#,
        r#"awsdeploy_keys{state="Foreign"} 0"#,
        "awsdeploy_oldest_key_created_timestamp_seconds 1793491200",
        "awsdeploy_earliest_rotation_timestamp_seconds 1796083200",
        r#"awsdeploy_ready{namespace="deploy",name="well"} 1"#,
        r#"awsdeploy_ready{namespace="deploy",name="put-off"} 0"#,
        r#"awsdeploy_suspended{namespace="deploy",name="put-off"} 1"#,
        r#"awsdeploy_key_created_timestamp_seconds{namespace="deploy",name="well"} 1793491200"#,
        r#"awsdeploy_next_rotation_timestamp_seconds{namespace="deploy",name="well"} 1796083200"#,
    ] {
        has(&text, line);
    }
    assert!(!text.contains("AKIA") && !text.contains("_suspended{namespace=\"deploy\",name=\"well\""), "{text}");
}

#[test]
fn without_a_series_for_each_resource_no_metric_names_one() {
    let text = example(false).text();
    has(&text, "awsdeploy_resources 3");
    assert!(!text.contains("namespace="), "{text}");
}

#[test]
fn who_stands_by_tells_nothing_of_resources() {
    let metrics = Metrics::new(true);
    has(&metrics.text(), "awsdeploy_leader 0");
    let (store, _writer) = kube::runtime::reflector::store();
    metrics.leads(vec![store]);
    has(&metrics.text(), "awsdeploy_leader 1");
    has(&metrics.text(), "awsdeploy_resources 0");
    metrics.stands_by();
    has(&metrics.text(), "awsdeploy_leader 0");
    assert!(!metrics.text().contains("awsdeploy_resources"));
}

#[test]
fn a_quarantine_is_shown_while_it_lasts_and_its_resource_is_there() {
    let metrics = Metrics::new(false);
    let (store, mut writer) = kube::runtime::reflector::store();
    let [well, put_off] = users().map(|user| DeserializeGuard(Ok(user)));
    writer.apply_watcher_event(&Event::Apply(well));
    writer.apply_watcher_event(&Event::Apply(put_off.clone()));
    metrics.leads(vec![store.clone()]);
    let shown = || metrics.text().lines().filter(|line| line.starts_with("awsdeploy_quarantined{")).count();
    metrics.quarantined("deploy", "well", true);
    metrics.quarantined("deploy", "put-off", true);
    metrics.quarantined("deploy", "unknown", true);
    has(&metrics.text(), r#"awsdeploy_quarantined{namespace="deploy",name="well"} 1"#);
    assert_eq!(shown(), 2, "of those that are there");
    metrics.quarantined("deploy", "well", false);
    assert_eq!(shown(), 1, "detached");
    writer.apply_watcher_event(&Event::Delete(put_off));
    assert_eq!(shown(), 0, "gone");
    metrics.quarantined("deploy", "well", true);
    metrics.stands_by();
    metrics.leads(vec![store]);
    assert_eq!(shown(), 0, "what an earlier term has seen is old, and the status says nothing of it");
}

#[test]
fn a_quarantine_that_the_status_tells_is_shown_until_somebody_has_looked() {
    let metrics = Metrics::new(false);
    let (store, mut writer) = kube::runtime::reflector::store();
    for mut user in users() {
        // Any of its conditions: which one tells it depends on what else there is to say.
        if user.metadata.name.as_deref() == Some("well") {
            user.status.as_mut().expect("a status").conditions[1].reason = Reason::Quarantined.as_str().to_owned();
        }
        writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(user))));
    }
    let shown = || -> Vec<String> {
        let text = metrics.text();
        text.lines().filter(|line| line.starts_with("awsdeploy_quarantined{")).map(str::to_owned).collect()
    };
    let well = r#"awsdeploy_quarantined{namespace="deploy",name="well"} 1"#;
    metrics.leads(vec![store.clone()]);
    assert_eq!(shown(), [well], "nobody has looked");
    metrics.quarantined("deploy", "put-off", false);
    assert_eq!(shown(), [well], "another one was looked at");
    metrics.quarantined("deploy", "well", false);
    assert_eq!(shown(), [""; 0], "looked at, and the status is yet to be written");
    metrics.stands_by();
    metrics.leads(vec![store]);
    assert_eq!(shown(), [well], "a new leader has not looked");
}
