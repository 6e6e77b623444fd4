//! Revoked credentials and deletion.

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{Call, CallRecord, KeyState};
use kube::api::DeleteParams;
use serde_json::json;

use crate::test_env::{TestEnv, eventually, message};

pub(crate) async fn active_credentials_are_a_new_key_after_a_revocation() {
    let env = TestEnv::new().await;
    let spec = |credentials: &str| json!({"userName": "u", "credentials": credentials, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}});
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    env.apply("x", spec("Revoked")).await;
    let user =
        env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    assert_eq!(env.iam("u").await.key(&first).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    assert!(message(&user, ConditionType::Ready).contains("spec.credentials"));
    assert!(!env.account.accepts(&first));
    env.apply("x", spec("Active")).await;
    let second = env.wait_published("x", &first).await;
    env.wait_ready("x").await;
    assert!(env.account.accepts(&second) && !env.account.accepts(&first), "the revoked key is not reactivated");
}

pub(crate) async fn revoked_credentials_end_in_one_reconcile() {
    let env = TestEnv::with_arguments(&["--resync=1h"]).await;
    let spec = |credentials: &str| json!({"userName": "u", "credentials": credentials, "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}});
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let second = env.wait_published("x", &first).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    let position = env.aws.log().position();
    env.apply("x", spec("Revoked")).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    let calls = env.aws.log().calls_since(position);
    let reads = calls.iter().filter(|call| call.action == "GetUser").count();
    let off: Vec<&CallRecord> = calls.iter().filter(|call| call.action == "UpdateAccessKey").collect();
    assert_eq!(reads, 1, "one read of the user is one reconcile: {calls:#?}");
    assert_eq!(off.len(), 2, "{calls:#?}");
    assert_eq!(off[1].seq, off[0].seq + 1, "no call between the two: {calls:#?}");
    for key in [&first, &second] {
        assert!(!env.account.accepts(key), "{key} still works");
    }
    assert_eq!(env.iam("u").await.keys.len(), 2, "kept for forensics");
}

pub(crate) async fn deletion_removes_everything_in_six_calls() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.wait_ready("x").await;
    let position = env.aws.log().position();
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
    assert!(env.secret_data("x").await.is_none());
    let calls: Vec<String> = env.aws.log().calls_since(position).into_iter().map(|call| call.action).collect();
    let deletion = calls.iter().skip_while(|action| *action != "UpdateAccessKey").collect::<Vec<_>>();
    assert_eq!(deletion, ["UpdateAccessKey", "DeleteAccessKey", "DetachUserPolicy", "DeleteUser"]);
    assert!(env.wait_for_event("x", Reason::UserDeleted).await.contains("deleted"));
}

pub(crate) async fn retain_keeps_user_and_secret() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "deletionPolicy": "Retain", "tags": {"team": "payments"}, "accessKey": {"description": "kept"}})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.delete("x").await;
    env.wait_deleted("x").await;
    let iam = env.iam("u").await;
    assert_eq!(iam.active_keys(), [key.as_str()]);
    assert!(iam.tags.keys().all(|tag| !tag.starts_with("awsdeploy.dev/")), "{:?}", iam.tags);
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags[&key], "kept");
    let secret = env.secrets().get("x").await.expect("the Secret is kept");
    assert!(
        secret.metadata.owner_references.is_none_or(|owners| owners.is_empty()),
        "the garbage collector does not delete it"
    );
}

/// The prune of kubectl and `GitOps` tools: the garbage collector deletes the dependents first.
pub(crate) async fn retained_secret_survives_a_foreground_deletion() {
    let env = TestEnv::new().await;
    // One is retained from the start, the other by a change.
    env.apply("x", json!({"userName": "u", "deletionPolicy": "Retain"})).await;
    env.apply("y", json!({"userName": "v"})).await;
    env.wait_ready("x").await;
    env.wait_ready("y").await;
    let keys = [env.published_key("x").await, env.published_key("y").await];
    env.apply("y", json!({"userName": "v", "deletionPolicy": "Retain"})).await;
    let without_owner = async || {
        let secret = env.secrets().get("y").await.expect("the Secret");
        secret.metadata.owner_references.is_none_or(|owners| owners.is_empty()).then_some(())
    };
    eventually("the Secret has no owner", without_owner, || env.log()).await;
    for name in ["x", "y"] {
        env.users().delete(name, &DeleteParams::foreground()).await.expect("deleted");
        env.wait_deleted(name).await;
    }
    assert_eq!([env.published_key("x").await, env.published_key("y").await], keys);
    assert_eq!(env.iam("u").await.active_keys(), [keys[0].as_str()]);
}

