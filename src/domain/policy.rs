//! Policies: ARNs, semantic comparison of documents, and sizes as IAM counts them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Quota of IAM for all inline policies of a user together, without white space. It cannot be raised.
pub const MAX_INLINE_CHARACTERS: usize = 2048;

/// Quota of IAM for one managed policy, without white space. It cannot be raised.
pub const MAX_MANAGED_CHARACTERS: usize = 6144;

/// Prefix of the policies that AWS attaches to users whose keys were found in public, and asks not to remove.
pub const QUARANTINE_PREFIX: &str = "AWSCompromisedKeyQuarantine";

/// AWS managed policies with a path that is often omitted.
const JOB_FUNCTIONS: [&str; 7] = [
    "Billing",
    "DataScientist",
    "DatabaseAdministrator",
    "NetworkAdministrator",
    "SupportUser",
    "SystemAdministrator",
    "ViewOnlyAccess",
];

/// ARN of a declared managed policy. A name or path is an AWS managed policy in the partition of the account.
#[must_use]
pub fn managed_arn(declared: &str, partition: &str) -> String {
    if declared.starts_with("arn:") {
        declared.to_owned()
    } else {
        format!("arn:{partition}:iam::aws:policy/{declared}")
    }
}

/// The name in the ARN of a managed policy.
#[must_use]
pub fn name(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

/// Hint for a managed policy that does not exist, if its path was probably omitted.
#[must_use]
pub fn suggest_name(arn: &str) -> Option<String> {
    let name = name(arn);
    (arn.ends_with(&format!("policy/{name}")) && JOB_FUNCTIONS.contains(&name))
        .then(|| format!("write job-function/{name}"))
}

/// Whether this is a quarantine policy, which AWS attaches itself.
#[must_use]
pub fn is_quarantine(arn: &str) -> bool {
    name(arn).starts_with(QUARANTINE_PREFIX)
}

/// Whether AWS lets the managed policy be attached to service-linked roles only.
#[must_use]
pub fn is_for_service_linked_roles(arn: &str) -> bool {
    arn.contains(":iam::aws:policy/aws-service-role/")
}

/// The first character of a document that IAM does not allow in policies, and the text around it.
#[must_use]
pub fn forbidden_character(document: &Value) -> Option<(char, String)> {
    const CONTEXT_CHARACTERS: usize = 20;
    let text: Vec<char> = document.to_string().chars().collect();
    let at = text.iter().position(|character| u32::from(*character) > 0xFF)?;
    let is_quote = |character: &&char| **character == '"';
    let before = text[..at].iter().rev().take_while(|character| !is_quote(character)).take(CONTEXT_CHARACTERS).count();
    let after = text[at..].iter().take_while(|character| !is_quote(character)).take(CONTEXT_CHARACTERS).count();
    Some((text[at], text[at - before..at + after].iter().collect()))
}

/// Characters of a document that count against the quotas of IAM: all except white space.
#[must_use]
pub fn counted_characters(document: &Value) -> usize {
    document.to_string().chars().filter(|character| !character.is_whitespace()).count()
}

/// Whether two documents have the same meaning. Ignores the order of fields and sets, and treats a single value as a list.
#[must_use]
pub fn is_equivalent(left: &Value, right: &Value) -> bool {
    normalize(left) == normalize(right)
}

/// Text that two documents share exactly if they have the same meaning, see [`is_equivalent`].
#[must_use]
pub fn canonical_text(document: &Value) -> String {
    let mut text = String::new();
    write_sorted(&normalize(document), &mut text);
    text
}

/// Writes JSON with the fields of objects in order of their names.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (name, field) in sorted {
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write_sorted(field, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_sorted(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn normalize(document: &Value) -> Value {
    let Value::Object(fields) = document else { return document.clone() };
    let fields = fields.iter().map(|(name, value)| {
        let value = if name == "Statement" {
            Value::Array(listed(value).into_iter().map(|statement| normalize_statement(&statement)).collect())
        } else {
            value.clone()
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}

fn normalize_statement(statement: &Value) -> Value {
    let Value::Object(fields) = statement else { return statement.clone() };
    let fields = fields.iter().map(|(name, value)| {
        let value = match name.as_str() {
            "Action" | "NotAction" | "Resource" | "NotResource" => set(value),
            "Principal" | "NotPrincipal" => normalize_inner_sets(value),
            "Condition" => match value {
                Value::Object(operators) => Value::Object(
                    operators.iter().map(|(operator, keys)| (operator.clone(), normalize_inner_sets(keys))).collect(),
                ),
                other => other.clone(),
            },
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}

fn normalize_inner_sets(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, values)| (name.clone(), set(values))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn listed(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        single => vec![single.clone()],
    }
}

/// Sorted set of a list. Numbers and booleans equal their text, as in conditions of IAM.
fn set(value: &Value) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let values: BTreeSet<String> = listed(value).iter().map(text).collect();
    Value::Array(values.into_iter().map(Value::String).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_paths_become_arns_of_the_accounts_partition() {
        assert_eq!(managed_arn("AmazonEC2FullAccess", "aws"), "arn:aws:iam::aws:policy/AmazonEC2FullAccess");
        assert_eq!(
            managed_arn("job-function/ViewOnlyAccess", "aws-us-gov"),
            "arn:aws-us-gov:iam::aws:policy/job-function/ViewOnlyAccess"
        );
        let own = "arn:aws-cn:iam::123456789012:policy/team/own";
        assert_eq!(managed_arn(own, "aws-cn"), own);
    }

    #[test]
    fn job_function_without_path_gets_a_hint() {
        assert_eq!(
            suggest_name("arn:aws:iam::aws:policy/ViewOnlyAccess").as_deref(),
            Some("write job-function/ViewOnlyAccess")
        );
        assert_eq!(suggest_name("arn:aws:iam::aws:policy/job-function/ViewOnlyAccess"), None);
        assert_eq!(suggest_name("arn:aws:iam::aws:policy/Typo"), None);
    }

    #[test]
    fn quarantine_policies_of_every_version_are_recognized() {
        for name in ["AWSCompromisedKeyQuarantine", "AWSCompromisedKeyQuarantineV2", "AWSCompromisedKeyQuarantineV3"] {
            assert!(is_quarantine(&managed_arn(name, "aws")));
        }
        assert!(!is_quarantine("arn:aws:iam::aws:policy/AmazonEC2FullAccess"));
    }

    #[test]
    fn white_space_is_not_counted() {
        assert_eq!(counted_characters(&json!({"a": "b c"})), r#"{"a":"bc"}"#.len());
    }

    #[test]
    fn comparison_ignores_form_but_not_meaning() {
        let declared = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "*",
            "Condition": {"StringEquals": {"aws:RequestedRegion": ["eu-central-1"]}, "Bool": {"aws:SecureTransport": true}}}]});
        let returned = json!({"Statement": {"Resource": ["*"], "Action": ["s3:PutObject", "s3:GetObject"], "Effect": "Allow",
            "Condition": {"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"aws:RequestedRegion": "eu-central-1"}}}, "Version": "2012-10-17"});
        assert!(is_equivalent(&declared, &returned));
        let mut wider = returned.clone();
        wider["Statement"]["Action"] = json!("s3:*");
        assert!(!is_equivalent(&declared, &wider));
        assert!(!is_equivalent(&declared, &Value::String("not json".into())));
    }

    fn actions() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a-z]{1,3}:[A-Z][a-z]{1,4}", 1..5)
    }

    proptest! {
        #[test]
        fn reordered_or_repeated_values_cause_no_write(mut actions in actions(), resource in "[a-z*]{1,6}") {
            let one = json!({"Statement": [{"Effect": "Allow", "Action": actions, "Resource": [resource]}]});
            actions.reverse();
            actions.push(actions[0].clone());
            let other = json!({"Statement": {"Action": actions, "Resource": resource, "Effect": "Allow"}});
            prop_assert!(is_equivalent(&one, &other));
            prop_assert_eq!(canonical_text(&one), canonical_text(&other));
        }

        #[test]
        fn additional_action_always_causes_a_write(actions in actions(), extra in "[A-Z]{8}") {
            let one = json!({"Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
            let mut more = actions.clone();
            more.push(extra);
            let other = json!({"Statement": [{"Effect": "Allow", "Action": more, "Resource": "*"}]});
            prop_assert!(!is_equivalent(&one, &other));
            prop_assert_ne!(canonical_text(&one), canonical_text(&other));
        }
    }
}
