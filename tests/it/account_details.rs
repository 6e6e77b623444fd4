//! Drift detection by account: `GetAccountAuthorizationDetails` is read once for all users, and drift that it shows is
//! confirmed by live reads before the operator acts.

use std::time::Duration;

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Call, CallRecord, LogPosition, Rule, UserSnapshot};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, eventually};

const DETAILS: &str = "GetAccountAuthorizationDetails";
const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
const VIEW: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

/// Reads of one user that the details replace.
const READS: [&str; 4] = ["GetUser", "ListAttachedUserPolicies", "ListUserPolicies", "ListGroupsForUser"];

fn spec(user: &str) -> Value {
    json!({"userName": user, "policies": {"managed": ["AmazonEC2FullAccess"]}})
}

/// Starts an operator with `users` Ready users, without periodic checks of their Secrets.
async fn ready_users(users: usize, arguments: &[&'static str]) -> TestEnv {
    let env = TestEnv::with_arguments(arguments).await;
    for number in 0..users {
        env.apply(&format!("u{number}"), spec(&format!("u{number}"))).await;
    }
    for number in 0..users {
        env.wait_ready(&format!("u{number}")).await;
    }
    env
}

/// Waits for `times` more reads of the details. Returns all calls meanwhile.
async fn calls_during_reads(env: &TestEnv, times: usize) -> Vec<CallRecord> {
    let start = env.aws.log().position();
    let mut from = start;
    for _ in 0..times {
        let call = |call: &CallRecord| call.action == DETAILS;
        env.aws
            .log()
            .wait_since(from, "the details are read", TIMEOUT, call)
            .await
            .expect("the operator checks for drift");
        from = env.aws.log().position();
    }
    env.aws.log().calls_since(start)
}

fn calls_of<'a>(calls: &'a [CallRecord], action: &str) -> Vec<&'a CallRecord> {
    calls.iter().filter(|call| call.action == action).collect()
}

/// Calls about the user since the position, up to the first mutating one.
fn reads_before_the_first_write(env: &TestEnv, since: LogPosition, user: &str) -> Vec<String> {
    let calls = env.aws.log().calls_since(since);
    let about = calls.into_iter().filter(|call| call.user.as_deref() == Some(user));
    about.take_while(|call| !call.mutating).map(|call| call.action).collect()
}

