//! The `Condition` element: operators, their set forms and `IfExists`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pattern::{fits, matches_arn};
use super::texts;

/// The condition keys of a request, in lower case, with their values.
pub(super) type Context = BTreeMap<String, Vec<String>>;

/// One operator on one key.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    key: String,
    wanted: Vec<String>,
    test: Test,
    set: Option<Set>,
    if_exists: bool,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    /// The key is missing, or is not.
    Null,
    /// The values are compared, and are to fit or not to fit.
    Compare { how: fn(&str, &str) -> bool, negated: bool },
}

/// For keys with several values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    Any,
    All,
}

impl Condition {
    pub(super) fn parse_all(element: Option<&Value>) -> Result<Vec<Self>, String> {
        let Some(element) = element else { return Ok(Vec::new()) };
        let operators = element.as_object().ok_or("Condition is no object")?;
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            for (key, wanted) in keys.as_object().ok_or_else(|| format!("{operator} is no object"))? {
                conditions.push(Self::parse(operator, key, texts(wanted)?)?);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, wanted: Vec<String>) -> Result<Self, String> {
        let (set, rest) = match operator.split_once(':') {
            Some(("ForAnyValue", rest)) => (Some(Set::Any), rest),
            Some(("ForAllValues", rest)) => (Some(Set::All), rest),
            _ => (None, operator),
        };
        let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
        let compare = |how: fn(&str, &str) -> bool, negated| Test::Compare { how, negated };
        let test = match name {
            "Null" if !if_exists && set.is_none() => Test::Null,
            "StringEquals" => compare(str::eq, false),
            "StringNotEquals" => compare(str::eq, true),
            "StringEqualsIgnoreCase" => compare(equal_but_for_case, false),
            "StringNotEqualsIgnoreCase" => compare(equal_but_for_case, true),
            "StringLike" => compare(fits, false),
            "StringNotLike" => compare(fits, true),
            "ArnEquals" | "ArnLike" => compare(matches_arn, false),
            "ArnNotEquals" | "ArnNotLike" => compare(matches_arn, true),
            _ => return Err(format!("the operator {operator} is not known here")),
        };
        Ok(Self { key: key.to_lowercase(), wanted, test, set, if_exists })
    }

    pub(super) fn holds(&self, context: &Context) -> bool {
        let found = context.get(&self.key);
        let (how, negated) = match self.test {
            Test::Null => return self.wanted.iter().any(|wanted| (wanted == "true") == found.is_none()),
            Test::Compare { how, negated } => (how, negated),
        };
        // Several wanted values are joined by "or"; for an operator that says "not", none of them may fit.
        let fits = |value: &String| self.wanted.iter().any(|wanted| how(wanted, value)) != negated;
        match (found, self.set) {
            (None, Some(set)) => self.if_exists || set == Set::All,
            (None, None) => self.if_exists || negated,
            (Some(values), Some(Set::All)) => values.iter().all(fits),
            (Some(values), _) => values.iter().any(fits),
        }
    }
}

fn equal_but_for_case(wanted: &str, found: &str) -> bool {
    wanted.to_lowercase() == found.to_lowercase()
}
