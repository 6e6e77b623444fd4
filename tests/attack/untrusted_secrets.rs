//! Tenants can write Secrets in their namespace, those of the operator included; a journal can be damaged by a cluster admin.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{TestEnv, condition, eventually};

/// Stands for a secret that must not be echoed; parsers tend to quote invalid input.
const CANARY: &str = "canary/wJalrXUtnFEMIK7MDENGbPxRfiCY";

/// All output of the operator: log, metrics, Events and the resource.
async fn all_output(env: &TestEnv) -> String {
    let user: AwsDeployUser = env.user("x").await;
    let metrics = env.operator.metrics().await.expect("metrics");
    format!("{}{metrics}{:?}{}", env.log(), env.events("x").await, json!(user))
}

/// Puts garbage into every field of the Secret that the operator reads.
fn with_garbage(mut secret: Secret) -> Secret {
    let garbage = [
        "\"".to_owned() + CANARY,
        format!(r#"{{"format":1,"mode":"{CANARY}","startedAt":7}}"#),
        format!("[default]\naws_secret_access_key = {}", CANARY.repeat(15_000)),
        "[".repeat(50_000) + CANARY,
    ];
    let data = secret.data.get_or_insert_default();
    data.insert("journal".to_owned(), ByteString::default());
    data.insert("credential-process".to_owned(), ByteString::default());
    for (value, text) in data.values_mut().zip(garbage.iter().cycle()) {
        value.0 = text.clone().into_bytes();
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    for name in [well_known::ANNOTATION_PUBLISHED_AT, well_known::ANNOTATION_MAC] {
        annotations.insert(name.to_owned(), garbage[1].clone());
    }
    secret
}

/// Creates a journal of the resource from garbage.
async fn create_garbage_journal(env: &TestEnv) {
    let mut journal = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
    let uid = env.user("x").await.uid().expect("a UID");
    journal.metadata.name = Some(journal_name(&uid));
    let annotations = [(well_known::ANNOTATION_RESOURCE_UID.to_owned(), uid)];
    journal.metadata.annotations = Some(annotations.into());
    let created = env.operator_secrets().create(&PostParams::default(), &with_garbage(journal)).await;
    created.expect("a cluster admin may write it");
}

fn journal_name(uid: &str) -> String {
    format!("{}{uid}", well_known::JOURNAL_PREFIX)
}

pub(crate) async fn untrusted_secret_data_is_not_echoed_and_blocks_nothing() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "x"})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let secret = with_garbage(env.secrets().get("x").await.expect("the Secret"));
    env.secrets().replace("x", &PostParams::default(), &secret).await.expect("the tenant may write it");
    let repaired = async || env.secret_data("x").await.filter(|data| data["AWS_ACCESS_KEY_ID"].starts_with("AKIA"));
    let data = eventually("a valid Secret again", repaired, || env.log()).await;
    assert_ne!(data["AWS_ACCESS_KEY_ID"], key, "the exposed key is replaced");
    assert!(!all_output(&env).await.contains(CANARY));

    // An invalid journal: the attempt is not guessed, and a cluster admin can delete it.
    env.wait_ready("x").await;
    create_garbage_journal(&env).await;
    let before = env.published_key("x").await;
    env.apply("y", json!({"userName": "y"})).await;
    env.wait_ready("y").await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
    assert!(!all_output(&env).await.contains(CANARY));
    let uid = env.user("x").await.uid().expect("a UID");
    env.operator_secrets()
        .delete(&journal_name(&uid), &kube::api::DeleteParams::default())
        .await
        .expect("the journal is deleted");
    let reconciled = |user: &AwsDeployUser| {
        condition(user, ConditionType::RotationHealthy)
            .is_some_and(|condition| condition.reason != Reason::UnknownJournal.as_str())
    };
    env.wait_until("x", "reconciled without the journal", reconciled).await;
    assert_eq!(env.published_key("x").await, before, "the key is unchanged");
}

pub(crate) async fn untrusted_secret_data_does_not_delay_revocation() {
    let env = TestEnv::new().await;
    let spec = |credentials: &str| {
        let rotation = json!({"every": "Never", "overlap": "1d"});
        json!({"userName": "x", "credentials": credentials, "accessKey": {"rotation": rotation}})
    };
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
    // Adding a duration to this timestamp overflows.
    let dated: Value =
        json!({"metadata": {"annotations": {well_known::ANNOTATION_PUBLISHED_AT: "9999-12-30T22:00:00Z"}}});
    let params = PatchParams::default();
    env.secrets().patch("x", &params, &Patch::Merge(dated)).await.expect("the tenant may write it");
    let first = env.published_key("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    env.wait_published("x", &first).await;
    env.wait_journal_deleted("x").await;
    create_garbage_journal(&env).await;
    assert_eq!(env.iam("x").await.active_keys().len(), 2, "the new key and the previous one in its overlap");
    env.apply("x", spec("Revoked")).await;
    env.wait_for_iam("x", "revoked", |user| user.active_keys().is_empty()).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
}
