//! Templates of inline policies: documents with gaps, filled in with values that nobody trusts.
//!
//! What is filled in are strings of the parsed document, never its text, and only where a value cannot change who does
//! what: in resources and in the values of conditions. A value can neither close a string nor bring a wildcard or a variable.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::fits_whole;
use crate::{api::class::PolicyTemplate, domain::policy};

/// Placeholders that the operator fills in itself, with what their values look like.
const OWN: [(&str, &str); 3] =
    [("namespace", "[a-z0-9-]{1,63}"), ("name", "[a-z0-9.-]{1,253}"), ("accountId", "[0-9]{12}")];

/// Punctuation that a value may have beside letters and digits: no `*` and `?`, no `$`, no braces, quotes and backslashes.
const PUNCTUATION: &str = " _.:/=+@,-";

/// Values by placeholder.
pub type Values = BTreeMap<String, String>;

/// A part of a string.
enum Piece<'a> {
    /// Stays as it is, variables of IAM such as `${aws:username}` among it.
    Text(&'a str),
    /// Name of a placeholder.
    Gap(&'a str),
}

/// Where in a document a value is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Document,
    Statement,
    Condition,
    Operator,
    /// Resources and values of conditions.
    Open,
    Fixed,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Document, "Statement") => Self::Statement,
            (Self::Statement, "Resource" | "NotResource") | (Self::Operator, _) => Self::Open,
            (Self::Statement, "Condition") => Self::Condition,
            (Self::Condition, _) => Self::Operator,
            _ => Self::Fixed,
        }
    }

    /// Where the items of a list are.
    fn item(self) -> Self {
        if matches!(self, Self::Statement | Self::Open) { self } else { Self::Fixed }
    }
}

/// What the operator knows of a resource before AWS is asked.
#[must_use]
pub fn builtin_values(namespace: &str, name: Option<&str>, account: Option<&str>) -> Values {
    let all = [("namespace", Some(namespace)), ("name", name), ("accountId", account)];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
}

/// Whether a template can be used by those who give it the right values. `account` says that the class names its account.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(template: &PolicyTemplate, account: bool) -> Result<(), String> {
    let mut unused: Vec<&str> = Vec::new();
    for parameter in &template.parameters {
        let name = parameter.name.as_str();
        if OWN.iter().any(|(own, _)| *own == name) || unused.contains(&name) {
            return Err(format!("the parameter {name} is there twice, or is one of {}", known(&[])));
        }
        fits_whole(&parameter.pattern, "").map_err(|why| format!("the pattern of {name} is no RE2: {why}"))?;
        unused.push(name);
    }
    let declared = unused.clone();
    rebuild(&template.document, Place::Document, &mut |place, text| {
        for piece in pieces(text)? {
            let Piece::Gap(name) = piece else { continue };
            if place != Place::Open {
                return Err(format!(
                    "{{{name}}} in {text:?}: placeholders stand in Resource, NotResource and the values of a Condition only"
                ));
            }
            if name == "accountId" && !account {
                return Err("{accountId} needs spec.account.id of the class".to_owned());
            }
            if !declared.contains(&name) && !OWN.iter().any(|(own, _)| *own == name) {
                return Err(format!("{{{name}}} is no parameter; there are {}", known(&declared)));
            }
            unused.retain(|parameter| *parameter != name);
        }
        Ok(text.to_owned())
    })?;
    match unused.first() {
        Some(name) => Err(format!("the parameter {name} stands nowhere in the document")),
        None => Ok(()),
    }
}

/// What is wrong with the templates of a class; `None` if all can be used.
#[must_use]
pub fn describe_faults(templates: &[PolicyTemplate], account: bool) -> Option<String> {
    let faults: Vec<String> = templates
        .iter()
        .filter_map(|template| Some(format!("template {}: {}", template.name, check(template, account).err()?)))
        .collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// The document that the template makes of these values.
///
/// # Errors
/// All that is wrong with the values, or the first thing that is wrong with the template.
pub fn render(template: &PolicyTemplate, values: &Values, own: &Values) -> Result<Value, Vec<String>> {
    check(template, own.contains_key("accountId")).map_err(|why| {
        vec![format!("template {} cannot be used until a cluster admin mends it: {why}", template.name)]
    })?;
    let wrong = wrong_values(template, values);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    rebuild(&template.document, Place::Document, &mut |_, text| {
        let mut filled = String::new();
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Gap(name) => {
                    let value = own.get(name).or_else(|| values.get(name));
                    filled.push_str(value.ok_or_else(|| format!("there is no value for {{{name}}}"))?);
                }
            }
        }
        Ok(filled)
    })
    .map_err(|why| vec![why])
}

fn wrong_values(template: &PolicyTemplate, values: &Values) -> Vec<String> {
    let name = &template.name;
    let mut wrong = Vec::new();
    for parameter in &template.parameters {
        let (key, pattern) = (&parameter.name, &parameter.pattern);
        match values.get(key) {
            None => wrong.push(format!("template {name} needs the parameter {key}, which has to fit {pattern}")),
            Some(value) if !is_plain(value) => wrong.push(format!(
                "the parameter {key} of template {name} is {value:?}; values have 1 to 256 letters, digits, spaces and _ . : / = + @ , -"
            )),
            Some(value) if fits_whole(pattern, value) != Ok(true) => {
                wrong.push(format!("the parameter {key} of template {name} is {value:?}; it has to fit {pattern}"));
            }
            Some(_) => {}
        }
    }
    for key in values.keys().filter(|key| !template.parameters.iter().any(|parameter| parameter.name == **key)) {
        wrong.push(format!("template {name} has no parameter {key}; it is {}", signature(template)));
    }
    wrong
}

