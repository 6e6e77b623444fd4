//! AWS attaches its quarantine policy to a user with a leaked key: the actions of `onQuarantine`.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use serde_json::{Value, json};

use crate::test_env::{TestEnv, condition, eventually, message};

const V3: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
const SERIES: &str = r#"awsdeploy_quarantined{namespace=""#;

fn spec() -> Value {
    json!({"userName": "q", "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}})
}

/// A freeze keeps a key for its consumers; a leaked key has others, so quarantine applies to frozen users too.
pub(crate) async fn quarantine_of_a_denied_user_follows_its_class() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let class = |policy: &str, on_quarantine: &str| json!({"policies": {"allowed": [policy]}, "onRevoked": "Freeze", "onQuarantine": on_quarantine});
    let name = env.apply_class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let mut spec = spec();
    spec["className"] = json!(name);
    spec["policies"] = json!({"managed": ["AmazonS3FullAccess"]});
    env.apply("x", spec).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.apply_class("q", class("AmazonEC2FullAccess", "Alert")).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;

    let position = env.aws.log().position();
    env.aws.manual_changes().attach("q", V3).await.expect("AWS attaches it");
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("Nothing was done about its keys"));
    wait_for_drift_checks(&env, 2).await;
    assert_eq!(series_count(&env).await, 1, "frozen users are reported too");
    assert!(env.aws.log().mutating_calls_since(position).is_empty(), "Alert changes nothing");

    env.apply_class("q", class("AmazonEC2FullAccess", "Rotate")).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert_eq!(env.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    wait_for_drift_checks(&env, 2).await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1, "a frozen user gets no key");
    let changes: Vec<String> =
        env.aws.log().mutating_calls_since(position).into_iter().map(|call| call.action).collect();
    assert_eq!(changes, ["UpdateAccessKey"], "and keeps everything else");

    env.apply_class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let next = env.wait_published("x", &key).await;
    assert!(env.account.accepts(&next), "when it is allowed again, it gets a new key");
}

/// Starts an environment with a Ready user of a class with this `onQuarantine`.
async fn ready_user(policy: &'static str) -> (TestEnv, String) {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let class = env.apply_class("quarantine", json!({"onQuarantine": policy})).await;
    let mut spec = spec();
    spec["className"] = json!(class);
    env.apply("x", spec).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    (env, key)
}

/// Attaches the quarantine policy and waits until it is reported.
async fn attach_quarantine_policy(env: &TestEnv) -> AwsDeployUser {
    env.aws.manual_changes().attach("q", V3).await.expect("AWS attaches it");
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    let ready = condition(&user, ConditionType::Ready).expect("Ready").clone();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Quarantined"));
    let text = env.wait_for_event("x", Reason::Quarantined).await;
    assert!(text.contains(V3) && text.contains("CloudTrail") && !text.ends_with("..."), "{text}");
    user
}

async fn series_count(env: &TestEnv) -> usize {
    let metrics = env.operator.metrics().await.expect("metrics");
    metrics.lines().filter(|line| line.starts_with(SERIES)).count()
}

async fn warning_count(env: &TestEnv) -> usize {
    env.events("x").await.iter().filter(|(reason, _)| reason == Reason::Quarantined.as_str()).count()
}

/// Waits for `times` more drift checks of the user.
async fn wait_for_drift_checks(env: &TestEnv, times: usize) {
    for _ in 0..times {
        env.wait_for_drift_check(env.aws.log().position()).await;
    }
}

pub(crate) async fn alert_reports_quarantine_and_changes_nothing() {
    let (env, key) = ready_user("Alert").await;
    let position = env.aws.log().position();
    attach_quarantine_policy(&env).await;
    assert_eq!(series_count(&env).await, 1);
    wait_for_drift_checks(&env, 2).await;
    assert_eq!(warning_count(&env).await, 1, "reported once");
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
    assert_eq!(env.published_key("x").await, key);
    assert!(env.account.accepts(&key));

    env.aws.manual_changes().detach("q", V3).await.expect("the policy is detached");
    env.wait_ready("x").await;
    eventually("the series ends", async || (series_count(&env).await == 0).then_some(()), || env.log()).await;
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
}

pub(crate) async fn quarantine_rotates_once_without_overlap() {
    let (env, first) = ready_user("Rotate").await;
    // Both slots are taken by keys of the operator, and the overlap is an hour.
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let second = env.wait_published("x", &first).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;

    attach_quarantine_policy(&env).await;
    let third = env.wait_published("x", &second).await;
    assert!(env.account.accepts(&third));
    env.wait_for_iam("q", "the leaked keys are deactivated", |user| {
        user.active_keys() == [third.as_str()] && user.key(&first).is_none()
    })
    .await;
    env.wait_for_iam("q", "the leaked keys are deleted", |user| user.keys.len() == 1).await;
    assert!(env.iam("q").await.attached.contains(V3), "never detached");

    // While the policy is attached, nothing more follows, not even after a restart.
    let mut env = env;
    wait_for_drift_checks(&env, 2).await;
    env.operator.restart().await.expect("the operator restarts");
    wait_for_drift_checks(&env, 2).await;
    assert_eq!(env.published_key("x").await, third);
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 3);
    assert_eq!(warning_count(&env).await, 1, "reported once");
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "True", None).await;
    assert_eq!(
        condition(&user, ConditionType::Ready).expect("Ready").status,
        "False",
        "not Ready until the policy is detached"
    );

    env.aws.manual_changes().detach("q", V3).await.expect("the policy is detached");
    env.wait_ready("x").await;
    let without_date =
        |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| !user.tags.contains_key(well_known::TAG_QUARANTINED_AT);
    env.wait_for_iam("q", "the date tag is removed", without_date).await;
    env.aws.manual_changes().attach("q", V3).await.expect("AWS attaches it again");
    env.wait_published("x", &third).await;
}

pub(crate) async fn quarantine_revokes_until_the_policy_is_detached() {
    let (env, key) = ready_user("Revoke").await;
    attach_quarantine_policy(&env).await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("when the policy is detached"));
    assert_eq!(env.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    wait_for_drift_checks(&env, 2).await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1, "no key while the policy is attached");

    env.aws.manual_changes().detach("q", V3).await.expect("the policy is detached");
    let next = env.wait_published("x", &key).await;
    env.wait_ready("x").await;
    assert!(env.account.accepts(&next) && !env.account.accepts(&key));
}
