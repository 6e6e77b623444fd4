//! Two operators at once.

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    auditor::{AuditTarget, Auditor},
    aws_proxy::Rule,
};
use serde_json::json;

use crate::test_env::{TIMEOUT, TestEnv, eventually};

pub(crate) async fn standby_takes_over_when_the_leader_stops() {
    // Long enough for a leader that a busy machine lets wait, short enough for a takeover after a kill to be soon.
    let mut env = TestEnv::with_arguments(&["--leader-elect", "--lease-duration=20s"]).await;
    let second = env.another_operator("second").await;
    assert!(second.log().contains("standing by"), "ready before it leads: {}", second.log());
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})).await;
    env.ready("x").await;
    let key = env.published("x").await;
    let passes = second.metrics().await.expect("metrics");
    assert!(!passes.contains("awsdeploy_reconciles_total{"), "who stands by runs no passes: {passes}");

    env.operator.kill().await;
    env.annotate("x", "awsdeploy.dev/rotate", "after the leader was killed").await;
    let key = env.until_published("x", &key).await;

    env.operator.restart().await.expect("the first comes back");
    let terms = env.log().matches(" listed ").count();
    assert_eq!(terms, 1, "it does not take the lease back: {}", env.log());
    let status = second.stop(TIMEOUT).await;
    assert!(status.success(), "asked to stop it ends well: {status}");
    env.annotate("x", "awsdeploy.dev/rotate", "after the leader was stopped").await;
    env.until_published("x", &key).await;
}

pub(crate) async fn two_leaders_lose_no_key_and_interrupt_no_consumer() {
    let env = TestEnv::with_arguments(&["--recovery-delay=2s", "--verify-successes=2"]).await;
    let auditor = Auditor::start(AuditTarget {
        client: env.client.clone(),
        namespace: env.namespace.clone(),
        inspector: env.inspector(),
        account: env.account.clone(),
        aws: env.aws.log().clone(),
        kube: None,
    });
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}})).await;
    env.ready("x").await;
    let (_mounted, consumer) = env.consume("x", &env.iam("u").await.arn);
    consumer.wait_for("a first call", TIMEOUT, |report| report.accepted > 0).await.expect("the consumer works");

    // The first is stopped in its tracks with a key that AWS has made and that it has not written down.
    let before = env.published("x").await;
    let made = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.annotate("x", "awsdeploy.dev/rotate", "now").await;
    assert!(made.wait_until_held(TIMEOUT).await, "the key is made and its answer is on the way");
    env.operator.pause();
    made.release();
    let second = env.another_operator("second").await;
    let published = env.until_published("x", &before).await;
    // It goes on where it was, and both lead.
    env.operator.resume();
    env.annotate("x", "awsdeploy.dev/rotate", "again").await;
    let last = env.until_published("x", &published).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let alone = async || {
        let user = env.iam_opt("u").await?;
        (user.keys.len() == 1 && user.active_keys() == [env.published("x").await.as_str()]).then_some(())
    };
    eventually("one key, the published one", alone, || env.log()).await;
    assert_ne!(last, published);

    let report = consumer.stop().await;
    assert_eq!(report.refused, 0, "{report}");
    let evidence = [("the first log", env.log()), ("the second log", second.log())];
    let violations = auditor.finish(4, &evidence).await.expect("the audit");
    assert!(violations.is_empty(), "{violations:#?}");
}
