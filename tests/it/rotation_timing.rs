//! Delays of a rotation: windows, previous keys in use, back-offs.

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
    let old = env.published_key(name).await;
    env.annotate(name, well_known::ANNOTATION_ROTATE, "1").await;
    let new = env.wait_published(name, &old).await;
    (old, new)
}

/// How long the previous key was Active after the publication of the new one.
async fn hold_duration(env: &TestEnv, old: &str) -> SignedDuration {
    env.first_call_time("UpdateAccessKey", old).duration_since(env.publication_time("x").await)
}

fn last_used_calls(env: &TestEnv) -> usize {
    env.aws.log().calls_of("GetAccessKeyLastUsed").len()
}

pub(crate) async fn previous_key_in_use_is_kept_and_reported_until_unused() {
    let env = TestEnv::with_arguments(&["--last-used-window=20s"]).await;
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "1h"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.wait_ready("x").await;
    let start = env.aws.log().position();
    let (old, new) = rotate(&env, "x").await;
    // Last use is read at the end of the overlap, with no use yet, and again one window later.
    env.wait_for_call(start, "GetAccessKeyLastUsed").await;
    let used_at = Timestamp::now() + SignedDuration::from_secs(15);
    env.account.set_last_used(&old, used_at, "s3", "eu-central-1");

    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains(&old));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True", "no consumer is interrupted");
    let text = user.status.expect("a status").access_keys;
    let held = text.iter().find(|key| key.id == old).expect("the previous key");
    assert_eq!(held.last_used_at.map(Timestamp::as_second), Some(used_at.as_second()));
    assert!(held.retires_at > Some(used_at), "{held:?}");
    assert!(env.wait_for_event("x", Reason::StillUsed).await.contains("does not read Secret x again"));
    assert_eq!(env.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));

    env.wait_for_iam("u", "the previous key is deleted", |user| user.active_keys() == [new.as_str()]).await;
    let unused_for = env.first_call_time("UpdateAccessKey", &old).duration_since(used_at);
    // AWS reports whole seconds.
    assert!(unused_for.as_secs_f64() >= 19.0, "retired {unused_for} after its last use");
    assert!(env.wait_for_event("x", Reason::KeyDeactivated).await.contains("its overlap is over"));
    assert!(last_used_calls(&env) <= 4, "last use is read at most four times");
    let warnings = env.events("x").await.into_iter().filter(|(reason, _)| reason == Reason::StillUsed.as_str());
    assert_eq!(warnings.count(), 1, "reported once");
}

pub(crate) async fn previous_key_in_use_is_kept_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--last-used-window=1h"]).await;
    let rotation = json!({"every": "Never", "overlap": "10s", "holdWhileUsed": "10s"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.wait_ready("x").await;
    let (old, new) = rotate(&env, "x").await;
    env.account.set_last_used(&old, Timestamp::now() + SignedDuration::from_mins(1), "s3", "eu-central-1");
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::StillUsed)).await;
    env.wait_for_iam("u", "the previous key is deleted", |user| user.active_keys() == [new.as_str()]).await;
    let held = hold_duration(&env, &old).await;
    assert!(held.as_secs_f64() >= 20.0, "overlap and hold took only {held}");
    assert!(env.wait_for_event("x", Reason::KeyDeactivated).await.contains("AWS still sees it used"));
}

pub(crate) async fn used_key_is_reported_a_day_before_its_end() {
    let env = TestEnv::with_arguments(&["--last-used-window=1h"]).await;
    // A day and some seconds: the warning is due when the overlap has been over for these seconds.
    let rotation = json!({"every": "Never", "overlap": "10s", "holdWhileUsed": "86403s"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.wait_ready("x").await;
    let (old, _) = rotate(&env, "x").await;
    env.account.set_last_used(&old, Timestamp::now() + SignedDuration::from_mins(1), "s3", "eu-central-1");
    let text = env.wait_for_event("x", Reason::PreviousKeyEnding).await;
    assert!(text.contains(&old) && text.contains("for s3 in eu-central-1") && text.contains("at most until"), "{text}");
    let user =
        env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::PreviousKeyEnding)).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True", "no consumer is interrupted");
}

