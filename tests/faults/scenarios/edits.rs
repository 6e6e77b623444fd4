//! What people do to resources and Secrets at a bad moment.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{Play, plain};
use crate::{
    operation::{RECOVERY, settled},
    test_env::{eventually, message},
};

pub(super) async fn immutable_secret_creates_no_keys() {
    let (play, first) = Play::with_a_key().await;
    let made = play.keys_made();
    let patch = Patch::Merge(json!({"immutable": true}));
    play.env.secrets().patch("x", &PatchParams::default(), &patch).await.expect("the Secret is made immutable");
    play.rotate("now").await;
    let user =
        play.env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("immutable"), "{user:#?}");
    let violations = play.auditor.check_idle(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(play.keys_made(), made, "no key that could not be handed out");
    assert!(play.env.account.accepts(&first), "the key in it works on");
    play.auditor.expect_key_failure(&first);
    play.env.secrets().delete("x", &DeleteParams::default()).await.expect("its owner removes it");
    settled(&play.env, &first).await;
    play.holds(0).await;
}

pub(super) async fn recreation_during_deletion_gets_a_new_user() {
    let (play, first) = Play::with_a_key().await;
    let id = play.env.iam("u").await.id;
    let gone = play.env.aws.rules().pause(Rule::on("DeleteUser").nth(1).before());
    play.env.delete("x").await;
    assert!(gone.wait_until_held(RECOVERY).await, "the user is about to go");
    // The API server merges this into the resource that goes: it stays the one that is being deleted.
    let mut spec = plain();
    spec["tags"] = json!({"late": "edit"});
    play.env.apply("x", spec).await;
    gone.release();
    play.env.gone("x").await;
    assert!(play.env.iam_opt("u").await.is_none(), "the first one is gone altogether");
    play.env.apply("x", plain()).await;
    let second = settled(&play.env, &first).await;
    let iam = play.env.iam("u").await;
    assert_ne!(iam.id, id, "another user");
    assert_eq!(iam.active_keys(), [second.as_str()]);
    play.holds(0).await;
}

pub(super) async fn second_claim_on_a_secret_creates_no_key() {
    let (play, first) = Play::with_a_key().await;
    play.env.apply("y", json!({"userName": "v", "accessKey": {"secret": {"name": "x"}}})).await;
    let user = play.env.until_condition("y", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::KeyPublished).contains("spec.accessKey.secret.name"), "{user:#?}");
    assert!(play.env.iam_opt("v").await.is_none(), "nothing is made for the second");
    assert_eq!(play.env.published("x").await, first);
    play.holds(0).await;
}

pub(super) async fn spec_edit_during_rotation_is_applied() {
    let (play, first) = Play::with_a_key().await;
    let checked = play.env.aws.rules().pause(Rule::on("GetCallerIdentity").nth(1).before());
    play.rotate("now").await;
    assert!(checked.wait_until_held(RECOVERY).await, "a new key is being verified");
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["ReadOnlyAccess"]});
    spec["accessKey"]["secret"] = json!({"name": "renamed"});
    // The Secret that is left behind goes a moment after its key; it is not the published one any more.
    play.auditor.expect_key_failure(&first);
    play.env.apply("x", spec).await;
    checked.release();
    let probe = async || {
        let renamed = play.env.secret("renamed").await?;
        let user = play.env.iam_opt("u").await?;
        let id = renamed.get("AWS_ACCESS_KEY_ID")?;
        let only = user.active_keys() == [id.as_str()] && user.keys.len() == 1;
        let policy = user.attached.len() == 1 && user.attached.iter().all(|arn| arn.ends_with("/ReadOnlyAccess"));
        let left = play.env.secret("x").await.is_none() && play.env.secret("x.awsdeploy-journal").await.is_none();
        (only && policy && left && *id != first).then_some(())
    };
    let context = || format!("{}\n{}", play.env.aws.log().transcript(), play.env.log());
    eventually("one key in the renamed Secret, and nothing left of before", probe, context).await;
    play.env.ready("x").await;
    play.holds(0).await;
}

pub(super) async fn no_key_is_created_before_all_policies() {
    let play = Play::set().await;
    let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
    play.env.aws.rules().add(Rule::on("AttachUserPolicy").nth(2).respond_with(error));
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["AmazonEC2FullAccess", "ReadOnlyAccess", "AmazonS3FullAccess"]});
    play.env.apply("x", spec).await;
    settled(&play.env, "").await;
    let calls = play.env.aws.log().calls();
    let attached = calls.iter().filter(|call| call.action == "AttachUserPolicy" && call.committed);
    let key = calls.iter().find(|call| call.action == "CreateAccessKey").expect("a key");
    assert_eq!(attached.clone().count(), 3);
    assert!(attached.clone().all(|call| call.seq < key.seq), "{}", play.env.aws.log().transcript());
    play.holds(0).await;
}
