//! Bad input and bad days: what is wrong, what is allowed, who can mend it. Nothing is lost, nothing loops hot.

use awsdeploy::api::{ConditionType, Reason};
use serde_json::json;

use crate::stage::{SOON, Stage, Wishes, condition, message};

pub(crate) async fn an_unknown_policy_is_named() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["ViewOnlyAccess"]}})).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::PolicyNotFound)).await;
    assert!(
        message(&user, ConditionType::Ready).contains("write job-function/ViewOnlyAccess"),
        "{}",
        message(&user, ConditionType::Ready)
    );
    assert!(stage.secret("x").await.is_none(), "no key of a user that is not what it should be");
    assert!(stage.aws.log().calls_of("CreateAccessKey").is_empty());
    stage.event("x", Reason::PolicyNotFound).await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["job-function/ViewOnlyAccess"]}})).await;
    stage.ready("x").await;
}

pub(crate) async fn a_malformed_document_keeps_the_words_of_aws() {
    let stage = Stage::new().await;
    let inline = |effect: &str| json!([{"name": "own", "document": {"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": "s3:*", "Resource": "*"}]}}]);
    stage.apply("x", json!({"userName": "u"})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.apply("x", json!({"userName": "u", "policies": {"inline": inline("Permit")}})).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::MalformedPolicy)).await;
    let told = message(&user, ConditionType::UserSynced);
    assert!(told.contains("MalformedPolicyDocument: ") && told.contains("\"own\""), "{told}");
    let tries = stage.aws.log().calls_of("PutUserPolicy").len();
    stage.annotate("x", "unrelated", "change").await;
    stage.aws.log().wait_for_call("GetUser", 3, SOON).await.ok();
    assert!(stage.aws.log().calls_of("PutUserPolicy").len() <= tries + 1, "what cannot work is not hammered");
    assert_eq!(stage.published("x").await, key, "the key stays as it was");
    stage.apply("x", json!({"userName": "u", "policies": {"inline": inline("Allow")}})).await;
    stage.ready("x").await;
    assert_eq!(stage.published("x").await, key, "mended without a rotation");
}

pub(crate) async fn too_many_policies_are_refused_with_the_number() {
    let stage = Stage::new().await;
    let many: Vec<String> = (0..11).map(|n| format!("Policy{n}")).collect();
    stage.apply("x", json!({"userName": "u", "policies": {"managed": many}})).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
    assert!(message(&user, ConditionType::Ready).contains("11 managed policies are declared, the account allows 10"));
    assert!(stage.aws.log().calls_about("u").is_empty(), "AWS is not even asked");
    stage.event("x", Reason::InvalidSpec).await;
}

pub(crate) async fn a_bad_schedule_says_what_is_allowed() {
    let stage = Stage::new().await;
    let spec = |rotation: serde_json::Value| json!({"userName": "u", "accessKey": {"rotation": rotation}});
    for (rotation, told) in [
        (json!({"schedule": "every monday"}), "five fields"),
        (json!({"schedule": "0 3 * * *", "timeZone": "Mars/Base", "overlap": "1h"}), "IANA"),
        (json!({"every": "12h", "overlap": "13h"}), "must be shorter than the time between two rotations"),
    ] {
        stage.apply("x", spec(rotation)).await;
        let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
        assert!(message(&user, ConditionType::Ready).contains(told), "{}", message(&user, ConditionType::Ready));
    }
    stage.apply("x", spec(json!({"every": "12h", "overlap": "1h"}))).await;
    stage.ready("x").await;
}

pub(crate) async fn missing_rights_name_the_command_that_grants_them() {
    let stage =
        Stage::with(Wishes { no_secret_access: true, arguments: vec!["--resync=2s"], ..Wishes::default() }).await;
    stage.apply("x", json!({"userName": "u"})).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::SecretAccessDenied)).await;
    let told = message(&user, ConditionType::Ready);
    let command = format!(
        "kubectl -n {} create rolebinding aws-deploy-user-operator-secrets --clusterrole=aws-deploy-user-operator-secrets --serviceaccount=aws-deploy-user-operator:aws-deploy-user-operator",
        stage.namespace
    );
    assert!(told.contains(&command), "{told}");
    assert!(stage.aws.log().select(|call| call.mutating).is_empty(), "nothing is made in AWS before");
    stage.grant_secret_access().await;
    // The back-off of a denial is five minutes; whoever grants it may also touch the resource.
    stage.annotate("x", "granted", "yes").await;
    stage.ready("x").await;
}

pub(crate) async fn missing_credentials_are_told_and_waited_for() {
    let stage = Stage::with(Wishes { no_credentials: true, ..Wishes::default() }).await;
    stage.apply("x", json!({"userName": "u"})).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::OperatorCredentials)).await;
    assert!(
        message(&user, ConditionType::Ready).contains("the operator's own AWS credentials")
            || message(&user, ConditionType::Ready).contains("has no AWS credentials"),
        "{}",
        message(&user, ConditionType::Ready)
    );
}

pub(crate) async fn an_unreachable_aws_leaves_ready_as_it_was() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "u"})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.aws.go_away().await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "Unknown", Some(Reason::AwsUnavailable)).await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    stage.aws.come_back().await.expect("AWS comes back");
    stage.until_condition("x", ConditionType::UserSynced, "True", None).await;
    assert_eq!(stage.published("x").await, key);
    let user = stage
        .until("x", "free of failures", |user| user.status.as_ref().is_some_and(|status| status.failed_attempts == 0))
        .await;
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
}

pub(crate) async fn a_spec_that_is_not_valid_can_still_be_suspended() {
    let stage = Stage::new().await;
    let spec = |overlap: &str, suspend: bool| {
        let rotation = json!({"every": "12h", "overlap": overlap});
        json!({"userName": "u", "suspend": suspend, "accessKey": {"rotation": rotation}})
    };
    stage.apply("x", spec("1h", false)).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.apply("x", spec("13h", false)).await;
    stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::InvalidSpec)).await;
    assert!(stage.account.accepts(&key), "a mistake costs no key");
    stage.apply("x", spec("13h", true)).await;
    stage.until_iam("u", "suspended", |user| user.active_keys().is_empty()).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Suspended)).await;
    let authorized = condition(&user, ConditionType::Authorized).expect("Authorized");
    assert_eq!((authorized.status.as_str(), authorized.reason.as_str()), ("False", Reason::InvalidSpec.as_str()));
    let class = user.status.and_then(|status| status.class);
    assert!(class.is_some(), "which class allows it is not forgotten");
    stage.apply("x", spec("1h", false)).await;
    let other = stage.until_published("x", &key).await;
    stage.ready("x").await;
    assert_eq!(stage.iam("u").await.active_keys(), [other.as_str()]);
}

pub(crate) async fn one_bad_resource_does_not_stop_the_others() {
    let stage = Stage::with_arguments(&["--concurrency=1"]).await;
    for n in 0..3 {
        stage.apply(&format!("bad{n}"), json!({"policies": {"managed": ["NoSuchPolicy"]}})).await;
    }
    stage.apply("good", json!({"userName": "good"})).await;
    stage.ready("good").await;
    stage.until_condition("bad0", ConditionType::Ready, "False", Some(Reason::PolicyNotFound)).await;
}