pub(crate) async fn rotation_without_hold_does_not_read_last_use() {
    let env = TestEnv::new().await;
    env.apply("x", with_rotation("u", json!({"every": "Never", "overlap": "1s"}))).await;
    env.wait_ready("x").await;
    rotate(&env, "x").await;
    env.wait_for_iam("u", "with one key", |user| user.keys.len() == 1).await;
    assert_eq!(last_used_calls(&env), 0);
}

pub(crate) async fn unknown_last_use_keeps_the_key_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--last-used-window=1s"]).await;
    env.aws.rules().add(Rule::on("GetAccessKeyLastUsed").deny());
    let rotation = json!({"every": "Never", "overlap": "2s", "holdWhileUsed": "20s"});
    env.apply("x", with_rotation("u", rotation)).await;
    env.wait_ready("x").await;
    let (old, new) = rotate(&env, "x").await;
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("iam:GetAccessKeyLastUsed"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    assert_eq!(env.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));
    env.wait_for_iam("u", "the previous key is deleted", |user| user.active_keys() == [new.as_str()]).await;
    let held = hold_duration(&env, &old).await;
    assert!(held.as_secs_f64() >= 22.0, "overlap and hold took only {held}");
}

/// A window that opens every hour, `minutes_ahead` of the current minute.
fn window(minutes_ahead: i64, duration: &str) -> Value {
    let opens = Timestamp::now().as_second() / 60 + minutes_ahead;
    json!([{"schedule": format!("{} * * * *", opens.rem_euclid(60)), "duration": duration}])
}

pub(crate) async fn scheduled_rotation_starts_only_inside_its_window() {
    let env = TestEnv::new().await;
    let rotation = |windows: Value| json!({"every": "4s", "overlap": "1s", "windows": windows});
    env.apply("closed", with_rotation("closed", rotation(window(30, "10m")))).await;
    env.apply("open", with_rotation("open", rotation(window(-10, "20m")))).await;
    env.wait_ready("closed").await;
    env.wait_ready("open").await;
    let (first, other) = (env.published_key("closed").await, env.published_key("open").await);

    let waits = Some(Reason::RotationPending);
    let user = env.wait_for_condition("closed", ConditionType::RotationHealthy, "True", waits).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("it begins in the next window"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    let next_rotation = |status: Option<AwsDeployUserStatus>| status.and_then(|status| status.next_rotation_time);
    let ahead = next_rotation(user.status).expect("a next rotation").duration_since(Timestamp::now());
    assert!(ahead >= SignedDuration::from_mins(20) && ahead <= SignedDuration::from_mins(40), "{ahead}");

    let second = env.wait_published("open", &other).await;
    env.wait_published("open", &second).await;
    assert_eq!(env.published_key("closed").await, first, "due as long as the other, and still pending");
    env.annotate("closed", well_known::ANNOTATION_ROTATE, "now").await;
    env.wait_published("closed", &first).await;
}

pub(crate) async fn operator_restart_keeps_the_back_off() {
    let mut env = TestEnv::new().await;
    env.aws.rules().add(
        Rule::on("CreateAccessKey")
            .user("full")
            .respond_with(AwsError::limit_exceeded("Cannot exceed quota".to_owned())),
    );
    env.apply("x", with_rotation("full", json!({}))).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::LimitExceeded)).await;
    let failed = env.user("x").await.status.expect("a status").failing_since;
    let position = env.aws.log().position();
    env.operator.restart().await.expect("the operator restarts");
    // When a later resource is Ready, the first one has been reconciled.
    env.apply("y", with_rotation("other", json!({}))).await;
    env.wait_ready("y").await;
    let tries = env.aws.log().calls_since(position).into_iter().filter(|call| call.user.as_deref() == Some("full"));
    assert_eq!(tries.count(), 0, "the back-off of half an hour was lost");
    assert_eq!(env.user("x").await.status.expect("a status").failing_since, failed);
    // A change of the resource ends the back-off.
    env.aws.rules().clear();
    env.apply("x", json!({"userName": "full", "tags": {"team": "payments"}})).await;
    env.wait_ready("x").await;
}
