//! The operator dies, or an answer is lost, at the worst moments.

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::aws_proxy::Rule;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

fn spec() -> Value {
    json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}})
}

/// What must hold after every crash: one key, the published one, and it works.
async fn assert_recovered(stage: &mut Stage) {
    stage.ready("x").await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let published = stage.published("x").await;
    let iam = stage.until_iam("u", "one key", |user| user.keys.len() == 1).await;
    assert_eq!(iam.active_keys(), [published.as_str()], "no key is left behind");
    assert!(stage.account.accepts(&published));
    let secret = stage.secret("x").await.expect("the Secret");
    assert!(stage.account.secret_matches(&published, &secret["AWS_SECRET_ACCESS_KEY"]));
    assert!(stage.secret("x.awsdeploy-journal").await.is_none(), "the journal is closed");
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn killed_between_create_and_journal_leaves_no_key() {
    let mut stage = Stage::new().await;
    let pause = stage.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    stage.apply("x", spec()).await;
    assert!(pause.paused(SOON).await, "the key is made and its answer is on the way");
    stage.operator.kill().await;
    pause.abort();
    let orphan = stage.iam("u").await.keys[0].id.clone();
    stage.operator.restart().await.expect("the operator comes back");
    assert_recovered(&mut stage).await;
    assert!(stage.iam("u").await.key(&orphan).is_none(), "the key that nobody holds is deleted");
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 2, "the lost one and the one that is used");
}

pub(crate) async fn a_lost_answer_of_create_leaves_no_key() {
    let mut stage = Stage::new().await;
    stage.aws.rules().add(Rule::on("CreateAccessKey").nth(1).after_commit().drop_connection());
    stage.apply("x", spec()).await;
    assert_recovered(&mut stage).await;
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 2, "never a second try of the same call");
}

pub(crate) async fn killed_after_the_journal_publishes_the_same_key() {
    let mut stage = Stage::new().await;
    let pause = stage.aws.rules().pause(Rule::on("GetCallerIdentity").from(2).before());
    stage.apply("x", spec()).await;
    assert!(pause.paused(SOON).await, "the staged key is being verified");
    stage.operator.kill().await;
    pause.abort();
    stage.aws.rules().clear();
    let staged = stage.iam("u").await.keys[0].id.clone();
    stage.operator.restart().await.expect("the operator comes back");
    assert_recovered(&mut stage).await;
    assert_eq!(stage.published("x").await, staged, "the key in the journal is not thrown away");
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 1);
}

pub(crate) async fn a_lost_answer_of_create_user_is_no_stranger() {
    let mut stage = Stage::new().await;
    stage.aws.rules().add(Rule::on("CreateUser").first(3).after_commit().drop_connection());
    stage.apply("x", spec()).await;
    assert_recovered(&mut stage).await;
}
