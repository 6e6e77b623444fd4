//! What a rotation waits for, and what it does not: windows, old keys in use, pauses after failures.

use awsdeploy::api::{ConditionType, Reason, mark, user::AwsDeployUserStatus};
use awsdeploy_testkit::aws_proxy::{AwsError, KeyState, Rule};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::stage::{Stage, condition, message};

#[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
fn with_rotation(user: &str, rotation: Value) -> Value {
    json!({"userName": user, "accessKey": {"rotation": rotation}})
}

async fn rotate(stage: &Stage, name: &str) -> (String, String) {
    let old = stage.published(name).await;
    stage.annotate(name, mark::ANNOTATION_ROTATE, "1").await;
    let new = stage.until_published(name, &old).await;
    (old, new)
}

/// How long the old key was Active after the new one was published.
async fn held(stage: &Stage, old: &str) -> SignedDuration {
    stage.first_asked("UpdateAccessKey", old).duration_since(stage.published_at("x").await)
}

fn last_used_calls(stage: &Stage) -> usize {
    stage.aws.log().calls_of("GetAccessKeyLastUsed").len()
}

pub(crate) async fn an_old_key_in_use_is_held_and_told_until_it_is_quiet() {
    let stage = Stage::with_arguments(&["--last-used-window=20s"]).await;
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "1h"});
    stage.apply("x", with_rotation("u", rotation)).await;
    stage.ready("x").await;
    let start = stage.aws.log().mark();
    let (old, new) = rotate(&stage, "x").await;
    // Asked for the first time when the overlap is over; nobody has used it yet. The second time is a window later.
    stage.called(start, "GetAccessKeyLastUsed").await;
    let used_at = Timestamp::now() + SignedDuration::from_secs(15);
    stage.account.set_last_used(&old, used_at, "s3", "eu-central-1");

    let user = stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains(&old));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True", "nobody is cut off");
    let told = user.status.expect("a status").access_keys;
    let held = told.iter().find(|key| key.id == old).expect("the old key");
    assert_eq!(held.last_used_at.map(Timestamp::as_second), Some(used_at.as_second()));
    assert!(held.retires_at > Some(used_at), "{held:?}");
    assert!(stage.event("x", Reason::StillUsed).await.contains("does not read Secret x anew"));
    assert_eq!(stage.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));

    // Nobody uses it any more.
    stage.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let quiet = stage.first_asked("UpdateAccessKey", &old).duration_since(used_at);
    // AWS tells whole seconds.
    assert!(quiet.as_secs_f64() >= 19.0, "retired {quiet} after its last use");
    assert!(stage.event("x", Reason::KeyDeactivated).await.contains("its overlap is over"));
    assert!(last_used_calls(&stage) <= 4, "asked when it should be quiet, not all the time");
    let warnings = stage.events("x").await.into_iter().filter(|(reason, _)| reason == Reason::StillUsed.as_str());
    assert_eq!(warnings.count(), 1, "told once");
}

pub(crate) async fn an_old_key_in_use_is_not_held_for_ever() {
    let stage = Stage::with_arguments(&["--last-used-window=1h"]).await;
    let rotation = json!({"every": "Never", "overlap": "10s", "holdWhileUsed": "10s"});
    stage.apply("x", with_rotation("u", rotation)).await;
    stage.ready("x").await;
    let (old, new) = rotate(&stage, "x").await;
    stage.account.set_last_used(&old, Timestamp::now() + SignedDuration::from_mins(1), "s3", "eu-central-1");
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    stage.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let held = held(&stage, &old).await;
    assert!(held.as_secs_f64() >= 20.0, "overlap and hold took {held} only");
    assert!(stage.event("x", Reason::KeyDeactivated).await.contains("AWS still sees it used"));
}

