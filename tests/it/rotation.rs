//! The rotation: a new key before the old one goes, and repair of what people break.

use std::time::Duration;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, mark, user::AccessKeyState};
use awsdeploy_testkit::aws_proxy::KeyState;
use jiff::Timestamp;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, eventually, message};

#[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
fn with_rotation(rotation: Value) -> Value {
    json!({"userName": "rotating", "accessKey": {"rotation": rotation, "secret": {"name": "keys"}}})
}

fn manual() -> Value {
    with_rotation(json!({"every": "Never", "overlap": "3s"}))
}

pub(crate) async fn a_consumer_is_never_refused_through_rotations() {
    let stage = Stage::new().await;
    // A key that AWS accepts only a moment after it was made, as the real one.
    stage.account.configure(|settings| settings.activation_delay = Duration::from_millis(700));
    stage.apply("x", with_rotation(json!({"every": "10s", "overlap": "8s"}))).await;
    stage.ready("x").await;
    let arn = stage.iam("rotating").await.arn;
    let (_mount, consumer) = stage.consume("keys", &arn);
    let report = consumer
        .until("four keys", 2 * SOON, |report| report.keys.len() >= 4 && report.accepted >= 100)
        .await
        .expect("rotations");
    assert_eq!((report.refused, report.unanswered), (0, 0), "{report}");
    assert_eq!(stage.user("x").await.status.expect("a status").failed_attempts, 0);
}

pub(crate) async fn an_old_key_lives_through_its_overlap_then_is_inactive_then_gone() {
    let stage = Stage::with_arguments(&["--retire-dwell=8s"]).await;
    stage.apply("x", with_rotation(json!({"every": "Never", "overlap": "15s"}))).await;
    stage.ready("x").await;
    let old = stage.published("keys").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "1").await;
    let new = stage.until_published("keys", &old).await;

    let user = stage
        .until("x", "in overlap", |user| {
            let keys = user.status.iter().flat_map(|status| &status.access_keys);
            keys.clone().any(|key| key.state == AccessKeyState::Superseded)
        })
        .await;
    let told = user.status.expect("a status").access_keys;
    // Two keys of one second stand in the order of their ids.
    let retires = |id: &str| told.iter().find(|key| key.id == id).map(|key| key.retires_at.is_some());
    assert_eq!((told.len(), retires(&old), retires(&new)), (2, Some(true), Some(false)));

    stage
        .until_iam("rotating", "the old key is Inactive", |user| {
            user.key(&old).is_some_and(|key| key.state == KeyState::Inactive)
        })
        .await;
    let deactivated_at = stage.first_asked("UpdateAccessKey", &old);
    let overlap = deactivated_at.duration_since(stage.published_at("keys").await);
    assert!(overlap.as_secs_f64() >= 15.0, "the old key was Active for {overlap} only");
    let iam = stage.until_iam("rotating", "the old key is gone", |user| user.key(&old).is_none()).await;
    let dwell = stage.first_asked("DeleteAccessKey", &old).duration_since(deactivated_at);
    // The operator's clock may be behind by some seconds, and it notes whole ones.
    assert!(dwell.as_secs_f64() >= 4.0, "the old key was Inactive for {dwell} only");
    assert_eq!(iam.active_keys(), [new.as_str()]);
    let iam = stage
        .until_iam("rotating", "the old key's tags are gone", |user| user.tags.keys().all(|tag| !tag.contains(&old)))
        .await;
    assert!(iam.tags.contains_key(&format!("awsdeploy.dev/key/{new}")));
    let creates = stage.aws.log().calls_of("CreateAccessKey");
    assert_eq!(creates.len(), 2, "one for the user, one for the rotation");
}