pub(crate) async fn foreign_key_blocks_deletion_until_forced() {
    let env = TestEnv::new().await;
    let spec = |policy: &str| json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "deletionPolicy": policy});
    env.apply("x", spec("Delete")).await;
    env.wait_ready("x").await;
    let ours = env.published_key("x").await;
    let foreign = env.aws.manual_changes().create_key("u").await.expect("created in the console").id;
    env.delete("x").await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains(&foreign) && text.contains("Force"), "{text}");
    let iam = env.iam("u").await;
    assert!(env.account.accepts(&ours), "nothing is removed from the user");
    assert_eq!(iam.attached.len(), 1);
    env.apply("x", spec("Force")).await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

pub(crate) async fn deletion_removes_everything_attached_to_the_user() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.wait_ready("x").await;
    let manual_changes = env.aws.manual_changes();
    let on = |action: &str| Call::iam(action).with("UserName", "u");
    manual_changes.create_login_profile("u", "correct-Horse-7").await.expect("manually");
    manual_changes.create_group("g").await.expect("a group");
    manual_changes.add_to_group("u", "g").await.expect("manually");
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    manual_changes.put_inline("u", "own", policy).await.expect("manually");
    manual_changes
        .call(&on("CreateServiceSpecificCredential").with("ServiceName", "codecommit.amazonaws.com"))
        .await
        .expect("a credential for git");
    let key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7vbqajDw4o6gJy8UtmIbkcpnkO3Kwc4qsEnSZp/TR+fQi62F79RHWmwKOtFmwteURgLbj7D/WGuNLGOfa/2vse3G2eHnHl5CB8ruRX9fBl/KgwCVr2JaEuUm66bBQeP5XeBotdR4cvX38uPYivCDdPjJ1QWPdspTBKcxeFbccDw== tester";
    manual_changes.call(&on("UploadSSHPublicKey").with("SSHPublicKeyBody", key)).await.expect("an SSH key");
    let certificate = include_str!("certificate.pem");
    manual_changes
        .call(&on("UploadSigningCertificate").with("CertificateBody", certificate))
        .await
        .expect("a certificate");
    manual_changes
        .call(&Call::iam("CreateVirtualMFADevice").with("VirtualMFADeviceName", "phone"))
        .await
        .expect("a device");
    let serial = format!("arn:aws:iam::{}:mfa/phone", env.account.home().account);
    let enable = on("EnableMFADevice").with("SerialNumber", &serial);
    manual_changes
        .call(&enable.with("AuthenticationCode1", "123456").with("AuthenticationCode2", "234567"))
        .await
        .expect("the device is enabled");
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
    assert!(env.secret_data("x").await.is_none());
    for action in [
        "DeleteLoginProfile",
        "DeactivateMFADevice",
        "DeleteVirtualMFADevice",
        "DeleteSSHPublicKey",
        "DeleteSigningCertificate",
        "DeleteServiceSpecificCredential",
        "RemoveUserFromGroup",
        "DeleteUserPolicy",
    ] {
        assert_eq!(env.aws.log().calls_of(action).len(), 1, "{action}\n{}", env.aws.log().transcript());
    }
    assert_eq!(
        env.aws.log().calls_of("DeleteUser").len(),
        2,
        "one refusal causes one enumeration of the deletion blockers"
    );
}

pub(crate) async fn user_deleted_manually_is_recreated_with_a_new_key() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let before = env.wait_ready("x").await.status.and_then(|status| status.user).expect("a user").id;
    let key = env.published_key("x").await;
    env.aws.manual_changes().purge_user("u").await.expect("deleted with all dependents");
    let new = env.wait_published("x", &key).await;
    let user = env
        .wait_until("x", "a new user", |user| {
            user.status.as_ref().and_then(|status| status.user.as_ref()).is_some_and(|user| user.id != before)
        })
        .await;
    env.wait_ready("x").await;
    let iam = env.iam("u").await;
    assert_eq!(Some(iam.id.clone()), user.status.and_then(|status| status.user).expect("a user").id);
    assert_eq!(iam.active_keys(), [new.as_str()]);
    assert_eq!(iam.attached.len(), 1);
    let text = env.wait_for_event("x", Reason::UserRecreated).await;
    assert!(text.contains("was deleted in AWS") && text.contains(&iam.id), "{text}");
}
