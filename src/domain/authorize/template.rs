//! Templates of policy documents: documents with placeholders for untrusted values.
//!
//! Values are inserted into strings of the parsed document, never into its text, and only in resources and in the values of
//! conditions. A value can neither end a string nor contain a wildcard or a policy variable.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::matches_whole;
use crate::{api::class::PolicyTemplate, domain::policy};

/// Placeholders that the operator sets, with a pattern of their values.
const BUILTIN: [(&str, &str); 3] =
    [("namespace", "[a-z0-9-]{1,63}"), ("name", "[a-z0-9.-]{1,253}"), ("accountId", "[0-9]{12}")];

/// Characters of values besides letters and digits. Excludes wildcards (`*`, `?`), `$`, braces, quotes and backslashes.
const PUNCTUATION: &str = " _.:/=+@,-";

/// Values by name of the placeholder.
pub type Values = BTreeMap<String, String>;

/// Part of a string.
enum Piece<'a> {
    /// Literal text, including policy variables such as `${aws:username}`.
    Text(&'a str),
    /// Name of a placeholder.
    Placeholder(&'a str),
}

/// Position in a policy document.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Document,
    Statement,
    Condition,
    Operator,
    /// Resources and values of conditions, where placeholders are allowed.
    Value,
    Fixed,
}

impl Position {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Document, "Statement") => Self::Statement,
            (Self::Statement, "Resource" | "NotResource") | (Self::Operator, _) => Self::Value,
            (Self::Statement, "Condition") => Self::Condition,
            (Self::Condition, _) => Self::Operator,
            _ => Self::Fixed,
        }
    }

    /// Position of the items of a list.
    fn item(self) -> Self {
        if matches!(self, Self::Statement | Self::Value) { self } else { Self::Fixed }
    }
}

/// Values of the placeholders that the operator sets.
#[must_use]
pub fn builtin_values(namespace: &str, name: Option<&str>, account: Option<&str>) -> Values {
    let all = [("namespace", Some(namespace)), ("name", name), ("accountId", account)];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
}

/// Checks a template. `has_account`: the class sets `account.id`.
///
/// # Errors
/// The first error.
pub fn check(template: &PolicyTemplate, has_account: bool) -> Result<(), String> {
    let mut unused: Vec<&str> = Vec::new();
    for parameter in &template.parameters {
        let name = parameter.name.as_str();
        if BUILTIN.iter().any(|(builtin, _)| *builtin == name) || unused.contains(&name) {
            return Err(format!("the parameter {name} is declared twice, or is one of {}", placeholder_names(&[])));
        }
        matches_whole(&parameter.pattern, "")
            .map_err(|why| format!("the pattern of {name} is not a regular expression (RE2): {why}"))?;
        unused.push(name);
    }
    let declared = unused.clone();
    rebuild(&template.document, Position::Document, &mut |position, text| {
        for piece in pieces(text)? {
            let Piece::Placeholder(name) = piece else { continue };
            if position != Position::Value {
                return Err(format!(
                    "{{{name}}} in {text:?}: placeholders are allowed in Resource, NotResource and the values of Condition only"
                ));
            }
            if name == "accountId" && !has_account {
                return Err("{accountId} needs account.id of the class".to_owned());
            }
            if !declared.contains(&name) && !BUILTIN.iter().any(|(builtin, _)| *builtin == name) {
                return Err(format!("{{{name}}} is not a parameter; parameters are {}", placeholder_names(&declared)));
            }
            unused.retain(|parameter| *parameter != name);
        }
        Ok(text.to_owned())
    })?;
    match unused.first() {
        Some(name) => Err(format!("the parameter {name} does not occur in the document")),
        None => Ok(()),
    }
}

/// Errors of the templates of a class. `None` if all are valid.
#[must_use]
pub fn describe_faults(templates: &[PolicyTemplate], has_account: bool) -> Option<String> {
    let faults: Vec<String> = templates
        .iter()
        .filter_map(|template| Some(format!("template {}: {}", template.name, check(template, has_account).err()?)))
        .collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// Renders the template with these values.
///
/// # Errors
/// All errors of the values, or the first error of the template.
pub fn render(template: &PolicyTemplate, values: &Values, own: &Values) -> Result<Value, Vec<String>> {
    check(template, own.contains_key("accountId")).map_err(|why| {
        vec![format!("template {} is invalid: {why}; ask a cluster admin to correct it", template.name)]
    })?;
    let invalid = invalid_values(template, values);
    if !invalid.is_empty() {
        return Err(invalid);
    }
    rebuild(&template.document, Position::Document, &mut |_, text| {
        let mut rendered = String::new();
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => rendered.push_str(text),
                Piece::Placeholder(name) => {
                    let value = own.get(name).or_else(|| values.get(name));
                    rendered.push_str(value.ok_or_else(|| format!("{{{name}}} has no value"))?);
                }
            }
        }
        Ok(rendered)
    })
    .map_err(|why| vec![why])
}

