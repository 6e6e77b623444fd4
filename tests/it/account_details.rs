//! What it costs to see that nothing has changed: the details of an account are read once for all of its users, and
//! whatever they show is looked at anew before anything is done about it.

use std::time::Duration;

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Call, CallRecord, LogPosition, Rule, UserSnapshot};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, eventually};

const DETAILS: &str = "GetAccountAuthorizationDetails";
const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
const VIEW: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

/// Reads of one user that the details stand for.
const READS: [&str; 4] = ["GetUser", "ListAttachedUserPolicies", "ListUserPolicies", "ListGroupsForUser"];

fn spec(user: &str) -> Value {
    json!({"userName": user, "policies": {"managed": ["AmazonEC2FullAccess"]}})
}

/// Users that are Ready, and whose Secrets nobody looks at meanwhile.
async fn several(users: usize, arguments: &[&'static str]) -> TestEnv {
    let env = TestEnv::with_arguments(arguments).await;
    for number in 0..users {
        env.apply(&format!("u{number}"), spec(&format!("u{number}"))).await;
    }
    for number in 0..users {
        env.ready(&format!("u{number}")).await;
    }
    env
}

/// Waits until the details were read so often from now on, and gives all calls of that time.
async fn calls_while_read(env: &TestEnv, times: usize) -> Vec<CallRecord> {
    let start = env.aws.log().position();
    let mut from = start;
    for _ in 0..times {
        let call = |call: &CallRecord| call.action == DETAILS;
        env.aws.log().wait_since(from, "the details are read", TIMEOUT, call).await.expect("the operator compares");
        from = env.aws.log().position();
    }
    env.aws.log().calls_since(start)
}

fn of<'a>(calls: &'a [CallRecord], action: &str) -> Vec<&'a CallRecord> {
    calls.iter().filter(|call| call.action == action).collect()
}

/// Calls about this user since then, until the first that changes something.
fn reads_before_the_first_write(env: &TestEnv, since: LogPosition, user: &str) -> Vec<String> {
    let calls = env.aws.log().calls_since(since);
    let about = calls.into_iter().filter(|call| call.user.as_deref() == Some(user));
    about.take_while(|call| !call.mutating).map(|call| call.action).collect()
}

