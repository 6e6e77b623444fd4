//! Which namespaces may use a class.

use std::collections::BTreeMap;

use crate::api::class::{ClassNamespaces, LabelExpression, LabelOperator, NamespaceSelector};

/// Whether a namespace with this name and these labels may use the class.
#[must_use]
pub fn serves(rules: &ClassNamespaces, name: &str, labels: &BTreeMap<String, String>) -> bool {
    rules.names.iter().any(|served| served == "*" || served == name) || selects(&rules.selector, labels)
}

/// Whether [`serves`] depends on the labels of the namespace.
#[must_use]
pub fn depends_on_labels(rules: &ClassNamespaces, name: &str) -> bool {
    !rules.names.iter().any(|served| served == "*" || served == name) && !rules.selector.is_empty()
}

/// Namespaces that may use the class, for messages.
#[must_use]
pub fn describe_served(rules: &ClassNamespaces) -> String {
    let mut served = rules.names.clone();
    if !rules.selector.is_empty() {
        served.push("namespaces that match spec.namespaces.selector".to_owned());
    }
    if served.is_empty() { "none".to_owned() } else { served.join(", ") }
}

fn selects(selector: &NamespaceSelector, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty()
        && selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| matches(expression, labels))
}

fn matches(LabelExpression { key, operator, values }: &LabelExpression, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get(key);
    match operator {
        LabelOperator::In => label.is_some_and(|value| values.contains(value)),
        LabelOperator::NotIn => label.is_none_or(|value| !values.contains(value)),
        LabelOperator::Exists => label.is_some(),
        LabelOperator::DoesNotExist => label.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn namespaces_match_by_name_or_labels_and_none_by_default() {
        let serves = |rules: serde_json::Value, labels: serde_json::Value| {
            serves(&serde_json::from_value(rules).unwrap(), "a", &serde_json::from_value(labels).unwrap())
        };
        for (rules, labels, wanted) in [
            (json!({}), json!({}), false),
            (json!({"selector": {}}), json!({"x": "y"}), false),
            (json!({"names": ["b"]}), json!({}), false),
            (json!({"names": ["b", "a"]}), json!({}), true),
            (json!({"names": ["*"]}), json!({}), true),
            (json!({"selector": {"matchLabels": {"x": "y"}}}), json!({"x": "y"}), true),
            (json!({"selector": {"matchLabels": {"x": "y", "z": ""}}}), json!({"x": "y"}), false),
            (
                json!({"selector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}}),
                json!({"x": "y"}),
                true,
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}}),
                json!({}),
                false,
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"]}]}}),
                json!({}),
                true,
            ),
            (json!({"selector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}), json!({"x": ""}), true),
            (
                json!({"selector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}),
                json!({"x": ""}),
                false,
            ),
        ] {
            assert_eq!(serves(rules.clone(), labels.clone()), wanted, "{rules} {labels}");
        }
    }
}
