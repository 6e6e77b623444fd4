//! Detects policies that make their holder an administrator of the account, directly or by privilege escalation.

use serde_json::{Map, Value};

use super::pattern::{canonicalize, matches};

/// Patterns of AWS managed policies with administrator permissions. Matched without path and ignoring case.
pub const MANAGED_PATTERNS: [&str; 4] =
    ["AdministratorAccess*", "IAMFullAccess", "PowerUserAccess", "AWSOrganizationsFullAccess"];

/// Actions that allow privilege escalation if they are allowed on any user, role, group or policy.
const ESCALATING: [&str; 18] = [
    "iam:addusertogroup",
    "iam:attachgrouppolicy",
    "iam:attachrolepolicy",
    "iam:attachuserpolicy",
    "iam:createaccesskey",
    "iam:createloginprofile",
    "iam:createpolicyversion",
    "iam:deleterolepermissionsboundary",
    "iam:deleteuserpermissionsboundary",
    "iam:passrole",
    "iam:putgrouppolicy",
    "iam:putrolepolicy",
    "iam:putuserpermissionsboundary",
    "iam:putuserpolicy",
    "iam:setdefaultpolicyversion",
    "iam:updateassumerolepolicy",
    "iam:updateloginprofile",
    "sts:assumerole",
];

/// Actions that allow privilege escalation if they are allowed on the user itself, its groups or its policies.
const GRANTING: [&str; 7] = [
    "iam:attachgrouppolicy",
    "iam:attachuserpolicy",
    "iam:createpolicyversion",
    "iam:deleteuserpermissionsboundary",
    "iam:putgrouppolicy",
    "iam:putuserpermissionsboundary",
    "iam:putuserpolicy",
];

/// Whether this AWS managed policy is equivalent to `AdministratorAccess`. The content of customer managed policies is unknown.
#[must_use]
pub fn is_admin_policy(declared: &str) -> bool {
    let name = canonicalize(declared);
    if name.starts_with("arn:") {
        return false;
    }
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    MANAGED_PATTERNS.iter().any(|known| matches(&known.to_ascii_lowercase(), &name))
}

/// Why an inline policy is equivalent to `AdministratorAccess`. `None` if it is not. A document that cannot be classified
/// counts as equivalent.
#[must_use]
pub fn escalation_reason(document: &Value) -> Option<String> {
    let Value::Object(fields) = document else { return Some("it is not an object".to_owned()) };
    unknown(fields, &["Version", "Id", "Statement"])
        .or_else(|| listed(&document["Statement"]).into_iter().find_map(statement))
}

/// Fields other than the documented ones of IAM cannot be classified.
fn unknown(fields: &Map<String, Value>, known: &[&str]) -> Option<String> {
    let other = fields.keys().find(|name| !known.contains(&name.as_str()))?;
    Some(format!("its field {other} is not one of {}", known.join(", ")))
}

fn statement(statement: &Value) -> Option<String> {
    let Value::Object(fields) = statement else { return Some("a statement is not an object".to_owned()) };
    let known = ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
    if let Some(why) = unknown(fields, &known) {
        return Some(why);
    }
    // Anything but an exact Deny counts as Allow. Conditions are ignored.
    if fields.get("Effect").and_then(Value::as_str) == Some("Deny") {
        return None;
    }
    let on = |test: fn(&str) -> bool| {
        fields.contains_key("NotResource")
            || listed(&statement["Resource"]).into_iter().any(|resource| resource.as_str().is_none_or(test))
    };
    let (wide, own) = (on(is_wide), on(may_be_own));
    if !wide && !own {
        return None;
    }
    if fields.contains_key("NotAction") {
        return Some("it allows all actions except some (NotAction)".to_owned());
    }
    listed(&statement["Action"]).into_iter().find_map(|action| match action.as_str() {
        None => Some("an action is not a string".to_owned()),
        Some(action) => {
            let pattern = action.to_ascii_lowercase().replace('?', "*");
            let allows = |known: &[&str]| known.iter().any(|known| matches(&pattern, known));
            if wide && allows(&ESCALATING) {
                Some(format!("it allows {action} on any user, role, group or policy"))
            } else if own && allows(&GRANTING) {
                Some(format!("it allows {action} on a resource that may be the user itself, its group or its policy"))
            } else {
                None
            }
        }
    })
}

/// Whether a resource pattern matches all users, roles, groups or policies of an account.
fn is_wide(resource: &str) -> bool {
    // No entity can have this name: a pattern that matches it matches every entity of the kind.
    let all =
        |name: &str| ["role", "user", "group", "policy"].iter().any(|kind| matches(name, &format!("{kind}/\u{1}")));
    is_iam_arn(&resource.replace('?', "*"), all)
}

