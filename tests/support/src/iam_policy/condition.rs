//! The `Condition` element: operators, `ForAnyValue`, `ForAllValues` and `IfExists`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pattern::{matches, matches_arn};
use super::strings;

/// The condition keys of a request, in lower case, with their values.
pub(super) type Context = BTreeMap<String, Vec<String>>;

/// One operator on one key.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    key: String,
    expected: Vec<String>,
    operator: Operator,
    quantifier: Option<Quantifier>,
    if_exists: bool,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    /// Tests whether the key is missing from the request.
    Null,
    /// Compares the values; `negated` for the `Not` operators.
    Compare { compare_fn: fn(&str, &str) -> bool, negated: bool },
}

/// How a key with several values is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantifier {
    ForAnyValue,
    ForAllValues,
}

impl Condition {
    pub(super) fn parse_all(element: Option<&Value>) -> Result<Vec<Self>, String> {
        let Some(element) = element else { return Ok(Vec::new()) };
        let operators = element.as_object().ok_or("Condition is not an object")?;
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            for (key, expected) in keys.as_object().ok_or_else(|| format!("{operator} is not an object"))? {
                conditions.push(Self::parse(operator, key, strings(expected)?)?);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, expected: Vec<String>) -> Result<Self, String> {
        let (quantifier, rest) = match operator.split_once(':') {
            Some(("ForAnyValue", rest)) => (Some(Quantifier::ForAnyValue), rest),
            Some(("ForAllValues", rest)) => (Some(Quantifier::ForAllValues), rest),
            _ => (None, operator),
        };
        let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
        let compare = |compare_fn: fn(&str, &str) -> bool, negated| Operator::Compare { compare_fn, negated };
        let operator = match name {
            "Null" if !if_exists && quantifier.is_none() => Operator::Null,
            "StringEquals" => compare(str::eq, false),
            "StringNotEquals" => compare(str::eq, true),
            "StringEqualsIgnoreCase" => compare(equals_ignoring_case, false),
            "StringNotEqualsIgnoreCase" => compare(equals_ignoring_case, true),
            "StringLike" => compare(matches, false),
            "StringNotLike" => compare(matches, true),
            "ArnEquals" | "ArnLike" => compare(matches_arn, false),
            "ArnNotEquals" | "ArnNotLike" => compare(matches_arn, true),
            _ => return Err(format!("the operator {operator} is not supported")),
        };
        Ok(Self { key: key.to_lowercase(), expected, operator, quantifier, if_exists })
    }

    pub(super) fn is_met(&self, context: &Context) -> bool {
        let found = context.get(&self.key);
        let (compare_fn, negated) = match self.operator {
            Operator::Null => return self.expected.iter().any(|expected| (expected == "true") == found.is_none()),
            Operator::Compare { compare_fn, negated } => (compare_fn, negated),
        };
        // AWS joins several expected values by OR; a `Not` operator requires that none of them matches.
        let value_matches =
            |value: &String| self.expected.iter().any(|expected| compare_fn(expected, value)) != negated;
        match (found, self.quantifier) {
            (None, Some(quantifier)) => self.if_exists || quantifier == Quantifier::ForAllValues,
            (None, None) => self.if_exists || negated,
            (Some(values), Some(Quantifier::ForAllValues)) => values.iter().all(value_matches),
            (Some(values), _) => values.iter().any(value_matches),
        }
    }
}

fn equals_ignoring_case(expected: &str, found: &str) -> bool {
    expected.to_lowercase() == found.to_lowercase()
}
