//! Policies that let the operator assume a role of another account, one for each side.

use serde_json::{Value, json};

/// Policy of the operator's own identity.
#[must_use]
pub fn assume_policy(role: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "AssumeRole", "Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": role},
    ]})
}

/// Trust policy of the role. `operator` is the ARN of the operator's own role or user.
#[must_use]
pub fn trust_policy(operator: &str, external_id: Option<&str>) -> Value {
    let mut statement = json!({
        "Sid": "AllowOperator", "Effect": "Allow", "Principal": {"AWS": operator}, "Action": ["sts:AssumeRole"],
    });
    if let Some(id) = external_id {
        statement["Condition"] = json!({"StringEquals": {"sts:ExternalId": id}});
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_policy_requires_operator_and_external_id() {
        let operator = "arn:aws:iam::111122223333:role/operator";
        let policy = trust_policy(operator, Some("team-b"));
        let statements = policy["Statement"].as_array().unwrap();
        assert_eq!(statements.len(), 1);
        assert_eq!(statements[0]["Principal"], json!({"AWS": operator}), "one principal, no wildcard");
        assert_eq!(statements[0]["Condition"], json!({"StringEquals": {"sts:ExternalId": "team-b"}}));
        assert_eq!(trust_policy(operator, None)["Statement"][0].get("Condition"), None);
    }

    #[test]
    fn assume_policy_allows_one_role() {
        let policy = assume_policy("arn:aws:iam::444455556666:role/deploy-users");
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws:iam::444455556666:role/deploy-users");
        assert_eq!(policy["Statement"][0]["Action"], json!(["sts:AssumeRole"]));
    }
}
