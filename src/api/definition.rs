//! The custom resource definitions: the schemas of the types, completed for API servers and clients.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt;

use super::{AwsDeployUser, AwsDeployUserClass, format};

/// Plural name and YAML document of each custom resource definition.
///
/// # Errors
/// If a definition cannot be serialized, which would be a bug.
pub fn crds_yaml() -> Result<[(&'static str, String); 2], serde_saphyr::ser::Error> {
    let [users, classes] = crds();
    Ok([
        ("awsdeployusers", serde_saphyr::to_string(&users)?),
        ("awsdeployuserclasses", serde_saphyr::to_string(&classes)?),
    ])
}

/// The custom resource definitions.
#[must_use]
pub fn crds() -> [CustomResourceDefinition; 2] {
    [AwsDeployUser::crd(), AwsDeployUserClass::crd()].map(complete)
}

fn complete(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        complete_schema(schema);
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            mark_unobserved(status);
        }
    }
    crd
}

/// A new object has `observedGeneration: -1`. Clients that wait, such as helm and Flux, treat an object without the field and
/// without conditions as complete, although no operator has read it yet.
fn mark_unobserved(status: &mut JSONSchemaProps) {
    status.default = Some(JSON(serde_json::json!({})));
    let observed = status.properties.as_mut().and_then(|properties| properties.get_mut("observedGeneration"));
    if let Some(observed) = observed {
        observed.default = Some(JSON(serde_json::json!(-1)));
    }
}

fn complete_schema(schema: &mut JSONSchemaProps) {
    schema.description = schema.description.take().map(|text| joined(&text));
    // The API server knows signed formats only and warns of others.
    schema.format.take_if(|format| format.starts_with("uint"));
    if let Some(message) = schema.pattern.as_deref().and_then(format::message) {
        let pattern = schema.pattern.take().unwrap_or_default();
        let rule = format!("self.matches(r'{pattern}')");
        let rule = ValidationRule { rule, message: Some(message.to_owned()), ..ValidationRule::default() };
        schema.x_kubernetes_validations.get_or_insert_default().push(rule);
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(complete_schema);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        complete_schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        complete_schema(values);
    }
}

/// The text with each paragraph on one line: `kubectl explain` wraps lines itself.
fn joined(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every schema of a definition, with its path.
    fn schemas(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
        found.push((path.to_owned(), schema.clone()));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            schemas(&format!("{path}.{name}"), field, found);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                schemas(&format!("{path}[]"), &schema[part], found);
            }
        }
    }

    fn all() -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for crd in crds() {
            let crd = serde_json::to_value(&crd).unwrap();
            let name = crd["spec"]["names"]["kind"].as_str().unwrap();
            schemas(name, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
        }
        found
    }

    #[test]
    fn every_refusal_of_a_text_has_a_message() {
        for (path, schema) in all() {
            assert_eq!(schema["pattern"], Value::Null, "{path}: add the format to MESSAGES");
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(rule["message"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {rule}");
                assert!(schema["type"] != "string" || schema["maxLength"].is_u64(), "{path}: CEL needs a bound");
            }
        }
    }

    #[test]
    fn descriptions_have_no_line_breaks_within_a_paragraph() {
        for (path, schema) in all() {
            let text = schema["description"].as_str().unwrap_or_default().replace("\n\n", "");
            assert!(!text.contains('\n'), "{path}: {text}");
            assert!(!schema["format"].as_str().unwrap_or_default().starts_with("uint"), "{path}");
        }
        assert_eq!(joined("A\nb\n  c.\n\nD."), "A b c.\n\nD.");
    }
}
