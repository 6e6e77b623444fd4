//! Policy documents: a resource declares them, or selects a template of its class and sets its parameters.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format;

/// Which policy documents resources may have.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DocumentPermission {
    /// No documents.
    #[default]
    Deny,
    /// Only documents from the templates of the class.
    TemplatesOnly,
    /// Any document, and documents from the templates of the class.
    Allow,
}

/// Policy document with placeholders for values of the resource.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTemplate {
    /// Name of the template, 1 to 63 characters, unique in the class.
    #[schemars(length(min = 1, max = 63), regex(pattern = format::TEMPLATE_NAME))]
    pub name: String,

    /// Policy document as an object with `Version` and `Statement`, as in the IAM documentation. `{bucket}` is replaced by the
    /// parameter `bucket`; `{namespace}` and `{name}` are those of the resource, `{accountId}` is the class's `account.id`.
    /// Placeholders are allowed in `Resource`, `NotResource` and the values of `Condition` only. IAM policy variables such as
    /// `${aws:username}` are kept.
    #[schemars(schema_with = "super::user::any_object")]
    pub document: serde_json::Value,

    /// Parameters that a resource sets, at most 10. Each must occur in the document. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub parameters: Vec<TemplateParameter>,
}

/// Parameter of a template.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateParameter {
    /// Name of the parameter: a letter followed by letters and digits, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = format::PARAMETER_NAME))]
    #[x_kube(validation = Rule::new("!(self in ['namespace', 'name', 'accountId'])")
        .message("namespace, name and accountId are set by the operator and cannot be parameters"))]
    pub name: String,

    /// Regular expression (RE2) that must match the whole value, 1 to 256 characters. A value never contains `*`, `?` or `$`,
    /// even if the expression matches them: wildcards and variables belong to the template. Default:
    /// `[A-Za-z0-9._-]{1,64}`.
    #[serde(default = "default_pattern")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) || !'x'.matches(self)").message("pattern is not a regular expression (RE2)"))]
    pub pattern: String,
}

fn default_pattern() -> String {
    "[A-Za-z0-9._-]{1,64}".to_owned()
}

/// Schema of parameter values, with the limits that apply to all of them.
pub(super) fn values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": format::PARAMETER_VALUE},
    })
}

/// What a policy document becomes in IAM.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DocumentPlacement {
    /// An inline policy while all inline documents of the user fit into 2,048 characters; otherwise the largest ones become
    /// managed policies.
    #[default]
    Auto,
    /// An inline policy, which is part of the user.
    Inline,
    /// A managed policy that belongs to the resource.
    Managed,
}

/// Policy document of the IAM user: written in the resource, or a template of the class with parameters.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.document) != has(self.template)").message("set either document or template"))]
#[x_kube(validation = Rule::new("!has(self.parameters) || has(self.template)").message("parameters needs template"))]
pub struct DeclaredDocument {
    /// Name of the document, 1 to 63 characters, unique in the resource regardless of case. An inline policy has this name, a
    /// managed policy the name `<user name>+<this name>`.
    #[schemars(length(min = 1, max = 63), regex(pattern = format::DOCUMENT_NAME))]
    pub name: String,

    /// Policy document as an object with `Version` and `Statement`, as in the IAM documentation. The class must allow it
    /// (`policies.documents: Allow`). Excludes `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::user::any_object")]
    pub document: Option<serde_json::Value>,

    /// Name of a template of the class, at most 63 characters. When the template changes, the policy is updated. Excludes
    /// `document`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,

    /// Values of the parameters of the template, by name of at most 63 characters, at most 10. Every parameter needs a value of 1 to 256 letters,
    /// digits, spaces and `_ . : / = + @ , -` that matches the pattern of the class. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) <= 63)").message("names of parameters have at most 63 characters"))]
    pub parameters: BTreeMap<String, String>,

    /// What the document becomes in IAM: an `Inline` policy, a `Managed` policy that belongs to the resource, has at most 6,144
    /// characters and counts as attached, or one of the two by size (`Auto`). `status.policies` says which. A document that
    /// changes from one to the other is never missing meanwhile. Default: `Auto`.
    #[serde(rename = "as", default)]
    pub placement: DocumentPlacement,
}
