//! What a rotation waits for, and what it does not: windows, old keys in use, pauses after failures.

use awsdeploy::api::{ConditionType, Reason, user::AwsDeployUserStatus, well_known};
use awsdeploy_testkit::aws_proxy::{AwsError, KeyState, Rule};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::test_env::{TestEnv, condition, message};

#[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
fn with_rotation(user: &str, rotation: Value) -> Value {
    json!({"userName": user, "accessKey": {"rotation": rotation}})
}

async fn rotate(env: &TestEnv, name: &str) -> (String, String) {
    let old = env.published(name).await;
    env.annotate(name, well_known::ANNOTATION_ROTATE, "1").await;
    let new = env.until_published(name, &old).await;
    (old, new)
}

/// How long the old key was Active after the new one was published.
async fn held(env: &TestEnv, old: &str) -> SignedDuration {
    env.first_asked("UpdateAccessKey", old).duration_since(env.published_at("x").await)
}

fn last_used_calls(env: &TestEnv) -> usize {
    env.aws.log().calls_of("GetAccessKeyLastUsed").len()
}

pub(crate) async fn previous_key_in_use_is_kept_and_reported_until_unused() {
    let env = TestEnv::with_arguments(&["--last-used-window=20s"]).await;
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "1h"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.ready("x").await;
    let start = env.aws.log().position();
    let (old, new) = rotate(&env, "x").await;
    // Asked for the first time when the overlap is over; nobody has used it yet. The second time is a window later.
    env.called(start, "GetAccessKeyLastUsed").await;
    let used_at = Timestamp::now() + SignedDuration::from_secs(15);
    env.account.set_last_used(&old, used_at, "s3", "eu-central-1");

    let user = env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains(&old));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True", "nobody is cut off");
    let told = user.status.expect("a status").access_keys;
    let held = told.iter().find(|key| key.id == old).expect("the old key");
    assert_eq!(held.last_used_at.map(Timestamp::as_second), Some(used_at.as_second()));
    assert!(held.retires_at > Some(used_at), "{held:?}");
    assert!(env.event("x", Reason::StillUsed).await.contains("does not read Secret x anew"));
    assert_eq!(env.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));

    // Nobody uses it any more.
    env.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let quiet = env.first_asked("UpdateAccessKey", &old).duration_since(used_at);
    // AWS tells whole seconds.
    assert!(quiet.as_secs_f64() >= 19.0, "retired {quiet} after its last use");
    assert!(env.event("x", Reason::KeyDeactivated).await.contains("its overlap is over"));
    assert!(last_used_calls(&env) <= 4, "asked when it should be quiet, not all the time");
    let warnings = env.events("x").await.into_iter().filter(|(reason, _)| reason == Reason::StillUsed.as_str());
    assert_eq!(warnings.count(), 1, "told once");
}

pub(crate) async fn previous_key_in_use_is_kept_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--last-used-window=1h"]).await;
    let rotation = json!({"every": "Never", "overlap": "10s", "holdWhileUsed": "10s"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.ready("x").await;
    let (old, new) = rotate(&env, "x").await;
    env.account.set_last_used(&old, Timestamp::now() + SignedDuration::from_mins(1), "s3", "eu-central-1");
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    env.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let held = held(&env, &old).await;
    assert!(held.as_secs_f64() >= 20.0, "overlap and hold took {held} only");
    assert!(env.event("x", Reason::KeyDeactivated).await.contains("AWS still sees it used"));
}

pub(crate) async fn rotation_without_hold_does_not_read_last_use() {
    let env = TestEnv::new().await;
    env.apply("x", with_rotation("u", json!({"every": "Never", "overlap": "1s"}))).await;
    env.ready("x").await;
    rotate(&env, "x").await;
    env.until_iam("u", "one key is left", |user| user.keys.len() == 1).await;
    assert_eq!(last_used_calls(&env), 0);
}

pub(crate) async fn unknown_last_use_keeps_the_key_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--last-used-window=1s"]).await;
    env.aws.rules().add(Rule::on("GetAccessKeyLastUsed").deny());
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "20s"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.ready("x").await;
    let (old, new) = rotate(&env, "x").await;
    let user = env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("iam:GetAccessKeyLastUsed"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    assert_eq!(env.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));
    env.until_iam("u", "the old key goes", |user| user.active_keys() == [new.as_str()]).await;
    let held = held(&env, &old).await;
    assert!(held.as_secs_f64() >= 22.0, "overlap and hold took {held} only");
}

/// A window that opens hourly at the minute that is so far ahead.
fn window(minutes_ahead: i64, duration: &str) -> Value {
    let opens = Timestamp::now().as_second() / 60 + minutes_ahead;
    json!([{"schedule": format!("{} * * * *", opens.rem_euclid(60)), "duration": duration}])
}

pub(crate) async fn scheduled_rotation_starts_only_inside_its_window() {
    let env = TestEnv::new().await;
    let rotation = |windows: Value| json!({"every": "4s", "overlap": "1s", "windows": windows});
    env.apply("closed", with_rotation("closed", rotation(window(30, "10m")))).await;
    env.apply("open", with_rotation("open", rotation(window(-10, "20m")))).await;
    env.ready("closed").await;
    env.ready("open").await;
    let (first, other) = (env.published("closed").await, env.published("open").await);

    let waits = Some(Reason::RotationPending);
    let user = env.until_condition("closed", ConditionType::RotationHealthy, "True", waits).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("it begins in the next window"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    let begins = |status: Option<AwsDeployUserStatus>| status.and_then(|status| status.next_rotation_time);
    let ahead = begins(user.status).expect("a next rotation").duration_since(Timestamp::now());
    assert!(ahead >= SignedDuration::from_mins(20) && ahead <= SignedDuration::from_mins(40), "{ahead}");

    let second = env.until_published("open", &other).await;
    env.until_published("open", &second).await;
    assert_eq!(env.published("closed").await, first, "due for as long as the other, and still waiting");
    env.annotate("closed", well_known::ANNOTATION_ROTATE, "now").await;
    env.until_published("closed", &first).await;
}

pub(crate) async fn operator_restart_keeps_the_back_off() {
    let mut env = TestEnv::new().await;
    env.aws.rules().add(
        Rule::on("CreateAccessKey")
            .user("full")
            .respond_with(AwsError::limit_exceeded("Cannot exceed quota".to_owned())),
    );
    env.apply("x", with_rotation("full", json!({}))).await;
    env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::LimitExceeded)).await;
    let failed = env.user("x").await.status.expect("a status").failed_attempts;
    let mark = env.aws.log().position();
    env.operator.restart().await.expect("the operator restarts");
    // By the time that a resource made later is Ready, the first one has had its turn.
    env.apply("y", with_rotation("other", json!({}))).await;
    env.ready("y").await;
    let tries = env.aws.log().calls_since(mark).into_iter().filter(|call| call.user.as_deref() == Some("full"));
    assert_eq!(tries.count(), 0, "the pause of half an hour was forgotten");
    assert_eq!(env.user("x").await.status.expect("a status").failed_attempts, failed);
    // A change of the manifest is a new chance.
    env.aws.rules().clear();
    env.apply("x", json!({"userName": "full", "tags": {"team": "payments"}})).await;
    env.ready("x").await;
}
