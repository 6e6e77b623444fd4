//! What docs/operations.md promises about backups.

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::test_env::{TestEnv, message};

pub(crate) async fn restored_resource_continues_with_its_retagged_user() {
    let env = TestEnv::new().await;
    let spec = json!({
        "userName": "restored",
        "accessKey": {"rotation": {"every": "Never", "overlap": "20s"}, "secret": {"name": "keys"}},
    });
    env.apply("x", spec.clone()).await;
    env.ready("x").await;
    let first = env.published("keys").await;

    // The cluster is lost: resource and Secret are gone, and nobody cleans up in AWS.
    let finalizers = json!({"metadata": {"finalizers": null}});
    env.operator.kill().await;
    env.users().patch("x", &PatchParams::default(), &Patch::Merge(&finalizers)).await.expect("no finalizer");
    env.delete("x").await;
    env.gone("x").await;
    // The garbage collector may have been faster: the Secret went with its owner.
    match env.secrets().delete("keys", &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("the Secret goes: {error}"),
    }
    let mut env = env;
    env.operator.restart().await.expect("the operator of the new cluster");

    let restored = env.apply("x", spec).await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::NotOwned)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("an earlier AwsDeployUser"), "{told}");
    let uid = restored.uid().expect("a UID");
    env.aws.manual_changes().tag("restored", &[(well_known::TAG_UID, &uid)]).await.expect("handed over");

    env.ready("x").await;
    let second = env.published("keys").await;
    assert_ne!(first, second, "nobody has the value of the old key any more");
    assert_eq!(env.iam("restored").await.key(&first).map(|key| key.state), Some(KeyState::Active), "for its overlap");
    env.until_iam("restored", "the old key retires", |user| user.keys.len() == 1 && user.key(&second).is_some()).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    env.assert_a_fresh_look_writes_nothing("x").await;
}
