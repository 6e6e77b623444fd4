//! Grammar of identity-based policies. Rules that IAM was not observed to enforce are warnings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Findings, quote};

const DOCUMENT_ELEMENTS: &[&str] = &["Version", "Id", "Statement"];
const STATEMENT_ELEMENTS: &[&str] =
    &["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition", "Principal", "NotPrincipal"];
pub(super) const CURRENT_VERSION: &str = "2012-10-17";
const OLD_VERSION: &str = "2008-10-17";

/// Condition operators, without `ForAnyValue:`, `ForAllValues:` and `IfExists`.
const OPERATORS: &[&str] = &[
    "ArnEquals",
    "ArnLike",
    "ArnNotEquals",
    "ArnNotLike",
    "BinaryEquals",
    "Bool",
    "DateEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateNotEquals",
    "IpAddress",
    "NotIpAddress",
    "Null",
    "NumericEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericNotEquals",
    "StringEquals",
    "StringEqualsIgnoreCase",
    "StringLike",
    "StringNotEquals",
    "StringNotEqualsIgnoreCase",
    "StringNotLike",
];

/// Checks a document against the grammar.
pub(super) fn check(document: &Value) -> Findings {
    let mut findings = Findings::default();
    let Some(fields) = document.as_object() else {
        findings.error("", "a policy document is an object with Version and Statement");
        return findings;
    };
    check_elements(fields, "", DOCUMENT_ELEMENTS, &mut findings);
    check_version(element(fields, "Version"), &mut findings);
    if element(fields, "Id").is_some_and(|id| !id.is_string()) {
        findings.error("Id", "Id is a string");
    }
    let mut sids = BTreeMap::new();
    match element(fields, "Statement") {
        None => findings.error("", "Statement is missing; it is a list of statements"),
        Some(Value::Array(statements)) if statements.is_empty() => {
            findings.error("Statement", "the list has no statement; add one, or remove the policy");
        }
        Some(Value::Array(statements)) => {
            for (index, statement) in statements.iter().enumerate() {
                check_statement(statement, &format!("Statement[{index}]"), &mut sids, &mut findings);
            }
        }
        Some(statement) => check_statement(statement, "Statement", &mut sids, &mut findings),
    }
    findings
}

/// The element of this name. Its case is checked by [`check_elements`].
pub(super) fn element<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| {
        let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    })
}

/// The statements of a document with their places.
pub(super) fn statements(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let statement = document.as_object().and_then(|fields| element(fields, "Statement"));
    match statement {
        Some(Value::Array(statements)) => {
            let objects = statements.iter().enumerate();
            objects
                .filter_map(|(index, statement)| Some((format!("Statement[{index}]"), statement.as_object()?)))
                .collect()
        }
        Some(Value::Object(statement)) => vec![("Statement".to_owned(), statement)],
        _ => Vec::new(),
    }
}

/// The texts of an element that is one string or a list of strings, with their places.
pub(super) fn texts<'a>(statement: &'a Map<String, Value>, place: &str, name: &str) -> Vec<(String, &'a str)> {
    match element(statement, name) {
        Some(Value::String(text)) => vec![(format!("{place}.{name}"), text)],
        Some(Value::Array(values)) => {
            let texts = values.iter().enumerate();
            texts.filter_map(|(index, value)| Some((format!("{place}.{name}[{index}]"), value.as_str()?))).collect()
        }
        _ => Vec::new(),
    }
}

/// A string without quotation marks, any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn check_elements(fields: &Map<String, Value>, place: &str, known: &[&str], findings: &mut Findings) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
        let other_case = known.iter().find(|known| known.eq_ignore_ascii_case(name));
        let allowed = known.iter().filter(|name| !name.ends_with("Principal")).copied().collect::<Vec<_>>().join(", ");
        match other_case {
            Some(known) => findings.warn(place, format!("the element {name} is spelled {known} in policies")),
            // IAM ignores it.
            None if place.is_empty() && name == "Conditions" => {
                findings.warn(place, "the element Conditions has no effect; Condition belongs into a statement");
            }
            None => findings.error(place, format!("the element {} is unknown; allowed are {allowed}", quote(name))),
        }
    }
}

/// Whether the document has the old version of the policy language, which is also the default.
pub(super) fn has_old_version(document: &Value) -> bool {
    let version = document.as_object().map(|fields| element(fields, "Version"));
    version.is_some_and(|version| version.is_none_or(|version| version == OLD_VERSION))
}

