//! Templates of inline policies: a class has them, a resource names one and gives it values.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which inline policies resources may have.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InlinePermission {
    /// None.
    #[default]
    Deny,
    /// Those that the templates of the class make.
    TemplatesOnly,
    /// Documents of their own, and those that the templates of the class make.
    Allow,
}

/// An inline policy with gaps that a resource fills.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTemplate {
    /// Name by which resources ask for it, unique in this class.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,

    /// The policy document as an object, as the IAM documentation shows it: `Version` and `Statement`. `{bucket}` stands for
    /// the parameter of that name; `{namespace}` and `{name}` are those of the resource, `{accountId}` is `account.id`
    /// of the class. They may stand in `Resource`, in `NotResource` and in the values of a `Condition`, and nowhere else.
    /// Policy variables of IAM, such as `${aws:username}`, stay as they are.
    #[schemars(schema_with = "super::user::any_object")]
    pub document: serde_json::Value,

    /// What a resource fills in, at most 10. Every one has to stand in the document. Absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub parameters: Vec<TemplateParameter>,
}

/// A gap of a template.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateParameter {
    /// Name of the parameter: letters and digits.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    #[x_kube(validation = Rule::new("!(self in ['namespace', 'name', 'accountId'])")
        .message("namespace, name and accountId are filled in by the operator"))]
    pub name: String,

    /// Regular expression (RE2) that a value must fit as a whole. Default: 1 to 64 letters, digits, dots, hyphens and
    /// underscores. Whatever it says, a value has no `*`, `?` or `$`: wildcards and variables belong to the template.
    #[serde(default = "default_pattern")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) || !'x'.matches(self)").message("pattern is no regular expression (RE2)"))]
    pub pattern: String,
}

fn default_pattern() -> String {
    "[A-Za-z0-9._-]{1,64}".to_owned()
}

/// Values of parameters: the schema checks what holds for all of them.
pub(super) fn values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[A-Za-z0-9 _.:/=+@,-]+$"},
    })
}

/// A policy that exists only in this user: a document of its own, or one that a template of the class makes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.document) != has(self.template)").message("give either document or template"))]
#[x_kube(validation = Rule::new("!has(self.parameters) || has(self.template)").message("parameters go with template"))]
pub struct InlinePolicy {
    /// Name of the policy, unique in this user.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9+=,.@_-]+$"))]
    pub name: String,

    /// The policy document as an object, as the IAM documentation shows it: `Version` and `Statement`. The class has to
    /// allow documents of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::user::any_object")]
    pub document: Option<serde_json::Value>,

    /// Name of a template of the class, instead of `document`. When the template changes, so does the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,

    /// Values for the parameters of the template, by name: all of them, and no others. A value has 1 to 256 letters, digits,
    /// spaces and `_ . : / = + @ , -`, and fits what the class says of the parameter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values")]
    pub parameters: BTreeMap<String, String>,
}
