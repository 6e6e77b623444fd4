//! Suspension and the ways a resource leaves.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::KeyState;
use serde_json::json;

use crate::stage::{Stage, message};

pub(crate) async fn suspend_deactivates_and_resume_makes_a_new_key() {
    let stage = Stage::new().await;
    let spec = |suspend: bool| json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}});
    stage.apply("x", spec(false)).await;
    stage.ready("x").await;
    let first = stage.published("x").await;
    stage.apply("x", spec(true)).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    assert_eq!(stage.iam("u").await.key(&first).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    assert!(message(&user, ConditionType::Ready).contains("suspend"));
    assert!(!stage.account.accepts(&first));
    stage.apply("x", spec(false)).await;
    let second = stage.until_published("x", &first).await;
    stage.ready("x").await;
    assert!(stage.account.accepts(&second) && !stage.account.accepts(&first), "the revoked key does not come back");
}

pub(crate) async fn deletion_removes_everything_in_six_calls() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    stage.ready("x").await;
    let mark = stage.aws.log().mark();
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("u").await.is_none());
    assert!(stage.secret("x").await.is_none());
    let calls: Vec<String> = stage.aws.log().calls_since(mark).into_iter().map(|call| call.action).collect();
    let deletion = calls.iter().skip_while(|action| *action != "UpdateAccessKey").collect::<Vec<_>>();
    assert_eq!(deletion, ["UpdateAccessKey", "DeleteAccessKey", "DetachUserPolicy", "DeleteUser"]);
    assert!(stage.event("x", Reason::UserDeleted).await.contains("deleted"));
}

pub(crate) async fn retain_leaves_user_and_secret() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "deletionPolicy": "Retain", "tags": {"team": "payments"}, "accessKey": {"description": "stays"}})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.delete("x").await;
    stage.gone("x").await;
    let iam = stage.iam("u").await;
    assert_eq!(iam.active_keys(), [key.as_str()]);
    assert!(iam.tags.keys().all(|tag| !tag.starts_with("awsdeploy.dev/")), "{:?}", iam.tags);
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags[&key], "stays");
    let secret = stage.secrets().get("x").await.expect("the Secret stays");
    assert!(secret.metadata.owner_references.is_none_or(|owners| owners.is_empty()), "nothing collects it");
}

pub(crate) async fn a_foreign_key_makes_the_deletion_wait_and_force_removes_it() {
    let stage = Stage::new().await;
    let spec = |policy: &str| json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "deletionPolicy": policy});
    stage.apply("x", spec("Delete")).await;
    stage.ready("x").await;
    let ours = stage.published("x").await;
    let foreign = stage.aws.human().create_key("u").await.expect("made in the console").id;
    stage.delete("x").await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains(&foreign) && told.contains("Force"), "{told}");
    let iam = stage.iam("u").await;
    assert!(stage.account.accepts(&ours), "nothing is taken from the user");
    assert_eq!(iam.attached.len(), 1);
    stage.apply("x", spec("Force")).await;
    stage.gone("x").await;
    assert!(stage.iam_opt("u").await.is_none());
}
