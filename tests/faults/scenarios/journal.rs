//! Journals that cannot be read, and Secrets that cannot be written.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::Rule;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::PostParams;
use serde_json::Value;

use super::Play;
use crate::{
    operation::{RECOVERY, settled},
    test_env::{TestEnv, message},
};

const JOURNAL: &str = "x.awsdeploy-journal";

/// Writes the format number of the journal, as a version of another time would have.
async fn set_format(env: &TestEnv, format: u32) {
    let mut secret: Secret = env.secrets().get(JOURNAL).await.expect("the journal");
    let data = secret.data.as_mut().expect("data");
    let mut journal: Value = serde_json::from_slice(&data["journal"].0).expect("a journal");
    journal["format"] = Value::from(format);
    data.insert("journal".to_owned(), ByteString(serde_json::to_vec(&journal).expect("JSON")));
    env.secrets().replace(JOURNAL, &PostParams::default(), &secret).await.expect("the journal is written");
}

pub(super) async fn unknown_journal_format_is_not_touched() {
    let (mut play, first) = Play::with_a_key().await;
    let checked = play.env.aws.rules().pause(Rule::on("GetCallerIdentity").from(1).before());
    play.rotate("now").await;
    assert!(checked.wait_until_held(RECOVERY).await, "a new key is being verified");
    play.env.operator.kill().await;
    checked.abort();
    play.env.aws.rules().clear();
    set_format(&play.env, 99).await;
    let mark = play.env.aws.log().position();
    play.env.operator.restart().await.expect("the operator comes back");
    let user =
        play.env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::UnknownJournal)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("99"), "{user:#?}");
    let violations = play.auditor.check_idle(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(play.env.aws.log().mutating_calls_since(mark).is_empty(), "nothing is written in AWS");
    assert_eq!(play.env.published("x").await, first);
    assert!(play.env.account.accepts(&first), "the published key works");
    // The operator that knows the format is back.
    set_format(&play.env, 1).await;
    settled(&play.env, &first).await;
    play.holds(0).await;
}

pub(super) async fn no_key_is_created_without_secret_access() {
    let (play, first) = Play::with_a_key().await;
    let made = play.keys_made();
    play.env.revoke_access().await;
    play.rotate("now").await;
    let user = play
        .env
        .until_condition("x", ConditionType::RotationHealthy, "Unknown", Some(Reason::SecretAccessDenied))
        .await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("kubectl"), "{user:#?}");
    assert_eq!(play.keys_made(), made, "no key is made");
    assert!(play.env.account.accepts(&first), "the published key works");
    play.env.grant_secret_access().await;
    // The back-off of a denial is five minutes; whoever grants it may also touch the resource.
    play.env.annotate("x", "granted", "yes").await;
    settled(&play.env, &first).await;
    play.holds(0).await;
}
