//! Nobody else's user and nobody else's Secret is touched.

use std::collections::BTreeMap;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::stage::{Stage, message};

pub(crate) async fn a_foreign_user_is_refused_without_a_write() {
    let stage = Stage::new().await;
    stage.aws.human().create_user("CI-Admin").await.expect("somebody's user");
    let mark = stage.aws.log().mark();
    stage.apply("x", json!({"userName": "ci-admin", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(message(&user, ConditionType::Ready).contains("left alone"), "{}", message(&user, ConditionType::Ready));
    assert!(stage.secret("x").await.is_none());
    let committed: Vec<_> =
        stage.aws.log().mutating_calls_since(mark).into_iter().filter(|call| call.committed).collect();
    assert!(committed.is_empty(), "{committed:#?}");
    stage.event("x", Reason::NotOwned).await;
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("CI-Admin").await.is_some(), "it is not ours to delete either");
}

pub(crate) async fn a_foreign_secret_is_refused_before_anything_is_made() {
    let stage = Stage::new().await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "db-password"}, "stringData": {"password": "theirs"}}))
            .expect("a Secret");
    stage.secrets().create(&PostParams::default(), &secret).await.expect("somebody's Secret");
    stage.apply("x", json!({"userName": "s", "accessKey": {"secret": {"name": "db-password"}}})).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::KeyPublished).contains("spec.accessKey.secret.name"));
    assert!(stage.aws.log().select(|call| call.mutating).is_empty(), "nothing is made in AWS");
    assert_eq!(stage.secret("db-password").await, Some(BTreeMap::from([("password".to_owned(), "theirs".to_owned())])));
    stage.secrets().delete("db-password", &DeleteParams::default()).await.expect("its owner removes it");
    stage.ready("x").await;
}

pub(crate) async fn the_first_of_two_claims_keeps_the_user() {
    let stage = Stage::new().await;
    stage.apply("first", json!({"userName": "shared"})).await;
    stage.ready("first").await;
    stage.apply("second", json!({"userName": "Shared"})).await;
    let user = stage.until_condition("second", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let told = message(&user, ConditionType::UserSynced);
    assert!(told.contains(&format!("{}/first", stage.namespace)), "{told}");
    let iam = stage.iam("shared").await;
    assert_eq!(iam.tags["awsdeploy.dev/name"], "first");
    assert_eq!(iam.keys.len(), 1);
    stage.delete("second").await;
    stage.gone("second").await;
    assert!(stage.iam_opt("shared").await.is_some());
}

pub(crate) async fn the_operator_marks_resources_and_changes_nothing_that_they_ask_for() {
    let stage = Stage::new().await;
    stage.apply("x", json!({})).await;
    // It has marked it.
    let marked = stage.ready("x").await;
    assert_eq!(marked.finalizers(), ["awsdeploy.dev/iam-user"]);
    let operator: Api<AwsDeployUser> = Api::namespaced(stage.as_operator().await, &stage.namespace);
    let marks = "no annotation of an AwsDeployUser but";
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "u"});
    for (change, told) in [
        (json!({"spec": {"suspend": true}}), "nothing that they ask for"),
        (json!({"spec": {"policies": {"managed": ["AmazonEC2FullAccess"]}}}), "nothing that they ask for"),
        (json!({"metadata": {"labels": {"team": "a"}}}), "nothing that they ask for"),
        (json!({"metadata": {"ownerReferences": [owner]}}), "nothing that they ask for"),
        (json!({"metadata": {"annotations": {"awsdeploy.dev/rotate": "now"}}}), marks),
        (
            json!({"metadata": {"finalizers": ["awsdeploy.dev/iam-user", "example.com/never"]}}),
            "no finalizer but its own",
        ),
    ] {
        let patched = operator.patch("x", &PatchParams::default(), &Patch::Merge(&change)).await;
        let refused = patched.expect_err("refused").to_string();
        assert!(refused.contains(told), "{change}: {refused}");
    }
    let own = json!({"metadata": {"annotations": {"awsdeploy.dev/account": "123456789012"}}});
    operator.patch("x", &PatchParams::default(), &Patch::Merge(&own)).await.expect("its marks are its own");
}
