//! AWS finds a key in public and attaches its quarantine policy: what follows, by policy.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use serde_json::{Value, json};

use crate::test_env::{TestEnv, condition, eventually, message};

const V3: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
const SERIES: &str = r#"awsdeploy_quarantined{namespace=""#;

fn spec() -> Value {
    json!({"userName": "q", "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}})
}

/// A freeze is for the consumers of a key; one that is in public has others.
pub(crate) async fn quarantine_of_a_denied_user_follows_its_class() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let class = |policy: &str, on_quarantine: &str| json!({"policies": {"allowed": [policy]}, "onRevoked": "Freeze", "onQuarantine": on_quarantine});
    let name = env.class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let mut spec = spec();
    spec["className"] = json!(name);
    spec["policies"] = json!({"managed": ["AmazonS3FullAccess"]});
    env.apply("x", spec).await;
    env.ready("x").await;
    let key = env.published("x").await;
    env.class("q", class("AmazonEC2FullAccess", "Alert")).await;
    env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;

    let mark = env.aws.log().position();
    env.aws.manual_changes().attach("q", V3).await.expect("AWS attaches it");
    let user = env.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("Nothing was done about its keys"));
    looks(&env, 2).await;
    assert_eq!(shown(&env).await, 1, "the alert is about frozen users too");
    assert!(env.aws.log().mutating_calls_since(mark).is_empty(), "the class says Alert");

    env.class("q", class("AmazonEC2FullAccess", "Rotate")).await;
    env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert_eq!(env.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    looks(&env, 2).await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1, "a frozen user gets no key");
    let changes: Vec<String> = env.aws.log().mutating_calls_since(mark).into_iter().map(|call| call.action).collect();
    assert_eq!(changes, ["UpdateAccessKey"], "and keeps everything else");

    env.class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let next = env.until_published("x", &key).await;
    assert!(env.account.accepts(&next), "allowed again, it gets a key in its place");
}

/// A user that is Ready, on a test environment with this policy.
async fn ready(policy: &'static str) -> (TestEnv, String) {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let class = env.class("quarantine", json!({"onQuarantine": policy})).await;
    let mut spec = spec();
    spec["className"] = json!(class);
    env.apply("x", spec).await;
    env.ready("x").await;
    let key = env.published("x").await;
    (env, key)
}

/// AWS attaches its policy, and the operator tells of it.
async fn quarantine(env: &TestEnv) -> AwsDeployUser {
    env.aws.manual_changes().attach("q", V3).await.expect("AWS attaches it");
    let user = env.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    let ready = condition(&user, ConditionType::Ready).expect("Ready").clone();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Quarantined"));
    let told = env.event("x", Reason::Quarantined).await;
    assert!(told.contains(V3) && told.contains("CloudTrail") && !told.ends_with("..."), "{told}");
    user
}

async fn shown(env: &TestEnv) -> usize {
    let metrics = env.operator.metrics().await.expect("metrics");
    metrics.lines().filter(|line| line.starts_with(SERIES)).count()
}

async fn warnings(env: &TestEnv) -> usize {
    env.events("x").await.iter().filter(|(reason, _)| reason == Reason::Quarantined.as_str()).count()
}

/// Waits for some more whole looks at the user.
async fn looks(env: &TestEnv, times: usize) {
    for _ in 0..times {
        env.looked(env.aws.log().position()).await;
    }
}

pub(crate) async fn alert_reports_quarantine_and_changes_nothing() {
    let (env, key) = ready("Alert").await;
    let mark = env.aws.log().position();
    quarantine(&env).await;
    assert_eq!(shown(&env).await, 1);
    looks(&env, 2).await;
    assert_eq!(warnings(&env).await, 1, "told once");
    assert!(env.aws.log().mutating_calls_since(mark).is_empty());
    assert_eq!(env.published("x").await, key);
    assert!(env.account.accepts(&key));

    env.aws.manual_changes().detach("q", V3).await.expect("a person ends it");
    env.ready("x").await;
    eventually("the series ends", async || (shown(&env).await == 0).then_some(()), || env.log()).await;
    assert!(env.aws.log().mutating_calls_since(mark).is_empty());
}

pub(crate) async fn quarantine_rotates_once_without_overlap() {
    let (env, first) = ready("Rotate").await;
    // Both slots are taken by our own keys, and the overlap is an hour.
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let second = env.until_published("x", &first).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;

    quarantine(&env).await;
    let third = env.until_published("x", &second).await;
    assert!(env.account.accepts(&third));
    env.until_iam("q", "the bad keys are off", |user| {
        user.active_keys() == [third.as_str()] && user.key(&first).is_none()
    })
    .await;
    env.until_iam("q", "the bad keys are gone", |user| user.keys.len() == 1).await;
    assert!(env.iam("q").await.attached.contains(V3), "never detached");

    // The policy stays attached; nothing more follows from it, also after a restart.
    let mut env = env;
    looks(&env, 2).await;
    env.operator.restart().await.expect("the operator restarts");
    looks(&env, 2).await;
    assert_eq!(env.published("x").await, third);
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 3);
    assert_eq!(warnings(&env).await, 1, "told once");
    let user = env.until_condition("x", ConditionType::KeyPublished, "True", None).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "False", "a person has to look");

    env.aws.manual_changes().detach("q", V3).await.expect("a person ends it");
    env.ready("x").await;
    let undated =
        |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| !user.tags.contains_key(well_known::TAG_QUARANTINED_AT);
    env.until_iam("q", "the date is gone", undated).await;
    env.aws.manual_changes().attach("q", V3).await.expect("it happens again");
    env.until_published("x", &third).await;
}

pub(crate) async fn quarantine_suspends_until_the_policy_is_detached() {
    let (env, key) = ready("Suspend").await;
    quarantine(&env).await;
    let user = env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("when the policy is detached"));
    assert_eq!(env.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    looks(&env, 2).await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1, "no key while it lasts");

    env.aws.manual_changes().detach("q", V3).await.expect("a person ends it");
    let next = env.until_published("x", &key).await;
    env.ready("x").await;
    assert!(env.account.accepts(&next) && !env.account.accepts(&key));
}
