//! What goes wrong in AWS, class by class: told under its reason, and never taken for something else.

use std::time::Duration;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use awsdeploy_testkit::{
    aws_proxy::{AwsError, Call, CallRecord, LogPosition, Rule},
    kube_proxy::KubeRule,
};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, condition, eventually, message};

/// A fault, put on a call, the reason it is told under, and whether it goes away by itself.
type Fault = (&'static str, fn(Rule) -> Rule, Reason, bool);

const FAULTS: &[Fault] = &[
    ("throttling", |rule| rule.throttle(), Reason::Throttled, true),
    ("a denial", |rule| rule.deny(), Reason::AccessDenied, false),
    ("a busy user", |rule| rule.respond_with(AwsError::entity_temporarily_unmodifiable()), Reason::Conflict, true),
    ("a change by another", |rule| rule.respond_with(AwsError::concurrent_modification()), Reason::Conflict, true),
    (
        "a quota",
        |rule| rule.respond_with(AwsError::limit_exceeded("Cannot exceed quota".to_owned())),
        Reason::LimitExceeded,
        false,
    ),
    (
        "a malformed document",
        |rule| rule.respond_with(AwsError::new(400, "MalformedPolicyDocument", "Syntax errors")),
        Reason::MalformedPolicy,
        false,
    ),
    (
        "a conflict on deletion",
        |rule| rule.respond_with(AwsError::delete_conflict("must")),
        Reason::InvalidRequest,
        false,
    ),
    ("an invalid request", |rule| rule.respond_with(AwsError::validation("no")), Reason::InvalidRequest, false),
    (
        "credentials unknown to AWS",
        |rule| rule.respond_with(AwsError::invalid_client_token()),
        Reason::OperatorCredentials,
        false,
    ),
    ("an expired token", |rule| rule.respond_with(expired_token()), Reason::OperatorCredentials, false),
    ("a clock that is off", |rule| rule.request_expired(), Reason::ClockSkew, false),
    ("a fault of AWS", |rule| rule.respond_with(AwsError::service_failure()), Reason::AwsUnavailable, true),
    ("a page of HTML", |rule| rule.html_500(), Reason::AwsUnavailable, true),
    ("a cut connection", |rule| rule.drop_connection(), Reason::AwsUnavailable, true),
];

/// The reads of a pass over a user with everything declared.
const READS: [&str; 7] = [
    "GetUser",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
    "ListUserPolicies",
    "GetUserPolicy",
    "ListGroupsForUser",
    "GetLoginProfile",
];

/// Longer than the operator waits for an answer.
const SILENCE: Duration = Duration::from_mins(1);

/// The operator waits ten seconds for an answer to a call that must not be repeated, and then five for the next attempt.
const PAUSED: jiff::SignedDuration = jiff::SignedDuration::from_secs(14);

fn expired_token() -> AwsError {
    AwsError::new(403, "ExpiredToken", "The security token included in the request is expired")
}

fn inline() -> Value {
    json!([{"name": "own", "document": {"Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]}}])
}

/// The user with everything that a pass reads.
fn whole(user: &str) -> Value {
    json!({"userName": user, "accessKey": {}, "console": {}, "groups": ["deployers"],
        "policies": {"managed": ["AmazonEC2FullAccess"], "inline": inline()}})
}

fn writes_about(env: &TestEnv, user: &str, mark: LogPosition) -> Vec<CallRecord> {
    let writes = env.aws.log().mutating_calls_since(mark);
    writes.into_iter().filter(|call| call.user.as_deref() == Some(user)).collect()
}

fn synced_as(status: &'static str, reason: Option<Reason>) -> impl Fn(&AwsDeployUser) -> bool {
    move |user| {
        condition(user, ConditionType::UserSynced).is_some_and(|synced| {
            synced.status == status && reason.is_none_or(|reason| synced.reason == reason.as_str())
        })
    }
}

/// Waits until an action fails.
async fn failed(env: &TestEnv, mark: LogPosition, action: &str) {
    let failed = |call: &CallRecord| call.action == action && call.status.is_none_or(|status| status >= 400);
    env.aws.log().wait_since(mark, &format!("{action} fails"), TIMEOUT, failed).await.expect("it fails");
}

/// Each read of a pass fails in each way: the reason is told, Ready stays through what passes, and nothing is written that
/// would be right if what was asked for did not exist.
pub(crate) async fn failed_read_is_reported_and_causes_no_write() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--account-details=false"]).await;
    env.aws.manual_changes().create_group("deployers").await.expect("a group");
    // Throttling slows every call down; it has a test of its own below.
    let faults: Vec<&Fault> = FAULTS.iter().filter(|(_, _, reason, _)| *reason != Reason::Throttled).collect();
    join_all(faults.into_iter().enumerate().map(|(number, fault)| fail_each_read(&env, number, fault))).await;
}

async fn fail_each_read(env: &TestEnv, number: usize, (what, fault, reason, passing): &Fault) {
    let (name, user) = (format!("x{number}"), format!("u{number}"));
    env.apply(&name, whole(&user)).await;
    env.ready(&name).await;
    let key = env.published(&name).await;
    for read in READS {
        let mark = env.aws.log().position();
        let rule = env.aws.rules().add(fault(Rule::on(read).user(&user)));
        let seen = env.until(&name, &format!("told of {what} on {read}"), synced_as("Unknown", Some(*reason))).await;
        let told = message(&seen, ConditionType::UserSynced);
        assert!(told.contains(read), "{what}: which action: {told}");
        if *reason == Reason::AccessDenied {
            assert!(told.contains(&format!("can allow iam:{read}")), "{told}");
        }
        let ready = condition(&seen, ConditionType::Ready).expect("Ready");
        assert_eq!(ready.status == "True", *passing, "{what} on {read}: {}", ready.message);
        env.aws.rules().remove(rule);
        // A change of the manifest is a new chance, without the pause.
        env.annotate(&name, "look", &format!("{read} works")).await;
        env.until(&name, &format!("well again after {what} on {read}"), synced_as("True", None)).await;
        let writes = writes_about(env, &user, mark);
        assert!(writes.is_empty(), "{what} on {read} was taken for an absence: {writes:#?}");
    }
    assert_eq!(env.published(&name).await, key, "{what}");
}

pub(crate) async fn throttled_read_backs_off_and_causes_no_write() {
    let env = TestEnv::with_arguments(&["--resync=300ms", "--secret-check=300ms", "--account-details=false"]).await;
    env.apply("x", json!({"userName": "u"})).await;
    env.ready("x").await;
    let mark = env.aws.log().position();
    let rule = env.aws.rules().add(Rule::on("GetUser").throttle());
    let user = env.until("x", "told of the throttling", synced_as("Unknown", Some(Reason::Throttled))).await;
    assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    env.aws.rules().remove(rule);
    env.annotate("x", "look", "again").await;
    env.until("x", "well again", synced_as("True", None)).await;
    assert!(writes_about(&env, "u", mark).is_empty());
}

/// Reads that happen once in a process.
pub(crate) async fn failed_caller_identity_blocks_all_calls() {
    let env = TestEnv::new().await;
    let first = ["GetCallerIdentity", "GetAccountPasswordPolicy", "ListAccountAliases"];
    let rules = first.map(|read| (read, env.aws.rules().add(Rule::on(read).html_500())));
    env.apply("x", json!({"userName": "u", "console": {}})).await;
    for (read, rule) in rules {
        let mark = env.aws.log().position();
        env.annotate("x", "look", read).await;
        failed(&env, mark, read).await;
        env.until("x", "told", |user| message(user, ConditionType::UserSynced).contains(read)).await;
        assert!(env.secret("x-console").await.is_none(), "{read}: a password for an unknown sign-in");
        let writes = env.aws.log().mutating_calls_since(mark);
        let harmless = |call: &CallRecord| matches!(call.action.as_str(), "CreateUser" | "AttachUserPolicy");
        assert!(read == "ListAccountAliases" || writes.is_empty(), "{read}: {writes:#?}");
        assert!(writes.iter().all(harmless), "{read}: {writes:#?}");
        env.aws.rules().remove(rule);
    }
    env.annotate("x", "look", "again").await;
    env.ready("x").await;
}

/// What is asked only when a name is taken.
pub(crate) async fn user_with_unreadable_tags_is_not_claimed() {
    let env = TestEnv::new().await;
    env.aws.manual_changes().create_user("Taken").await.expect("somebody's user");
    let rule = env.aws.rules().add(Rule::on("ListUsers").html_500());
    env.apply("x", json!({"userName": "taken"})).await;
    failed(&env, LogPosition::default(), "ListUsers").await;
    env.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(env.aws.log().select(|call| call.mutating && call.committed).is_empty());
    env.aws.rules().remove(rule);
    env.annotate("x", "look", "again").await;
    env.until("x", "told whose it is", |user| message(user, ConditionType::UserSynced).contains("IAM user Taken"))
        .await;
    assert!(env.secret("x").await.is_none());
}

/// What is asked only when two keys of ours are lost and one has to make room.
pub(crate) async fn key_with_unreadable_last_use_is_not_deleted() {
    let env = TestEnv::new().await;
    let rotation = json!({"every": "Never", "overlap": "1h"});
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": rotation}})).await;
    env.ready("x").await;
    let one = env.published("x").await;
    env.annotate("x", "awsdeploy.dev/rotate", "1").await;
    let two = env.until_published("x", &one).await;
    env.until("x", "at rest", |user| user.status.as_ref().is_some_and(|status| status.access_keys.len() == 2)).await;
    let rule = env.aws.rules().add(Rule::on("GetAccessKeyLastUsed").deny());
    let mark = env.aws.log().position();
    env.secrets().delete("x", &kube::api::DeleteParams::default()).await.expect("by hand");
    failed(&env, mark, "GetAccessKeyLastUsed").await;
    let user = env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AccessDenied)).await;
    let told = message(&user, ConditionType::RotationHealthy);
    assert!(told.contains("can allow iam:GetAccessKeyLastUsed"), "{told}");
    assert!(env.account.accepts(&one) && env.account.accepts(&two), "neither is given up on a guess");
    assert!(writes_about(&env, "u", mark).is_empty());
    env.aws.rules().remove(rule);
    env.annotate("x", "look", "again").await;
    env.ready("x").await;
    assert_eq!(env.iam("u").await.keys.len(), 2);
}

/// What is asked only when AWS refuses to delete a user.
pub(crate) async fn deletion_stops_when_remaining_objects_are_unreadable() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "accessKey": {}})).await;
    env.ready("x").await;
    let manual_changes = env.aws.manual_changes();
    manual_changes.create_login_profile("u", "correct-Horse-7").await.expect("by hand");
    let credential = Call::iam("CreateServiceSpecificCredential").with("UserName", "u");
    manual_changes
        .call(&credential.with("ServiceName", "codecommit.amazonaws.com"))
        .await
        .expect("a credential for git");
    let reads = [
        "GetLoginProfile",
        "ListMFADevices",
        "ListSigningCertificates",
        "ListSSHPublicKeys",
        "ListServiceSpecificCredentials",
        "ListAttachedUserPolicies",
    ];
    let mut rule = env.aws.rules().add(Rule::on(reads[0]).deny());
    env.delete("x").await;
    for (number, read) in reads.into_iter().enumerate() {
        failed(&env, LogPosition::default(), read).await;
        let user =
            env.until("x", "told", |user| message(user, ConditionType::Ready).contains(&format!("iam:{read}"))).await;
        assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("False"), "{read}");
        let iam = env.iam("u").await;
        assert!(iam.login_profile.is_some() && iam.service_credentials.len() == 1, "{read}");
        env.aws.rules().remove(rule);
        if let Some(next) = reads.get(number + 1) {
            rule = env.aws.rules().add(Rule::on(next).deny());
            env.annotate("x", "look", next).await;
        }
    }
    env.annotate("x", "look", "again").await;
    env.gone("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

/// A write fails in each way: its class and reason are told, and the key in the Secret stays.
pub(crate) async fn denied_write_is_reported_with_its_reason() {
    let env = TestEnv::new().await;
    for (number, (what, fault, reason, passing)) in FAULTS.iter().enumerate() {
        let (name, user) = (format!("x{number}"), format!("u{number}"));
        let spec = json!({"userName": user, "policies": {"inline": inline()}});
        let rule = env.aws.rules().add(fault(Rule::on("PutUserPolicy").user(&user)));
        env.apply(&name, spec).await;
        let seen = env.until_condition(&name, ConditionType::UserSynced, "False", Some(*reason)).await;
        let told = message(&seen, ConditionType::UserSynced);
        assert!(told.contains("PutUserPolicy"), "{what}: which action: {told}");
        if *reason == Reason::AccessDenied {
            assert!(
                told.contains("on resource: arn:aws:iam::") && told.contains(&user),
                "{what}: on which resource: {told}"
            );
            assert!(told.contains("can allow iam:PutUserPolicy"), "{what}: what to add: {told}");
        }
        assert!(env.secret(&name).await.is_none(), "{what}: no key before the policies");
        assert!(env.iam(&user).await.keys.is_empty(), "{what}");
        // A pass is counted at its end, after all that it tells.
        let line = format!(r#"awsdeploy_reconciles_total{{result="{reason}"}}"#);
        let counted = async || (env.count(&line).await >= 1).then_some(());
        eventually(&format!("{what} is counted"), counted, || env.log()).await;
        env.aws.rules().remove(rule);
        if *passing {
            env.ready(&name).await;
        }
    }
}

/// A deletion that AWS refuses again although nothing is found any more.
pub(crate) async fn persistent_conflict_is_reported_and_backs_off() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u"})).await;
    env.ready("x").await;
    let rule =
        env.aws.rules().add(Rule::on("DeleteUser").respond_with(AwsError::delete_conflict("must delete it first")));
    env.delete("x").await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidRequest)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("DeleteUser") && told.contains("must delete it first"), "{told}");
    assert_eq!(env.aws.log().calls_of("DeleteUser").len(), 2, "once before it looked, once after");
    env.aws.rules().remove(rule);
    env.annotate("x", "look", "again").await;
    env.gone("x").await;
}

