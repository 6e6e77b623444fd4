//! What a collector of traces is told, and what it cannot do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use awsdeploy::api::well_known;
use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    collector::{CollectedSpan, Collector, CollectorBehavior},
    pki::CertificateAuthority,
    run_dir::RunDir,
};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, eventually};

/// The operator sends what it has at its end, which may take as long as this.
const GRACE: Duration = Duration::from_secs(20);

async fn traced(collector: &Arc<Collector>, arguments: &[&'static str], variables: &[(&'static str, &str)]) -> TestEnv {
    TestEnv::with(EnvOptions {
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

/// How often each is there.
fn counted(all: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
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
    let env = traced(&collector, &["--resync=1h", "--key-check=1h"], &more).await;
    env.aws
        .rules()
        .add(Rule::on("AttachUserPolicy").first(1).respond_with(AwsError::entity_temporarily_unmodifiable()));
    env.apply("x", json!({"policies": {"managed": ["AmazonS3ReadOnlyAccess"]}})).await;
    env.ready("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    let first = env.published("x").await;
    env.until_published("x", &first).await;
    // At its end the operator has little time to send what is left; so nearly all of it is sent before.
    let sent = |spans: &[CollectedSpan]| {
        let calls = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api").count();
        let above = |span: &CollectedSpan| {
            spans.iter().any(|up| up.trace_id == span.trace_id && up.span_id == span.parent_span_id)
        };
        let whole = spans.iter().all(|span| span.parent_span_id.is_empty() || above(span));
        (whole && calls == env.aws.log().calls().len()).then_some(())
    };
    collector.wait_for("spans of all calls to AWS", TIMEOUT, sent).await.expect("the spans are sent");
    env.operator.stop(GRACE).await;
    let spans = collector.spans();

    // Steps below the pass, effects below the steps, calls below the effects.
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
        let pass = up(effect);
        assert_eq!((pass.name.as_str(), pass.parent_span_id.is_empty()), ("reconcile", true));
        assert_eq!((pass.attribute("namespace"), pass.attribute("resource")), (env.namespace.as_str(), "x"));
        let steps: Vec<_> = children(&spans, pass).iter().map(|step| step.name.as_str()).collect();
        for step in ["validate", "observe", "plan", "update status"] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
    }
    assert_eq!(of("CreateUser").attribute("cloud.account.id"), env.account.id());
    assert_eq!(of("CreateUser").attribute("code"), "OK");
    assert_eq!(of("CreateUser").error, None);
    let attach: Vec<_> = spans.iter().filter(|span| span.name == "AttachUserPolicy").collect();
    let refused = attach.iter().find(|span| span.attribute("code") == "Busy").expect("a span of the refusal");
    for failed in [refused, up(refused), up(up(refused))] {
        assert!(failed.error.as_ref().is_some_and(|told| told.contains("AttachUserPolicy")), "{failed:#?}");
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

    // All that AWS and the API server were asked to do, and nothing else.
    let asked = counted(env.aws.log().calls().into_iter().map(|call| call.action));
    let told = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api");
    assert_eq!(counted(told.map(|span| span.name.clone())), asked);
    let kube = env.kube.as_ref().expect("a proxy").log();
    let written = kube.mutating_since(0).into_iter().map(|call| format!("{} {}", call.verb, call.resource));
    let told = spans.iter().filter(|span| {
        let verb = span.attribute("k8s.verb");
        !verb.is_empty() && verb != "get" && !span.attribute("k8s.resource").ends_with("reviews")
    });
    assert_eq!(counted(told.map(|span| span.name.clone())), counted(written));
    assert!(
        spans.iter().all(|span| span.name == "reconcile" || !span.parent_span_id.is_empty()),
        "nothing but passes begins a trace"
    );

    assert!(env.account.leaks_in(&collector.text()).is_empty(), "no key material is sent");
    assert!(!env.account.leaks_in(&env.secret("x").await.expect("a Secret")["credentials"]).is_empty());
    for line in env.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let span = line["span"]["name"].as_str();
        assert!(span.is_none() || span == Some("reconcile"), "steps and calls are in no line of the log: {line}");
    }
}

pub(crate) async fn unavailable_collector_delays_no_reconcile() {
    let collector = Arc::new(Collector::start(CollectorBehavior::Hangs).await.expect("a collector"));
    // Short, and long enough for a collector that answers on a busy machine.
    let hurry = [("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let env = traced(&collector, &[], &hurry).await;
    let failed = async || {
        let failed = env.count(r#"awsdeploy_trace_spans_total{result="failed"}"#).await;
        (failed > 0).then_some(failed)
    };
    let told = "failed to export spans";
    // Short: each rotation below needs a free slot.
    env.apply("x", json!({"accessKey": {"rotation": {"every": "30d", "overlap": "1s"}}})).await;
    env.ready("x").await;
    eventually("spans are given up", failed, || env.log()).await;
    assert!(collector.requests() > 0);
    assert_eq!(env.log().matches(told).count(), 1, "{}", env.log());

    for mood in [CollectorBehavior::Rejects(503), CollectorBehavior::Accepts] {
        collector.set_behavior(mood);
        let requests = collector.requests();
        let before = env.published("x").await;
        env.annotate("x", well_known::ANNOTATION_ROTATE, &format!("{mood:?}")).await;
        env.until_published("x", &before).await;
        let asked = async || (collector.requests() > requests).then_some(());
        eventually(&format!("{mood:?} is met"), asked, || env.log()).await;
    }
    let exported = async || (env.count(r#"awsdeploy_trace_spans_total{result="exported"}"#).await > 0).then_some(());
    eventually("spans are taken", exported, || env.log()).await;
    let log = env.log();
    assert_eq!((log.matches(told).count(), log.matches("exporting spans again").count()), (1, 1), "{log}");
    assert!(!log.contains("traceparent") && !log.contains("resourceSpans"), "{log}");

    collector.set_behavior(CollectorBehavior::Hangs);
    let before = collector.requests();
    let asked = async || (collector.requests() > before).then_some(());
    eventually("it hangs", asked, || env.log()).await;
    let ended = env.operator.stop(TIMEOUT).await;
    assert!(ended.success(), "it waits for nobody at its end: {ended}");
}

pub(crate) async fn collector_certificate_must_be_signed_by_configured_ca() {
    let (authority, stranger) =
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
    let counted = async |env: &TestEnv, result: &str| {
        let line = format!("awsdeploy_trace_spans_total{{result=\"{result}\"}}");
        let some = async || (env.count(&line).await > 0).then_some(());
        eventually(&format!("spans are {result}"), some, || env.log()).await;
    };
    for (authority, result) in [(file("stranger.pem", &stranger), "failed"), (file("ours.pem", &authority), "exported")]
    {
        let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
        let env = traced(&collector, &[], &variables).await;
        env.apply("x", json!({})).await;
        env.ready("x").await;
        counted(&env, result).await;
        assert_eq!(collector.requests() > 0, result == "exported", "no span goes to who cannot prove who it is");
    }
}