fn check_version(version: Option<&Value>, findings: &mut Findings) {
    let old = || {
        format!(
            "IAM does not replace variables such as ${{aws:username}} in it, and refuses it as a managed policy; set Version to \"{CURRENT_VERSION}\""
        )
    };
    match version {
        None => findings.warn("", format!("Version is missing, which means {OLD_VERSION}: {}", old())),
        Some(Value::String(version)) if version == CURRENT_VERSION => {}
        Some(Value::String(version)) if version == OLD_VERSION => {
            findings.warn("Version", format!("{OLD_VERSION} is the old version: {}", old()));
        }
        Some(other) => {
            let text = text(other);
            findings.error(
                "Version",
                format!(
                    "{} is no version of the policy language; write \"{CURRENT_VERSION}\", in quotation marks",
                    quote(&text)
                ),
            );
        }
    }
}

fn check_statement<'a>(
    statement: &'a Value,
    place: &str,
    sids: &mut BTreeMap<&'a str, String>,
    findings: &mut Findings,
) {
    let Some(fields) = statement.as_object() else {
        findings.error(place, "a statement is an object with Effect, Action and Resource");
        return;
    };
    check_elements(fields, place, STATEMENT_ELEMENTS, findings);
    for name in ["Principal", "NotPrincipal"] {
        if element(fields, name).is_some() {
            let message =
                format!("{name} is not allowed: the statements of a user's policy apply to the user; remove it");
            findings.error(&format!("{place}.{name}"), message);
        }
    }
    check_sid(element(fields, "Sid"), place, sids, findings);
    match element(fields, "Effect") {
        Some(Value::String(effect)) if effect == "Allow" || effect == "Deny" => {}
        Some(other) => findings
            .error(&format!("{place}.Effect"), format!("{} is neither \"Allow\" nor \"Deny\"", quote(&text(other)))),
        None => findings.error(place, "Effect is missing; it is \"Allow\" or \"Deny\""),
    }
    for (name, opposite, example) in [("Action", "NotAction", "s3:GetObject"), ("Resource", "NotResource", "*")] {
        match (element(fields, name), element(fields, opposite)) {
            (Some(_), Some(_)) => {
                findings.error(place, format!("{name} and {opposite} exclude each other; remove one"));
            }
            (None, None) => {
                findings.error(place, format!("{name} is missing; set {name}, for example {example:?}, or {opposite}"));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
    for name in ["Action", "NotAction", "Resource", "NotResource"] {
        check_list(element(fields, name), &format!("{place}.{name}"), findings);
    }
    for (place, action) in ["Action", "NotAction"].iter().flat_map(|name| texts(fields, place, name)) {
        check_action(action, &place, findings);
    }
    for (place, resource) in ["Resource", "NotResource"].iter().flat_map(|name| texts(fields, place, name)) {
        check_resource(resource, &place, findings);
    }
    if let Some(condition) = element(fields, "Condition") {
        check_condition(condition, &format!("{place}.Condition"), findings);
    }
}

fn check_sid<'a>(sid: Option<&'a Value>, place: &str, sids: &mut BTreeMap<&'a str, String>, findings: &mut Findings) {
    let at = format!("{place}.Sid");
    match sid {
        None => {}
        Some(Value::String(sid)) => {
            if !sid.chars().all(|c| c.is_ascii_alphanumeric()) {
                findings.error(&at, format!("{} may have letters (A to Z, a to z) and digits only", quote(sid)));
            }
            if let Some(other) = sids.get(sid.as_str()).filter(|_| !sid.is_empty()) {
                findings
                    .error(&at, format!("{} is the Sid of {other} too; each Sid is unique in a document", quote(sid)));
            }
            sids.insert(sid, place.to_owned());
        }
        Some(_) => findings.error(&at, "Sid is a string"),
    }
}

fn check_list(element: Option<&Value>, place: &str, findings: &mut Findings) {
    match element {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(values)) if values.is_empty() => findings.error(place, "the list is empty"),
        Some(Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                match value {
                    Value::String(_) => {}
                    Value::Null => findings.warn(&format!("{place}[{index}]"), "the value is empty"),
                    other => {
                        findings
                            .error(&format!("{place}[{index}]"), format!("{} is not a string", quote(&text(other))));
                    }
                }
            }
        }
        Some(other) => {
            findings.error(place, format!("{} is neither a string nor a list of strings", quote(&text(other))));
        }
    }
}

fn check_action(action: &str, place: &str, findings: &mut Findings) {
    if action == "*" {
        return;
    }
    let quoted = quote(action);
    let Some((service, name)) = action.split_once(':') else {
        let message = format!("{quoted} has no service; an action is \"*\" or <service>:<name>, such as s3:GetObject");
        return findings.error(place, message);
    };
    if name.contains(':') {
        findings.error(place, format!("{quoted} has more than one colon; an action is <service>:<name>"));
    }
    let is_service = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some(wrong) = service.chars().find(|c| !is_service(*c)).filter(|_| service != "*") {
        let message = format!("the service of {quoted} contains {wrong:?}; allowed are letters, digits, - and .");
        findings.error(place, message);
    }
}

