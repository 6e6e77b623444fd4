//! What docs/operations.md promises about backups and upgrades.

use std::fmt::Write as _;

use awsdeploy::api::{ConditionType, Reason, mark};
use awsdeploy_testkit::aws_proxy::{Call, KeyState};
use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::stage::{Stage, message};

pub(crate) async fn a_restored_resource_goes_on_with_its_user_once_that_is_handed_over() {
    let stage = Stage::new().await;
    let spec = json!({
        "userName": "restored",
        "accessKey": {"rotation": {"every": "Never", "overlap": "4s"}, "secret": {"name": "keys"}},
    });
    stage.apply("x", spec.clone()).await;
    stage.ready("x").await;
    let first = stage.published("keys").await;

    // The cluster is lost: resource and Secret are gone, and nobody cleans up in AWS.
    let finalizers = json!({"metadata": {"finalizers": null}});
    stage.operator.kill().await;
    stage.users().patch("x", &PatchParams::default(), &Patch::Merge(&finalizers)).await.expect("no finalizer");
    stage.delete("x").await;
    stage.gone("x").await;
    // The garbage collector may have been faster: the Secret went with its owner.
    match stage.secrets().delete("keys", &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("the Secret goes: {error}"),
    }
    let mut stage = stage;
    stage.operator.restart().await.expect("the operator of the new cluster");

    let restored = stage.apply("x", spec).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::NotOwned)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("an earlier AwsDeployUser"), "{told}");
    let uid = restored.uid().expect("a UID");
    stage.aws.human().tag("restored", &[(mark::TAG_UID, &uid)]).await.expect("handed over");

    stage.ready("x").await;
    let second = stage.published("keys").await;
    assert_ne!(first, second, "nobody has the value of the old key any more");
    assert_eq!(stage.iam("restored").await.key(&first).map(|key| key.state), Some(KeyState::Active), "for its overlap");
    stage
        .until_iam("restored", "the old key retires", |user| user.keys.len() == 1 && user.key(&second).is_some())
        .await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

/// The Secrets are as the first version wrote them, letter by letter but for names, keys and times: what reads them must
/// go on doing so.
pub(crate) async fn a_rotation_that_version_0_1_0_has_begun_is_brought_to_its_end() {
    let mut stage = Stage::with_arguments(&["--cluster-id=it"]).await;
    stage.operator.kill().await;
    let user = stage
        .apply(
            "x",
            json!({
                "userName": "upgraded",
                "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}, "secret": {"name": "keys"}},
            }),
        )
        .await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "please").await;
    let (uid, human) = (user.uid().expect("a UID"), stage.aws.human());
    let create = Call::iam("CreateUser").with("UserName", "upgraded").with("Path", "/awsdeploy/");
    let marks = [
        ("awsdeploy.dev/cluster", "it"),
        ("awsdeploy.dev/namespace", stage.namespace.as_str()),
        ("awsdeploy.dev/name", "x"),
        ("awsdeploy.dev/uid", &uid),
    ];
    human.call(&create.with_tags(marks)).await.expect("a user");
    let old = human.create_key("upgraded").await.expect("a key");
    let tag = format!("awsdeploy.dev/key/{}", old.id);
    human.tag("upgraded", &[(&tag, "2026-11-01T00:00:00Z")]).await.expect("a tag");
    let new = human.create_key("upgraded").await.expect("another key");
    let digest = Sha256::digest(format!("{}\n{}", old.id, old.secret));
    let checksum = digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    for fixture in [include_str!("fixtures/published-0.1.0.json"), include_str!("fixtures/journal-0.1.0.json")] {
        let text = fixture
            .replace("$UID", &uid)
            .replace("$OLD_ID", &old.id)
            .replace("$OLD_SECRET", &old.secret)
            .replace("$OLD_CHECKSUM", &checksum)
            .replace("$NEW_ID", &new.id)
            .replace("$NEW_SECRET", &new.secret)
            .replace("$NOW", &Timestamp::now().strftime("%FT%TZ").to_string());
        let secret = serde_json::from_str(&text).expect("a Secret");
        stage.secrets().create(&PostParams::default(), &secret).await.expect("a Secret");
    }

    stage.operator.restart().await.expect("the operator of today");
    assert_eq!(stage.until_published("keys", &old.id).await, new.id, "the key in the journal is the next one");
    stage.ready("x").await;
    stage
        .until_iam("upgraded", "the old key retires", |user| user.keys.len() == 1 && user.key(&new.id).is_some())
        .await;
    stage.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    assert!(stage.aws.log().calls_of("CreateAccessKey").is_empty(), "no key is made for the upgrade");
    assert!(stage.secret("x.awsdeploy-journal").await.is_none());
    let secret = stage.secret("keys").await.expect("the Secret");
    assert!(stage.account.secret_matches(&new.id, &secret["AWS_SECRET_ACCESS_KEY"]));
    stage.assert_a_fresh_look_writes_nothing("x").await;
}
