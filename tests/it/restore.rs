//! Restoring a cluster from a backup.

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::test_env::{TestEnv, eventually, message};

pub(crate) async fn restored_resource_continues_with_its_retagged_user() {
    let env = TestEnv::new().await;
    let document =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let spec = json!({
        "userName": "restored",
        "accessKey": {"rotation": {"every": "Never", "overlap": "20s"}, "secret": {"name": "keys"}},
        "policies": {"documents": [{"name": "s3", "document": document, "as": "Managed"}]},
    });
    env.apply("x", spec.clone()).await;
    env.wait_ready("x").await;
    let first = env.published_key("keys").await;
    let policies = async |env: &TestEnv| env.inspector().policies("/awsdeploy/restored/").await.expect("policies");
    let before = policies(&env).await;

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
    // Its policy is tagged again, and no other one is made.
    let after = policies(&env).await;
    let [policy] = &after[..] else { panic!("{after:#?}") };
    assert_eq!((&policy.id, &policy.tags[well_known::TAG_UID]), (&before[0].id, &uid), "{policy:#?}");
    env.assert_restart_writes_nothing("x").await;
}

/// Velero restores a Secret without its owner reference and adds labels of its own.
pub(crate) async fn restored_secret_is_deleted_before_the_user_is_transferred() {
    let mut env = TestEnv::new().await;
    let spec = json!({"userName": "restored", "accessKey": {"rotation": {"every": "Never", "overlap": "20s"}}});
    env.apply("x", spec.clone()).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    let mut backup = env.secrets().get("x").await.expect("the Secret is there");
    backup.metadata = ObjectMeta {
        name: Some("x".to_owned()),
        annotations: backup.metadata.annotations.take(),
        labels: backup.metadata.labels.take(),
        ..ObjectMeta::default()
    };
    for label in ["velero.io/backup-name", "velero.io/restore-name"] {
        backup.labels_mut().insert(label.to_owned(), "daily".to_owned());
    }

    env.operator.kill().await;
    let finalizers = json!({"metadata": {"finalizers": null}});
    env.users().patch("x", &PatchParams::default(), &Patch::Merge(&finalizers)).await.expect("no finalizer");
    env.delete("x").await;
    env.wait_deleted("x").await;
    let deleted = async || match env.secrets().delete("x", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Some(()),
        _ => None,
    };
    eventually("the Secret is deleted", deleted, String::new).await;
    env.secrets().create(&PostParams::default(), &backup).await.expect("the Secret is restored");
    let restored = env.apply("x", spec).await;
    let uid = restored.uid().expect("a UID");
    env.aws.manual_changes().tag("restored", &[(well_known::TAG_UID, &uid)]).await.expect("the tag is updated");

    env.operator.restart().await.expect("the operator of the new cluster starts");
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::SecretConflict)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("delete that Secret"), "{text}");
    assert!(env.account.accepts(&first), "consumers keep the restored key meanwhile");
    env.secrets().delete("x", &DeleteParams::default()).await.expect("as the message says");
    env.wait_ready("x").await;
    let second = env.published_key("x").await;
    assert_ne!(first, second, "the operator does not take a key from a Secret of another owner");
    env.wait_for_iam("restored", "the previous key is retired", |user| {
        user.keys.len() == 1 && user.key(&second).is_some()
    })
    .await;
}
