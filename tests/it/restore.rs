//! What docs/operations.md promises about backups.

use awsdeploy::api::{ConditionType, Reason, mark};
use awsdeploy_testkit::aws_proxy::KeyState;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::stage::{Stage, message};

pub(crate) async fn a_restored_resource_goes_on_with_its_user_once_that_is_handed_over() {
    let stage = Stage::new().await;
    let spec = json!({
        "userName": "restored",
        "accessKey": {"rotation": {"every": "Never", "overlap": "20s"}, "secret": {"name": "keys"}},
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