pub(crate) async fn a_cron_schedule_rotates() {
    let stage = Stage::new().await;
    stage
        .apply("x", with_rotation(json!({"schedule": "* * * * *", "timeZone": "Europe/Berlin", "overlap": "2s"})))
        .await;
    // Both of one moment: the next tick may come at any time.
    let status = stage.ready("x").await.status.expect("a status");
    let due = status.next_rotation_time.expect("a next rotation");
    let published = status.access_keys.iter().find(|key| key.state == AccessKeyState::Published);
    let first = published.expect("a published key").id.clone();
    // A minute to the next tick, and up to three seconds that spread users.
    let rotated = async || (stage.published("keys").await != first).then_some(());
    let limit = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(limit).await;
    eventually("the schedule rotates", rotated, || stage.log()).await;
    let seen = |user: &AwsDeployUser| user.status.as_ref().and_then(|status| status.last_rotation_time);
    let user = stage.until("x", "rotated", |user| seen(user).is_some_and(|time| time >= due)).await;
    let next = user.status.expect("a status").next_rotation_time.expect("a next rotation");
    assert!(next > due && next <= due + jiff::SignedDuration::from_secs(64), "{next} is not the minute after {due}");
}

pub(crate) async fn a_new_value_of_the_annotation_rotates_once() {
    let stage = Stage::new().await;
    stage.apply("x", manual()).await;
    let user = stage.ready("x").await;
    assert_eq!(user.status.expect("a status").next_rotation_time, None);
    let first = stage.published("keys").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "please").await;
    let second = stage.until_published("keys", &first).await;
    stage.until_iam("rotating", "one key is left", |user| user.keys.len() == 1).await;
    stage.annotate("x", "unrelated", "change").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "please").await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    assert_eq!(stage.published("keys").await, second, "the same value asks for nothing");
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 2);
}

pub(crate) async fn a_key_is_published_only_when_aws_accepts_it() {
    let stage = Stage::new().await;
    stage.account.configure(|settings| settings.activation_delay = Duration::from_hours(1));
    stage.apply("x", manual()).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Verifying)).await;
    assert!(stage.secret("keys").await.is_none(), "not before AWS accepts it");
    stage.account.configure(|settings| settings.activation_delay = Duration::ZERO);
    stage.ready("x").await;
    let key = stage.published("keys").await;
    assert!(stage.account.accepts(&key));
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 1);
}

pub(crate) async fn a_key_that_aws_never_accepts_is_given_up() {
    let stage = Stage::with_arguments(&["--verify-timeout=2s"]).await;
    stage.account.configure(|settings| settings.activation_delay = Duration::from_hours(1));
    stage.apply("x", manual()).await;
    let user = stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::KeyNotAccepted)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("another one is made after a pause"));
    // The pause is over when it is deleted: the next one may be there before anybody has looked.
    let made = stage.aws.log().calls_of("CreateAccessKey");
    let first = made[0].access_key.clone().expect("AWS has made a key");
    stage.until_iam("rotating", "the key is deleted", |user| user.key(&first).is_none()).await;
    assert!(stage.secret("keys").await.is_none());
    stage.account.configure(|settings| settings.activation_delay = Duration::ZERO);
    stage.ready("x").await;
    assert_eq!(stage.iam("rotating").await.keys.len(), 1, "no key is left behind");
}

