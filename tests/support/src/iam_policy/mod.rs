//! Evaluation of IAM identity policies: the part of the policy language that policies for IAM actions need.
//!
//! The evaluator does no I/O. [`Policy::parse`] rejects every element that it does not support, so that an evaluation
//! never silently allows or denies.
//!
//! - An explicit deny overrides every allow; without an allow the request is implicitly denied.
//! - Actions and condition keys are compared ignoring case, resources are case-sensitive.
//! - `*` and `?` in an ARN match within one part between two colons; only the last part, the name, may contain colons.
//! - A condition on a key that the request does not carry is not met, except for `Not` operators and `IfExists`.
//!
//! [`Request::new`] takes the resource type and the condition keys of each action from [`authorization_reference`].

pub mod authorization_reference;
mod condition;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub use authorization_reference::Request;
use condition::Condition;

/// One policy document.
#[derive(Clone, Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// The result of evaluating a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows the request and none denies it.
    Allowed,
    /// No statement allows the request.
    ImplicitDeny,
    /// The statement with this `Sid` denies the request.
    ExplicitDeny(String),
}

#[derive(Clone, Debug)]
struct Statement {
    sid: String,
    allow: bool,
    actions: PatternSet,
    resources: PatternSet,
    conditions: Vec<Condition>,
}

/// The patterns of `Action` or `Resource`, or of their `Not` forms.
#[derive(Clone, Debug)]
enum PatternSet {
    Only(Vec<String>),
    AllExcept(Vec<String>),
}

impl PatternSet {
    fn covers(&self, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Only(patterns) => patterns.iter().any(|pattern| matches(pattern)),
            Self::AllExcept(patterns) => !patterns.iter().any(|pattern| matches(pattern)),
        }
    }
}

/// Evaluates all policies of one identity together.
#[must_use]
pub fn evaluate(policies: &[Policy], request: &Request) -> Decision {
    let mut allowed = false;
    for statement in policies.iter().flat_map(|policy| &policy.statements) {
        if statement.matches(request) {
            if !statement.allow {
                return Decision::ExplicitDeny(statement.sid.clone());
            }
            allowed = true;
        }
    }
    if allowed { Decision::Allowed } else { Decision::ImplicitDeny }
}

impl Policy {
    /// Parses a document. The error names the element that AWS would reject or that is not supported.
    pub fn parse(document: &Value) -> Result<Self, String> {
        let fields = object(document, "a policy", &["Version", "Id", "Statement"])?;
        if fields.get("Version") != Some(&Value::from("2012-10-17")) {
            return Err("Version must be 2012-10-17".to_owned());
        }
        let statements = match fields.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().map(Statement::parse).collect::<Result<Vec<_>, _>>()?,
            Some(statement) => vec![Statement::parse(statement)?],
            None => return Err("Statement is missing".to_owned()),
        };
        let mut sids = BTreeSet::new();
        for sid in statements.iter().map(|statement| &statement.sid).filter(|sid| !sid.is_empty()) {
            if !sids.insert(sid) {
                return Err(format!("two statements have the Sid {sid}"));
            }
        }
        Ok(Self { statements })
    }

    /// Evaluates this policy alone.
    #[must_use]
    pub fn evaluate(&self, request: &Request) -> Decision {
        evaluate(std::slice::from_ref(self), request)
    }
}

impl Statement {
    fn parse(statement: &Value) -> Result<Self, String> {
        const ELEMENTS: [&str; 7] = ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        let fields = object(statement, "a statement", &ELEMENTS)?;
        let sid = fields.get("Sid").map_or(Some(""), Value::as_str).unwrap_or("?").to_owned();
        if !sid.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err("a Sid may contain letters and digits only".to_owned());
        }
        let allow = match fields.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            other => return Err(format!("{sid}: Effect is {other:?}")),
        };
        let actions = pattern_set(fields, "Action", "NotAction").map_err(|error| format!("{sid}: {error}"))?;
        let resources = pattern_set(fields, "Resource", "NotResource").map_err(|error| format!("{sid}: {error}"))?;
        let (PatternSet::Only(arns) | PatternSet::AllExcept(arns)) = &resources;
        if let Some(arn) = arns.iter().find(|arn| *arn != "*" && !arn.starts_with("arn:")) {
            return Err(format!("{sid}: {arn} is not an ARN"));
        }
        let conditions = Condition::parse_all(fields.get("Condition")).map_err(|error| format!("{sid}: {error}"))?;
        Ok(Self { sid, allow, actions, resources, conditions })
    }

    fn matches(&self, request: &Request) -> bool {
        let action = request.action.to_lowercase();
        self.actions.covers(|pattern| pattern::matches(&pattern.to_lowercase(), &action))
            && self.resources.covers(|pattern| pattern == "*" || pattern::matches_arn(pattern, &request.resource))
            && self.conditions.iter().all(|condition| condition.is_met(&request.context))
    }
}

fn object<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let fields = value.as_object().ok_or_else(|| format!("{what} is not an object"))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{what} with {name} is not supported")),
        None => Ok(fields),
    }
}

fn pattern_set(fields: &Map<String, Value>, only: &str, all_except: &str) -> Result<PatternSet, String> {
    match (fields.get(only), fields.get(all_except)) {
        (Some(patterns), None) => Ok(PatternSet::Only(strings(patterns)?)),
        (None, Some(patterns)) => Ok(PatternSet::AllExcept(strings(patterns)?)),
        _ => Err(format!("exactly one of {only} and {all_except} is required")),
    }
}

/// One string or a list of strings. Policy variables are rejected: a [`Request`] carries no facts about the caller.
fn strings(value: &Value) -> Result<Vec<String>, String> {
    let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let strings: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
    let strings = strings.ok_or_else(|| format!("{value} is not a string"))?;
    match strings.iter().find(|text| text.contains("${")) {
        Some(text) => Err(format!("{text} contains a policy variable, which is not supported")),
        None if strings.is_empty() => Err("an empty list".to_owned()),
        None => Ok(strings),
    }
}
