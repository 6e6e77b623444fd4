//! IAM policies, weighed as AWS weighs them: the part of its policy language that identity policies of IAM itself need.
//! Pure, and strict: what it does not know is an error when a policy is read, never a silent yes or no.
//!
//! - An explicit Deny wins, and what nothing allows is denied.
//! - Actions and condition keys are compared without regard to case, resources with it.
//! - `*` and `?` in an ARN stay within the part between two colons; only the last part, the name, may hold more colons.
//! - A condition on a key that the request does not have is not met, unless its operator says "not", or `IfExists`.
//!
//! [`Request::new`] knows what each action of IAM is authorised on, and with which condition keys ([`authorization_reference`]).

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

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// Nothing allows it.
    ImplicitDeny,
    /// The statement with this `Sid` denies it.
    ExplicitDeny(String),
}

#[derive(Clone, Debug)]
struct Statement {
    sid: String,
    allow: bool,
    actions: Scope,
    resources: Scope,
    conditions: Vec<Condition>,
}

/// What a statement speaks of: these, or all but these.
#[derive(Clone, Debug)]
enum Scope {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

impl Scope {
    fn covers(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Only(patterns) => patterns.iter().any(|pattern| fits(pattern)),
            Self::AllBut(patterns) => !patterns.iter().any(|pattern| fits(pattern)),
        }
    }
}

/// Asks several policies of one identity together.
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
    /// Reads a document. The error says what AWS would refuse, or what is not known here.
    pub fn parse(document: &Value) -> Result<Self, String> {
        let fields = object(document, "a policy", &["Version", "Id", "Statement"])?;
        if fields.get("Version") != Some(&Value::from("2012-10-17")) {
            return Err("Version has to be 2012-10-17".to_owned());
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

    /// Asks this policy alone.
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
            return Err("a Sid has letters and digits only".to_owned());
        }
        let allow = match fields.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            other => return Err(format!("{sid}: Effect is {other:?}")),
        };
        let actions = scope(fields, "Action", "NotAction").map_err(|error| format!("{sid}: {error}"))?;
        let resources = scope(fields, "Resource", "NotResource").map_err(|error| format!("{sid}: {error}"))?;
        let (Scope::Only(arns) | Scope::AllBut(arns)) = &resources;
        if let Some(arn) = arns.iter().find(|arn| *arn != "*" && !arn.starts_with("arn:")) {
            return Err(format!("{sid}: {arn} is no ARN"));
        }
        let conditions = Condition::parse_all(fields.get("Condition")).map_err(|error| format!("{sid}: {error}"))?;
        Ok(Self { sid, allow, actions, resources, conditions })
    }

    fn matches(&self, request: &Request) -> bool {
        let action = request.action.to_lowercase();
        self.actions.covers(|pattern| pattern::fits(&pattern.to_lowercase(), &action))
            && self.resources.covers(|pattern| pattern == "*" || pattern::matches_arn(pattern, &request.resource))
            && self.conditions.iter().all(|condition| condition.holds(&request.context))
    }
}

fn object<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let fields = value.as_object().ok_or_else(|| format!("{what} is no object"))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{what} with {name} is not known here")),
        None => Ok(fields),
    }
}

fn scope(fields: &Map<String, Value>, only: &str, all_but: &str) -> Result<Scope, String> {
    match (fields.get(only), fields.get(all_but)) {
        (Some(patterns), None) => Ok(Scope::Only(texts(patterns)?)),
        (None, Some(patterns)) => Ok(Scope::AllBut(texts(patterns)?)),
        _ => Err(format!("either {only} or {all_but}")),
    }
}

/// One text or a list of them, without variables: those would need to know more of the caller.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let texts: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
    let texts = texts.ok_or_else(|| format!("{value} is no text"))?;
    match texts.iter().find(|text| text.contains("${")) {
        Some(text) => Err(format!("{text} has a variable, which is not known here")),
        None if texts.is_empty() => Err("an empty list".to_owned()),
        None => Ok(texts),
    }
}
