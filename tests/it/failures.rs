//! AWS errors by class: each is reported with its reason, and a failed read is never treated as absence.

use std::time::Duration;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use awsdeploy_testkit::{
    aws_proxy::{AwsError, Call, CallRecord, LogPosition, Rule},
    kube_proxy::KubeRule,
};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, condition, eventually, message};

/// Name of the fault, the rule, the expected reason, and whether it is transient.
type FaultCase = (&'static str, fn(Rule) -> Rule, Reason, bool);

const FAULTS: &[FaultCase] = &[
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
    ("a page of HTML", |rule| rule.html(500), Reason::AwsUnavailable, true),
    ("a cut connection", |rule| rule.drop_connection(), Reason::AwsUnavailable, true),
];

/// The reads of a reconcile of a user with every feature.
const READS: [&str; 7] = [
    "GetUser",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
    "ListUserPolicies",
    "GetUserPolicy",
    "ListGroupsForUser",
    "GetLoginProfile",
];

/// Longer than the call timeout of the operator.
const RESPONSE_DELAY: Duration = Duration::from_mins(1);

/// Ten seconds of call timeout for a call that must not be retried, plus five seconds of back-off, less one for jitter.
const MIN_RETRY_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(14);

fn expired_token() -> AwsError {
    AwsError::new(403, "ExpiredToken", "The security token included in the request is expired")
}

fn inline() -> Value {
    json!([{"name": "own", "document": {"Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]}}])
}

/// A user with everything that a reconcile reads.
fn full_spec(user: &str) -> Value {
    json!({"userName": user, "accessKey": {}, "console": {}, "groups": ["deployers"],
        "policies": {"managed": ["AmazonEC2FullAccess"], "documents": inline()}})
}

fn writes_about(env: &TestEnv, user: &str, position: LogPosition) -> Vec<CallRecord> {
    let writes = env.aws.log().mutating_calls_since(position);
    writes.into_iter().filter(|call| call.user.as_deref() == Some(user)).collect()
}

fn synced_as(status: &'static str, reason: Option<Reason>) -> impl Fn(&AwsDeployUser) -> bool {
    move |user| {
        condition(user, ConditionType::UserSynced).is_some_and(|synced| {
            synced.status == status && reason.is_none_or(|reason| synced.reason == reason.as_str())
        })
    }
}

/// Waits until a call of the action fails.
async fn wait_for_failed_call(env: &TestEnv, position: LogPosition, action: &str) {
    let failed = |call: &CallRecord| call.action == action && call.status.is_none_or(|status| status >= 400);
    env.aws.log().wait_since(position, &format!("{action} fails"), TIMEOUT, failed).await.expect("a failed call");
}

/// Fails each read with each error. The reason is reported, Ready survives transient errors, and nothing is written
/// that would be right if the entity did not exist.
pub(crate) async fn failed_read_is_reported_and_causes_no_write() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--account-details=false"]).await;
    env.aws.manual_changes().create_group("deployers").await.expect("a group");
    // Throttling slows every call; the next test covers it.
    let faults: Vec<&FaultCase> = FAULTS.iter().filter(|(_, _, reason, _)| *reason != Reason::Throttled).collect();
    join_all(faults.into_iter().enumerate().map(|(number, fault)| fail_each_read(&env, number, fault))).await;
}

async fn fail_each_read(env: &TestEnv, number: usize, (what, fault, reason, transient): &FaultCase) {
    let (name, user) = (format!("x{number}"), format!("u{number}"));
    env.apply(&name, full_spec(&user)).await;
    env.wait_ready(&name).await;
    let key = env.published_key(&name).await;
    for read in READS {
        let position = env.aws.log().position();
        let rule = env.aws.rules().add(fault(Rule::on(read).user(&user)));
        let seen =
            env.wait_until(&name, &format!("reporting {what} on {read}"), synced_as("Unknown", Some(*reason))).await;
        let text = message(&seen, ConditionType::UserSynced);
        assert!(text.contains(read), "{what}: names the action: {text}");
        if *reason == Reason::AccessDenied {
            assert!(text.contains(&format!("can allow iam:{read}")), "{text}");
        }
        let ready = condition(&seen, ConditionType::Ready).expect("Ready");
        assert_eq!(ready.status == "True", *transient, "{what} on {read}: {}", ready.message);
        env.aws.rules().remove(rule);
        // A change of the resource ends the back-off.
        env.request_retry(&name, &format!("{read} works")).await;
        env.wait_until(&name, &format!("recovered from {what} on {read}"), synced_as("True", None)).await;
        let writes = writes_about(env, &user, position);
        assert!(writes.is_empty(), "{what} on {read} was treated as absence: {writes:#?}");
    }
    assert_eq!(env.published_key(&name).await, key, "{what}");
}

pub(crate) async fn throttled_read_backs_off_and_causes_no_write() {
    let env = TestEnv::with_arguments(&["--resync=300ms", "--secret-check=300ms", "--account-details=false"]).await;
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    let position = env.aws.log().position();
    let rule = env.aws.rules().add(Rule::on("GetUser").throttle());
    let user = env.wait_until("x", "reporting the throttling", synced_as("Unknown", Some(Reason::Throttled))).await;
    assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    env.aws.rules().remove(rule);
    env.request_retry("x", "again").await;
    env.wait_until("x", "recovered", synced_as("True", None)).await;
    assert!(writes_about(&env, "u", position).is_empty());
}

/// Covers reads that happen once per process.
pub(crate) async fn failed_caller_identity_blocks_all_calls() {
    let env = TestEnv::new().await;
    let first = ["GetCallerIdentity", "GetAccountPasswordPolicy", "ListAccountAliases"];
    let rules = first.map(|read| (read, env.aws.rules().add(Rule::on(read).html(500))));
    env.apply("x", json!({"userName": "u", "console": {}})).await;
    for (read, rule) in rules {
        let position = env.aws.log().position();
        env.request_retry("x", read).await;
        wait_for_failed_call(&env, position, read).await;
        env.wait_until("x", "reporting the read", |user| message(user, ConditionType::UserSynced).contains(read)).await;
        assert!(env.secret_data("x-console").await.is_none(), "{read}: a password without a sign-in URL");
        let writes = env.aws.log().mutating_calls_since(position);
        let harmless = |call: &CallRecord| matches!(call.action.as_str(), "CreateUser" | "AttachUserPolicy");
        assert!(read == "ListAccountAliases" || writes.is_empty(), "{read}: {writes:#?}");
        assert!(writes.iter().all(harmless), "{read}: {writes:#?}");
        env.aws.rules().remove(rule);
    }
    env.request_retry("x", "again").await;
    env.wait_ready("x").await;
}

/// `ListUsers` is read only if the name is taken.
pub(crate) async fn user_with_unreadable_tags_is_not_claimed() {
    let env = TestEnv::new().await;
    env.aws.manual_changes().create_user("Taken").await.expect("an unmanaged user");
    let rule = env.aws.rules().add(Rule::on("ListUsers").html(500));
    env.apply("x", json!({"userName": "taken"})).await;
    wait_for_failed_call(&env, LogPosition::default(), "ListUsers").await;
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(env.aws.log().select(|call| call.mutating && call.committed).is_empty());
    env.aws.rules().remove(rule);
    env.request_retry("x", "again").await;
    env.wait_until("x", "reporting the owner", |user| {
        message(user, ConditionType::UserSynced).contains("IAM user Taken")
    })
    .await;
    assert!(env.secret_data("x").await.is_none());
}

/// Last use is read only if two keys of the operator are unpublished and one must free a slot.
pub(crate) async fn key_with_unreadable_last_use_is_not_deleted() {
    let env = TestEnv::new().await;
    let rotation = json!({"every": "Never", "overlap": "1h"});
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": rotation}})).await;
    env.wait_ready("x").await;
    let one = env.published_key("x").await;
    env.annotate("x", "awsdeploy.dev/rotate", "1").await;
    let two = env.wait_published("x", &one).await;
    env.wait_until("x", "idle", |user| user.status.as_ref().is_some_and(|status| status.access_keys.len() == 2)).await;
    let rule = env.aws.rules().add(Rule::on("GetAccessKeyLastUsed").deny());
    let position = env.aws.log().position();
    env.secrets().delete("x", &kube::api::DeleteParams::default()).await.expect("manually");
    wait_for_failed_call(&env, position, "GetAccessKeyLastUsed").await;
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AccessDenied)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    assert!(text.contains("can allow iam:GetAccessKeyLastUsed"), "{text}");
    assert!(env.account.accepts(&one) && env.account.accepts(&two), "no key is deleted on a guess");
    assert!(writes_about(&env, "u", position).is_empty());
    env.aws.rules().remove(rule);
    env.request_retry("x", "again").await;
    env.wait_ready("x").await;
    assert_eq!(env.iam("u").await.keys.len(), 2);
}

/// These are read only if AWS refuses to delete the user.
pub(crate) async fn deletion_stops_when_remaining_objects_are_unreadable() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "accessKey": {}})).await;
    env.wait_ready("x").await;
    let manual_changes = env.aws.manual_changes();
    manual_changes.create_login_profile("u", "correct-Horse-7").await.expect("manually");
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
        wait_for_failed_call(&env, LogPosition::default(), read).await;
        let user = env
            .wait_until("x", "reporting the read", |user| {
                message(user, ConditionType::Ready).contains(&format!("iam:{read}"))
            })
            .await;
        assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("False"), "{read}");
        let iam = env.iam("u").await;
        assert!(iam.login_profile.is_some() && iam.service_credentials.len() == 1, "{read}");
        env.aws.rules().remove(rule);
        if let Some(next) = reads.get(number + 1) {
            rule = env.aws.rules().add(Rule::on(next).deny());
            env.request_retry("x", next).await;
        }
    }
    env.request_retry("x", "again").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

