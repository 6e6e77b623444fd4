//! Rotation: a new key is published before the previous one is deleted, and manual changes are repaired.

use std::time::Duration;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, user::AccessKeyState, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use jiff::Timestamp;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, eventually, message};

#[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
fn with_rotation(rotation: Value) -> Value {
    json!({"userName": "rotating", "accessKey": {"rotation": rotation, "secret": {"name": "keys"}}})
}

fn manual_rotation() -> Value {
    with_rotation(json!({"every": "Never", "overlap": "3s"}))
}

pub(crate) async fn consumer_is_never_refused_during_rotations() {
    let env = TestEnv::new().await;
    // As in AWS, a new key is accepted only after a delay.
    env.account.configure(|settings| settings.activation_delay = Duration::from_millis(700));
    env.apply("x", with_rotation(json!({"every": "10s", "overlap": "8s"}))).await;
    env.wait_ready("x").await;
    let arn = env.iam("rotating").await.arn;
    let (_mount, consumer) = env.start_consumer("keys", &arn);
    let report = consumer
        .wait_for("four keys", 2 * TIMEOUT, |report| report.keys.len() >= 4 && report.accepted >= 100)
        .await
        .expect("rotations");
    assert_eq!((report.refused, report.unanswered), (0, 0), "{report}");
    assert_eq!(env.user("x").await.status.expect("a status").failing_since, None);
}

pub(crate) async fn previous_key_is_deactivated_then_deleted_after_overlap() {
    let env = TestEnv::with_arguments(&["--deletion-delay=8s"]).await;
    env.apply("x", with_rotation(json!({"every": "Never", "overlap": "15s"}))).await;
    env.wait_ready("x").await;
    let old = env.published_key("keys").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let new = env.wait_published("keys", &old).await;

    let user = env
        .wait_until("x", "in overlap", |user| {
            let keys = user.status.iter().flat_map(|status| &status.access_keys);
            keys.clone().any(|key| key.state == AccessKeyState::Superseded)
        })
        .await;
    let text = user.status.expect("a status").access_keys;
    // Keys created within one second are sorted by id.
    let retires = |id: &str| text.iter().find(|key| key.id == id).map(|key| key.retires_at.is_some());
    assert_eq!((text.len(), retires(&old), retires(&new)), (2, Some(true), Some(false)));

    env.wait_for_iam("rotating", "the previous key is Inactive", |user| {
        user.key(&old).is_some_and(|key| key.state == KeyState::Inactive)
    })
    .await;
    let deactivated_at = env.first_call_time("UpdateAccessKey", &old);
    let overlap = deactivated_at.duration_since(env.publication_time("keys").await);
    assert!(overlap.as_secs_f64() >= 15.0, "the previous key was Active for only {overlap}");
    let iam = env.wait_for_iam("rotating", "the previous key is deleted", |user| user.key(&old).is_none()).await;
    let deletion_delay = env.first_call_time("DeleteAccessKey", &old).duration_since(deactivated_at);
    // The clock of the operator may lag by some seconds, and times are recorded in whole seconds.
    assert!(deletion_delay.as_secs_f64() >= 4.0, "the previous key was Inactive for only {deletion_delay}");
    assert_eq!(iam.active_keys(), [new.as_str()]);
    let iam = env
        .wait_for_iam("rotating", "the tags of the previous key are removed", |user| {
            user.tags.keys().all(|tag| !tag.contains(&old))
        })
        .await;
    assert!(iam.tags.contains_key(&format!("awsdeploy.dev/key/{new}")));
    let creates = env.aws.log().calls_of("CreateAccessKey");
    assert_eq!(creates.len(), 2, "one for the user, one for the rotation");
}

pub(crate) async fn cron_schedule_rotates_keys() {
    let env = TestEnv::new().await;
    env.apply("x", with_rotation(json!({"schedule": "* * * * *", "timeZone": "Europe/Berlin", "overlap": "2s"}))).await;
    // Read from one status, as the next tick may happen at any time.
    let status = env.wait_ready("x").await.status.expect("a status");
    let due = status.next_rotation_time.expect("a next rotation");
    let published = status.access_keys.iter().find(|key| key.state == AccessKeyState::Published);
    let first = published.expect("a published key").id.clone();
    // Up to a minute until the next tick, and up to three seconds of spread.
    let rotated = async || (env.published_key("keys").await != first).then_some(());
    let limit = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(limit).await;
    eventually("the schedule rotates", rotated, || env.log()).await;
    let seen = |user: &AwsDeployUser| user.status.as_ref().and_then(|status| status.last_rotation_time);
    let user = env.wait_until("x", "rotated", |user| seen(user).is_some_and(|time| time >= due)).await;
    let next = user.status.expect("a status").next_rotation_time.expect("a next rotation");
    assert!(next > due && next <= due + jiff::SignedDuration::from_secs(64), "{next} is not the minute after {due}");
}

pub(crate) async fn new_annotation_value_rotates_once() {
    let env = TestEnv::new().await;
    env.apply("x", manual_rotation()).await;
    let user = env.wait_ready("x").await;
    assert_eq!(user.status.expect("a status").next_rotation_time, None);
    let first = env.published_key("keys").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "please").await;
    let second = env.wait_published("keys", &first).await;
    env.wait_for_iam("rotating", "with one key", |user| user.keys.len() == 1).await;
    env.annotate("x", "unrelated", "change").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "please").await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    assert_eq!(env.published_key("keys").await, second, "the same value requests nothing");
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 2);
}

