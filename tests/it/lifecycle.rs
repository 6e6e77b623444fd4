//! Suspension and the ways a resource leaves.

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{Call, CallRecord, KeyState};
use serde_json::json;

use crate::test_env::{TestEnv, eventually, message};

pub(crate) async fn resume_creates_a_new_key_after_suspend() {
    let env = TestEnv::new().await;
    let spec = |suspend: bool| json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}});
    env.apply("x", spec(false)).await;
    env.ready("x").await;
    let first = env.published("x").await;
    env.apply("x", spec(true)).await;
    let user = env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    assert_eq!(env.iam("u").await.key(&first).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    assert!(message(&user, ConditionType::Ready).contains("suspend"));
    assert!(!env.account.accepts(&first));
    env.apply("x", spec(false)).await;
    let second = env.until_published("x", &first).await;
    env.ready("x").await;
    assert!(env.account.accepts(&second) && !env.account.accepts(&first), "the revoked key does not come back");
}

pub(crate) async fn suspend_deactivates_all_keys_in_one_reconcile() {
    let env = TestEnv::with_arguments(&["--resync=1h"]).await;
    let spec = |suspend: bool| json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}});
    env.apply("x", spec(false)).await;
    env.ready("x").await;
    let first = env.published("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let second = env.until_published("x", &first).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    let mark = env.aws.log().position();
    env.apply("x", spec(true)).await;
    env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    let calls = env.aws.log().calls_since(mark);
    let looks = calls.iter().filter(|call| call.action == "GetUser").count();
    let off: Vec<&CallRecord> = calls.iter().filter(|call| call.action == "UpdateAccessKey").collect();
    assert_eq!(looks, 1, "one look at the user is one pass: {calls:#?}");
    assert_eq!(off.len(), 2, "{calls:#?}");
    assert_eq!(off[1].seq, off[0].seq + 1, "nothing comes between the two: {calls:#?}");
    for key in [&first, &second] {
        assert!(!env.account.accepts(key), "{key} still works");
    }
    assert_eq!(env.iam("u").await.keys.len(), 2, "kept for forensics");
}

pub(crate) async fn deletion_removes_everything_in_six_calls() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.ready("x").await;
    let mark = env.aws.log().position();
    env.delete("x").await;
    env.gone("x").await;
    assert!(env.iam_opt("u").await.is_none());
    assert!(env.secret("x").await.is_none());
    let calls: Vec<String> = env.aws.log().calls_since(mark).into_iter().map(|call| call.action).collect();
    let deletion = calls.iter().skip_while(|action| *action != "UpdateAccessKey").collect::<Vec<_>>();
    assert_eq!(deletion, ["UpdateAccessKey", "DeleteAccessKey", "DetachUserPolicy", "DeleteUser"]);
    assert!(env.event("x", Reason::UserDeleted).await.contains("deleted"));
}

pub(crate) async fn retain_keeps_user_and_secret() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "deletionPolicy": "Retain", "tags": {"team": "payments"}, "accessKey": {"description": "stays"}})).await;
    env.ready("x").await;
    let key = env.published("x").await;
    env.delete("x").await;
    env.gone("x").await;
    let iam = env.iam("u").await;
    assert_eq!(iam.active_keys(), [key.as_str()]);
    assert!(iam.tags.keys().all(|tag| !tag.starts_with("awsdeploy.dev/")), "{:?}", iam.tags);
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags[&key], "stays");
    let secret = env.secrets().get("x").await.expect("the Secret stays");
    assert!(secret.metadata.owner_references.is_none_or(|owners| owners.is_empty()), "nothing collects it");
}

pub(crate) async fn foreign_key_blocks_deletion_until_forced() {
    let env = TestEnv::new().await;
    let spec = |policy: &str| json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "deletionPolicy": policy});
    env.apply("x", spec("Delete")).await;
    env.ready("x").await;
    let ours = env.published("x").await;
    let foreign = env.aws.manual_changes().create_key("u").await.expect("made in the console").id;
    env.delete("x").await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains(&foreign) && told.contains("Force"), "{told}");
    let iam = env.iam("u").await;
    assert!(env.account.accepts(&ours), "nothing is taken from the user");
    assert_eq!(iam.attached.len(), 1);
    env.apply("x", spec("Force")).await;
    env.gone("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

pub(crate) async fn deletion_removes_everything_attached_to_the_user() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.ready("x").await;
    let manual_changes = env.aws.manual_changes();
    let on = |action: &str| Call::iam(action).with("UserName", "u");
    manual_changes.create_login_profile("u", "correct-Horse-7").await.expect("by hand");
    manual_changes.create_group("g").await.expect("a group");
    manual_changes.add_to_group("u", "g").await.expect("by hand");
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    manual_changes.put_inline("u", "own", policy).await.expect("by hand");
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
    env.gone("x").await;
    assert!(env.iam_opt("u").await.is_none());
    assert!(env.secret("x").await.is_none());
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
    assert_eq!(env.aws.log().calls_of("DeleteUser").len(), 2, "one refusal makes it look, once");
}

pub(crate) async fn user_deleted_manually_is_recreated_with_a_new_key() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let before = env.ready("x").await.status.and_then(|status| status.user).expect("a user").id;
    let key = env.published("x").await;
    env.aws.manual_changes().purge_user("u").await.expect("one click in the console");
    let new = env.until_published("x", &key).await;
    let user = env
        .until("x", "a new user", |user| {
            user.status.as_ref().and_then(|status| status.user.as_ref()).is_some_and(|user| user.id != before)
        })
        .await;
    env.ready("x").await;
    let iam = env.iam("u").await;
    assert_eq!(iam.id, user.status.and_then(|status| status.user).expect("a user").id);
    assert_eq!(iam.active_keys(), [new.as_str()]);
    assert_eq!(iam.attached.len(), 1);
    let told = env.event("x", Reason::UserRecreated).await;
    assert!(told.contains("was deleted in AWS") && told.contains(&iam.id), "{told}");
}

pub(crate) async fn secret_renamed_twice_leaves_no_previous_secret() {
    let env = TestEnv::new().await;
    let spec = |name: &str| json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "5s"}, "secret": {"name": name}}});
    env.apply("x", spec("first")).await;
    env.ready("x").await;
    env.apply("x", spec("second")).await;
    env.until_published("second", "").await;
    env.apply("x", spec("third")).await;
    let last = env.until_published("third", "").await;
    let gone = async || (env.secret("first").await.is_none() && env.secret("second").await.is_none()).then_some(());
    eventually("both earlier Secrets go with their keys", gone, || env.log()).await;
    env.until_iam("u", "one key is left", |user| user.keys.len() == 1).await;
    assert_eq!(env.published("third").await, last);
}