/// AWS takes calls and does not answer: a read, a write, and the one call that must not be repeated.
pub(crate) async fn unresponsive_aws_times_out_and_nothing_is_assumed() {
    let env = TestEnv::with_arguments(&["--resync=1s", "--account-details=false"]).await;
    env.apply("read", json!({"userName": "read", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.ready("read").await;
    let mark = env.aws.log().position();
    for rule in [
        Rule::on("ListAttachedUserPolicies").user("read"),
        Rule::on("PutUserPolicy"),
        Rule::on("CreateAccessKey").user("mint"),
    ] {
        env.aws.rules().add(rule.delay(SILENCE).drop_connection());
    }
    env.apply("write", json!({"userName": "write", "policies": {"inline": inline()}})).await;
    env.apply("mint", json!({"userName": "mint"})).await;
    let silent = |user: &AwsDeployUser, kind| {
        condition(user, kind).is_some_and(|found| {
            found.reason == Reason::AwsUnavailable.as_str() && found.message.contains("did not answer in time")
        })
    };
    let read = env.until("read", "told of the silence", |user| silent(user, ConditionType::UserSynced)).await;
    assert_eq!(condition(&read, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    env.until("write", "told of the silence", |user| silent(user, ConditionType::UserSynced)).await;
    let told = async || {
        let user = env.user("mint").await;
        silent(&user, ConditionType::KeyPublished).then_some(())
    };
    eventually("told of the silence", told, || env.log()).await;
    assert!(writes_about(&env, "read", mark).is_empty(), "silence was taken for an absence");
    // A repetition by the SDK would follow at once; a new attempt comes after a pause, when the old one was cleaned up.
    let tries: Vec<CallRecord> = env.aws.log().calls_of("CreateAccessKey");
    let tries: Vec<_> =
        tries.iter().filter(|call| call.user.as_deref() == Some("mint")).map(|call| call.started).collect();
    assert!(tries.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= PAUSED), "{tries:?}");
    env.aws.rules().clear();
    for name in ["read", "write", "mint"] {
        env.annotate(name, "look", "again").await;
        env.ready(name).await;
    }
    assert_eq!(env.iam("mint").await.keys.len(), 1);
}

pub(crate) async fn failed_status_write_backs_off() {
    let env = TestEnv::with(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await;
    let kube = env.kube.as_ref().expect("a proxy");
    kube.rules().add(KubeRule::on("update", "awsdeployusers/status").name("x").respond_with(403, "Forbidden"));
    env.aws.rules().add(Rule::on("CreateAccessKey").user("x").deny());
    env.apply("x", json!({"userName": "x"})).await;
    env.aws.log().wait_for_call("CreateAccessKey", 1, TIMEOUT).await.expect("it is tried");
    // Others go their way meanwhile, each for longer than the pause that a conflict has.
    for name in ["y", "z"] {
        env.apply(name, json!({"userName": name})).await;
        env.ready(name).await;
    }
    let tried = env.aws.log().select(|call| call.action == "CreateAccessKey" && call.user.as_deref() == Some("x"));
    let pauses: Vec<_> =
        tried.windows(2).map(|pair| pair[1].started.duration_since(pair[0].started).as_secs()).collect();
    // A conflict has one to three seconds, an attempt at a key five and then twice as many each time.
    assert!(pauses.iter().enumerate().all(|(n, pause)| *pause >= 4 << n), "{pauses:?}\n{}", env.log());
}
