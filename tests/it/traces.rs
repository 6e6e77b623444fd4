//! What a collector of traces is told, and what it cannot do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use awsdeploy::api::mark;
use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    collector::{CollectedSpan, Collector, CollectorMood},
    pki::Authority,
    run_dir::RunDir,
};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, Wishes, eventually};

/// The operator sends what it has at its end, which may take as long as this.
const GRACE: Duration = Duration::from_secs(20);

async fn traced(collector: &Arc<Collector>, arguments: &[&'static str], variables: &[(&'static str, &str)]) -> Stage {
    Stage::with(Wishes {
        arguments: [&["--log-format=json"][..], arguments].concat(),
        variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        collector: Some(Arc::clone(collector)),
        kube_proxy: true,
        ..Wishes::default()
    })
    .await
}

fn children<'a>(spans: &'a [CollectedSpan], of: &CollectedSpan) -> Vec<&'a CollectedSpan> {
    spans.iter().filter(|span| span.trace == of.trace && span.parent == of.id).collect()
}

/// How often each is there.
fn counted(all: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

pub(crate) async fn a_first_creation_is_a_tree_of_spans_and_no_call_is_missing() {
    let collector = Arc::new(Collector::start(CollectorMood::Well).await.expect("a collector"));
    let more = [
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=operator-1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=deploy"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let stage = traced(&collector, &["--resync=1h", "--key-check=1h"], &more).await;
    stage.aws.rules().add(Rule::on("AttachUserPolicy").first(1).answer(AwsError::entity_temporarily_unmodifiable()));
    stage.apply("x", json!({"policies": {"managed": ["AmazonS3ReadOnlyAccess"]}})).await;
    stage.ready("x").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "now").await;
    let first = stage.published("x").await;
    stage.until_published("x", &first).await;
    // At its end the operator has little time to send what is left; so nearly all of it is sent before.
    let sent = |spans: &[CollectedSpan]| {
        let calls = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api").count();
        let above = |span: &CollectedSpan| spans.iter().any(|up| up.trace == span.trace && up.id == span.parent);
        let whole = spans.iter().all(|span| span.parent.is_empty() || above(span));
        (whole && calls == stage.aws.log().calls().len()).then_some(())
    };
    collector.until("spans of all calls to AWS", SOON, sent).await.expect("the spans are sent");
    stage.operator.stop(GRACE).await;
    let spans = collector.spans();

    // Steps below the pass, effects below the steps, calls below the effects.
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    let up = |span: &CollectedSpan| {
        spans.iter().find(|above| above.trace == span.trace && above.id == span.parent).expect("the parent is sent too")
    };
    for call in ["CreateUser", "CreateAccessKey", "AttachUserPolicy"] {
        let effect = up(of(call));
        let act = match call {
            "CreateAccessKey" => "act MintKey",
            "AttachUserPolicy" => "act AttachPolicy",
            _ => "act CreateUser",
        };
        assert_eq!(effect.name, act);
        let pass = up(effect);
        assert_eq!((pass.name.as_str(), pass.parent.is_empty()), ("pass", true));
        assert_eq!((pass.attribute("namespace"), pass.attribute("resource")), (stage.namespace.as_str(), "x"));
        let steps: Vec<_> = children(&spans, pass).iter().map(|step| step.name.as_str()).collect();
        for step in ["validate", "observe", "plan", "report"] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
    }
    assert_eq!(of("CreateUser").attribute("cloud.account.id"), stage.account.id());
    assert_eq!(of("CreateUser").attribute("code"), "OK");
    assert_eq!(of("CreateUser").error, None);
    let attach: Vec<_> = spans.iter().filter(|span| span.name == "AttachUserPolicy").collect();
    let refused = attach.iter().find(|span| span.attribute("code") == "Busy").expect("a span of the refusal");
    for failed in [refused, up(refused), up(up(refused))] {
        assert!(failed.error.as_ref().is_some_and(|told| told.contains("AttachUserPolicy")), "{failed:#?}");
    }
    let sender = &of("pass").resource;
    for (name, value) in [
        ("service.name", "aws-deploy-user-operator"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.pod.name", "operator-1"),
    ] {
        assert_eq!(sender.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(collector.header("x-team").iter().all(|team| team == "deploy"));

    // All that AWS and the API server were asked to do, and nothing else.
    let asked = counted(stage.aws.log().calls().into_iter().map(|call| call.action));
    let told = spans.iter().filter(|span| span.attribute("rpc.system") == "aws-api");
    assert_eq!(counted(told.map(|span| span.name.clone())), asked);
    let kube = stage.kube.as_ref().expect("a proxy").log();
    let written = kube.mutating_since(0).into_iter().map(|call| format!("{} {}", call.verb, call.resource));
    let told = spans.iter().filter(|span| {
        let verb = span.attribute("k8s.verb");
        !verb.is_empty() && verb != "get" && !span.attribute("k8s.resource").ends_with("reviews")
    });
    assert_eq!(counted(told.map(|span| span.name.clone())), counted(written));
    assert!(
        spans.iter().all(|span| span.name == "pass" || !span.parent.is_empty()),
        "nothing but passes begins a trace"
    );

    assert!(stage.account.leaks_in(&collector.text()).is_empty(), "no key material is sent");
    assert!(!stage.account.leaks_in(&stage.secret("x").await.expect("a Secret")["credentials"]).is_empty());
    for line in stage.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let span = line["span"]["name"].as_str();
        assert!(span.is_none() || span == Some("pass"), "steps and calls are in no line of the log: {line}");
    }
}

pub(crate) async fn a_collector_that_is_away_costs_no_pass_anything() {
    let collector = Arc::new(Collector::start(CollectorMood::Hangs).await.expect("a collector"));
    // Short, and long enough for a collector that answers on a busy machine.
    let hurry = [("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let stage = traced(&collector, &[], &hurry).await;
    let failed = async || {
        let failed = stage.count(r#"awsdeploy_trace_spans_total{result="failed"}"#).await;
        (failed > 0).then_some(failed)
    };
    let told = "the collector takes no spans";
    // Short: each rotation below needs a free slot.
    stage.apply("x", json!({"accessKey": {"rotation": {"every": "30d", "overlap": "1s"}}})).await;
    stage.ready("x").await;
    eventually("spans are given up", failed, || stage.log()).await;
    assert!(collector.requests() > 0);
    assert_eq!(stage.log().matches(told).count(), 1, "{}", stage.log());

    for mood in [CollectorMood::Refuses(503), CollectorMood::Well] {
        collector.set_mood(mood);
        let requests = collector.requests();
        let before = stage.published("x").await;
        stage.annotate("x", mark::ANNOTATION_ROTATE, &format!("{mood:?}")).await;
        stage.until_published("x", &before).await;
        let asked = async || (collector.requests() > requests).then_some(());
        eventually(&format!("{mood:?} is met"), asked, || stage.log()).await;
    }
    let exported = async || (stage.count(r#"awsdeploy_trace_spans_total{result="exported"}"#).await > 0).then_some(());
    eventually("spans are taken", exported, || stage.log()).await;
    let log = stage.log();
    assert_eq!((log.matches(told).count(), log.matches("takes spans again").count()), (1, 1), "{log}");
    assert!(!log.contains("traceparent") && !log.contains("resourceSpans"), "{log}");

    collector.set_mood(CollectorMood::Hangs);
    let before = collector.requests();
    let asked = async || (collector.requests() > before).then_some(());
    eventually("it hangs", asked, || stage.log()).await;
    let ended = stage.operator.stop(SOON).await;
    assert!(ended.success(), "it waits for nobody at its end: {ended}");
}

pub(crate) async fn a_collector_is_believed_by_the_authority_that_is_named_and_by_no_other() {
    let (authority, stranger) = (Authority::new().expect("an authority"), Authority::new().expect("another one"));
    let identity = authority.server_for(["127.0.0.1"]).expect("a certificate");
    let collector = Collector::start_with_tls(CollectorMood::Well, &identity).await.expect("a collector");
    let collector = Arc::new(collector);
    let run = RunDir::create().expect("a directory");
    let file = |name: &str, authority: &Authority| {
        let file = run.path().join(name).display().to_string();
        std::fs::write(&file, authority.certificate()).expect("a file");
        file
    };
    let counted = async |stage: &Stage, result: &str| {
        let line = format!("awsdeploy_trace_spans_total{{result=\"{result}\"}}");
        let some = async || (stage.count(&line).await > 0).then_some(());
        eventually(&format!("spans are {result}"), some, || stage.log()).await;
    };
    for (authority, result) in [(file("stranger.pem", &stranger), "failed"), (file("ours.pem", &authority), "exported")]
    {
        let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
        let stage = traced(&collector, &[], &variables).await;
        stage.apply("x", json!({})).await;
        stage.ready("x").await;
        counted(&stage, result).await;
        assert_eq!(collector.requests() > 0, result == "exported", "no span goes to who cannot prove who it is");
    }
}