fn check_resource(resource: &str, place: &str, findings: &mut Findings) {
    const SHAPE: &str = "arn:<partition>:<service>:<region>:<account>:<resource>";
    if resource == "*" {
        return;
    }
    let quoted = quote(resource);
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    if parts.len() == 1 {
        findings.error(place, format!("{quoted} is neither \"*\" nor an ARN ({SHAPE})"));
        return;
    }
    if parts[0] != "arn" {
        findings.warn(place, format!("{quoted} does not begin with arn: ({SHAPE})"));
    }
    let is_partition = |part: &str| {
        part == "aws"
            || part.strip_prefix("aws-").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    };
    let has_wildcard = |part: &str| part.contains(['*', '?', '$']);
    if !has_wildcard(parts[1]) && !is_partition(parts[1]) {
        let message = format!("{quoted} has no valid partition; it is aws, aws-cn, aws-us-gov or *");
        findings.error(place, message);
    }
    match parts.get(2) {
        None => findings.error(place, format!("{quoted} ends after the partition; an ARN is {SHAPE}")),
        Some(_) if parts.len() < 6 && !parts.last().is_some_and(|last| has_wildcard(last)) => {
            findings.warn(place, format!("{quoted} has {} of the 6 parts of an ARN ({SHAPE})", parts.len()));
        }
        Some(service) => {
            let region = parts.get(3).copied().unwrap_or_default();
            if *service == "iam" && !region.is_empty() && !has_wildcard(region) {
                findings.error(place, format!("{quoted} has a region; ARNs of IAM have none (arn:aws:iam::...)"));
            }
        }
    }
}

fn check_condition(condition: &Value, place: &str, findings: &mut Findings) {
    let Some(operators) = condition.as_object() else {
        findings.error(place, "Condition is an object of operators, such as StringEquals");
        return;
    };
    for (operator, keys) in operators {
        let at = format!("{place}.{operator}");
        let Some(keys) = keys.as_object() else {
            findings.error(&at, "an operator has an object of condition keys with their values");
            continue;
        };
        let name = operator_name(operator);
        if !OPERATORS.contains(&name) {
            let allowed = OPERATORS.join(", ");
            match OPERATORS.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                Some(known) => findings.warn(&at, format!("the operator is spelled {known} in policies")),
                None if keys.is_empty() => findings.warn(&at, format!("the operator is unknown; known are {allowed}")),
                None => findings.error(
                    &at,
                    format!(
                        "the operator is unknown; known are {allowed}, with the prefix ForAnyValue: or ForAllValues: and the suffix IfExists"
                    ),
                ),
            }
        }
        for (key, values) in keys {
            check_values(values, name, &format!("{at}.{key}"), findings);
        }
    }
}

/// An operator without quantifier and `IfExists`.
pub(super) fn operator_name(operator: &str) -> &str {
    let unquantified =
        operator.strip_prefix("ForAnyValue:").or_else(|| operator.strip_prefix("ForAllValues:")).unwrap_or(operator);
    unquantified.strip_suffix("IfExists").unwrap_or(unquantified)
}

fn check_values(values: &Value, operator: &str, place: &str, findings: &mut Findings) {
    let list = match values {
        Value::Array(list) => list.as_slice(),
        Value::Object(_) => {
            findings.error(place, "the value of a condition key is a string, number or boolean, or a list of them");
            return;
        }
        single => std::slice::from_ref(single),
    };
    if list.is_empty() {
        findings.warn(place, "the list of values is empty");
    }
    for value in list {
        match value {
            Value::Object(_) | Value::Array(_) => {
                findings.error(place, format!("{} is neither a string nor a number or boolean", quote(&text(value))));
            }
            Value::Null => findings.warn(place, "the value is empty"),
            _ => check_value(&text(value), operator, place, findings),
        }
    }
}

/// A value that the operator cannot compare never matches.
fn check_value(value: &str, operator: &str, place: &str, findings: &mut Findings) {
    if value.contains("${") {
        return;
    }
    let expected = match operator {
        "Bool" | "Null" if !["true", "false"].contains(&value.to_lowercase().as_str()) => "\"true\" or \"false\"",
        "IpAddress" | "NotIpAddress" if !is_address(value) => "an IP address or a range such as 203.0.113.0/24",
        numeric if numeric.starts_with("Numeric") && value.parse::<f64>().is_err() => "a number",
        arn if arn.starts_with("Arn") && value != "*" && !value.starts_with("arn:") => "an ARN",
        _ => return,
    };
    findings.warn(place, format!("{} never matches: {operator} compares with {expected}", quote(value)));
}

fn is_address(value: &str) -> bool {
    let (address, length) = value.split_once('/').map_or((value, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= longest))
}
