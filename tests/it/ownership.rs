//! Nobody else's user and nobody else's Secret is touched.

use std::collections::BTreeMap;

use awsdeploy::api::{ConditionType, Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
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
