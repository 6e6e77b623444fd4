//! Policies that make whoever has them an administrator of the account, directly or in a few steps.

use serde_json::Value;

use super::pattern::{canonical, fits};

/// Managed policies of AWS, as patterns: whatever path comes before them, and however they are spelt.
pub const MANAGED_PATTERNS: [&str; 4] =
    ["AdministratorAccess*", "IAMFullAccess", "PowerUserAccess", "AWSOrganizationsFullAccess"];

/// Actions by which one who has them on any user, role, group or policy gets every other right.
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

/// Whether this managed policy of AWS is as good as `AdministratorAccess`. What is in policies of one's own is not known here.
#[must_use]
pub fn managed(declared: &str) -> bool {
    let name = canonical(declared);
    if name.starts_with("arn:") {
        return false;
    }
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    MANAGED_PATTERNS.iter().any(|known| fits(&known.to_ascii_lowercase(), &name))
}

/// Why an inline policy is as good as `AdministratorAccess`; `None` if it is not. What cannot be classified is.
#[must_use]
pub fn inline(document: &Value) -> Option<String> {
    listed(&document["Statement"]).into_iter().find_map(statement)
}

fn statement(statement: &Value) -> Option<String> {
    let Value::Object(fields) = statement else { return Some("a statement is no object".to_owned()) };
    // Anything but a plain Deny is taken for an Allow. Conditions are not weighed.
    if fields.get("Effect").and_then(Value::as_str) == Some("Deny") {
        return None;
    }
    let wide = fields.contains_key("NotResource")
        || listed(&statement["Resource"]).into_iter().any(|resource| resource.as_str().is_none_or(is_wide));
    if !wide {
        return None;
    }
    if fields.contains_key("NotAction") {
        return Some("it allows all actions but some (NotAction)".to_owned());
    }
    listed(&statement["Action"]).into_iter().find_map(|action| match action.as_str() {
        None => Some("an action is no text".to_owned()),
        Some(action) => {
            let pattern = action.to_ascii_lowercase().replace('?', "*");
            let hit = ESCALATING.iter().any(|known| fits(&pattern, known));
            hit.then(|| format!("it allows {action} on any user, role, group or policy"))
        }
    })
}

/// Whether a resource stands for all users, roles, groups or policies of an account.
fn is_wide(resource: &str) -> bool {
    let pattern = resource.replace('?', "*");
    let parts: Vec<&str> = pattern.splitn(6, ':').collect();
    let [_, _, service, _, _, name] = parts[..] else { return true };
    // A name that nobody has: what covers it covers everything of its kind.
    fits(service, "iam") && ["role", "user", "group", "policy"].iter().any(|kind| fits(name, &format!("{kind}/\u{1}")))
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
    fn administrators_are_known_under_every_spelling() {
        for name in [
            "AdministratorAccess",
            "arn:aws-us-gov:iam::aws:policy/AdministratorAccess",
            "administratoraccess",
            "AdministratorAccess-Amplify",
            "IAMFullAccess",
            "PowerUserAccess",
        ] {
            assert!(managed(name), "{name}");
        }
        for name in ["AmazonEC2FullAccess", "job-function/ViewOnlyAccess", "arn:aws:iam::123456789012:policy/own"] {
            assert!(!managed(name), "{name}");
        }
    }

    #[test]
    fn inline_policies_are_weighed_by_what_they_lead_to() {
        let allow = |action: Value, resource: Value| {
            inline(&json!({"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]})).is_some()
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
        ] {
            assert!(allow(action.clone(), resource.clone()), "{action} {resource}");
        }
        for (action, resource) in [
            (json!("s3:*"), json!("*")),
            (json!("*"), json!("arn:aws:s3:::bucket/*")),
            (json!("iam:PassRole"), json!("arn:aws:iam::123456789012:role/deploy-task")),
            (json!("sts:AssumeRole"), json!("arn:aws:iam::123456789012:role/cdk-*")),
            (json!("iam:GetUser"), json!("*")),
        ] {
            assert!(!allow(action.clone(), resource.clone()), "{action} {resource}");
        }
        assert!(inline(&json!({"Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}})).is_some());
        assert!(inline(&json!({"Statement": {"Effect": "Allow", "Action": "iam:*", "NotResource": "a"}})).is_some());
        assert!(inline(&json!({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})).is_none());
        assert!(inline(&json!({"Statement": ["what"]})).is_some());
    }
}