/// Fails a write with each error.
pub(crate) async fn denied_write_is_reported_with_its_reason() {
    let env = TestEnv::new().await;
    for (number, (what, fault, reason, transient)) in FAULTS.iter().enumerate() {
        let (name, user) = (format!("x{number}"), format!("u{number}"));
        let spec = json!({"userName": user, "policies": {"documents": inline()}});
        // What is invalid in a write of a policy is the policy.
        let is_invalid = *what == "an invalid request";
        let reason = if is_invalid { Reason::MalformedPolicy } else { *reason };
        let rule = env.aws.rules().add(fault(Rule::on("PutUserPolicy").user(&user)));
        env.apply(&name, spec).await;
        let seen = env.wait_for_condition(&name, ConditionType::UserSynced, "False", Some(reason)).await;
        let text = message(&seen, ConditionType::UserSynced);
        assert!(text.contains("PutUserPolicy"), "{what}: names the action: {text}");
        if reason == Reason::AccessDenied {
            assert!(
                text.contains("on resource: arn:aws:iam::") && text.contains(&user),
                "{what}: names the resource: {text}"
            );
            assert!(text.contains("can allow iam:PutUserPolicy"), "{what}: names the missing permission: {text}");
        }
        assert!(env.secret_data(&name).await.is_none(), "{what}: no key before the policies");
        assert!(env.iam(&user).await.keys.is_empty(), "{what}");
        // A reconcile is counted at its end, after the status update.
        let line = format!(r#"awsdeploy_reconciles_total{{result="{reason}"}}"#);
        let counted = async || (env.metric_count(&line).await >= 1).then_some(());
        eventually(&format!("{what} is counted"), counted, || env.log()).await;
        env.aws.rules().remove(rule);
        if *transient {
            env.wait_ready(&name).await;
        }
    }
}

/// AWS refuses the deletion although no deletion blocker is found.
pub(crate) async fn persistent_conflict_is_reported_and_backs_off() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    let rule =
        env.aws.rules().add(Rule::on("DeleteUser").respond_with(AwsError::delete_conflict("must delete it first")));
    env.delete("x").await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::Conflict)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("DeleteUser") && text.contains("must delete it first"), "{text}");
    let tried = env.aws.log().calls_of("DeleteUser").len();
    assert!(tried >= 2, "once before and once after reading the deletion blockers: {tried}");
    env.aws.rules().remove(rule);
    env.request_retry("x", "again").await;
    env.wait_deleted("x").await;
}