/// Whether a value holds nothing that means something to IAM or to JSON, whatever the pattern of the class says.
fn is_plain(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c))
}

/// Name and parameters: `bucket(name, folder)`.
#[must_use]
pub fn signature(template: &PolicyTemplate) -> String {
    let names: Vec<&str> = template.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    format!("{}({})", template.name, names.join(", "))
}

/// Whether some values make this document of the template. A document whose lists are in another order, or that could be
/// taken apart in several ways, may not be recognised: then it counts as one of somebody's own.
#[must_use]
pub fn could_render(template: &PolicyTemplate, document: &Value, own: &Values) -> bool {
    let mut pairs = Vec::new();
    open_pairs(&template.document, document, Place::Document, &mut pairs);
    let mut found = own.clone();
    let gaps = |text: &str| pieces(text).map_or(0, |all| all.iter().filter(|p| matches!(p, Piece::Gap(_))).count());
    // Where there is one placeholder its value is plain to see, and helps with the others.
    pairs.sort_by_key(|(text, _)| gaps(text));
    if pairs.into_iter().any(|(text, filled)| learn(template, text, filled, &mut found).is_none()) {
        return false;
    }
    let is_own = |key: &str| OWN.iter().any(|(own, _)| *own == key);
    let (own, values) = found.into_iter().partition(|(key, _)| is_own(key));
    render(template, &values, &own).is_ok_and(|made| policy::is_equivalent(&made, document))
}

/// Reads values off a string that was filled in. `None` if it cannot have come from there.
fn learn(template: &PolicyTemplate, text: &str, filled: &str, found: &mut Values) -> Option<()> {
    let (mut pattern, mut gaps) = (String::new(), Vec::new());
    for piece in pieces(text).ok()? {
        match piece {
            Piece::Text(text) => pattern.push_str(&regex_lite::escape(text)),
            Piece::Gap(name) => {
                if let Some(value) = found.get(name) {
                    pattern.push_str(&regex_lite::escape(value));
                    continue;
                }
                let declared = template.parameters.iter().find(|parameter| parameter.name == name);
                let own = || OWN.iter().find(|(own, _)| *own == name).map(|(_, pattern)| *pattern);
                let fits = declared.map(|parameter| parameter.pattern.as_str()).or_else(own)?;
                write!(pattern, "(?P<gap{}>{fits})", gaps.len()).ok()?;
                gaps.push(name);
            }
        }
    }
    let whole = regex_lite::Regex::new(&format!("^(?:{pattern})$")).ok()?;
    let captures = whole.captures(filled)?;
    for (number, name) in gaps.into_iter().enumerate() {
        let value = captures.name(&format!("gap{number}"))?.as_str();
        found.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Some(())
}

/// Strings of the template that may have placeholders, each with what stands there in the document.
fn open_pairs<'a>(template: &'a Value, document: &'a Value, place: Place, pairs: &mut Vec<(&'a str, &'a str)>) {
    match (template, document) {
        (Value::String(text), Value::String(filled)) if place == Place::Open => pairs.push((text, filled)),
        (Value::Array(left), Value::Array(right)) => {
            left.iter().zip(right).for_each(|(left, right)| open_pairs(left, right, place.item(), pairs));
        }
        (Value::Object(left), Value::Object(right)) => {
            for (key, left) in left {
                if let Some(right) = right.get(key) {
                    open_pairs(left, right, place.below(key), pairs);
                }
            }
        }
        _ => {}
    }
}

/// The document with every string, keys too, passed through `each`.
fn rebuild(
    value: &Value,
    place: Place,
    each: &mut impl FnMut(Place, &str) -> Result<String, String>,
) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(each(place, text)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| rebuild(item, place.item(), each)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut rebuilt = serde_json::Map::new();
            for (key, field) in fields {
                rebuilt.insert(each(Place::Fixed, key)?, rebuild(field, place.below(key), each)?);
            }
            Value::Object(rebuilt)
        }
        other => other.clone(),
    })
}

/// Takes a string apart. Every brace belongs to a placeholder or to a variable of IAM.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        let inside = from
            .strip_prefix('{')
            .and_then(|from| from.split_once('}'))
            .map(|(inside, _)| inside)
            .filter(|inside| !inside.contains('{'))
            .ok_or_else(|| format!("{text:?} has a brace that belongs to no placeholder"))?;
        let end = at + inside.len() + 2;
        if before.ends_with('$') {
            pieces.push(Piece::Text(&rest[..end]));
        } else if is_identifier(inside) {
            pieces.extend([Piece::Text(before), Piece::Gap(inside)]);
        } else {
            return Err(format!("{{{inside}}} in {text:?} is no placeholder: those are letters and digits in braces"));
        }
        rest = &rest[end..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Names of all placeholders that there are.
fn known(declared: &[&str]) -> String {
    declared.iter().copied().chain(OWN.iter().map(|(own, _)| *own)).collect::<Vec<_>>().join(", ")
}
