//! What goes wrong in AWS, class by class: told under its reason, and never taken for something else.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use serde_json::json;

use crate::stage::{Stage, condition, message};

/// A fault, put on a call, and the reason it is told under.
type Fault = (&'static str, fn(Rule) -> Rule, Reason, bool);

const FAULTS: &[Fault] = &[
    ("throttling", |rule| rule.throttle(), Reason::Throttled, true),
    ("a denial", |rule| rule.deny(), Reason::AccessDenied, false),
    (
        "a busy user",
        |rule| rule.answer(AwsError::new(409, "EntityTemporarilyUnmodifiable", "wait")),
        Reason::Conflict,
        true,
    ),
    (
        "a change by another",
        |rule| rule.answer(AwsError::new(409, "ConcurrentModification", "wait")),
        Reason::Conflict,
        true,
    ),
    (
        "a quota",
        |rule| rule.answer(AwsError::limit_exceeded("Cannot exceed quota".to_owned())),
        Reason::LimitExceeded,
        false,
    ),
    (
        "a malformed document",
        |rule| rule.answer(AwsError::new(400, "MalformedPolicyDocument", "Syntax errors")),
        Reason::MalformedPolicy,
        false,
    ),
    ("a clock that is off", |rule| rule.request_expired(), Reason::ClockSkew, false),
    ("a fault of AWS", |rule| rule.answer(AwsError::new(500, "ServiceFailure", "sorry")), Reason::AwsUnavailable, true),
    ("a page of HTML", |rule| rule.html_500(), Reason::AwsUnavailable, true),
    ("a cut connection", |rule| rule.drop_connection(), Reason::AwsUnavailable, true),
];

/// Each read of a pass fails in each way: nothing is written, Ready stays or tells the reason, and afterwards all is well.
pub(crate) async fn a_failed_read_is_told_and_never_leads_to_a_write() {
    let stage = Stage::with_arguments(&["--resync=300ms", "--secret-check=300ms"]).await;
    stage.apply("x", json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    for read in ["GetUser", "ListAccessKeys", "ListAttachedUserPolicies", "ListUserPolicies", "ListGroupsForUser"] {
        let rules =
            [Rule::on(read).html_500(), Rule::on(read).answer(AwsError::new(409, "ConcurrentModification", "wait"))];
        for rule in rules {
            let mark = stage.aws.log().mark();
            let rule = stage.aws.rules().add(rule);
            let failed = |call: &awsdeploy_testkit::aws_proxy::CallRecord| {
                call.action == read && call.status.is_some_and(|status| status >= 400)
            };
            stage.aws.log().wait_since(mark, "a failed read", crate::stage::SOON, failed).await.expect("it fails");
            let user = stage
                .until("x", "told that AWS could not be read", |user| {
                    condition(user, ConditionType::UserSynced).is_some_and(|synced| synced.status == "Unknown")
                })
                .await;
            assert_eq!(
                condition(&user, ConditionType::Ready).expect("Ready").status,
                "True",
                "{read}: a passing fault"
            );
            stage.aws.rules().remove(rule);
            // A change of the manifest is a new chance, without the pause.
            stage.annotate("x", "look", &format!("{mark:?}")).await;
            stage.until_condition("x", ConditionType::UserSynced, "True", None).await;
            let writes = stage.aws.log().mutating_calls_since(mark);
            assert!(writes.is_empty(), "{read}: a failed read was taken for an absence: {writes:#?}");
        }
    }
    assert_eq!(stage.published("x").await, key);
}

/// A write fails in each way: its class and reason are told, and the key in the Secret stays.
pub(crate) async fn a_refused_write_is_told_under_its_reason() {
    let stage = Stage::new().await;
    let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]});
    for (number, (what, fault, reason, passing)) in FAULTS.iter().enumerate() {
        let (name, user) = (format!("x{number}"), format!("u{number}"));
        let spec = json!({"userName": user, "policies": {"inline": [{"name": "own", "document": document}]}});
        let rule = stage.aws.rules().add(fault(Rule::on("PutUserPolicy").user(&user)));
        stage.apply(&name, spec).await;
        let seen = stage.until_condition(&name, ConditionType::UserSynced, "False", Some(*reason)).await;
        let told = message(&seen, ConditionType::UserSynced);
        assert!(told.contains("PutUserPolicy"), "{what}: which action: {told}");
        if *reason == Reason::AccessDenied {
            assert!(
                told.contains("on resource: arn:aws:iam::") && told.contains(&user),
                "{what}: on which resource: {told}"
            );
            assert!(told.contains("can allow iam:PutUserPolicy"), "{what}: what to add: {told}");
        }
        assert!(stage.secret(&name).await.is_none(), "{what}: no key before the policies");
        assert!(stage.iam(&user).await.keys.is_empty(), "{what}");
        assert!(stage.count(&format!(r#"awsdeploy_reconciles_total{{result="{reason}"}}"#)).await >= 1, "{what}");
        stage.aws.rules().remove(rule);
        if *passing {
            stage.ready(&name).await;
        }
    }
}
