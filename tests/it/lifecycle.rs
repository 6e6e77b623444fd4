//! Suspension and the ways a resource leaves.

use awsdeploy::api::{ConditionType, Reason, mark};
use awsdeploy_testkit::aws_proxy::{Call, CallRecord, KeyState};
use serde_json::json;

use crate::stage::{Stage, eventually, message};

pub(crate) async fn suspend_deactivates_and_resume_makes_a_new_key() {
    let stage = Stage::new().await;
    let spec = |suspend: bool| json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}}});
    stage.apply("x", spec(false)).await;
    stage.ready("x").await;
    let first = stage.published("x").await;
    stage.apply("x", spec(true)).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    assert_eq!(stage.iam("u").await.key(&first).map(|key| key.state), Some(KeyState::Inactive), "kept for forensics");
    assert!(message(&user, ConditionType::Ready).contains("suspend"));
    assert!(!stage.account.accepts(&first));
    stage.apply("x", spec(false)).await;
    let second = stage.until_published("x", &first).await;
    stage.ready("x").await;
    assert!(stage.account.accepts(&second) && !stage.account.accepts(&first), "the revoked key does not come back");
}

pub(crate) async fn suspend_sets_all_keys_inactive_in_one_pass() {
    let stage = Stage::with_arguments(&["--resync=1h"]).await;
    let spec = |suspend: bool| json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": {"every": "Never", "overlap": "1h"}}});
    stage.apply("x", spec(false)).await;
    stage.ready("x").await;
    let first = stage.published("x").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "1").await;
    let second = stage.until_published("x", &first).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    let mark = stage.aws.log().mark();
    stage.apply("x", spec(true)).await;
    stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    let calls = stage.aws.log().calls_since(mark);
    let looks = calls.iter().filter(|call| call.action == "GetUser").count();
    let off: Vec<&CallRecord> = calls.iter().filter(|call| call.action == "UpdateAccessKey").collect();
    assert_eq!(looks, 1, "one look at the user is one pass: {calls:#?}");
    assert_eq!(off.len(), 2, "{calls:#?}");
    assert_eq!(off[1].seq, off[0].seq + 1, "nothing comes between the two: {calls:#?}");
    for key in [&first, &second] {
        assert!(!stage.account.accepts(key), "{key} still works");
    }
    assert_eq!(stage.iam("u").await.keys.len(), 2, "kept for forensics");
}

pub(crate) async fn deletion_removes_everything_in_six_calls() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    stage.ready("x").await;
    let mark = stage.aws.log().mark();
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("u").await.is_none());
    assert!(stage.secret("x").await.is_none());
    let calls: Vec<String> = stage.aws.log().calls_since(mark).into_iter().map(|call| call.action).collect();
    let deletion = calls.iter().skip_while(|action| *action != "UpdateAccessKey").collect::<Vec<_>>();
    assert_eq!(deletion, ["UpdateAccessKey", "DeleteAccessKey", "DetachUserPolicy", "DeleteUser"]);
    assert!(stage.event("x", Reason::UserDeleted).await.contains("deleted"));
}

pub(crate) async fn retain_leaves_user_and_secret() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "deletionPolicy": "Retain", "tags": {"team": "payments"}, "accessKey": {"description": "stays"}})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.delete("x").await;
    stage.gone("x").await;
    let iam = stage.iam("u").await;
    assert_eq!(iam.active_keys(), [key.as_str()]);
    assert!(iam.tags.keys().all(|tag| !tag.starts_with("awsdeploy.dev/")), "{:?}", iam.tags);
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags[&key], "stays");
    let secret = stage.secrets().get("x").await.expect("the Secret stays");
    assert!(secret.metadata.owner_references.is_none_or(|owners| owners.is_empty()), "nothing collects it");
}

pub(crate) async fn a_foreign_key_makes_the_deletion_wait_and_force_removes_it() {
    let stage = Stage::new().await;
    let spec = |policy: &str| json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "deletionPolicy": policy});
    stage.apply("x", spec("Delete")).await;
    stage.ready("x").await;
    let ours = stage.published("x").await;
    let foreign = stage.aws.human().create_key("u").await.expect("made in the console").id;
    stage.delete("x").await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains(&foreign) && told.contains("Force"), "{told}");
    let iam = stage.iam("u").await;
    assert!(stage.account.accepts(&ours), "nothing is taken from the user");
    assert_eq!(iam.attached.len(), 1);
    stage.apply("x", spec("Force")).await;
    stage.gone("x").await;
    assert!(stage.iam_opt("u").await.is_none());
}

