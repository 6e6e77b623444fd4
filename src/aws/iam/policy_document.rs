//! Policy documents as IAM returns them.

use serde_json::Value;

/// Decodes a policy document: percent-encoded as IAM returns it, or plain JSON as emulators do. Text that is no JSON is kept as
/// a string, so that it differs from every declared document.
pub(super) fn decode_document(text: &str) -> Value {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_object)
        .or_else(|| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
            serde_json::from_str(&decoded).ok()
        })
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::domain::policy;

    /// One or more values of a policy element, with characters that need an encoding.
    fn values() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a-z:*/%+ \"\\\\{}ü-]{1,12}", 1..4)
    }

    #[derive(Clone, Debug)]
    struct Statement {
        actions: Vec<String>,
        resources: Vec<String>,
        condition: Option<Vec<String>>,
        allow: bool,
    }

    fn statement() -> impl Strategy<Value = Statement> {
        (values(), values(), proptest::option::of(values()), any::<bool>())
            .prop_map(|(actions, resources, condition, allow)| Statement { actions, resources, condition, allow })
    }

    /// Renders a document: each bit of `form` chooses one of two equivalent forms.
    fn render(statements: &[Statement], form: u32) -> Value {
        let bit = |number: u32| form >> number & 1 == 1;
        let set = |values: &[String], at: u32| {
            let mut values = values.to_vec();
            if bit(at) {
                values.reverse();
            }
            if bit(at + 1) {
                values.push(values[0].clone());
            }
            if values.len() == 1 && bit(at + 2) { json!(values[0]) } else { json!(values) }
        };
        let statements: Vec<Value> = statements
            .iter()
            .map(|statement| {
                let effect = if statement.allow { "Allow" } else { "Deny" };
                let mut fields = vec![
                    ("Effect", json!(effect)),
                    ("Action", set(&statement.actions, 0)),
                    ("Resource", set(&statement.resources, 3)),
                ];
                let condition = statement.condition.as_ref();
                fields.extend(condition.map(|values| ("Condition", json!({"StringLike": {"aws:x": set(values, 6)}}))));
                if bit(9) {
                    fields.reverse();
                }
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
            })
            .collect();
        let single = statements.len() == 1 && bit(10);
        json!({"Version": "2012-10-17", "Statement": if single { statements[0].clone() } else { json!(statements) }})
    }

    proptest! {
        #[test]
        fn equivalent_forms_of_a_document_are_equal(
            statements in proptest::collection::vec(statement(), 1..4), declared: u32, returned: u32, encoding in 0..4
        ) {
            let (declared, returned) = (render(&statements, declared), render(&statements, returned));
            let text = if encoding & 1 == 0 { returned.to_string() } else { format!("{returned:#}\n") };
            let text = if encoding & 2 == 0 { text } else { utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string() };
            prop_assert!(policy::is_equivalent(&decode_document(&text), &declared), "{} is not {}", text, declared);
        }

        #[test]
        fn changed_document_differs_from_the_declared_one(
            statements in proptest::collection::vec(statement(), 1..4), form: u32, other: u32, change in 0..5
        ) {
            let mut changed = statements.clone();
            match change {
                0 => changed[0].allow = !changed[0].allow,
                1 => changed[0].actions.push("ec2:NotThere".to_owned()),
                2 => changed[0].resources = vec!["arn:aws:s3:::another".to_owned()],
                3 => changed[0].condition = changed[0].condition.is_none().then(|| vec!["x".to_owned()]),
                _ => changed.push(Statement {
                    actions: vec!["iam:*".to_owned()], resources: vec!["*".to_owned()], condition: None, allow: true,
                }),
            }
            prop_assert!(!policy::is_equivalent(&decode_document(&render(&changed, other).to_string()), &render(&statements, form)));
        }
    }

    #[test]
    fn invalid_document_differs_from_every_declared_one() {
        for text in ["", "not json", "%7B%22", "[]", "\"{}\"", "null"] {
            assert!(!policy::is_equivalent(&decode_document(text), &json!({})), "{text:?}");
        }
    }
}