fn invalid_values(template: &PolicyTemplate, values: &Values) -> Vec<String> {
    let name = &template.name;
    let mut invalid = Vec::new();
    for parameter in &template.parameters {
        let (key, pattern) = (&parameter.name, &parameter.pattern);
        match values.get(key) {
            None => invalid.push(format!("template {name} needs the parameter {key}, which must match {pattern}")),
            Some(value) if !is_plain(value) => invalid.push(format!(
                "the parameter {key} of template {name} is {value:?}; values have 1 to 256 letters, digits, spaces and _ . : / = + @ , -"
            )),
            Some(value) if matches_whole(pattern, value) != Ok(true) => {
                invalid.push(format!("the parameter {key} of template {name} is {value:?}; it must match {pattern}"));
            }
            Some(_) => {}
        }
    }
    for key in values.keys().filter(|key| !template.parameters.iter().any(|parameter| parameter.name == **key)) {
        invalid.push(format!("template {name} has no parameter {key}; it is {}", signature(template)));
    }
    invalid
}

/// Whether a value contains no character with a meaning in IAM or JSON. Applies in addition to the pattern of the class.
fn is_plain(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c))
}

/// Name and parameters, such as `bucket(name, folder)`.
#[must_use]
pub fn signature(template: &PolicyTemplate) -> String {
    let names: Vec<&str> = template.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    format!("{}({})", template.name, names.join(", "))
}

/// Whether the template renders this document for some values. A document with reordered lists or an ambiguous match may not
/// be recognized and then counts as a document without a template.
#[must_use]
pub fn could_render(template: &PolicyTemplate, document: &Value, own: &Values) -> bool {
    let mut pairs = Vec::new();
    value_pairs(&template.document, document, Position::Document, &mut pairs);
    let mut found = own.clone();
    let placeholders =
        |text: &str| pieces(text).map_or(0, |all| all.iter().filter(|p| matches!(p, Piece::Placeholder(_))).count());
    // Strings with one placeholder determine its value; begin with them.
    pairs.sort_by_key(|(text, _)| placeholders(text));
    if pairs.into_iter().any(|(text, rendered)| extract_values(template, text, rendered, &mut found).is_none()) {
        return false;
    }
    let is_builtin = |key: &str| BUILTIN.iter().any(|(builtin, _)| *builtin == key);
    let (own, values) = found.into_iter().partition(|(key, _)| is_builtin(key));
    render(template, &values, &own).is_ok_and(|rendered| policy::is_equivalent(&rendered, document))
}

/// Extracts the values from a rendered string. `None` if the template cannot render it.
fn extract_values(template: &PolicyTemplate, text: &str, rendered: &str, found: &mut Values) -> Option<()> {
    let (mut pattern, mut placeholders) = (String::new(), Vec::new());
    for piece in pieces(text).ok()? {
        match piece {
            Piece::Text(text) => pattern.push_str(&regex_lite::escape(text)),
            Piece::Placeholder(name) => {
                if let Some(value) = found.get(name) {
                    pattern.push_str(&regex_lite::escape(value));
                    continue;
                }
                let declared = template.parameters.iter().find(|parameter| parameter.name == name);
                let builtin = || BUILTIN.iter().find(|(builtin, _)| *builtin == name).map(|(_, pattern)| *pattern);
                let expression = declared.map(|parameter| parameter.pattern.as_str()).or_else(builtin)?;
                write!(pattern, "(?P<value{}>{expression})", placeholders.len()).ok()?;
                placeholders.push(name);
            }
        }
    }
    let whole = regex_lite::Regex::new(&format!("^(?:{pattern})$")).ok()?;
    let captures = whole.captures(rendered)?;
    for (number, name) in placeholders.into_iter().enumerate() {
        let value = captures.name(&format!("value{number}"))?.as_str();
        found.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Some(())
}

/// Strings of the template that may contain placeholders, each with the string at the same position of the document.
fn value_pairs<'a>(template: &'a Value, document: &'a Value, position: Position, pairs: &mut Vec<(&'a str, &'a str)>) {
    match (template, document) {
        (Value::String(text), Value::String(rendered)) if position == Position::Value => pairs.push((text, rendered)),
        (Value::Array(left), Value::Array(right)) => {
            left.iter().zip(right).for_each(|(left, right)| value_pairs(left, right, position.item(), pairs));
        }
        (Value::Object(left), Value::Object(right)) => {
            for (key, left) in left {
                if let Some(right) = right.get(key) {
                    value_pairs(left, right, position.below(key), pairs);
                }
            }
        }
        _ => {}
    }
}

/// Maps every string of the document, including keys, with `each`.
fn rebuild(
    value: &Value,
    position: Position,
    each: &mut impl FnMut(Position, &str) -> Result<String, String>,
) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(each(position, text)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| rebuild(item, position.item(), each)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut rebuilt = serde_json::Map::new();
            for (key, field) in fields {
                rebuilt.insert(each(Position::Fixed, key)?, rebuild(field, position.below(key), each)?);
            }
            Value::Object(rebuilt)
        }
        other => other.clone(),
    })
}

/// Splits a string. Every brace must belong to a placeholder or to a policy variable.
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
            .ok_or_else(|| format!("{text:?} has a brace outside of a placeholder"))?;
        let end = at + inside.len() + 2;
        if before.ends_with('$') {
            pieces.push(Piece::Text(&rest[..end]));
        } else if is_identifier(inside) {
            pieces.extend([Piece::Text(before), Piece::Placeholder(inside)]);
        } else {
            return Err(format!(
                "{{{inside}}} in {text:?} is not a placeholder: a placeholder is letters and digits in braces"
            ));
        }
        rest = &rest[end..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Names of all placeholders.
fn placeholder_names(declared: &[&str]) -> String {
    declared.iter().copied().chain(BUILTIN.iter().map(|(builtin, _)| *builtin)).collect::<Vec<_>>().join(", ")
}
