//! Invalid input and missing prerequisites: the message names the error and its fix, no key is lost, nothing loops.

use awsdeploy::api::{ConditionType, Reason};
use serde_json::json;

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, condition, message};

pub(crate) async fn unknown_policy_is_named() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["ViewOnlyAccess"]}})).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::PolicyNotFound)).await;
    assert!(
        message(&user, ConditionType::Ready).contains("write job-function/ViewOnlyAccess"),
        "{}",
        message(&user, ConditionType::Ready)
    );
    assert!(env.secret_data("x").await.is_none(), "no key before the user is in sync");
    assert!(env.aws.log().calls_of("CreateAccessKey").is_empty());
    env.wait_for_event("x", Reason::PolicyNotFound).await;
    env.apply("x", json!({"userName": "u", "policies": {"managed": ["job-function/ViewOnlyAccess"]}})).await;
    env.wait_ready("x").await;
}

pub(crate) async fn malformed_document_error_quotes_aws() {
    let env = TestEnv::new().await;
    // Only IAM knows its types of resources.
    let inline = |resource: &str| json!([{"name": "own", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:GetRole", "Resource": resource}]}}]);
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.apply("x", json!({"userName": "u", "policies": {"documents": inline("arn:aws:iam::123456789012:thing/x")}}))
        .await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::MalformedPolicy)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("MalformedPolicyDocument: ") && text.contains("\"own\""), "{text}");
    let attempts = env.aws.log().calls_of("PutUserPolicy").len();
    env.annotate("x", "unrelated", "change").await;
    env.aws.log().wait_for_call("GetUser", 3, TIMEOUT).await.ok();
    assert!(
        env.aws.log().calls_of("PutUserPolicy").len() <= attempts + 1,
        "an invalid document is not retried in a loop"
    );
    assert_eq!(env.published_key("x").await, key, "the key is kept");
    env.apply("x", json!({"userName": "u", "policies": {"documents": inline("*")}})).await;
    env.wait_ready("x").await;
    assert_eq!(env.published_key("x").await, key, "fixed without a rotation");
}

fn with_action(action: &str, effect: &str) -> serde_json::Value {
    let statement = json!({"Effect": effect, "Action": [action], "Resource": "*"});
    let document = json!({"Version": "2012-10-17", "Statement": [statement]});
    json!({"userName": "u", "policies": {"documents": [{"name": "own", "document": document}]}})
}

pub(crate) async fn invalid_document_is_refused_without_aws_calls() {
    let env = TestEnv::new().await;
    env.apply("x", with_action("s3:*", "Permit")).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
    let text = message(&user, ConditionType::Authorized);
    let expected = "the document own: Statement[0].Effect: \"Permit\" is neither \"Allow\" nor \"Deny\"";
    assert!(text.contains(expected), "{text}");
    assert!(env.aws.log().calls_for_user("u").is_empty(), "AWS is not called");
    env.apply("x", with_action("s3:*", "Allow")).await;
    env.wait_ready("x").await;
}

pub(crate) async fn policy_warning_is_reported_once_per_change() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    env.apply("x", with_action("s3:GetObjct", "Allow")).await;
    let warned = env.wait_ready("x").await.status.expect("a status").policy_warnings;
    let expected = "document own: Statement[0].Action[0]: s3 has no action \"GetObjct\"";
    assert!(warned.len() == 1 && warned[0].starts_with(expected), "{warned:?}");
    assert!(warned[0].ends_with("did you mean s3:GetObject?"), "{warned:?}");
    assert_eq!(env.wait_for_event("x", Reason::PolicyWarning).await, warned[0]);
    env.wait_for_drift_check(env.aws.log().position()).await;

    env.apply("x", with_action("s3:GetBukkit", "Allow")).await;
    env.wait_until("x", "other warnings", |user| {
        user.status.as_ref().is_some_and(|status| status.policy_warnings.iter().any(|text| text.contains("GetBukkit")))
    })
    .await;
    env.apply("x", with_action("s3:GetObject", "Allow")).await;
    env.wait_until("x", "no warnings", |user| {
        user.status.as_ref().is_some_and(|status| status.policy_warnings.is_empty())
    })
    .await;
    let events = env.events("x").await;
    let warnings = events.iter().filter(|(reason, _)| reason == Reason::PolicyWarning.as_str());
    assert_eq!(warnings.count(), 2, "one Event for each change to other warnings: {events:?}");
}

pub(crate) async fn too_many_policies_are_refused_with_the_limit() {
    let env = TestEnv::new().await;
    let many: Vec<String> = (0..11).map(|n| format!("Policy{n}")).collect();
    env.apply("x", json!({"userName": "u", "policies": {"managed": many}})).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
    assert!(message(&user, ConditionType::Ready).contains("11 managed policies are declared, the account allows 10"));
    assert!(env.aws.log().calls_for_user("u").is_empty(), "AWS is not called");
    env.wait_for_event("x", Reason::InvalidSpec).await;
}

