//! Restoring a cluster from a backup.

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
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;

    // The cluster is lost with resource and Secret, and AWS is not cleaned up.
    let finalizers = json!({"metadata": {"finalizers": null}});
    env.operator.kill().await;
    env.users().patch("x", &PatchParams::default(), &Patch::Merge(&finalizers)).await.expect("no finalizer");
    env.delete("x").await;
    env.wait_deleted("x").await;
    // The garbage collector may have deleted the Secret with its owner.
    match env.secrets().delete("keys", &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("the Secret is deleted: {error}"),
    }
    let mut env = env;
    env.operator.restart().await.expect("the operator of the new cluster starts");

    let restored = env.apply("x", spec).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::NotOwned)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("an earlier AwsDeployUser"), "{text}");
    let uid = restored.uid().expect("a UID");
    env.aws
        .manual_changes()
        .tag("restored", &[(well_known::TAG_UID, &uid)])
        .await
        .expect("the ownership tag is updated");

    env.wait_ready("x").await;
    let second = env.published_key("keys").await;
    assert_ne!(first, second, "the secret of the previous key is lost");
    assert_eq!(env.iam("restored").await.key(&first).map(|key| key.state), Some(KeyState::Active), "for its overlap");
    env.wait_for_iam("restored", "the previous key is retired", |user| {
        user.keys.len() == 1 && user.key(&second).is_some()
    })
    .await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    env.assert_restart_writes_nothing("x").await;
}
