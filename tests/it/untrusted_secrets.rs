//! Tenants who may write Secrets in their namespace write into ours what they like.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{TestEnv, condition, eventually};

/// What must not come back. It stands for a secret: parsers like to quote what they choke on.
const CANARY: &str = "canary/wJalrXUtnFEMIK7MDENGbPxRfiCY";

/// All that the operator says: its log, its metrics, Events and the resource.
async fn said(env: &TestEnv) -> String {
    let user: AwsDeployUser = env.user("x").await;
    let metrics = env.operator.metrics().await.expect("metrics");
    format!("{}{metrics}{:?}{}", env.log(), env.events("x").await, json!(user))
}

/// The Secret with rubbish in every place that the operator reads back.
fn crafted(mut secret: Secret) -> Secret {
    let rubbish = [
        "\"".to_owned() + CANARY,
        format!(r#"{{"format":1,"mode":"{CANARY}","startedAt":7}}"#),
        format!("[default]\naws_secret_access_key = {}", CANARY.repeat(15_000)),
        "[".repeat(50_000) + CANARY,
    ];
    let data = secret.data.get_or_insert_default();
    data.insert("journal".to_owned(), ByteString::default());
    data.insert("credential-process".to_owned(), ByteString::default());
    for (value, text) in data.values_mut().zip(rubbish.iter().cycle()) {
        value.0 = text.clone().into_bytes();
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    for name in
        [well_known::ANNOTATION_PUBLISHED_AT, well_known::ANNOTATION_PREVIOUS_SECRETS, well_known::ANNOTATION_CHECKSUM]
    {
        annotations.insert(name.to_owned(), rubbish[1].clone());
    }
    secret
}

/// Makes a journal of the resource out of rubbish.
async fn craft_journal(env: &TestEnv) {
    let mut journal = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
    journal.metadata.name = Some("x.awsdeploy-journal".to_owned());
    journal.metadata.owner_references = env.user("x").await.controller_owner_ref(&()).map(|owner| vec![owner]);
    env.secrets().create(&PostParams::default(), &crafted(journal)).await.expect("a tenant may");
}

pub(crate) async fn untrusted_secret_data_is_not_echoed_and_blocks_nothing() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "x"})).await;
    env.ready("x").await;
    let key = env.published("x").await;
    let secret = crafted(env.secrets().get("x").await.expect("the Secret"));
    env.secrets().replace("x", &PostParams::default(), &secret).await.expect("a tenant may");
    let repaired = async || env.secret("x").await.filter(|data| data["AWS_ACCESS_KEY_ID"].starts_with("AKIA"));
    let data = eventually("a good Secret again", repaired, || env.log()).await;
    assert_ne!(data["AWS_ACCESS_KEY_ID"], key, "what somebody had in hand is replaced");
    assert!(!said(&env).await.contains(CANARY));

    // A journal of our own that is none. An attempt is not guessed at; whoever made it can take it away.
    env.ready("x").await;
    craft_journal(&env).await;
    let before = env.published("x").await;
    env.apply("y", json!({"userName": "y"})).await;
    env.ready("y").await;
    env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
    assert!(!said(&env).await.contains(CANARY));
    env.secrets().delete("x.awsdeploy-journal", &kube::api::DeleteParams::default()).await.expect("it is taken away");
    let gone_on = |user: &AwsDeployUser| {
        condition(user, ConditionType::RotationHealthy)
            .is_some_and(|condition| condition.reason != Reason::UnknownJournal.as_str())
    };
    env.until("x", "going on without the journal", gone_on).await;
    assert_eq!(env.published("x").await, before, "the key was good all the time");
}

pub(crate) async fn untrusted_secret_data_does_not_delay_suspension() {
    let env = TestEnv::new().await;
    let spec = |suspend: bool| {
        let rotation = json!({"every": "Never", "overlap": "1d"});
        json!({"userName": "x", "suspend": suspend, "accessKey": {"rotation": rotation}})
    };
    env.apply("x", spec(false)).await;
    env.ready("x").await;
    // Sums with this date have none.
    let dated: Value =
        json!({"metadata": {"annotations": {well_known::ANNOTATION_PUBLISHED_AT: "9999-12-30T22:00:00Z"}}});
    let params = PatchParams::default();
    env.secrets().patch("x", &params, &Patch::Merge(dated)).await.expect("a tenant may");
    let first = env.published("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    env.until_published("x", &first).await;
    let closed = async || env.secret("x.awsdeploy-journal").await.is_none().then_some(());
    eventually("the attempt is over", closed, || env.log()).await;
    craft_journal(&env).await;
    assert_eq!(env.iam("x").await.active_keys().len(), 2, "the new key, and the old one in its overlap");
    env.apply("x", spec(true)).await;
    env.until_iam("x", "suspended", |user| user.active_keys().is_empty()).await;
    env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
}