pub(crate) async fn whatever_hangs_on_the_user_goes_with_it() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    stage.ready("x").await;
    let human = stage.aws.human();
    let on = |action: &str| Call::iam(action).with("UserName", "u");
    human.create_login_profile("u", "correct-Horse-7").await.expect("by hand");
    human.create_group("g").await.expect("a group");
    human.add_to_group("u", "g").await.expect("by hand");
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    human.put_inline("u", "own", policy).await.expect("by hand");
    human
        .call(&on("CreateServiceSpecificCredential").with("ServiceName", "codecommit.amazonaws.com"))
        .await
        .expect("a credential for git");
    let key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7vbqajDw4o6gJy8UtmIbkcpnkO3Kwc4qsEnSZp/TR+fQi62F79RHWmwKOtFmwteURgLbj7D/WGuNLGOfa/2vse3G2eHnHl5CB8ruRX9fBl/KgwCVr2JaEuUm66bBQeP5XeBotdR4cvX38uPYivCDdPjJ1QWPdspTBKcxeFbccDw== tester";
    human.call(&on("UploadSSHPublicKey").with("SSHPublicKeyBody", key)).await.expect("an SSH key");
    let certificate = include_str!("certificate.pem");
    human.call(&on("UploadSigningCertificate").with("CertificateBody", certificate)).await.expect("a certificate");
    human.call(&Call::iam("CreateVirtualMFADevice").with("VirtualMFADeviceName", "phone")).await.expect("a device");
    let serial = format!("arn:aws:iam::{}:mfa/phone", stage.account.home().account);
    let enable = on("EnableMFADevice").with("SerialNumber", &serial);
    human
        .call(&enable.with("AuthenticationCode1", "123456").with("AuthenticationCode2", "234567"))
        .await
        .expect("the device is enabled");
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("u").await.is_none());
    assert!(stage.secret("x").await.is_none());
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
        assert_eq!(stage.aws.log().calls_of(action).len(), 1, "{action}\n{}", stage.aws.log().transcript());
    }
    assert_eq!(stage.aws.log().calls_of("DeleteUser").len(), 2, "one refusal makes it look, once");
}

pub(crate) async fn a_user_deleted_by_hand_comes_back_with_a_new_key() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let before = stage.ready("x").await.status.and_then(|status| status.user).expect("a user").id;
    let key = stage.published("x").await;
    stage.aws.human().purge_user("u").await.expect("one click in the console");
    let new = stage.until_published("x", &key).await;
    let user = stage
        .until("x", "a new user", |user| {
            user.status.as_ref().and_then(|status| status.user.as_ref()).is_some_and(|user| user.id != before)
        })
        .await;
    stage.ready("x").await;
    let iam = stage.iam("u").await;
    assert_eq!(iam.id, user.status.and_then(|status| status.user).expect("a user").id);
    assert_eq!(iam.active_keys(), [new.as_str()]);
    assert_eq!(iam.attached.len(), 1);
    let told = stage.event("x", Reason::UserRecreated).await;
    assert!(told.contains("had been deleted in AWS") && told.contains(&iam.id), "{told}");
}

pub(crate) async fn a_secret_that_is_renamed_twice_leaves_none_behind() {
    let stage = Stage::new().await;
    let spec = |name: &str| json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "5s"}, "secret": {"name": name}}});
    stage.apply("x", spec("first")).await;
    stage.ready("x").await;
    stage.apply("x", spec("second")).await;
    stage.until_published("second", "").await;
    stage.apply("x", spec("third")).await;
    let last = stage.until_published("third", "").await;
    let gone = async || (stage.secret("first").await.is_none() && stage.secret("second").await.is_none()).then_some(());
    eventually("both earlier Secrets go with their keys", gone, || stage.log()).await;
    stage.until_iam("u", "one key is left", |user| user.keys.len() == 1).await;
    assert_eq!(stage.published("third").await, last);
}
