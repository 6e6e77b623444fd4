//! The API reference, from the schemas of the CRDs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{cell, generated, split_default};
use crate::api;

pub(super) fn markdown() -> Result<String, serde_json::Error> {
    let mut text = format!("# API\n\n{}\n\n{HEAD}", generated("the doc comments in src/api"));
    for crd in api::crds() {
        write_kind(&mut text, &serde_json::to_value(&crd)?);
    }
    Ok(text)
}

const HEAD: &str = "A path with `[]` is a field of each item of a list, one with `.*` a value of a map. Durations are written as `30d`, `12h`, `90m` or
combinations, and are at most `3650d`. `kubectl explain awsdeployuser.spec --recursive` shows the same descriptions.

Annotations of an `AwsDeployUser` that request an action; any new value requests it once:

| annotation | action |
|---|---|
| `awsdeploy.dev/rotate` | a new access key; the previous one keeps its overlap |
| `awsdeploy.dev/reset-password` | a new console password |
| `awsdeploy.dev/retry` | a reconcile now: a back-off ends |

The annotation `awsdeploy.dev/paused: \"true\"` of an `AwsDeployUser` [pauses](../access-keys.md#pause) it until it is removed.

All other labels, annotations and finalizers that begin with `awsdeploy.dev/` belong to the operator. The annotation
`awsdeploy.dev/is-default-class: \"true\"` of an `AwsDeployUserClass` makes it the default class.
";

fn write_kind(text: &mut String, crd: &Value) {
    let spec = &crd["spec"];
    let version = &spec["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let scope = if spec["scope"] == "Namespaced" { "namespaced" } else { "cluster-scoped" };
    let _ = writeln!(
        text,
        "\n## {}\n\n{}\n\n`{}/{}`, {scope}, short name `{}`.",
        str_of(&spec["names"]["kind"]),
        cell(str_of(&schema["description"])),
        str_of(&spec["group"]),
        str_of(&version["name"]),
        str_of(&spec["names"]["shortNames"][0]),
    );
    for rule in rules(schema) {
        let _ = writeln!(text, "\n{rule}");
    }
    for part in ["spec", "status"] {
        let part_schema = &schema["properties"][part];
        let _ = write!(text, "\n### {part}\n\n{}\n\n", cell(str_of(&part_schema["description"])));
        for rule in rules(part_schema) {
            let _ = write!(text, "{rule}\n\n");
        }
        text.push_str("| field | type | default | description |\n|---|---|---|---|\n");
        write_fields(text, "", part_schema);
    }
}

fn write_fields(text: &mut String, parent: &str, schema: &Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        let (description, written_default) = split_default(&cell(str_of(&field["description"])));
        let default = match &field["default"] {
            Value::Null => written_default.unwrap_or_default(),
            Value::Object(map) if map.is_empty() => String::new(),
            default => format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
        };
        let mut said = vec![description];
        if required.iter().any(|required| required == name) {
            said.push("Required.".to_owned());
        }
        // Kubernetes' own type, described by Kubernetes.
        let standard = name == "conditions";
        if !standard {
            said.extend(limits(field, "characters"));
            said.extend(limits(&field["items"], "characters each"));
            said.extend(limits(&field["additionalProperties"], "characters each"));
            said.extend([field, &field["items"], &field["additionalProperties"]].into_iter().flat_map(rules));
        }
        said.retain(|part| !part.is_empty());
        let _ = writeln!(text, "| `{path}` | {} | {default} | {} |", type_of(field), said.join(" "));
        if !standard {
            write_fields(text, &path, field);
            write_fields(text, &format!("{path}[]"), &field["items"]);
            write_fields(text, &format!("{path}.*"), &field["additionalProperties"]);
        }
    }
}

fn type_of(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        Some("string") if field["format"] == "date-time" => "time".to_owned(),
        Some("string") if field["enum"].is_array() => "enum".to_owned(),
        Some(name) => name.to_owned(),
        None => "any".to_owned(),
    }
}

/// Limits of a field as sentences.
fn limits(field: &Value, characters: &str) -> Vec<String> {
    let Some(field) = field.as_object() else { return Vec::new() };
    let mut said = Vec::new();
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        said.push(format!("One of {}.", values.join(", ")));
    }
    said.extend(range(field, "minLength", "maxLength", characters));
    said.extend(range(field, "minItems", "maxItems", "items"));
    said.extend(range(field, "minProperties", "maxProperties", "entries"));
    said.extend(range(field, "minimum", "maximum", ""));
    said
}

fn range(field: &Map<String, Value>, least: &str, most: &str, unit: &str) -> Option<String> {
    let number =
        |name| field.get(name).map(|value| value.as_f64().map_or_else(|| value.to_string(), |n| n.to_string()));
    let range = match (number(least), number(most)) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("At least {least}"),
        (None, Some(most)) => format!("At most {most}"),
        (None, None) => return None,
    };
    Some(format!("{range} {unit}").trim().to_owned() + ".")
}

/// The messages of the CEL rules.
fn rules(field: &Value) -> Vec<String> {
    let rules = field["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["message"].as_str()).map(|message| format!("*Rule:* {}.", cell(message))).collect()
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
