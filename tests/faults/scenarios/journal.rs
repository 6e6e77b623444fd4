//! Unreadable journals and Secrets without write access.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::Rule;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt as _, api::PostParams};
use serde_json::Value;

use super::Harness;
use crate::{
    operation::{RECOVERY, wait_settled},
    test_env::{TestEnv, message},
};

/// Sets the format number of the journal.
async fn set_format(env: &TestEnv, format: u32) {
    let mut secret: Secret = env.journal_secret("x").await.expect("the journal");
    let data = secret.data.as_mut().expect("data");
    let mut journal: Value = serde_json::from_slice(&data["journal"].0).expect("a journal");
    journal["format"] = Value::from(format);
    data.insert("journal".to_owned(), ByteString(serde_json::to_vec(&journal).expect("JSON")));
    let written = env.operator_secrets().replace(&secret.name_any(), &PostParams::default(), &secret).await;
    written.expect("the journal is written");
}

pub(super) async fn unknown_journal_format_is_not_touched() {
    let (mut harness, first) = Harness::with_published_key().await;
    let checked = harness.env.aws.rules().pause(Rule::on("GetCallerIdentity").from(1).before());
    harness.rotate("now").await;
    assert!(checked.wait_until_held(RECOVERY).await, "a new key is being verified");
    harness.env.operator.kill().await;
    checked.abort();
    harness.env.aws.rules().clear();
    set_format(&harness.env, 99).await;
    let position = harness.env.aws.log().position();
    harness.env.operator.restart().await.expect("the operator restarts");
    let user = harness
        .env
        .wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal))
        .await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("99"), "{user:#?}");
    let violations = harness.auditor.check_idle(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(harness.env.aws.log().mutating_calls_since(position).is_empty(), "nothing is written in AWS");
    assert_eq!(harness.env.published_key("x").await, first);
    assert!(harness.env.account.accepts(&first), "the published key works");
    // An operator that knows the format resumes the attempt.
    set_format(&harness.env, 1).await;
    wait_settled(&harness.env, &first).await;
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn no_key_is_created_without_secret_access() {
    let (harness, first) = Harness::with_published_key().await;
    let count = harness.created_key_count();
    harness.env.revoke_secret_access().await;
    harness.rotate("now").await;
    let user = harness
        .env
        .wait_for_condition("x", ConditionType::RotationHealthy, "Unknown", Some(Reason::SecretAccessDenied))
        .await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("kubectl"), "{user:#?}");
    assert_eq!(harness.created_key_count(), count, "no key is created");
    assert!(harness.env.account.accepts(&first), "the published key works");
    harness.env.grant_secret_access().await;
    // The back-off of a denial is five minutes; a change of the resource ends it.
    harness.env.request_retry("x", "granted").await;
    wait_settled(&harness.env, &first).await;
    harness.assert_invariants_and_idle(0).await;
}
