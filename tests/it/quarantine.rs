//! AWS finds a key in public and attaches its quarantine policy: what follows, by policy.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, mark};
use awsdeploy_testkit::aws_proxy::KeyState;
use serde_json::{Value, json};

use crate::stage::{Stage, condition, eventually, message};

const V3: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
const SERIES: &str = r#"awsdeploy_quarantined{namespace=""#;

fn spec() -> Value {
    json!({"userName": "q", "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}})
}

/// A freeze is for the consumers of a key; one that is in public has others.
pub(crate) async fn a_frozen_user_in_quarantine_loses_its_key_where_its_class_asks_for_that() {
    let stage = Stage::with_arguments(&["--resync=2s"]).await;
    let class = |policy: &str, on_quarantine: &str| json!({"policies": {"allowed": [policy]}, "onRevoked": "Freeze", "onQuarantine": on_quarantine});
    let name = stage.class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let mut spec = spec();
    spec["className"] = json!(name);
    spec["policies"] = json!({"managed": ["AmazonS3FullAccess"]});
    stage.apply("x", spec).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.class("q", class("AmazonEC2FullAccess", "Alert")).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;

    let mark = stage.aws.log().mark();
    stage.aws.human().attach("q", V3).await.expect("AWS attaches it");
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("Nothing was done about its keys"));
    looks(&stage, 2).await;
    assert_eq!(shown(&stage).await, 1, "the alert is about frozen users too");
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty(), "the class says Alert");

    stage.class("q", class("AmazonEC2FullAccess", "Rotate")).await;
    stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert_eq!(stage.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    looks(&stage, 2).await;
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 1, "a frozen user gets no key");
    let changes: Vec<String> = stage.aws.log().mutating_calls_since(mark).into_iter().map(|call| call.action).collect();
    assert_eq!(changes, ["UpdateAccessKey"], "and keeps everything else");

    stage.class("q", class("AmazonS3FullAccess", "Rotate")).await;
    let next = stage.until_published("x", &key).await;
    assert!(stage.account.accepts(&next), "allowed again, it gets a key in its place");
}

/// A user that is Ready, on a stage with this policy.
async fn ready(policy: &'static str) -> (Stage, String) {
    let stage = Stage::with_arguments(&["--resync=2s"]).await;
    let class = stage.class("quarantine", json!({"onQuarantine": policy})).await;
    let mut spec = spec();
    spec["className"] = json!(class);
    stage.apply("x", spec).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    (stage, key)
}

/// AWS attaches its policy, and the operator tells of it.
async fn quarantine(stage: &Stage) -> AwsDeployUser {
    stage.aws.human().attach("q", V3).await.expect("AWS attaches it");
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::Quarantined)).await;
    let ready = condition(&user, ConditionType::Ready).expect("Ready").clone();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Quarantined"));
    let told = stage.event("x", Reason::Quarantined).await;
    assert!(told.contains(V3) && told.contains("CloudTrail") && !told.ends_with("..."), "{told}");
    user
}

async fn shown(stage: &Stage) -> usize {
    let metrics = stage.operator.metrics().await.expect("metrics");
    metrics.lines().filter(|line| line.starts_with(SERIES)).count()
}

async fn warnings(stage: &Stage) -> usize {
    stage.events("x").await.iter().filter(|(reason, _)| reason == Reason::Quarantined.as_str()).count()
}

/// Waits for some more whole looks at the user.
async fn looks(stage: &Stage, times: usize) {
    for _ in 0..times {
        stage.looked(stage.aws.log().mark()).await;
    }
}

pub(crate) async fn an_alert_is_told_and_changes_nothing() {
    let (stage, key) = ready("Alert").await;
    let mark = stage.aws.log().mark();
    quarantine(&stage).await;
    assert_eq!(shown(&stage).await, 1);
    looks(&stage, 2).await;
    assert_eq!(warnings(&stage).await, 1, "told once");
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty());
    assert_eq!(stage.published("x").await, key);
    assert!(stage.account.accepts(&key));

    stage.aws.human().detach("q", V3).await.expect("a person ends it");
    stage.ready("x").await;
    eventually("the series ends", async || (shown(&stage).await == 0).then_some(()), || stage.log()).await;
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty());
}

pub(crate) async fn a_quarantined_user_gets_a_new_key_once_and_the_bad_ones_go_without_overlap() {
    let (stage, first) = ready("Rotate").await;
    // Both slots are taken by our own keys, and the overlap is an hour.
    stage.annotate("x", mark::ANNOTATION_ROTATE, "1").await;
    let second = stage.until_published("x", &first).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;

    quarantine(&stage).await;
    let third = stage.until_published("x", &second).await;
    assert!(stage.account.accepts(&third));
    stage
        .until_iam("q", "the bad keys are off", |user| {
            user.active_keys() == [third.as_str()] && user.key(&first).is_none()
        })
        .await;
    stage.until_iam("q", "the bad keys are gone", |user| user.keys.len() == 1).await;
    assert!(stage.iam("q").await.attached.contains(V3), "never detached");

    // The policy stays attached; nothing more follows from it, also after a restart.
    let mut stage = stage;
    looks(&stage, 2).await;
    stage.operator.restart().await.expect("the operator restarts");
    looks(&stage, 2).await;
    assert_eq!(stage.published("x").await, third);
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 3);
    assert_eq!(warnings(&stage).await, 1, "told once");
    let user = stage.until_condition("x", ConditionType::KeyPublished, "True", None).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "False", "a person has to look");

    stage.aws.human().detach("q", V3).await.expect("a person ends it");
    stage.ready("x").await;
    let undated = |user: &awsdeploy_testkit::aws_proxy::UserTruth| !user.tags.contains_key(mark::TAG_QUARANTINED_AT);
    stage.until_iam("q", "the date is gone", undated).await;
    stage.aws.human().attach("q", V3).await.expect("it happens again");
    stage.until_published("x", &third).await;
}

pub(crate) async fn a_quarantined_user_is_suspended_until_the_policy_is_detached() {
    let (stage, key) = ready("Suspend").await;
    quarantine(&stage).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Quarantined)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("when the policy is detached"));
    assert_eq!(stage.iam("q").await.key(&key).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    stage.annotate("x", mark::ANNOTATION_ROTATE, "1").await;
    looks(&stage, 2).await;
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 1, "no key while it lasts");

    stage.aws.human().detach("q", V3).await.expect("a person ends it");
    let next = stage.until_published("x", &key).await;
    stage.ready("x").await;
    assert!(stage.account.accepts(&next) && !stage.account.accepts(&key));
}