pub(crate) async fn a_deleted_secret_comes_back_with_a_new_key() {
    let mut stage = Stage::new().await;
    stage.apply("x", with_rotation(json!({"every": "Never", "overlap": "20s"}))).await;
    stage.ready("x").await;
    let first = stage.published("keys").await;
    stage.secrets().delete("keys", &DeleteParams::default()).await.expect("deleted by hand");
    let second = stage.until_published("keys", &first).await;
    let iam = stage.iam("rotating").await;
    assert_eq!(iam.key(&first).map(|key| key.state), Some(KeyState::Active), "pods may still hold the old value");
    stage
        .until_iam("rotating", "the old key retires", |user| user.keys.len() == 1 && user.key(&second).is_some())
        .await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn an_edited_secret_gets_a_new_key_and_a_lost_file_does_not() {
    let stage = Stage::new().await;
    stage.apply("x", manual()).await;
    stage.ready("x").await;
    let first = stage.published("keys").await;
    let params = PatchParams::default();

    let lost: Value = json!({"data": {"credentials": null}, "metadata": {"labels": {"kept": "yes"}}});
    stage.secrets().patch("keys", &params, &Patch::Merge(&lost)).await.expect("edited by hand");
    let repaired = async || stage.secret("keys").await?.contains_key("credentials").then_some(());
    eventually("the file comes back", repaired, || stage.log()).await;
    assert_eq!(stage.published("keys").await, first, "with the same key");
    let secret = stage.secrets().get("keys").await.expect("the Secret");
    assert_eq!(secret.labels().get("kept").map(String::as_str), Some("yes"), "what others added stays");

    let edited: Value = json!({"stringData": {"AWS_SECRET_ACCESS_KEY": "edited"}});
    stage.secrets().patch("keys", &params, &Patch::Merge(&edited)).await.expect("edited by hand");
    let second = stage.until_published("keys", &first).await;
    let secret = stage.secret("keys").await.expect("the Secret");
    assert!(stage.account.secret_matches(&second, &secret["AWS_SECRET_ACCESS_KEY"]));
}

pub(crate) async fn a_key_deleted_in_aws_is_replaced() {
    let stage = Stage::new().await;
    stage.apply("x", manual()).await;
    stage.ready("x").await;
    let first = stage.published("keys").await;
    stage.aws.human().delete_key("rotating", &first).await.expect("deleted by hand");
    let second = stage.until_published("keys", &first).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    let iam = stage.iam("rotating").await;
    assert_eq!(iam.active_keys(), [second.as_str()]);

    stage.aws.human().deactivate_key("rotating", &second).await.expect("deactivated by hand");
    let third = stage.until_published("keys", &second).await;
    stage
        .until_iam("rotating", "the dead key goes", |user| {
            user.active_keys() == [third.as_str()] && user.keys.len() == 1
        })
        .await;
}

pub(crate) async fn a_foreign_key_is_reported_and_left_alone() {
    let stage = Stage::new().await;
    stage.apply("x", manual()).await;
    stage.ready("x").await;
    let first = stage.published("keys").await;
    let foreign = stage.aws.human().create_key("rotating").await.expect("made in the console").id;
    stage
        .until("x", "reporting the foreign key", |user| {
            let mut keys = user.status.iter().flat_map(|status| &status.access_keys);
            keys.any(|key| key.id == foreign && key.state == AccessKeyState::Foreign)
        })
        .await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "now").await;
    let user = stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::SlotTaken)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains(&foreign));
    assert_eq!(
        crate::stage::condition(&user, ConditionType::Ready).expect("Ready").status,
        "True",
        "the published key works"
    );
    stage.event("x", Reason::SlotTaken).await;
    assert_eq!(stage.published("keys").await, first);

    stage.aws.human().delete_key("rotating", &foreign).await.expect("the person cleans up");
    stage.until_published("keys", &first).await;
    let touched = stage.aws.log().select(|call| call.access_key.as_ref() == Some(&foreign));
    assert!(touched.is_empty(), "a foreign key was touched: {touched:#?}");
}

pub(crate) async fn a_renamed_secret_gets_a_new_key_and_the_old_one_stays_until_it_retires() {
    let stage = Stage::new().await;
    let spec = |name: &str| json!({"userName": "rotating", "accessKey": {"rotation": {"every": "Never", "overlap": "20s"}, "secret": {"name": name}}});
    stage.apply("x", spec("old")).await;
    stage.ready("x").await;
    let first = stage.published("old").await;
    stage.apply("x", spec("new")).await;
    let second = stage.until_published("new", &first).await;
    assert_ne!(first, second);
    assert_eq!(stage.published("old").await, first, "the old Secret stays");
    assert!(stage.account.accepts(&first), "and its key works");
    let gone = async || stage.secret("old").await.is_none().then_some(());
    eventually("the old Secret goes with its key", gone, || stage.log()).await;
    assert!(!stage.account.accepts(&first));
    stage.until_iam("rotating", "one key is left", |user| user.keys.len() == 1).await;
}