pub(crate) async fn invalid_schedule_error_states_what_is_allowed() {
    let env = TestEnv::new().await;
    let spec = |rotation: serde_json::Value| json!({"userName": "u", "accessKey": {"rotation": rotation}});
    for (rotation, text) in [
        (json!({"schedule": "every monday"}), "five fields"),
        (json!({"schedule": "0 3 * * *", "timeZone": "Mars/Base", "overlap": "1h"}), "IANA"),
        (json!({"every": "12h", "overlap": "13h"}), "must be shorter than the time between two rotations"),
    ] {
        env.apply("x", spec(rotation)).await;
        let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
        assert!(message(&user, ConditionType::Ready).contains(text), "{}", message(&user, ConditionType::Ready));
    }
    env.apply("x", spec(json!({"every": "12h", "overlap": "1h"}))).await;
    env.wait_ready("x").await;
}

pub(crate) async fn missing_rbac_error_names_the_command_that_grants_it() {
    let env = TestEnv::with_options(EnvOptions {
        no_secret_access: true,
        arguments: vec!["--resync=2s"],
        ..EnvOptions::default()
    })
    .await;
    env.apply("x", json!({"userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::SecretAccessDenied)).await;
    let text = message(&user, ConditionType::Ready);
    let command = format!(
        "kubectl -n {} create rolebinding aws-deploy-user-operator-secrets --clusterrole=aws-deploy-user-operator-secrets --serviceaccount=aws-deploy-user-operator:aws-deploy-user-operator",
        env.namespace
    );
    assert!(text.contains(&command), "{text}");
    assert!(env.aws.log().select(|call| call.mutating).is_empty(), "nothing is created in AWS before");
    env.grant_secret_access().await;
    // The back-off of a denial is five minutes; a change of the resource ends it.
    env.request_retry("x", "granted").await;
    env.wait_ready("x").await;
}

pub(crate) async fn missing_credentials_are_reported_and_retried() {
    let env = TestEnv::with_options(EnvOptions { no_credentials: true, ..EnvOptions::default() }).await;
    env.apply("x", json!({"userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::OperatorCredentials)).await;
    assert!(
        message(&user, ConditionType::Ready).contains("the operator's own AWS credentials")
            || message(&user, ConditionType::Ready).contains("has no AWS credentials"),
        "{}",
        message(&user, ConditionType::Ready)
    );
}

pub(crate) async fn unreachable_aws_does_not_change_ready() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.aws.stop_listening().await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "Unknown", Some(Reason::AwsUnavailable)).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    env.aws.resume_listening().await.expect("AWS comes back");
    env.wait_for_condition("x", ConditionType::UserSynced, "True", None).await;
    assert_eq!(env.published_key("x").await, key);
    let user = env
        .wait_until("x", "free of failures", |user| {
            user.status.as_ref().is_some_and(|status| status.failing_since.is_none())
        })
        .await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
}

pub(crate) async fn credentials_of_an_invalid_spec_can_be_revoked() {
    let env = TestEnv::new().await;
    let spec = |overlap: &str, credentials: &str| {
        let rotation = json!({"every": "12h", "overlap": overlap});
        json!({"userName": "u", "credentials": credentials, "accessKey": {"rotation": rotation}})
    };
    env.apply("x", spec("1h", "Active")).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.apply("x", spec("13h", "Active")).await;
    env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
    assert!(env.account.accepts(&key), "an invalid spec revokes no key");
    env.apply("x", spec("13h", "Revoked")).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    let user =
        env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    let authorized = condition(&user, ConditionType::Authorized).expect("Authorized");
    assert_eq!((authorized.status.as_str(), authorized.reason.as_str()), ("False", Reason::InvalidSpec.as_str()));
    let class = user.status.and_then(|status| status.class);
    assert!(class.is_some(), "the class is still recorded");
    env.apply("x", spec("1h", "Active")).await;
    let other = env.wait_published("x", &key).await;
    env.wait_ready("x").await;
    assert_eq!(env.iam("u").await.active_keys(), [other.as_str()]);
}

pub(crate) async fn invalid_resource_does_not_block_others() {
    let env = TestEnv::with_arguments(&["--concurrency=1"]).await;
    for n in 0..3 {
        env.apply(&format!("bad{n}"), json!({"policies": {"managed": ["NoSuchPolicy"]}})).await;
    }
    env.apply("good", json!({"userName": "good"})).await;
    env.wait_ready("good").await;
    env.wait_for_condition("bad0", ConditionType::Ready, "False", Some(Reason::PolicyNotFound)).await;
}
