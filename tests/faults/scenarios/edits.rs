//! Edits of resources and Secrets at a critical moment.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{Harness, plain};
use crate::{
    operation::{RECOVERY, wait_settled},
    test_env::{eventually, message},
};

pub(super) async fn immutable_secret_creates_no_keys() {
    let (harness, first) = Harness::with_published_key().await;
    let count = harness.created_key_count();
    let patch = Patch::Merge(json!({"immutable": true}));
    harness.env.secrets().patch("x", &PatchParams::default(), &patch).await.expect("the Secret is made immutable");
    harness.rotate("now").await;
    let user = harness
        .env
        .wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::SecretConflict))
        .await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("immutable"), "{user:#?}");
    let violations = harness.auditor.check_idle(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(harness.created_key_count(), count, "no key is created that cannot be published");
    assert!(harness.env.account.accepts(&first), "its key still works");
    harness.auditor.expect_key_failure(&first);
    harness.env.secrets().delete("x", &DeleteParams::default()).await.expect("its owner deletes it");
    wait_settled(&harness.env, &first).await;
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn recreation_during_deletion_gets_a_new_user() {
    let (harness, first) = Harness::with_published_key().await;
    let id = harness.env.iam("u").await.id;
    let deletion = harness.env.aws.rules().pause(Rule::on("DeleteUser").nth(1).before());
    harness.env.delete("x").await;
    assert!(deletion.wait_until_held(RECOVERY).await, "the user is about to be deleted");
    // The API server applies this to the object that is being deleted; it does not create a new one.
    let mut spec = plain();
    spec["tags"] = json!({"late": "edit"});
    harness.env.apply("x", spec).await;
    deletion.release();
    harness.env.wait_deleted("x").await;
    assert!(harness.env.iam_opt("u").await.is_none(), "the first user is deleted");
    harness.env.apply("x", plain()).await;
    let second = wait_settled(&harness.env, &first).await;
    let iam = harness.env.iam("u").await;
    assert_ne!(iam.id, id, "another user");
    assert_eq!(iam.active_keys(), [second.as_str()]);
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn second_claim_on_a_secret_creates_no_key() {
    let (harness, first) = Harness::with_published_key().await;
    harness.env.apply("y", json!({"userName": "v", "accessKey": {"secret": {"name": "x"}}})).await;
    let user =
        harness.env.wait_for_condition("y", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::KeyPublished).contains("spec.accessKey.secret.name"), "{user:#?}");
    assert!(harness.env.iam_opt("v").await.is_none(), "nothing is created for the second");
    assert_eq!(harness.env.published_key("x").await, first);
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn spec_edit_during_rotation_is_applied() {
    let (harness, first) = Harness::with_published_key().await;
    let checked = harness.env.aws.rules().pause(Rule::on("GetCallerIdentity").nth(1).before());
    harness.rotate("now").await;
    assert!(checked.wait_until_held(RECOVERY).await, "a new key is being verified");
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["ReadOnlyAccess"]});
    spec["accessKey"]["region"] = json!("eu-west-1");
    harness.env.apply("x", spec).await;
    checked.release();
    let probe = async || {
        let data = harness.env.secret_data("x").await?;
        let user = harness.env.iam_opt("u").await?;
        let id = data.get("AWS_ACCESS_KEY_ID")?;
        let only = user.active_keys() == [id.as_str()] && user.keys.len() == 1;
        let policy = user.attached.len() == 1 && user.attached.iter().all(|arn| arn.ends_with("/ReadOnlyAccess"));
        let region = data.get("AWS_REGION").is_some_and(|region| region == "eu-west-1");
        let closed = harness.env.journal("x").await.is_none();
        (only && policy && region && closed && *id != first).then_some(())
    };
    let context = || format!("{}\n{}", harness.env.aws.log().transcript(), harness.env.log());
    eventually("the new key in a Secret as declared", probe, context).await;
    harness.env.wait_ready("x").await;
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn no_key_is_created_before_all_policies() {
    let harness = Harness::start().await;
    let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
    harness.env.aws.rules().add(Rule::on("AttachUserPolicy").nth(2).respond_with(error));
    let mut spec = plain();
    spec["policies"] = json!({"managed": ["AmazonEC2FullAccess", "ReadOnlyAccess", "AmazonS3FullAccess"]});
    harness.env.apply("x", spec).await;
    wait_settled(&harness.env, "").await;
    let calls = harness.env.aws.log().calls();
    let attached = calls.iter().filter(|call| call.action == "AttachUserPolicy" && call.committed);
    let key = calls.iter().find(|call| call.action == "CreateAccessKey").expect("a key");
    assert_eq!(attached.clone().count(), 3);
    assert!(attached.clone().all(|call| call.seq < key.seq), "{}", harness.env.aws.log().transcript());
    harness.assert_invariants_and_idle(0).await;
}