pub(crate) async fn a_rotation_that_nobody_holds_back_asks_nothing_of_last_use() {
    let stage = Stage::new().await;
    stage.apply("x", with_rotation("u", json!({"every": "Never", "overlap": "1s"}))).await;
    stage.ready("x").await;
    rotate(&stage, "x").await;
    stage.until_iam("u", "one key is left", |user| user.keys.len() == 1).await;
    assert_eq!(last_used_calls(&stage), 0);
}

pub(crate) async fn a_last_use_that_aws_does_not_tell_is_neither_unused_nor_for_ever() {
    let stage = Stage::with_arguments(&["--last-used-window=1s"]).await;
    stage.aws.rules().add(Rule::on("GetAccessKeyLastUsed").deny());
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "20s"});
    stage.apply("x", with_rotation("u", rotation)).await;
    stage.ready("x").await;
    let (old, new) = rotate(&stage, "x").await;
    let user = stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("iam:GetAccessKeyLastUsed"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    assert_eq!(stage.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));
    stage.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let held = held(&stage, &old).await;
    assert!(held.as_secs_f64() >= 22.0, "overlap and hold took {held} only");
}

/// A window that opens hourly at the minute that is so far ahead.
fn window(minutes_ahead: i64, duration: &str) -> Value {
    let opens = Timestamp::now().as_second() / 60 + minutes_ahead;
    json!([{"schedule": format!("{} * * * *", opens.rem_euclid(60)), "duration": duration}])
}

pub(crate) async fn a_scheduled_rotation_begins_inside_its_window_only() {
    let stage = Stage::new().await;
    let rotation = |windows: Value| json!({"every": "4s", "overlap": "1s", "windows": windows});
    stage.apply("closed", with_rotation("closed", rotation(window(30, "10m")))).await;
    stage.apply("open", with_rotation("open", rotation(window(-10, "20m")))).await;
    stage.ready("closed").await;
    stage.ready("open").await;
    let (first, other) = (stage.published("closed").await, stage.published("open").await);

    let waits = Some(Reason::RotationWaits);
    let user = stage.until_condition("closed", ConditionType::RotationHealthy, "True", waits).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("it begins in the next window"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    let begins = |status: Option<AwsDeployUserStatus>| status.and_then(|status| status.next_rotation_time);
    let ahead = begins(user.status).expect("a next rotation").duration_since(Timestamp::now());
    assert!(ahead >= SignedDuration::from_mins(20) && ahead <= SignedDuration::from_mins(40), "{ahead}");

    let second = stage.until_published("open", &other).await;
    stage.until_published("open", &second).await;
    assert_eq!(stage.published("closed").await, first, "due for as long as the other, and still waiting");
    stage.annotate("closed", mark::ANNOTATION_ROTATE, "now").await;
    stage.until_published("closed", &first).await;
}

pub(crate) async fn a_restart_in_the_middle_of_a_back_off_keeps_it() {
    let mut stage = Stage::new().await;
    stage.aws.rules().add(
        Rule::on("CreateAccessKey").user("full").answer(AwsError::limit_exceeded("Cannot exceed quota".to_owned())),
    );
    stage.apply("x", with_rotation("full", json!({}))).await;
    stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::LimitExceeded)).await;
    let failed = stage.user("x").await.status.expect("a status").failed_attempts;
    let mark = stage.aws.log().mark();
    stage.operator.restart().await.expect("the operator restarts");
    // By the time that a resource made later is Ready, the first one has had its turn.
    stage.apply("y", with_rotation("other", json!({}))).await;
    stage.ready("y").await;
    let tries = stage.aws.log().calls_since(mark).into_iter().filter(|call| call.user.as_deref() == Some("full"));
    assert_eq!(tries.count(), 0, "the pause of half an hour was forgotten");
    assert_eq!(stage.user("x").await.status.expect("a status").failed_attempts, failed);
    // A change of the manifest is a new chance.
    stage.aws.rules().clear();
    stage.apply("x", json!({"userName": "full", "tags": {"team": "payments"}})).await;
    stage.ready("x").await;
}
