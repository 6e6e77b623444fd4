//! Traces: which spans are exported, and that a broken collector does no harm.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use awsdeploy::api::well_known;
use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    collector::{CollectedSpan, Collector, CollectorBehavior},
    kube_proxy::KubeRecord,
    pki::CertificateAuthority,
    run_dir::RunDir,
};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, eventually};

/// Limit for a shutdown that exports the remaining spans.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

async fn start_traced(
    collector: &Arc<Collector>,
    arguments: &[&'static str],
    variables: &[(&'static str, &str)],
) -> TestEnv {
    TestEnv::with_options(EnvOptions {
        arguments: [&["--log-format=json"][..], arguments].concat(),
        variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        collector: Some(Arc::clone(collector)),
        kube_proxy: true,
        ..EnvOptions::default()
    })
    .await
}

fn children<'a>(spans: &'a [CollectedSpan], of: &CollectedSpan) -> Vec<&'a CollectedSpan> {
    spans.iter().filter(|span| span.trace_id == of.trace_id && span.parent_span_id == of.span_id).collect()
}

/// Counts equal items.
fn counts(all: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

pub(crate) async fn creation_is_one_span_tree_with_every_call() {
    let collector = Arc::new(Collector::start(CollectorBehavior::Accepts).await.expect("a collector"));
    let more = [
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=operator-1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=deploy"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let env = start_traced(&collector, &["--resync=1h", "--key-check=1h"], &more).await;
    env.aws
        .rules()
        .add(Rule::on("AttachUserPolicy").first(1).respond_with(AwsError::entity_temporarily_unmodifiable()));
    env.apply("x", json!({"policies": {"managed": ["AmazonS3ReadOnlyAccess"]}})).await;
    env.wait_ready("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    let first = env.published_key("x").await;
    env.wait_published("x", &first).await;
    // The final export is short, so nearly all spans must arrive before.
    let sent = |spans: &[CollectedSpan]| {
        let calls = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api").count();
        let above = |span: &CollectedSpan| {
            spans.iter().any(|up| up.trace_id == span.trace_id && up.span_id == span.parent_span_id)
        };
        let whole = spans.iter().all(|span| span.parent_span_id.is_empty() || above(span));
        (whole && calls == env.aws.log().calls().len()).then_some(())
    };
    collector.wait_for("spans of all calls to AWS", TIMEOUT, sent).await.expect("the spans are sent");
    env.operator.stop(SHUTDOWN_LIMIT).await;
    let spans = collector.spans();

    // Steps are children of the reconcile, effects of the steps, calls of the effects.
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    let up = |span: &CollectedSpan| {
        spans
            .iter()
            .find(|above| above.trace_id == span.trace_id && above.span_id == span.parent_span_id)
            .expect("the parent is sent too")
    };
    for call in ["CreateUser", "CreateAccessKey", "AttachUserPolicy"] {
        let effect = up(of(call));
        let act = match call {
            "CreateAccessKey" => "act CreateKey",
            "AttachUserPolicy" => "act AttachPolicy",
            _ => "act CreateUser",
        };
        assert_eq!(effect.name, act);
        let reconcile = up(effect);
        assert_eq!((reconcile.name.as_str(), reconcile.parent_span_id.is_empty()), ("reconcile", true));
        assert_eq!((reconcile.attribute("namespace"), reconcile.attribute("resource")), (env.namespace.as_str(), "x"));
        let steps: Vec<_> = children(&spans, reconcile).iter().map(|step| step.name.as_str()).collect();
        for step in ["validate", "observe", "plan", "update status"] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
    }
    assert_eq!(of("CreateUser").attribute("cloud.account.id"), env.account.id());
    assert_eq!(of("CreateUser").attribute("code"), "OK");
    assert_eq!(of("CreateUser").error, None);
    let attach: Vec<_> = spans.iter().filter(|span| span.name == "AttachUserPolicy").collect();
    let refused = attach.iter().find(|span| span.attribute("code") == "Busy").expect("a span of the refused call");
    for failed in [refused, up(refused), up(up(refused))] {
        assert!(failed.error.as_ref().is_some_and(|text| text.contains("AttachUserPolicy")), "{failed:#?}");
    }
    let sender = &of("reconcile").resource;
    for (name, value) in [
        ("service.name", "aws-deploy-user-operator"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.pod.name", "operator-1"),
    ] {
        assert_eq!(sender.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(collector.header("x-team").iter().all(|team| team == "deploy"));

    // Every call to AWS and the API server has its span, and nothing else has one.
    let called = counts(env.aws.log().calls().into_iter().map(|call| call.action));
    let text = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api");
    assert_eq!(counts(text.map(|span| span.name.clone())), called);
    let kube = env.kube.as_ref().expect("a proxy").log();
    // Dry runs too, which ask whether admission accepts the Secret; not the MAC key, which is created before the first reconcile.
    let is_write = |call: &KubeRecord| {
        ["create", "update", "patch", "delete"].contains(&call.verb)
            && !call.resource.ends_with("reviews")
            && call.name.as_deref() != Some(well_known::INTEGRITY_KEY_SECRET)
    };
    let written = kube.calls().into_iter().filter(is_write).map(|call| format!("{} {}", call.verb, call.resource));
    let text = spans.iter().filter(|span| {
        let verb = span.attribute("k8s.verb");
        !verb.is_empty() && verb != "get" && !span.attribute("k8s.resource").ends_with("reviews")
    });
    assert_eq!(counts(text.map(|span| span.name.clone())), counts(written));
    assert!(
        spans.iter().all(|span| span.name == "reconcile" || !span.parent_span_id.is_empty()),
        "only reconciles start a trace"
    );

    assert!(env.account.leaks_in(&collector.text()).is_empty(), "no key material is sent");
    assert!(!env.account.leaks_in(&env.secret_data("x").await.expect("a Secret")["credentials"]).is_empty());
    for line in env.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let span = line["span"]["name"].as_str();
        assert!(span.is_none() || span == Some("reconcile"), "log lines name the reconcile span only: {line}");
    }
}

pub(crate) async fn unavailable_collector_delays_no_reconcile() {
    let collector = Arc::new(Collector::start(CollectorBehavior::Hangs).await.expect("a collector"));
    // Short, but long enough for a collector on a busy machine.
    let variables = [("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let env = start_traced(&collector, &[], &variables).await;
    let failed = async || {
        let failed = env.metric_count(r#"awsdeploy_trace_spans_total{result="failed"}"#).await;
        (failed > 0).then_some(failed)
    };
    let failure_log = "failed to export spans, dropping them";
    // Short, as each rotation below needs a free slot.
    env.apply("x", json!({"accessKey": {"rotation": {"every": "30d", "overlap": "1s"}}})).await;
    env.wait_ready("x").await;
    eventually("spans are dropped", failed, || env.log()).await;
    assert!(collector.requests() > 0);
    assert_eq!(env.log().matches(failure_log).count(), 1, "{}", env.log());

    for behavior in [CollectorBehavior::Rejects(503), CollectorBehavior::Accepts] {
        collector.set_behavior(behavior);
        let requests = collector.requests();
        let before = env.published_key("x").await;
        env.annotate("x", well_known::ANNOTATION_ROTATE, &format!("{behavior:?}")).await;
        env.wait_published("x", &before).await;
        let called = async || (collector.requests() > requests).then_some(());
        eventually(&format!("the collector is called with {behavior:?}"), called, || env.log()).await;
    }
    let exported =
        async || (env.metric_count(r#"awsdeploy_trace_spans_total{result="exported"}"#).await > 0).then_some(());
    eventually("spans are exported", exported, || env.log()).await;
    let log = env.log();
    assert_eq!((log.matches(failure_log).count(), log.matches("exporting spans again").count()), (1, 1), "{log}");
    assert!(!log.contains("traceparent") && !log.contains("resourceSpans"), "{log}");

    collector.set_behavior(CollectorBehavior::Hangs);
    let before = collector.requests();
    let called = async || (collector.requests() > before).then_some(());
    eventually("the collector is called", called, || env.log()).await;
    let exit = env.operator.stop(TIMEOUT).await;
    assert!(exit.success(), "the shutdown does not wait for the collector: {exit}");
}

pub(crate) async fn collector_certificate_must_be_signed_by_configured_ca() {
    let (authority, other_authority) =
        (CertificateAuthority::new().expect("an authority"), CertificateAuthority::new().expect("another one"));
    let identity = authority.issue_server_certificate(["127.0.0.1"]).expect("a certificate");
    let collector = Collector::start_with_tls(CollectorBehavior::Accepts, &identity).await.expect("a collector");
    let collector = Arc::new(collector);
    let run = RunDir::create().expect("a directory");
    let file = |name: &str, authority: &CertificateAuthority| {
        let file = run.path().join(name).display().to_string();
        std::fs::write(&file, authority.certificate()).expect("a file");
        file
    };
    let counts = async |env: &TestEnv, result: &str| {
        let line = format!("awsdeploy_trace_spans_total{{result=\"{result}\"}}");
        let some = async || (env.metric_count(&line).await > 0).then_some(());
        eventually(&format!("spans are {result}"), some, || env.log()).await;
    };
    for (authority, result) in
        [(file("stranger.pem", &other_authority), "failed"), (file("ours.pem", &authority), "exported")]
    {
        let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
        let env = start_traced(&collector, &[], &variables).await;
        env.apply("x", json!({})).await;
        env.wait_ready("x").await;
        counts(&env, result).await;
        assert_eq!(collector.requests() > 0, result == "exported", "no span is sent to an unverified collector");
    }
}
