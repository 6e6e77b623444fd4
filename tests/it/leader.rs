//! Leader election, and two leaders at once.

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    auditor::{AuditTarget, Auditor},
    aws_proxy::Rule,
};
use serde_json::json;

use crate::test_env::{OPERATOR_NAMESPACE, TIMEOUT, TestEnv, eventually};

pub(crate) async fn standby_takes_over_when_the_leader_stops() {
    // Long enough for a leader on a busy machine, short enough for a fast takeover after a kill.
    let mut env = TestEnv::with_arguments(&["--leader-elect", "--lease-duration=20s"]).await;
    let second = env.start_another_operator("second").await;
    assert!(second.log().contains("standing by"), "ready without leading: {}", second.log());
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let metrics = second.metrics().await.expect("metrics");
    assert!(!metrics.contains("awsdeploy_reconciles_total{"), "a standby does not reconcile: {metrics}");

    env.operator.kill().await;
    env.annotate("x", "awsdeploy.dev/rotate", "after the leader was killed").await;
    let key = env.wait_published("x", &key).await;

    env.operator.restart().await.expect("the first operator restarts");
    let lists = env.log().matches(" listed ").count();
    assert_eq!(lists, 1, "it does not take over the lease: {}", env.log());
    let status = second.stop(TIMEOUT).await;
    assert!(status.success(), "clean exit: {status}");
    env.annotate("x", "awsdeploy.dev/rotate", "after the leader was stopped").await;
    env.wait_published("x", &key).await;
}

pub(crate) async fn two_leaders_lose_no_key_and_interrupt_no_consumer() {
    let env = TestEnv::with_arguments(&["--recovery-delay=2s", "--verify-successes=2"]).await;
    let auditor = Auditor::start(AuditTarget {
        client: env.client.clone(),
        namespace: env.namespace.clone(),
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
        inspector: env.inspector(),
        account: env.account.clone(),
        aws: env.aws.log().clone(),
        kube: None,
    });
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}})).await;
    env.wait_ready("x").await;
    let (_mounted, consumer) = env.start_consumer("x", &env.iam("u").await.arn);
    consumer.wait_for("a first call", TIMEOUT, |report| report.accepted > 0).await.expect("the consumer works");

    // The first leader is paused after AWS created a key and before the journal is written.
    let before = env.published_key("x").await;
    let response = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.annotate("x", "awsdeploy.dev/rotate", "now").await;
    assert!(response.wait_until_held(TIMEOUT).await, "the key is created and the response pending");
    env.operator.pause();
    response.release();
    let second = env.start_another_operator("second").await;
    let published = env.wait_published("x", &before).await;
    // It resumes, and both lead.
    env.operator.resume();
    env.annotate("x", "awsdeploy.dev/rotate", "again").await;
    let last = env.wait_published("x", &published).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let only_key = async || {
        let user = env.iam_opt("u").await?;
        (user.keys.len() == 1 && user.active_keys() == [env.published_key("x").await.as_str()]).then_some(())
    };
    eventually("one key, the published one", only_key, || env.log()).await;
    assert_ne!(last, published);

    let report = consumer.stop().await;
    assert_eq!(report.refused, 0, "{report}");
    let evidence = [("the first log", env.log()), ("the second log", second.log())];
    let violations = auditor.finish(4, &evidence).await.expect("the audit");
    assert!(violations.is_empty(), "{violations:#?}");
}