pub(crate) async fn key_is_published_only_after_aws_accepts_it() {
    let env = TestEnv::new().await;
    env.account.configure(|settings| settings.activation_delay = Duration::from_hours(1));
    env.apply("x", manual_rotation()).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Verifying)).await;
    assert!(env.secret_data("keys").await.is_none(), "not before AWS accepts it");
    env.account.configure(|settings| settings.activation_delay = Duration::ZERO);
    env.wait_ready("x").await;
    let key = env.published_key("keys").await;
    assert!(env.account.accepts(&key));
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1);
}

pub(crate) async fn key_that_aws_never_accepts_is_abandoned() {
    let env = TestEnv::with_arguments(&["--verify-timeout=2s"]).await;
    env.account.configure(|settings| settings.activation_delay = Duration::from_hours(1));
    env.apply("x", manual_rotation()).await;
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::KeyNotAccepted)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("another one is created after a back-off"));
    // The back-off ends when the key is deleted, so the next key may exist before this read.
    let creates = env.aws.log().calls_of("CreateAccessKey");
    let first = creates[0].access_key.clone().expect("AWS created a key");
    env.wait_for_iam("rotating", "the key is deleted", |user| user.key(&first).is_none()).await;
    assert!(env.secret_data("keys").await.is_none());
    env.account.configure(|settings| settings.activation_delay = Duration::ZERO);
    env.wait_ready("x").await;
    assert_eq!(env.iam("rotating").await.keys.len(), 1, "no orphan");
}

pub(crate) async fn deleted_secret_is_recreated_with_a_new_key() {
    let mut env = TestEnv::new().await;
    env.apply("x", with_rotation(json!({"every": "Never", "overlap": "20s"}))).await;
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;
    env.secrets().delete("keys", &DeleteParams::default()).await.expect("deleted manually");
    let second = env.wait_published("keys", &first).await;
    let iam = env.iam("rotating").await;
    assert_eq!(iam.key(&first).map(|key| key.state), Some(KeyState::Active), "pods may still hold the old value");
    env.wait_for_iam("rotating", "the previous key is retired", |user| {
        user.keys.len() == 1 && user.key(&second).is_some()
    })
    .await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn edited_secret_gets_a_new_key_and_lost_file_does_not() {
    let env = TestEnv::new().await;
    env.apply("x", manual_rotation()).await;
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;
    let params = PatchParams::default();

    let lost: Value = json!({"data": {"credentials": null}, "metadata": {"labels": {"kept": "yes"}}});
    env.secrets().patch("keys", &params, &Patch::Merge(&lost)).await.expect("edited manually");
    let repaired = async || env.secret_data("keys").await?.contains_key("credentials").then_some(());
    eventually("the file is restored", repaired, || env.log()).await;
    assert_eq!(env.published_key("keys").await, first, "with the same key");
    let secret = env.secrets().get("keys").await.expect("the Secret");
    assert_eq!(secret.labels().get("kept").map(String::as_str), Some("yes"), "labels of others are kept");

    let edited: Value = json!({"stringData": {"AWS_SECRET_ACCESS_KEY": "edited", "credentials": "edited"}});
    env.secrets().patch("keys", &params, &Patch::Merge(&edited)).await.expect("edited manually");
    let second = env.wait_published("keys", &first).await;
    let secret = env.secret_data("keys").await.expect("the Secret");
    assert!(env.account.secret_matches(&second, &secret["AWS_SECRET_ACCESS_KEY"]));
}

pub(crate) async fn key_deleted_in_aws_is_replaced() {
    let env = TestEnv::new().await;
    env.apply("x", manual_rotation()).await;
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;
    env.aws.manual_changes().delete_key("rotating", &first).await.expect("deleted manually");
    let second = env.wait_published("keys", &first).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    let iam = env.iam("rotating").await;
    assert_eq!(iam.active_keys(), [second.as_str()]);

    env.aws.manual_changes().deactivate_key("rotating", &second).await.expect("deactivated manually");
    let third = env.wait_published("keys", &second).await;
    env.wait_for_iam("rotating", "the inactive key is deleted", |user| {
        user.active_keys() == [third.as_str()] && user.keys.len() == 1
    })
    .await;
}

pub(crate) async fn foreign_key_is_reported_and_not_touched() {
    let env = TestEnv::new().await;
    env.apply("x", manual_rotation()).await;
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;
    let foreign = env.aws.manual_changes().create_key("rotating").await.expect("created in the console").id;
    env.wait_until("x", "reporting the foreign key", |user| {
        let mut keys = user.status.iter().flat_map(|status| &status.access_keys);
        keys.any(|key| key.id == foreign && key.state == AccessKeyState::Foreign)
    })
    .await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    let user =
        env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::KeyQuotaExceeded)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains(&foreign));
    assert_eq!(
        crate::test_env::condition(&user, ConditionType::Ready).expect("Ready").status,
        "True",
        "the published key works"
    );
    env.wait_for_event("x", Reason::KeyQuotaExceeded).await;
    assert_eq!(env.published_key("keys").await, first);

    env.aws.manual_changes().delete_key("rotating", &foreign).await.expect("the foreign key is deleted");
    env.wait_published("keys", &first).await;
    let touched = env.aws.log().select(|call| call.access_key.as_ref() == Some(&foreign));
    assert!(touched.is_empty(), "a foreign key was touched: {touched:#?}");
}
