//! What it costs to see that nothing has changed: the details of an account are read once for all of its users, and
//! whatever they show is looked at anew before anything is done about it.

use std::time::Duration;

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Call, CallRecord, Mark, Rule, UserTruth};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, eventually};

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
async fn several(users: usize, arguments: &[&'static str]) -> Stage {
    let stage = Stage::with_arguments(arguments).await;
    for number in 0..users {
        stage.apply(&format!("u{number}"), spec(&format!("u{number}"))).await;
    }
    for number in 0..users {
        stage.ready(&format!("u{number}")).await;
    }
    stage
}

/// Waits until the details were read so often from now on, and gives all calls of that time.
async fn calls_while_read(stage: &Stage, times: usize) -> Vec<CallRecord> {
    let start = stage.aws.log().mark();
    let mut from = start;
    for _ in 0..times {
        let call = |call: &CallRecord| call.action == DETAILS;
        stage.aws.log().wait_since(from, "the details are read", SOON, call).await.expect("the operator compares");
        from = stage.aws.log().mark();
    }
    stage.aws.log().calls_since(start)
}

fn of<'a>(calls: &'a [CallRecord], action: &str) -> Vec<&'a CallRecord> {
    calls.iter().filter(|call| call.action == action).collect()
}

/// Calls about this user since then, until the first that changes something.
fn reads_before_the_first_write(stage: &Stage, since: Mark, user: &str) -> Vec<String> {
    let calls = stage.aws.log().calls_since(since);
    let about = calls.into_iter().filter(|call| call.user.as_deref() == Some(user));
    about.take_while(|call| !call.mutating).map(|call| call.action).collect()
}