pub(crate) async fn unchanged_users_share_one_read() {
    let env = several(5, &["--resync=2s", "--key-check=1h"]).await;
    // What is remembered of their creation ends for all of them.
    calls_while_read(&env, 2).await;
    let calls = calls_while_read(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
    let paged = calls.iter().all(|call| call.params.get("MaxItems").is_some_and(|items| items == "1000"));
    assert!(paged && calls.iter().all(|call| call.params["Filter.member.1"] == "User"), "{calls:#?}");
    // Each round serves all five: one round in half a second of the resync's two at the most.
    let rounds = calls.windows(2).map(|pair| pair[1].started.duration_since(pair[0].started));
    // Half of that on a busy machine: it lets one call come late, and the next one in time.
    assert!(rounds.min().expect("several").as_millis() >= 250, "{calls:#?}");
}

pub(crate) async fn denied_users_cost_no_more_reads_than_others() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    let allowing = |policy: &str| json!({"policies": {"allowed": [policy]}, "onQuarantine": "Suspend"});
    let class = env.class("narrow", allowing(EC2)).await;
    for name in ["u0", "u1", "u2"] {
        let declared = json!({"className": class, "userName": name, "policies": {"managed": ["AmazonEC2FullAccess"]}});
        env.apply(name, declared).await;
        env.ready(name).await;
    }
    env.class("narrow", allowing(VIEW)).await;
    for name in ["u0", "u1", "u2"] {
        env.until_condition(name, ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;
    }
    calls_while_read(&env, 2).await;
    let calls = calls_while_read(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");

    // What takes the key of one of them is seen all the same, and looked at anew first.
    let mark = env.aws.log().position();
    env.aws.manual_changes().attach("u1", QUARANTINE).await.expect("AWS attaches it");
    env.until_iam("u1", "without an Active key", |user| user.active_keys().is_empty()).await;
    let reads = reads_before_the_first_write(&env, mark, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    // With all of it taken there is nothing to look for either, for as long as it may last.
    calls_while_read(&env, 2).await;
    let calls = calls_while_read(&env, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
}

pub(crate) async fn drift_in_account_details_is_confirmed_by_a_live_read() {
    let env = several(2, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&env, 2).await;
    let mark = env.aws.log().position();
    env.aws.manual_changes().detach("u1", EC2).await.expect("by hand");
    // To attach it again needs no fresh look by itself: it can be repeated, and undone.
    env.until_iam("u1", "as declared again", |user| user.attached.iter().eq([EC2])).await;
    let reads = reads_before_the_first_write(&env, mark, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    let others = env.aws.log().calls_since(mark);
    assert!(others.iter().all(|call| call.user.as_deref() != Some("u0")), "the other user is as it was: {others:#?}");
}

pub(crate) async fn stale_account_details_revert_nothing() {
    let env = several(1, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&env, 2).await;
    // From now on they tell how it was, as an eventually consistent service may.
    env.aws.rules().add(Rule::on(DETAILS).stale_read(Duration::from_hours(1)));
    calls_while_read(&env, 1).await;
    env.apply("u0", json!({"userName": "u0", "policies": {"managed": ["job-function/ViewOnlyAccess"]}})).await;
    env.until_iam("u0", "as declared now", |user| user.attached.iter().eq([VIEW])).await;
    env.ready("u0").await;
    let mark = env.aws.log().position();
    calls_while_read(&env, 3).await;
    let writes = env.aws.log().mutating_calls_since(mark);
    assert!(writes.is_empty(), "{writes:#?}");
    let live = env.aws.log().counts_since(mark);
    assert!(live.contains_key("ListAttachedUserPolicies"), "it was looked at: {live:?}");
}

pub(crate) async fn start_reads_all_users_once_and_spreads_key_lists() {
    let mut env = several(5, &["--resync=1h", "--key-check=1h"]).await;
    let mark = env.aws.log().position();
    env.operator.restart().await.expect("the operator restarts");
    let all = async || (env.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are looked at", all, || env.log()).await;
    let calls = env.aws.log().calls_since(mark);
    assert_eq!(of(&calls, DETAILS).len(), 1, "{calls:#?}");
    let asked: Vec<_> = calls.iter().filter(|call| call.action != DETAILS && call.service == "iam").collect();
    assert!(asked.is_empty(), "nothing else of IAM within the hour: {asked:#?}");
    for number in 0..5 {
        env.ready(&format!("u{number}")).await;
    }
}

pub(crate) async fn key_deleted_while_the_operator_is_down_is_noticed() {
    let mut env = several(1, &["--resync=1h", "--key-check=3s"]).await;
    let gone = env.published("u0").await;
    env.operator.stop(TIMEOUT).await;
    env.aws.manual_changes().delete_key("u0", &gone).await.expect("by hand");
    env.operator.restart().await.expect("the operator starts");
    env.until_published("u0", &gone).await;
}

pub(crate) async fn user_recreated_manually_is_not_served_from_the_cache() {
    let mut env = several(2, &["--resync=1h", "--key-check=1h"]).await;
    let tags = env.iam("u0").await.tags;
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    env.operator.stop(TIMEOUT).await;
    let manual_changes = env.aws.manual_changes();
    manual_changes.purge_user("u0").await.expect("by hand");
    let create = Call::iam("CreateUser").with("UserName", "u0").with("Path", "/awsdeploy/");
    manual_changes.call(&create.with_tags(tags)).await.expect("with the same name, the same marks, and no key");
    manual_changes.attach("u0", EC2).await.expect("and all that its details show");
    env.operator.restart().await.expect("the operator starts");
    // Its id tells: what the status says of its keys is about another one.
    let whole = |user: &UserSnapshot| user.attached.iter().eq([EC2]) && user.active_keys().len() == 1;
    env.until_iam("u0", "with a policy and a key", whole).await;
}

pub(crate) async fn denied_account_details_fall_back_to_reads_per_user() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    env.aws.rules().add(Rule::on(DETAILS).deny());
    env.apply("u0", spec("u0")).await;
    env.ready("u0").await;
    env.aws.log().wait_for_call("ListAttachedUserPolicies", 1, TIMEOUT).await.expect("it is read by itself");
    env.aws.manual_changes().detach("u0", EC2).await.expect("by hand");
    env.until_iam("u0", "as declared again", |user| user.attached.iter().eq([EC2])).await;
    let asked = env.aws.log().calls_of(DETAILS);
    assert_eq!(asked.len(), 1, "a refusal is not asked for again and again: {asked:#?}");
    assert!(env.log().contains("iam:GetAccountAuthorizationDetails"), "the log says what is missing");
    env.ready("u0").await;
}

pub(crate) async fn throttled_account_details_cause_no_burst_of_reads() {
    let env = several(5, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&env, 2).await;
    let mark = env.aws.log().position();
    let rule = env.aws.rules().add(Rule::on(DETAILS).throttle());
    let told = async || (env.count(r#"awsdeploy_reconciles_total{result="Throttled"}"#).await >= 5).then_some(());
    eventually("all five wait", told, || env.log()).await;
    let before = env.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await;
    let counts = env.aws.log().counts_since(mark);
    assert!(READS.iter().all(|read| !counts.contains_key(*read)), "{counts:?}");
    for number in 0..5 {
        // A pause is no outage.
        env.ready(&format!("u{number}")).await;
    }
    env.aws.rules().remove(rule);
    // What was known before is known still: they go on where they were.
    let mark = env.aws.log().position();
    let all = async || (env.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= before + 5).then_some(());
    eventually("all five are looked at", all, || env.log()).await;
    let counts = env.aws.log().counts_since(mark);
    assert!(counts.keys().all(|call| call == DETAILS), "{counts:?}");
}

pub(crate) async fn start_without_aws_causes_no_later_burst_of_reads() {
    let mut env = several(5, &["--resync=1h", "--key-check=1h"]).await;
    env.operator.stop(TIMEOUT).await;
    let rule = env.aws.rules().add(Rule::on("GetCallerIdentity").respond_with(AwsError::service_unavailable()));
    let mark = env.aws.log().position();
    env.operator.restart().await.expect("the operator starts");
    let told = async || (env.count(r#"awsdeploy_reconciles_total{result="AwsUnavailable"}"#).await >= 5).then_some(());
    eventually("all five wait", told, || env.log()).await;
    env.aws.rules().remove(rule);
    let all = async || (env.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are looked at", all, || env.log()).await;
    let counts = env.aws.log().counts_since(mark);
    assert_eq!(counts.get(DETAILS), Some(&1), "{counts:?}");
    assert!(READS.iter().all(|read| !counts.contains_key(*read)), "{counts:?}");
}
