//! Kills and lost responses at the critical points of a rotation.

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::aws_proxy::Rule;
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv};

fn spec() -> Value {
    json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}})
}

/// Asserts the state after recovery: one key, published and accepted by AWS.
async fn assert_recovered(env: &mut TestEnv) {
    env.wait_ready("x").await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let published = env.published_key("x").await;
    let iam = env.wait_for_iam("u", "one key", |user| user.keys.len() == 1).await;
    assert_eq!(iam.active_keys(), [published.as_str()], "no orphan");
    assert!(env.account.accepts(&published));
    let secret = env.secret_data("x").await.expect("the Secret");
    assert!(env.account.secret_matches(&published, &secret["AWS_SECRET_ACCESS_KEY"]));
    assert!(env.journal("x").await.is_none(), "the journal is deleted");
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn kill_between_create_and_journal_leaves_no_orphan() {
    let mut env = TestEnv::new().await;
    let pause = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.apply("x", spec()).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the key is created and the response pending");
    env.operator.kill().await;
    pause.abort();
    let orphan = env.iam("u").await.keys[0].id.clone();
    env.operator.restart().await.expect("the operator restarts");
    assert_recovered(&mut env).await;
    assert!(env.iam("u").await.key(&orphan).is_none(), "the orphan is deleted");
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 2, "the orphan and the published key");
}

pub(crate) async fn lost_create_key_response_leaves_no_orphan() {
    let mut env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("CreateAccessKey").nth(1).after_commit().drop_connection());
    env.apply("x", spec()).await;
    assert_recovered(&mut env).await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 2, "the call is never retried");
}

pub(crate) async fn kill_after_journal_write_publishes_the_same_key() {
    let mut env = TestEnv::new().await;
    let pause = env.aws.rules().pause(Rule::on("GetCallerIdentity").from(2).before());
    env.apply("x", spec()).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the staged key is being verified");
    env.operator.kill().await;
    pause.abort();
    env.aws.rules().clear();
    let staged = env.iam("u").await.keys[0].id.clone();
    env.operator.restart().await.expect("the operator restarts");
    assert_recovered(&mut env).await;
    assert_eq!(env.published_key("x").await, staged, "the staged key is published");
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1);
}

pub(crate) async fn user_of_a_lost_create_response_is_owned() {
    let mut env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("CreateUser").first(3).after_commit().drop_connection());
    env.apply("x", spec()).await;
    assert_recovered(&mut env).await;
}
