//! The policy language, one evaluation rule of AWS per case.

use serde_json::json;

use super::*;

const USER: &str = "arn:aws:iam::123456789012:user/awsdeploy/u";

fn evaluate(statements: &Value, action: &str, context: &[(&str, &[&str])]) -> Decision {
    let policy = Policy::parse(&json!({"Version": "2012-10-17", "Statement": statements})).unwrap();
    let context = context.iter().map(|(key, values)| (*key, values.iter().map(|&value| value.to_owned()).collect()));
    policy.evaluate(&Request::new(action, USER, context).unwrap())
}

fn allow(condition: &Value) -> Value {
    json!({"Sid": "A", "Effect": "Allow", "Action": "iam:*", "Resource": "*", "Condition": condition})
}

#[test]
fn requests_are_implicitly_denied_and_a_deny_overrides_an_allow() {
    let user = |effect: &str| json!({"Sid": effect, "Effect": effect, "Action": "IAM:get*", "Resource": USER});
    assert_eq!(evaluate(&json!([user("Allow")]), "iam:GetUser", &[]), Decision::Allowed);
    assert_eq!(evaluate(&json!([user("Allow")]), "iam:TagUser", &[]), Decision::ImplicitDeny);
    for both in [json!([user("Allow"), user("Deny")]), json!([user("Deny"), user("Allow")])] {
        assert_eq!(evaluate(&both, "iam:GetUser", &[]), Decision::ExplicitDeny("Deny".to_owned()));
    }
    let but = json!({"Effect": "Allow", "NotAction": "iam:TagUser", "NotResource": "arn:aws:iam::123456789012:user/x"});
    assert_eq!(evaluate(&but, "iam:GetUser", &[]), Decision::Allowed);
    assert_eq!(evaluate(&but, "iam:TagUser", &[]), Decision::ImplicitDeny);
    let elsewhere = json!({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:iam::123456789012:user/other/*"});
    assert_eq!(evaluate(&elsewhere, "iam:GetUser", &[]), Decision::ImplicitDeny);
}

#[test]
fn condition_operators_match_as_documented() {
    let boundary: (&str, &[&str]) = ("iam:PermissionsBoundary", &["arn:aws:iam::123456789012:policy/b"]);
    let tags: (&str, &[&str]) = ("aws:TagKeys", &["team", "Cost"]);
    let own: (&str, &[&str]) = ("iam:ResourceTag/Owner", &["me"]);
    for (condition, context, expected) in [
        (json!({"StringEquals": {"IAM:permissionsboundary": "arn:aws:iam::123456789012:policy/b"}}), boundary, true),
        (json!({"StringEquals": {"iam:PermissionsBoundary": ["x", "y"]}}), boundary, false),
        (json!({"StringEquals": {"iam:PermissionsBoundary": "arn:aws:iam::123456789012:policy/*"}}), boundary, false),
        (json!({"StringLike": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/b"}}), boundary, true),
        (json!({"ArnLike": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/?"}}), boundary, true),
        (json!({"ArnNotEquals": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/b"}}), boundary, false),
        (json!({"StringNotEquals": {"iam:PermissionsBoundary": ["x", "y"]}}), boundary, true),
        // The key is missing: only `Not` operators and IfExists are met.
        (json!({"StringEquals": {"iam:PermissionsBoundary": "x"}}), tags, false),
        (json!({"StringNotEquals": {"iam:PermissionsBoundary": "x"}}), tags, true),
        (json!({"StringEqualsIfExists": {"iam:PermissionsBoundary": "x"}}), tags, true),
        (json!({"Null": {"iam:PermissionsBoundary": "true"}}), tags, true),
        (json!({"Null": {"iam:PermissionsBoundary": "false"}}), boundary, true),
        (json!({"ForAnyValue:StringEquals": {"aws:TagKeys": "cost"}}), tags, false),
        (json!({"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": "cost"}}), tags, true),
        (json!({"ForAnyValue:StringEquals": {"aws:TagKeys": "cost"}}), boundary, false),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["team", "Cost", "more"]}}), tags, true),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": "team"}}), tags, false),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": "team"}}), boundary, true),
        (json!({"StringEquals": {"aws:ResourceTag/owner": "me"}}), own, false),
        (json!({"StringEquals": {"iam:ResourceTag/owner": "me"}}), own, true),
        // Several keys and operators are joined by AND.
        (json!({"StringEquals": {"iam:ResourceTag/owner": "me", "iam:ResourceTag/x": "y"}}), own, false),
        (json!({"StringEquals": {"iam:ResourceTag/owner": "me"}, "Null": {"aws:TagKeys": "false"}}), own, false),
    ] {
        let found = evaluate(&json!([allow(&condition)]), "iam:CreateUser", &[context]);
        assert_eq!(found == Decision::Allowed, expected, "{condition} {context:?}");
    }
}

#[test]
fn condition_on_an_unsupported_key_is_never_met() {
    let limited = json!([allow(&json!({"StringEquals": {"iam:PermissionsBoundary": "b"}}))]);
    let boundary: &[(&str, &[&str])] = &[("iam:PermissionsBoundary", &["b"])];
    assert_eq!(evaluate(&limited, "iam:PutUserPolicy", boundary), Decision::Allowed);
    assert_eq!(evaluate(&limited, "iam:CreateAccessKey", boundary), Decision::ImplicitDeny);
}

#[test]
fn unsupported_policy_elements_are_rejected() {
    let statement = |field: &str, value: Value| {
        let mut statement = allow(&json!({}));
        statement[field] = value;
        Policy::parse(&json!({"Version": "2012-10-17", "Statement": [statement]})).unwrap_err()
    };
    for (field, value, expected) in [
        ("Condition", json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), "IpAddress"),
        ("Condition", json!({"NullIfExists": {"aws:TagKeys": "true"}}), "NullIfExists"),
        ("Resource", json!("arn:aws:iam::123456789012:user/${aws:username}"), "variable"),
        ("Resource", json!("user/x"), "not an ARN"),
        ("Principal", json!("*"), "Principal"),
        ("Effect", json!("allow"), "Effect"),
        ("Action", json!([]), "empty"),
        ("NotAction", json!("x"), "exactly one of"),
        ("Sid", json!("a b"), "Sid"),
    ] {
        let error = statement(field, value);
        assert!(error.contains(expected), "{field}: {error}");
    }
    let twice = json!({"Version": "2012-10-17", "Statement": [allow(&json!({})), allow(&json!({}))]});
    assert!(Policy::parse(&twice).unwrap_err().contains("two statements"));
    assert!(Policy::parse(&json!({"Statement": []})).unwrap_err().contains("Version"));
    assert!(Request::new("iam:Unheard", USER, []).unwrap_err().contains("iam:Unheard"));
    assert!(Request::new("iam:AddUserToGroup", USER, []).unwrap_err().contains("not authorized on"));
}