pub(crate) async fn users_that_are_as_they_were_cost_one_read_for_all_of_them() {
    let stage = several(5, &["--resync=2s", "--key-check=1h"]).await;
    // What is remembered of their creation ends for all of them.
    calls_while_read(&stage, 2).await;
    let calls = calls_while_read(&stage, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
    let paged = calls.iter().all(|call| call.params.get("MaxItems").is_some_and(|items| items == "1000"));
    assert!(paged && calls.iter().all(|call| call.params["Filter.member.1"] == "User"), "{calls:#?}");
    // Each round serves all five: one round in half a second of the resync's two at the most.
    let rounds = calls.windows(2).map(|pair| pair[1].started.duration_since(pair[0].started));
    // Half of that on a busy machine: it lets one call come late, and the next one in time.
    assert!(rounds.min().expect("several").as_millis() >= 250, "{calls:#?}");
}

pub(crate) async fn users_that_a_class_has_frozen_cost_no_more_than_others() {
    let stage = Stage::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    let allowing = |policy: &str| json!({"policies": {"allowed": [policy]}, "onQuarantine": "Suspend"});
    let class = stage.class("narrow", allowing(EC2)).await;
    for name in ["u0", "u1", "u2"] {
        let declared = json!({"className": class, "userName": name, "policies": {"managed": ["AmazonEC2FullAccess"]}});
        stage.apply(name, declared).await;
        stage.ready(name).await;
    }
    stage.class("narrow", allowing(VIEW)).await;
    for name in ["u0", "u1", "u2"] {
        stage.until_condition(name, ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;
    }
    calls_while_read(&stage, 2).await;
    let calls = calls_while_read(&stage, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");

    // What takes the key of one of them is seen all the same, and looked at anew first.
    let mark = stage.aws.log().mark();
    stage.aws.human().attach("u1", QUARANTINE).await.expect("AWS attaches it");
    stage.until_iam("u1", "without an Active key", |user| user.active_keys().is_empty()).await;
    let reads = reads_before_the_first_write(&stage, mark, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    // With all of it taken there is nothing to look for either, for as long as it may last.
    calls_while_read(&stage, 2).await;
    let calls = calls_while_read(&stage, 4).await;
    assert!(calls.iter().all(|call| call.action == DETAILS), "{calls:#?}");
}

pub(crate) async fn what_the_details_show_is_looked_at_anew_before_it_is_mended() {
    let stage = several(2, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&stage, 2).await;
    let mark = stage.aws.log().mark();
    stage.aws.human().detach("u1", EC2).await.expect("by hand");
    // To attach it again needs no fresh look by itself: it can be repeated, and undone.
    stage.until_iam("u1", "as declared again", |user| user.attached.iter().eq([EC2])).await;
    let reads = reads_before_the_first_write(&stage, mark, "u1");
    assert!(READS.iter().all(|read| reads.iter().any(|seen| seen == read)), "{reads:?}");
    let others = stage.aws.log().calls_since(mark);
    assert!(others.iter().all(|call| call.user.as_deref() != Some("u0")), "the other user is as it was: {others:#?}");
}

pub(crate) async fn details_of_before_a_change_undo_nothing() {
    let stage = several(1, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&stage, 2).await;
    // From now on they tell how it was, as an eventually consistent service may.
    stage.aws.rules().add(Rule::on(DETAILS).stale_read(Duration::from_hours(1)));
    calls_while_read(&stage, 1).await;
    stage.apply("u0", json!({"userName": "u0", "policies": {"managed": ["job-function/ViewOnlyAccess"]}})).await;
    stage.until_iam("u0", "as declared now", |user| user.attached.iter().eq([VIEW])).await;
    stage.ready("u0").await;
    let mark = stage.aws.log().mark();
    calls_while_read(&stage, 3).await;
    let writes = stage.aws.log().mutating_calls_since(mark);
    assert!(writes.is_empty(), "{writes:#?}");
    let live = stage.aws.log().counts_since(mark);
    assert!(live.contains_key("ListAttachedUserPolicies"), "it was looked at: {live:?}");
}

pub(crate) async fn a_new_start_asks_once_for_all_and_lists_the_keys_in_the_course_of_time() {
    let mut stage = several(5, &["--resync=1h", "--key-check=1h"]).await;
    let mark = stage.aws.log().mark();
    stage.operator.restart().await.expect("the operator restarts");
    let all = async || (stage.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are looked at", all, || stage.log()).await;
    let calls = stage.aws.log().calls_since(mark);
    assert_eq!(of(&calls, DETAILS).len(), 1, "{calls:#?}");
    let asked: Vec<_> = calls.iter().filter(|call| call.action != DETAILS && call.service == "iam").collect();
    assert!(asked.is_empty(), "nothing else of IAM within the hour: {asked:#?}");
    for number in 0..5 {
        stage.ready(&format!("u{number}")).await;
    }
}

pub(crate) async fn a_key_that_went_while_the_operator_was_away_is_found_missing() {
    let mut stage = several(1, &["--resync=1h", "--key-check=3s"]).await;
    let gone = stage.published("u0").await;
    stage.operator.stop(SOON).await;
    stage.aws.human().delete_key("u0", &gone).await.expect("by hand");
    stage.operator.restart().await.expect("the operator starts");
    stage.until_published("u0", &gone).await;
}

pub(crate) async fn a_user_that_was_made_again_by_hand_is_no_user_that_was_known() {
    let mut stage = several(2, &["--resync=1h", "--key-check=1h"]).await;
    let tags = stage.iam("u0").await.tags;
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    stage.operator.stop(SOON).await;
    let human = stage.aws.human();
    human.purge_user("u0").await.expect("by hand");
    let create = Call::iam("CreateUser").with("UserName", "u0").with("Path", "/awsdeploy/");
    human.call(&create.with_tags(tags)).await.expect("with the same name, the same marks, and no key");
    human.attach("u0", EC2).await.expect("and all that its details show");
    stage.operator.restart().await.expect("the operator starts");
    // Its id tells: what the status says of its keys is about another one.
    let whole = |user: &UserTruth| user.attached.iter().eq([EC2]) && user.active_keys().len() == 1;
    stage.until_iam("u0", "with a policy and a key", whole).await;
}

pub(crate) async fn where_aws_refuses_the_details_each_user_is_read_by_itself() {
    let stage = Stage::with_arguments(&["--resync=2s", "--key-check=1h"]).await;
    stage.aws.rules().add(Rule::on(DETAILS).deny());
    stage.apply("u0", spec("u0")).await;
    stage.ready("u0").await;
    stage.aws.log().wait_for_call("ListAttachedUserPolicies", 1, SOON).await.expect("it is read by itself");
    stage.aws.human().detach("u0", EC2).await.expect("by hand");
    stage.until_iam("u0", "as declared again", |user| user.attached.iter().eq([EC2])).await;
    let asked = stage.aws.log().calls_of(DETAILS);
    assert_eq!(asked.len(), 1, "a refusal is not asked for again and again: {asked:#?}");
    assert!(stage.log().contains("iam:GetAccountAuthorizationDetails"), "the log says what is missing");
    stage.ready("u0").await;
}

pub(crate) async fn a_throttled_read_for_all_is_no_storm_of_reads_for_each() {
    let stage = several(5, &["--resync=2s", "--key-check=1h"]).await;
    calls_while_read(&stage, 2).await;
    let mark = stage.aws.log().mark();
    let rule = stage.aws.rules().add(Rule::on(DETAILS).throttle());
    let told = async || (stage.count(r#"awsdeploy_reconciles_total{result="Throttled"}"#).await >= 5).then_some(());
    eventually("all five wait", told, || stage.log()).await;
    let before = stage.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await;
    let counts = stage.aws.log().counts_since(mark);
    assert!(READS.iter().all(|read| !counts.contains_key(*read)), "{counts:?}");
    for number in 0..5 {
        // A pause is no outage.
        stage.ready(&format!("u{number}")).await;
    }
    stage.aws.rules().remove(rule);
    // What was known before is known still: they go on where they were.
    let mark = stage.aws.log().mark();
    let all = async || (stage.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= before + 5).then_some(());
    eventually("all five are looked at", all, || stage.log()).await;
    let counts = stage.aws.log().counts_since(mark);
    assert!(counts.keys().all(|call| call == DETAILS), "{counts:?}");
}

pub(crate) async fn a_start_without_a_way_to_aws_is_no_storm_of_reads_later() {
    let mut stage = several(5, &["--resync=1h", "--key-check=1h"]).await;
    stage.operator.stop(SOON).await;
    let rule = stage.aws.rules().add(Rule::on("GetCallerIdentity").answer(AwsError::service_unavailable()));
    let mark = stage.aws.log().mark();
    stage.operator.restart().await.expect("the operator starts");
    let told =
        async || (stage.count(r#"awsdeploy_reconciles_total{result="AwsUnavailable"}"#).await >= 5).then_some(());
    eventually("all five wait", told, || stage.log()).await;
    stage.aws.rules().remove(rule);
    let all = async || (stage.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 5).then_some(());
    eventually("all five are looked at", all, || stage.log()).await;
    let counts = stage.aws.log().counts_since(mark);
    assert_eq!(counts.get(DETAILS), Some(&1), "{counts:?}");
    assert!(READS.iter().all(|read| !counts.contains_key(*read)), "{counts:?}");
}
