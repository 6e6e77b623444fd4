//! Users and Secrets of others are not touched.

use std::collections::BTreeMap;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::test_env::{TestEnv, message};

pub(crate) async fn foreign_user_is_refused_without_a_write() {
    let env = TestEnv::new().await;
    env.aws.manual_changes().create_user("CI-Admin").await.expect("an unmanaged user");
    let position = env.aws.log().position();
    env.apply("x", json!({"userName": "ci-admin", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(message(&user, ConditionType::Ready).contains("not changed"), "{}", message(&user, ConditionType::Ready));
    assert!(env.secret_data("x").await.is_none());
    let committed: Vec<_> =
        env.aws.log().mutating_calls_since(position).into_iter().filter(|call| call.committed).collect();
    assert!(committed.is_empty(), "{committed:#?}");
    env.wait_for_event("x", Reason::NotOwned).await;
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("CI-Admin").await.is_some(), "a user that is not owned is not deleted");
}

pub(crate) async fn foreign_secret_is_refused_before_any_creation() {
    let env = TestEnv::new().await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "db-password"}, "stringData": {"password": "theirs"}}))
            .expect("a Secret");
    env.secrets().create(&PostParams::default(), &secret).await.expect("an unmanaged Secret");
    env.apply("x", json!({"userName": "s", "accessKey": {"secret": {"name": "db-password"}}})).await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::KeyPublished).contains("spec.accessKey.secret.name"));
    assert!(env.aws.log().select(|call| call.mutating).is_empty(), "nothing is created in AWS");
    assert_eq!(
        env.secret_data("db-password").await,
        Some(BTreeMap::from([("password".to_owned(), "theirs".to_owned())]))
    );
    env.secrets().delete("db-password", &DeleteParams::default()).await.expect("its owner deletes it");
    env.wait_ready("x").await;
}

pub(crate) async fn first_of_two_claims_keeps_the_user() {
    let env = TestEnv::new().await;
    env.apply("first", json!({"userName": "shared"})).await;
    env.wait_ready("first").await;
    env.apply("second", json!({"userName": "Shared"})).await;
    let user = env.wait_for_condition("second", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains(&format!("{}/first", env.namespace)), "{text}");
    let iam = env.iam("shared").await;
    assert_eq!(iam.tags["awsdeploy.dev/name"], "first");
    assert_eq!(iam.keys.len(), 1);
    env.delete("second").await;
    env.wait_deleted("second").await;
    assert!(env.iam_opt("shared").await.is_some());
}

pub(crate) async fn operator_writes_only_its_own_metadata() {
    let env = TestEnv::new().await;
    env.apply("x", json!({})).await;
    let user = env.wait_ready("x").await;
    assert_eq!(user.finalizers(), ["awsdeploy.dev/iam-user"]);
    let operator: Api<AwsDeployUser> = Api::namespaced(env.operator_client().await, &env.namespace);
    let foreign_annotation = "must not write annotations of an AwsDeployUser";
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "u"});
    for (change, text) in [
        (json!({"spec": {"credentials": "Revoked"}}), "must not change the spec, labels or ownerReferences"),
        (
            json!({"spec": {"policies": {"managed": ["AmazonEC2FullAccess"]}}}),
            "must not change the spec, labels or ownerReferences",
        ),
        (json!({"metadata": {"labels": {"team": "a"}}}), "must not change the spec, labels or ownerReferences"),
        (json!({"metadata": {"ownerReferences": [owner]}}), "must not change the spec, labels or ownerReferences"),
        (json!({"metadata": {"annotations": {"awsdeploy.dev/rotate": "now"}}}), foreign_annotation),
        (json!({"metadata": {"annotations": {"awsdeploy.dev/account": "123456789012"}}}), foreign_annotation),
        (
            json!({"metadata": {"finalizers": ["awsdeploy.dev/iam-user", "example.com/never"]}}),
            "must not add or remove finalizers other than awsdeploy.dev/iam-user",
        ),
    ] {
        let patched = operator.patch("x", &PatchParams::default(), &Patch::Merge(&change)).await;
        let refused = patched.expect_err("refused").to_string();
        assert!(refused.contains(text), "{change}: {refused}");
    }
}
