//! What people do to resources and Secrets at a bad moment.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{Play, plain};
use crate::{
    scenario::{RECOVERY, settled},
    stage::{eventually, message},
};

pub(super) async fn an_immutable_secret_burns_no_keys() {
    let (play, first) = Play::with_a_key().await;
    let made = play.keys_made();
    let patch = Patch::Merge(json!({"immutable": true}));
    play.stage.secrets().patch("x", &PatchParams::default(), &patch).await.expect("the Secret is made immutable");
    play.rotate("now").await;
    let user =
        play.stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("immutable"), "{user:#?}");
    let violations = play.auditor.quiet(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(play.keys_made(), made, "no key that could not be handed out");
    assert!(play.stage.account.accepts(&first), "the key in it works on");
    play.auditor.excuse(&first);
    play.stage.secrets().delete("x", &DeleteParams::default()).await.expect("its owner removes it");
    settled(&play.stage, &first).await;
    play.holds(0).await;
}

pub(super) async fn made_again_while_it_goes() {
    let (play, first) = Play::with_a_key().await;
    let id = play.stage.iam("u").await.id;
    let gone = play.stage.aws.rules().pause(Rule::on("DeleteUser").nth(1).before());
    play.stage.delete("x").await;
    assert!(gone.paused(RECOVERY).await, "the user is about to go");
    // The API server merges this into the resource that goes: it stays the one that is being deleted.
    let mut spec = plain();
    spec["tags"] = json!({"late": "edit"});
    play.stage.apply("x", spec).await;
    gone.release();
    play.stage.gone("x").await;
    assert!(play.stage.iam_opt("u").await.is_none(), "the first one is gone altogether");
    play.stage.apply("x", plain()).await;
    let second = settled(&play.stage, &first).await;
    let iam = play.stage.iam("u").await;
    assert_ne!(iam.id, id, "another user");
    assert_eq!(iam.active_keys(), [second.as_str()]);
    play.holds(0).await;
}

pub(super) async fn two_claims_on_one_secret() {
    let (play, first) = Play::with_a_key().await;
    play.stage.apply("y", json!({"userName": "v", "accessKey": {"secret": {"name": "x"}}})).await;
    let user =
        play.stage.until_condition("y", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::KeyPublished).contains("spec.accessKey.secret.name"), "{user:#?}");
    assert!(play.stage.iam_opt("v").await.is_none(), "nothing is made for the second");
    assert_eq!(play.stage.published("x").await, first);
    play.holds(0).await;
}

pub(super) async fn edited_in_the_middle_of_a_rotation() {
    let (play, first) = Play::with_a_key().await;
    let checked = play.stage.aws.rules().pause(Rule::on("GetCallerIdentity").nth(1).before());
    play.rotate("now").await;
    assert!(checked.paused(RECOVERY).await, "a new key is being verified");
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["ReadOnlyAccess"]});
    spec["accessKey"]["secret"] = json!({"name": "renamed"});
    // The Secret that is left behind goes a moment after its key; it is not the published one any more.
    play.auditor.excuse(&first);
    play.stage.apply("x", spec).await;
    checked.release();
    let probe = async || {
        let renamed = play.stage.secret("renamed").await?;
        let user = play.stage.iam_opt("u").await?;
        let id = renamed.get("AWS_ACCESS_KEY_ID")?;
        let only = user.active_keys() == [id.as_str()] && user.keys.len() == 1;
        let policy = user.attached.len() == 1 && user.attached.iter().all(|arn| arn.ends_with("/ReadOnlyAccess"));
        let left = play.stage.secret("x").await.is_none() && play.stage.secret("x.awsdeploy-journal").await.is_none();
        (only && policy && left && *id != first).then_some(())
    };
    let context = || format!("{}\n{}", play.stage.aws.log().transcript(), play.stage.log());
    eventually("one key in the renamed Secret, and nothing left of before", probe, context).await;
    play.stage.ready("x").await;
    play.holds(0).await;
}

pub(super) async fn no_key_before_all_policies() {
    let play = Play::set().await;
    let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
    play.stage.aws.rules().add(Rule::on("AttachUserPolicy").nth(2).answer(error));
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["AmazonEC2FullAccess", "ReadOnlyAccess", "AmazonS3FullAccess"]});
    play.stage.apply("x", spec).await;
    settled(&play.stage, "").await;
    let calls = play.stage.aws.log().calls();
    let attached = calls.iter().filter(|call| call.action == "AttachUserPolicy" && call.committed);
    let key = calls.iter().find(|call| call.action == "CreateAccessKey").expect("a key");
    assert_eq!(attached.clone().count(), 3);
    assert!(attached.clone().all(|call| call.seq < key.seq), "{}", play.stage.aws.log().transcript());
    play.holds(0).await;
}