pub(crate) async fn unchanged_users_share_one_read() {
    let env = ready_users(5, &["--resync=2s", "--key-check=1h"]).await;
    // The observations of the creation expire for all users.
    calls_during_reads(&env, 2).await;
    let calls = calls_during_reads(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
    let paged = calls.iter().all(|call| call.params.get("MaxItems").is_some_and(|items| items == "1000"));
    assert!(paged && calls.iter().all(|call| call.params["Filter.member.1"] == "User"), "{calls:#?}");
    // Each read serves all five users: at most one read per half second within the resync of two seconds.
    let rounds = calls.windows(2).map(|pair| pair[1].started.duration_since(pair[0].started));
    // On a busy machine one call may be late and the next one on time, so half of that is allowed.
    assert!(rounds.min().expect("several").as_millis() >= 250, "{calls:#?}");
}

pub(crate) async fn denied_users_cost_no_more_reads_than_others() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    let allowing = |policy: &str| json!({"policies": {"allowed": [policy]}, "onQuarantine": "Revoke"});
    let class = env.apply_class("narrow", allowing(EC2)).await;
    for name in ["u0", "u1", "u2"] {
        let declared = json!({"className": class, "userName": name, "policies": {"managed": ["AmazonEC2FullAccess"]}});
        env.apply(name, declared).await;
        env.wait_ready(name).await;
    }
    env.apply_class("narrow", allowing(VIEW)).await;
    for name in ["u0", "u1", "u2"] {
        env.wait_for_condition(name, ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;
    }
    calls_during_reads(&env, 2).await;
    let calls = calls_during_reads(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");

    // Drift that revokes a key is still detected, and confirmed by live reads first.
    let position = env.aws.log().position();
    env.aws.manual_changes().attach("u1", QUARANTINE).await.expect("AWS attaches it");
    env.wait_for_iam("u1", "without an Active key", |user| user.active_keys().is_empty()).await;
    let reads = reads_before_the_first_write(&env, position, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    // A revoked user needs no further reads either.
    calls_during_reads(&env, 2).await;
    let calls = calls_during_reads(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
}

pub(crate) async fn drift_in_account_details_is_confirmed_by_a_live_read() {
    let env = ready_users(2, &["--resync=2s", "--key-check=1h"]).await;
    calls_during_reads(&env, 2).await;
    let position = env.aws.log().position();
    env.aws.manual_changes().detach("u1", EC2).await.expect("manually");
    // Attaching is idempotent and reversible, so by itself it needs no live read.
    env.wait_for_iam("u1", "corrected", |user| user.attached.iter().eq([EC2])).await;
    let reads = reads_before_the_first_write(&env, position, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    let others = env.aws.log().calls_since(position);
    assert!(
        others.iter().all(|call| call.user.as_deref() != Some("u0")),
        "the other user is not affected: {others:#?}"
    );
}

pub(crate) async fn stale_account_details_revert_nothing() {
    let env = ready_users(1, &["--resync=2s", "--key-check=1h"]).await;
    calls_during_reads(&env, 2).await;
    // The details are stale from here on, as IAM is eventually consistent.
    env.aws.rules().add(Rule::on(DETAILS).stale_read(Duration::from_hours(1)));
    calls_during_reads(&env, 1).await;
    env.apply("u0", json!({"userName": "u0", "policies": {"managed": ["job-function/ViewOnlyAccess"]}})).await;
    env.wait_for_iam("u0", "as declared", |user| user.attached.iter().eq([VIEW])).await;
    env.wait_ready("u0").await;
    let position = env.aws.log().position();
    calls_during_reads(&env, 3).await;
    let writes = env.aws.log().mutating_calls_since(position);
    assert!(writes.is_empty(), "{writes:#?}");
    let live = env.aws.log().counts_since(position);
    assert!(live.contains_key("ListAttachedUserPolicies"), "live reads: {live:?}");
}

pub(crate) async fn start_reads_all_users_once_and_spreads_key_lists() {
    let mut env = ready_users(5, &["--resync=1h", "--key-check=1h"]).await;
    let position = env.aws.log().position();
    env.operator.restart().await.expect("the operator restarts");
    let all = async || (env.metric_count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are reconciled", all, || env.log()).await;
    let calls = env.aws.log().calls_since(position);
    assert_eq!(calls_of(&calls, DETAILS).len(), 1, "{calls:#?}");
    let calls: Vec<_> = calls.iter().filter(|call| call.action != DETAILS && call.service == "iam").collect();
    assert!(calls.is_empty(), "no other IAM call within the hour: {calls:#?}");
    for number in 0..5 {
        env.wait_ready(&format!("u{number}")).await;
    }
}

pub(crate) async fn key_deleted_while_the_operator_is_down_is_noticed() {
    let mut env = ready_users(1, &["--resync=1h", "--key-check=3s"]).await;
    let deleted = env.published_key("u0").await;
    env.operator.stop(TIMEOUT).await;
    env.aws.manual_changes().delete_key("u0", &deleted).await.expect("manually");
    env.operator.restart().await.expect("the operator starts");
    env.wait_published("u0", &deleted).await;
}

pub(crate) async fn user_recreated_manually_is_not_served_from_the_cache() {
    let mut env = ready_users(2, &["--resync=1h", "--key-check=1h"]).await;
    let tags = env.iam("u0").await.tags;
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    env.operator.stop(TIMEOUT).await;
    let manual_changes = env.aws.manual_changes();
    manual_changes.purge_user("u0").await.expect("manually");
    let create = Call::iam("CreateUser").with("UserName", "u0").with("Path", "/awsdeploy/");
    manual_changes.call(&create.with_tags(tags)).await.expect("with the same name and ownership tags, and no key");
    manual_changes.attach("u0", EC2).await.expect("and the same details");
    env.operator.restart().await.expect("the operator starts");
    // The user id differs, so the keys in the status belong to another user.
    let whole = |user: &UserSnapshot| user.attached.iter().eq([EC2]) && user.active_keys().len() == 1;
    env.wait_for_iam("u0", "with a policy and a key", whole).await;
}

pub(crate) async fn denied_account_details_fall_back_to_reads_per_user() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    env.aws.rules().add(Rule::on(DETAILS).deny());
    env.apply("u0", spec("u0")).await;
    env.wait_ready("u0").await;
    env.aws.log().wait_for_call("ListAttachedUserPolicies", 1, TIMEOUT).await.expect("the user is read");
    env.aws.manual_changes().detach("u0", EC2).await.expect("manually");
    env.wait_for_iam("u0", "corrected", |user| user.attached.iter().eq([EC2])).await;
    let calls = env.aws.log().calls_of(DETAILS);
    assert_eq!(calls.len(), 1, "a refused call is not repeated: {calls:#?}");
    assert!(env.log().contains("iam:GetAccountAuthorizationDetails"), "the log names the missing permission");
    env.wait_ready("u0").await;
}

pub(crate) async fn throttled_account_details_stop_no_repair() {
    // Long enough that the Secret is repaired between the first resync and the second one.
    let env = ready_users(5, &["--resync=20s", "--key-check=1h"]).await;
    let position = env.aws.log().position();
    env.aws.rules().add(Rule::on(DETAILS).throttle());
    let throttled = |call: &CallRecord| call.action == DETAILS;
    env.aws.log().wait_since(position, "a throttled read", TIMEOUT, throttled).await.expect("the facts expire");
    let first = env.published_key("u0").await;
    env.secrets().delete("u0", &DeleteParams::default()).await.expect("the Secret is deleted");
    env.wait_published("u0", &first).await;
    let calls = env.aws.log().calls_since(position);
    let attempts = calls_of(&calls, DETAILS).len();
    assert!(attempts <= 3, "the attempts of one call, and no other for a minute: {calls:#?}");
    let of_others = calls.iter().filter(|call| READS.contains(&call.action.as_str()));
    let of_others = of_others.filter(|call| call.user.as_deref() != Some("u0")).count();
    assert_eq!(of_others, 0, "no other user is read: {calls:#?}");

    // Facts of two resyncs ago prove nothing: users are read one by one, although the listing may not be tried again yet.
    let read = |call: &CallRecord| call.action == "GetUser" && call.user.as_deref() == Some("u4");
    env.aws.log().wait_since(position, "a read of one user", TIMEOUT, read).await.expect("it is read by itself");
    let attempts = env.aws.log().calls_since(position);
    assert!(calls_of(&attempts, DETAILS).len() <= 3, "before the listing is tried again: {attempts:#?}");
    for number in 0..5 {
        env.wait_ready(&format!("u{number}")).await;
    }
}

pub(crate) async fn start_without_aws_causes_no_later_burst_of_reads() {
    let mut env = ready_users(5, &["--resync=1h", "--key-check=1h"]).await;
    env.operator.stop(TIMEOUT).await;
    let rule = env.aws.rules().add(Rule::on("GetCallerIdentity").respond_with(AwsError::service_unavailable()));
    let position = env.aws.log().position();
    env.operator.restart().await.expect("the operator starts");
    let reported =
        async || (env.metric_count(r#"awsdeploy_reconciles_total{result="AwsUnavailable"}"#).await >= 5).then_some(());
    eventually("all five back off", reported, || env.log()).await;
    env.aws.rules().remove(rule);
    let all = async || (env.metric_count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are reconciled", all, || env.log()).await;
    let counts = env.aws.log().counts_since(position);
    assert_eq!(counts.get(DETAILS), Some(&1), "{counts:?}");
    assert!(READS.iter().all(|read| !counts.contains_key(*read)), "{counts:?}");
}