/// Whether a resource pattern may match the user that has the policy, one of its groups or one of its policies. Their names
/// are unknown here, so every name may match.
fn may_be_own(resource: &str) -> bool {
    let one = |name: &str| {
        let plain = name.split('*').next().unwrap_or_default();
        let kinds = ["user/", "group/", "policy/"];
        kinds.iter().any(|kind| plain.starts_with(kind) || (plain != name && kind.starts_with(plain)))
    };
    is_iam_arn(&resource.replace(['?', '$'], "*"), one)
}

/// Whether the pattern may match an IAM ARN whose resource part satisfies the predicate. A pattern that is not an ARN may
/// match anything.
fn is_iam_arn(pattern: &str, predicate: impl Fn(&str) -> bool) -> bool {
    let parts: Vec<&str> = pattern.splitn(6, ':').collect();
    let [_, _, service, _, _, name] = parts[..] else { return true };
    matches(service, "iam") && predicate(name)
}

fn listed(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        single => vec![single],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn admin_policies_are_detected_ignoring_path_and_case() {
        for name in [
            "AdministratorAccess",
            "arn:aws-us-gov:iam::aws:policy/AdministratorAccess",
            "administratoraccess",
            "AdministratorAccess-Amplify",
            "IAMFullAccess",
            "PowerUserAccess",
        ] {
            assert!(is_admin_policy(name), "{name}");
        }
        for name in ["AmazonEC2FullAccess", "job-function/ViewOnlyAccess", "arn:aws:iam::123456789012:policy/own"] {
            assert!(!is_admin_policy(name), "{name}");
        }
    }

    #[test]
    fn inline_policies_are_checked_for_privilege_escalation() {
        let allow = |action: Value, resource: Value| {
            escalation_reason(&json!({"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}))
                .is_some()
        };
        for (action, resource) in [
            (json!("*"), json!("*")),
            (json!("iam:*"), json!("*")),
            (json!("IAM:Pass*"), json!("arn:aws:iam::123456789012:role/*")),
            (json!(["s3:GetObject", "iam:PutUserPolicy"]), json!("*")),
            (json!("sts:AssumeRole"), json!(["arn:aws:iam::*:*"])),
            (json!("iam:?assRole"), json!("arn:aws:iam::123456789012:*")),
            (json!(7), json!("*")),
            (json!("*"), json!("arn:*")),
            (json!("iam:AttachUserPolicy"), json!("arn:aws:iam::*:user/awsdeploy/${aws:username}")),
            (json!("iam:PutUserPolicy"), json!("arn:aws:iam::123456789012:user/awsdeploy/a")),
            (json!("iam:*Boundary"), json!("arn:aws:iam::123456789012:${x}")),
            (json!("iam:Put*"), json!("arn:aws:iam::123456789012:u*/a")),
            (json!("iam:PutGroupPolicy"), json!("arn:aws:iam::123456789012:group/deployers")),
            (json!("iam:CreatePolicyVersion"), json!("arn:aws:iam::123456789012:policy/deploy")),
        ] {
            assert!(allow(action.clone(), resource.clone()), "{action} {resource}");
        }
        for (action, resource) in [
            (json!("s3:*"), json!("*")),
            (json!("*"), json!("arn:aws:s3:::bucket/*")),
            (json!("iam:PassRole"), json!("arn:aws:iam::123456789012:role/deploy-task")),
            (json!("sts:AssumeRole"), json!("arn:aws:iam::123456789012:role/cdk-*")),
            (json!("iam:GetUser"), json!("*")),
            (json!("iam:CreateAccessKey"), json!("arn:aws:iam::*:user/awsdeploy/${aws:username}")),
            (json!("iam:AttachRolePolicy"), json!("arn:aws:iam::123456789012:role/app-*")),
        ] {
            assert!(!allow(action.clone(), resource.clone()), "{action} {resource}");
        }
        assert!(
            escalation_reason(&json!({"Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}}))
                .is_some()
        );
        assert!(
            escalation_reason(&json!({"Statement": {"Effect": "Allow", "Action": "iam:*", "NotResource": "a"}}))
                .is_some()
        );
        assert!(escalation_reason(&json!({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})).is_none());
        assert!(escalation_reason(&json!({"Statement": ["what"]})).is_some());
        for document in [
            json!({"statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "action": "*", "Resource": "*"}]}),
            json!("what"),
        ] {
            assert!(escalation_reason(&document).is_some(), "{document}");
        }
    }
}
