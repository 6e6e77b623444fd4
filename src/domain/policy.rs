//! Policies: names to ARNs, documents compared by meaning, sizes as IAM counts them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// All inline documents of a user together, white space not counted (IAM quota, cannot be raised).
pub const MAX_INLINE_CHARACTERS: usize = 2048;

/// AWS's own policies on users whose keys were found in public. AWS says not to remove them.
pub const QUARANTINE_PREFIX: &str = "AWSCompromisedKeyQuarantine";

/// AWS managed policies that people name without their path.
const JOB_FUNCTIONS: [&str; 7] = [
    "Billing",
    "DataScientist",
    "DatabaseAdministrator",
    "NetworkAdministrator",
    "SupportUser",
    "SystemAdministrator",
    "ViewOnlyAccess",
];

/// The ARN of a managed policy as it is declared: an ARN stays, a name or path belongs to AWS in
/// the account's own partition.
#[must_use]
pub fn managed_arn(declared: &str, partition: &str) -> String {
    if declared.starts_with("arn:") {
        declared.to_owned()
    } else {
        format!("arn:{partition}:iam::aws:policy/{declared}")
    }
}

/// What to add to "there is no such policy", if the name suggests it.
#[must_use]
pub fn suggest_name(arn: &str) -> Option<String> {
    let name = arn.rsplit('/').next()?;
    (arn.ends_with(&format!("policy/{name}")) && JOB_FUNCTIONS.contains(&name))
        .then(|| format!("write job-function/{name}"))
}

/// Whether this attached policy is AWS's quarantine of a leaked key.
#[must_use]
pub fn is_quarantine(arn: &str) -> bool {
    arn.rsplit('/').next().is_some_and(|name| name.starts_with(QUARANTINE_PREFIX))
}

/// The characters of a document that IAM counts: all but white space.
#[must_use]
pub fn counted_characters(document: &Value) -> usize {
    document.to_string().chars().filter(|character| !character.is_whitespace()).count()
}

/// Whether two documents mean the same: order of fields, order in lists that are sets, and a
/// single value instead of a list of one make no difference.
#[must_use]
pub fn is_equivalent(left: &Value, right: &Value) -> bool {
    normalize(left) == normalize(right)
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

/// A list as a set. Numbers and booleans count as their text, as IAM treats them in conditions.
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
    fn names_paths_and_arns_become_arns_of_the_accounts_partition() {
        assert_eq!(managed_arn("AmazonEC2FullAccess", "aws"), "arn:aws:iam::aws:policy/AmazonEC2FullAccess");
        assert_eq!(
            managed_arn("job-function/ViewOnlyAccess", "aws-us-gov"),
            "arn:aws-us-gov:iam::aws:policy/job-function/ViewOnlyAccess"
        );
        let own = "arn:aws-cn:iam::123456789012:policy/team/own";
        assert_eq!(managed_arn(own, "aws-cn"), own);
    }

    #[test]
    fn a_job_function_without_its_path_gets_a_hint() {
        assert_eq!(
            suggest_name("arn:aws:iam::aws:policy/ViewOnlyAccess").as_deref(),
            Some("write job-function/ViewOnlyAccess")
        );
        assert_eq!(suggest_name("arn:aws:iam::aws:policy/job-function/ViewOnlyAccess"), None);
        assert_eq!(suggest_name("arn:aws:iam::aws:policy/Typo"), None);
    }

    #[test]
    fn quarantine_policies_are_recognised_in_every_version() {
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
    fn form_does_not_matter_and_meaning_does() {
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

    fn words() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a-z]{1,3}:[A-Z][a-z]{1,4}", 1..5)
    }

    proptest! {
        #[test]
        fn shuffled_doubled_or_unlisted_values_never_cause_a_write(mut actions in words(), resource in "[a-z*]{1,6}") {
            let one = json!({"Statement": [{"Effect": "Allow", "Action": actions, "Resource": [resource]}]});
            actions.reverse();
            actions.push(actions[0].clone());
            let other = json!({"Statement": {"Action": actions, "Resource": resource, "Effect": "Allow"}});
            prop_assert!(is_equivalent(&one, &other));
        }

        #[test]
        fn one_more_action_always_causes_a_write(actions in words(), extra in "[A-Z]{8}") {
            let one = json!({"Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
            let mut more = actions.clone();
            more.push(extra);
            let other = json!({"Statement": [{"Effect": "Allow", "Action": more, "Resource": "*"}]});
            prop_assert!(!is_equivalent(&one, &other));
        }
    }
}
