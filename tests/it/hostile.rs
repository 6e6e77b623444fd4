//! Tenants who may write Secrets in their namespace write into ours what they like.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, mark};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::stage::{Stage, condition, eventually};

/// What must not come back. It stands for a secret: parsers like to quote what they choke on.
const CANARY: &str = "canary/wJalrXUtnFEMIK7MDENGbPxRfiCY";

/// All that the operator says: its log, its metrics, Events and the resource.
async fn said(stage: &Stage) -> String {
    let user: AwsDeployUser = stage.user("x").await;
    let metrics = stage.operator.metrics().await.expect("metrics");
    format!("{}{metrics}{:?}{}", stage.log(), stage.events("x").await, json!(user))
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
    for name in [mark::ANNOTATION_PUBLISHED_AT, mark::ANNOTATION_PREVIOUS_SECRETS, mark::ANNOTATION_CHECKSUM] {
        annotations.insert(name.to_owned(), rubbish[1].clone());
    }
    secret
}

/// Makes a journal of the resource out of rubbish.
async fn craft_journal(stage: &Stage) {
    let mut journal = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
    journal.metadata.name = Some("x.awsdeploy-journal".to_owned());
    journal.metadata.owner_references = stage.user("x").await.controller_owner_ref(&()).map(|owner| vec![owner]);
    stage.secrets().create(&PostParams::default(), &crafted(journal)).await.expect("a tenant may");
}

pub(crate) async fn what_others_write_into_our_secrets_is_repeated_nowhere_and_stops_nobody() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "x"})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    let secret = crafted(stage.secrets().get("x").await.expect("the Secret"));
    stage.secrets().replace("x", &PostParams::default(), &secret).await.expect("a tenant may");
    let repaired = async || stage.secret("x").await.filter(|data| data["AWS_ACCESS_KEY_ID"].starts_with("AKIA"));
    let data = eventually("a good Secret again", repaired, || stage.log()).await;
    assert_ne!(data["AWS_ACCESS_KEY_ID"], key, "what somebody had in hand is replaced");
    assert!(!said(&stage).await.contains(CANARY));

    // A journal of our own that is none. An attempt is not guessed at; whoever made it can take it away.
    stage.ready("x").await;
    craft_journal(&stage).await;
    let before = stage.published("x").await;
    stage.apply("y", json!({"userName": "y"})).await;
    stage.ready("y").await;
    stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
    assert!(!said(&stage).await.contains(CANARY));
    stage.secrets().delete("x.awsdeploy-journal", &kube::api::DeleteParams::default()).await.expect("it is taken away");
    let gone_on = |user: &AwsDeployUser| {
        condition(user, ConditionType::RotationHealthy)
            .is_some_and(|condition| condition.reason != Reason::UnknownJournal.as_str())
    };
    stage.until("x", "going on without the journal", gone_on).await;
    assert_eq!(stage.published("x").await, before, "the key was good all the time");
}

pub(crate) async fn nothing_in_our_secrets_holds_up_a_suspension() {
    let stage = Stage::new().await;
    let spec = |suspend: bool| {
        let rotation = json!({"every": "Never", "overlap": "1d"});
        json!({"userName": "x", "suspend": suspend, "accessKey": {"rotation": rotation}})
    };
    stage.apply("x", spec(false)).await;
    stage.ready("x").await;
    // Sums with this date have none.
    let dated: Value = json!({"metadata": {"annotations": {mark::ANNOTATION_PUBLISHED_AT: "9999-12-30T22:00:00Z"}}});
    let params = PatchParams::default();
    stage.secrets().patch("x", &params, &Patch::Merge(dated)).await.expect("a tenant may");
    let first = stage.published("x").await;
    stage.annotate("x", mark::ANNOTATION_ROTATE, "now").await;
    stage.until_published("x", &first).await;
    let closed = async || stage.secret("x.awsdeploy-journal").await.is_none().then_some(());
    eventually("the attempt is over", closed, || stage.log()).await;
    craft_journal(&stage).await;
    assert_eq!(stage.iam("x").await.active_keys().len(), 2, "the new key, and the old one in its overlap");
    stage.apply("x", spec(true)).await;
    stage.until_iam("x", "suspended", |user| user.active_keys().is_empty()).await;
    stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
}
