//! What clients that wait conclude from the status, and resources that are paused.

use awsdeploy::api::{AwsDeployUser, AwsDeployUserClass, ConditionType, Reason, well_known};
use awsdeploy_testkit::{
    aws_proxy::KeyState,
    kstatus::{self, WaitStatus},
};
use kube::api::{DeleteParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use crate::test_env::{ApplyMethod, TestEnv, condition, message};

fn wait_status(object: &impl Serialize) -> WaitStatus {
    kstatus::compute(&serde_json::to_value(object).expect("an object"))
}

fn is_unobserved(object: &impl Serialize) -> bool {
    let object: Value = serde_json::to_value(object).expect("an object");
    object["status"]["observedGeneration"] == -1 && matches!(wait_status(&object), WaitStatus::InProgress(_))
}

pub(crate) async fn unobserved_object_is_in_progress_whatever_made_it() {
    let env = TestEnv::new().await;
    env.operator.kill().await;
    for (number, method) in ApplyMethod::ALL.into_iter().enumerate() {
        let name = format!("x{number}");
        let applied = env.apply_with(method, &name, json!({})).await;
        assert!(is_unobserved(&applied), "{method:?}: {:?}", applied.status);
        assert!(is_unobserved(&env.user(&name).await), "{method:?}, read again");
    }
    env.kubectl_apply("kubectl", json!({})).await;
    assert!(is_unobserved(&env.user("kubectl").await));
    // No operator of the tests writes the status of classes.
    let applied = env.apply_class("applied", json!({})).await;
    assert!(is_unobserved(&env.classes().get(&applied).await.expect("the class")), "server-side apply");
    let mut class = AwsDeployUserClass::default();
    class.metadata.name = Some(format!("{}-created", env.namespace));
    let created = env.classes().create(&PostParams::default(), &class).await.expect("the class is created");
    assert!(is_unobserved(&created), "create: {:?}", created.status);
}

pub(crate) async fn wait_ends_with_the_message_of_a_terminal_error() {
    let env = TestEnv::new().await;
    env.aws.manual_changes().create_user("theirs").await.expect("an unmanaged user");
    let class = env.apply_class("narrow", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let invalid = json!({"accessKey": {"rotation": {"every": "12h", "overlap": "13h"}}});
    let denied = json!({"className": class, "policies": {"managed": ["AmazonEC2FullAccess"]}});
    for (name, spec, text) in [
        ("invalid", invalid, "must be shorter than the time between two rotations"),
        ("denied", denied, "AmazonEC2FullAccess"),
        ("theirs", json!({"userName": "theirs"}), "not changed"),
    ] {
        env.apply(name, spec).await;
        let user = env.wait_until(name, "stalled", |user| matches!(wait_status(user), WaitStatus::Failed(_))).await;
        let WaitStatus::Failed(found) = wait_status(&user) else { unreachable!("it has failed") };
        assert!(found.contains(text), "{name}: {found}");
    }
    // A class may be created right after the resource.
    env.apply("early", json!({"className": format!("{}-late", env.namespace)})).await;
    let user = env.wait_for_condition("early", ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
    assert!(matches!(wait_status(&user), WaitStatus::InProgress(_)), "{:?}", user.status);
    env.apply_class("late", json!({})).await;
    let user = env.wait_ready("early").await;
    assert_eq!(wait_status(&user), WaitStatus::Current);
    let deleted = env.users().delete("early", &DeleteParams::default()).await.expect("the resource is deleted");
    assert_eq!(deleted.left().map(|user| wait_status(&user)), Some(WaitStatus::Terminating));
    env.wait_deleted("early").await;
    // What stalled can be corrected.
    env.apply("invalid", json!({"accessKey": {"rotation": {"every": "12h", "overlap": "1h"}}})).await;
    let user = env.wait_ready("invalid").await;
    assert_eq!(wait_status(&user), WaitStatus::Current);
    assert!(condition(&user, ConditionType::Stalled).is_none());
}

pub(crate) async fn terminal_error_stalls_whatever_else_is_scheduled() {
    let mut env = TestEnv::new().await;
    env.apply("x", json!({"accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}})).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    env.wait_published("x", &first).await;
    // A tenant replaces the Secret while the previous key is in its overlap.
    env.operator.kill().await;
    env.secrets().delete("x", &DeleteParams::default()).await.expect("the Secret is deleted");
    let theirs =
        serde_json::from_value(json!({"metadata": {"name": "x"}, "stringData": {"a": "b"}})).expect("a Secret");
    env.secrets().create(&PostParams::default(), &theirs).await.expect("another Secret");
    env.operator.restart().await.expect("the operator restarts");
    let user = env.wait_until("x", "stalled", |user| matches!(wait_status(user), WaitStatus::Failed(_))).await;
    let stalled = condition(&user, ConditionType::Stalled).expect("Stalled");
    assert_eq!(stalled.reason, Reason::SecretConflict.as_str(), "{stalled:?}");
    let keys = user.status.expect("a status").access_keys;
    assert!(keys.iter().any(|key| key.id == first && key.retires_at.is_some()), "its overlap lasts: {keys:?}");
}

fn is_paused(user: &AwsDeployUser) -> bool {
    condition(user, ConditionType::Paused).is_some()
}

async fn pause(env: &TestEnv, name: &str) {
    env.annotate(name, well_known::ANNOTATION_PAUSED, "true").await;
    env.wait_until(name, "paused", is_paused).await;
}

pub(crate) async fn paused_resource_changes_nothing_and_loses_old_keys() {
    let env = TestEnv::new().await;
    let spec = |policy: &str| {
        let rotation = json!({"every": "1h", "overlap": "8s"});
        json!({"userName": "u", "policies": {"managed": [policy]}, "accessKey": {"rotation": rotation}})
    };
    env.apply("x", spec("AmazonS3FullAccess")).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let second = env.wait_published("x", &first).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    pause(&env, "x").await;
    let position = env.aws.log().position();
    env.annotate("x", well_known::ANNOTATION_ROTATE, "2").await;
    env.apply("x", spec("AmazonEC2FullAccess")).await;
    env.wait_for_iam("u", "without the previous key", |user| {
        user.key(&first).is_none_or(|key| key.state == KeyState::Inactive)
    })
    .await;
    let user = env.wait_until("x", "paused", |user| is_paused(user) && next_rotation(user).is_none()).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True", "its key works");
    assert!(message(&user, ConditionType::Paused).contains(well_known::ANNOTATION_PAUSED));
    assert!(matches!(wait_status(&user), WaitStatus::InProgress(_)), "the new spec is not observed");
    assert_eq!(env.published_key("x").await, second);
    let actions: Vec<String> =
        env.aws.log().mutating_calls_since(position).into_iter().map(|call| call.action).collect();
    let ends_keys =
        |action: &String| ["UpdateAccessKey", "DeleteAccessKey", "TagUser", "UntagUser"].contains(&action.as_str());
    assert!(actions.iter().all(ends_keys), "{actions:?}");
    env.annotate("x", well_known::ANNOTATION_PAUSED, "false").await;
    env.wait_published("x", &second).await;
    let user = env.wait_ready("x").await;
    assert!(!is_paused(&user));
    env.wait_for_iam("u", "changed", |user| user.attached.iter().any(|arn| arn.ends_with("AmazonEC2FullAccess"))).await;
}

fn next_rotation(user: &AwsDeployUser) -> Option<jiff::Timestamp> {
    user.status.as_ref()?.next_rotation_time
}

pub(crate) async fn credentials_of_a_paused_resource_can_be_revoked() {
    let env = TestEnv::new().await;
    let spec = |credentials: &str| json!({"userName": "u", "credentials": credentials});
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
    pause(&env, "x").await;
    env.apply("x", spec("Revoked")).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    let is_reported = |user: &AwsDeployUser| {
        condition(user, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::CredentialsRevoked.as_str())
    };
    env.wait_until("x", "revoked", is_reported).await;
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none(), "a paused resource can be deleted");
}
