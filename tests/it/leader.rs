//! Two operators at once.

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    auditor::{Audited, Auditor},
    aws_proxy::Rule,
};
use serde_json::json;

use crate::stage::{SOON, Stage, eventually};

pub(crate) async fn one_of_two_leads_and_the_other_takes_over() {
    // Long enough for a leader that a busy machine lets wait, short enough for a takeover after a kill to be soon.
    let mut stage = Stage::with_arguments(&["--leader-elect", "--lease-duration=20s"]).await;
    let second = stage.another_operator("second").await;
    assert!(second.log().contains("standing by"), "ready before it leads: {}", second.log());
    stage.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    let passes = second.metrics().await.expect("metrics");
    assert!(!passes.contains("awsdeploy_reconciles_total{"), "who stands by runs no passes: {passes}");

    stage.operator.kill().await;
    stage.annotate("x", "awsdeploy.dev/rotate", "after the leader was killed").await;
    let key = stage.until_published("x", &key).await;

    stage.operator.restart().await.expect("the first comes back");
    let terms = stage.log().matches(" listed ").count();
    assert_eq!(terms, 1, "it does not take the lease back: {}", stage.log());
    let status = second.stop(SOON).await;
    assert!(status.success(), "asked to stop it ends well: {status}");
    stage.annotate("x", "awsdeploy.dev/rotate", "after the leader was stopped").await;
    stage.until_published("x", &key).await;
}

pub(crate) async fn two_leaders_at_once_lose_no_key_and_cut_nobody_off() {
    let stage = Stage::with_arguments(&["--intent-dwell=2s", "--verify-successes=2"]).await;
    let auditor = Auditor::start(Audited {
        client: stage.client.clone(),
        namespace: stage.namespace.clone(),
        truth: stage.truth(),
        account: stage.account.clone(),
        aws: stage.aws.log().clone(),
        kube: None,
    });
    stage.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}})).await;
    stage.ready("x").await;
    let (_mounted, consumer) = stage.consume("x", &stage.iam("u").await.arn);
    consumer.until("a first call", SOON, |report| report.accepted > 0).await.expect("the consumer works");

    // The first is stopped in its tracks with a key that AWS has made and that it has not written down.
    let before = stage.published("x").await;
    let made = stage.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    stage.annotate("x", "awsdeploy.dev/rotate", "now").await;
    assert!(made.paused(SOON).await, "the key is made and its answer is on the way");
    stage.operator.pause();
    made.release();
    let second = stage.another_operator("second").await;
    let published = stage.until_published("x", &before).await;
    // It goes on where it was, and both lead.
    stage.operator.resume();
    stage.annotate("x", "awsdeploy.dev/rotate", "again").await;
    let last = stage.until_published("x", &published).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let alone = async || {
        let user = stage.iam_opt("u").await?;
        (user.keys.len() == 1 && user.active_keys() == [stage.published("x").await.as_str()]).then_some(())
    };
    eventually("one key, the published one", alone, || stage.log()).await;
    assert_ne!(last, published);

    let report = consumer.stop().await;
    assert_eq!(report.refused, 0, "{report}");
    let evidence = [("the first log", stage.log()), ("the second log", second.log())];
    let violations = auditor.finish(4, &evidence).await.expect("the audit");
    assert!(violations.is_empty(), "{violations:#?}");
}