/// AWS accepts a read, a write and `CreateAccessKey`, and never responds.
pub(crate) async fn unresponsive_aws_times_out_and_nothing_is_assumed() {
    let env = TestEnv::with_arguments(&["--resync=1s", "--account-details=false"]).await;
    env.apply("read", json!({"userName": "read", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.wait_ready("read").await;
    let position = env.aws.log().position();
    for rule in [
        Rule::on("ListAttachedUserPolicies").user("read"),
        Rule::on("PutUserPolicy"),
        Rule::on("CreateAccessKey").user("mint"),
    ] {
        env.aws.rules().add(rule.delay(RESPONSE_DELAY).drop_connection());
    }
    env.apply("write", json!({"userName": "write", "policies": {"documents": inline()}})).await;
    env.apply("mint", json!({"userName": "mint"})).await;
    let silent = |user: &AwsDeployUser, kind| {
        condition(user, kind).is_some_and(|found| {
            found.reason == Reason::AwsUnavailable.as_str() && found.message.contains("did not answer in time")
        })
    };
    let read = env.wait_until("read", "reporting the timeout", |user| silent(user, ConditionType::UserSynced)).await;
    assert_eq!(condition(&read, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    env.wait_until("write", "reporting the timeout", |user| silent(user, ConditionType::UserSynced)).await;
    let reported = async || {
        let user = env.user("mint").await;
        silent(&user, ConditionType::KeyPublished).then_some(())
    };
    eventually("reporting the timeout", reported, || env.log()).await;
    assert!(writes_about(&env, "read", position).is_empty(), "a timeout was treated as absence");
    // A retry by the SDK would follow at once; a new attempt follows after the back-off and the clean-up.
    let attempts: Vec<CallRecord> = env.aws.log().calls_of("CreateAccessKey");
    let attempts: Vec<_> =
        attempts.iter().filter(|call| call.user.as_deref() == Some("mint")).map(|call| call.started).collect();
    assert!(attempts.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= MIN_RETRY_PAUSE), "{attempts:?}");
    env.aws.rules().clear();
    for name in ["read", "write", "mint"] {
        env.request_retry(name, "again").await;
        env.wait_ready(name).await;
    }
    assert_eq!(env.iam("mint").await.keys.len(), 1);
}

pub(crate) async fn failed_status_write_backs_off() {
    let env = TestEnv::with_options(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await;
    let kube = env.kube.as_ref().expect("a proxy");
    // Without a status no user is created, so the first one is written.
    env.apply("x", json!({"userName": "x"})).await;
    env.wait_ready("x").await;
    kube.rules().add(KubeRule::on("update", "awsdeployusers/status").name("x").respond_with(403, "Forbidden"));
    env.aws.rules().add(Rule::on("CreateAccessKey").user("x").deny());
    let position = env.aws.log().position();
    env.annotate("x", awsdeploy::api::well_known::ANNOTATION_ROTATE, "now").await;
    let denied = |call: &CallRecord| call.action == "CreateAccessKey";
    env.aws.log().wait_since(position, "the denied call", TIMEOUT, denied).await.expect("the call is made");
    // Other resources are reconciled meanwhile, each for longer than the back-off of a conflict.
    for name in ["y", "z"] {
        env.apply(name, json!({"userName": name})).await;
        env.wait_ready(name).await;
    }
    let mut attempts = env.aws.log().calls_since(position);
    attempts.retain(|call| call.action == "CreateAccessKey" && call.user.as_deref() == Some("x"));
    let pauses: Vec<_> =
        attempts.windows(2).map(|pair| pair[1].started.duration_since(pair[0].started).as_secs()).collect();
    // The back-off of a conflict is one to three seconds, of a key creation five seconds, doubled each time.
    assert!(pauses.iter().enumerate().all(|(n, pause)| *pause >= 4 << n), "{pauses:?}\n{}", env.log());
}
