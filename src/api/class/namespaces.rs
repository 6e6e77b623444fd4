//! Which namespaces may use a class.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::format;

/// Namespaces that may use a class: those listed by name, and those whose labels match the selector.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassNamespaces {
    /// Names of namespaces, at most 500. `*` matches every namespace. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 500),
        inner(length(min = 1, max = 63), regex(pattern = format::NAMESPACE))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,

    /// Labels of namespaces. Everyone who may label a namespace can let it use the class: prefer `names`, or labels that
    /// only cluster admins can set. An empty selector matches no namespace. Default: empty.
    #[serde(default, skip_serializing_if = "NamespaceSelector::is_empty")]
    pub selector: NamespaceSelector,
}

/// Label selector for namespaces. All labels and all expressions must match.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels with exact values, at most 20. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub match_labels: BTreeMap<String, String>,

    /// Label expressions, at most 20. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub match_expressions: Vec<LabelExpression>,
}

impl NamespaceSelector {
    /// Whether the selector has no label and no expression. An empty selector matches no namespace.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// Expression on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("In and NotIn need values; Exists and DoesNotExist take none"))]
pub struct LabelExpression {
    /// Key of the label, 1 to 317 characters.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,

    /// `In` and `NotIn` compare the label with `values`; `Exists` and `DoesNotExist` test whether the label is set. A
    /// namespace without the label matches `NotIn`.
    pub operator: LabelOperator,

    /// Values for `In` and `NotIn`, at most 20 of at most 63 characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is not set or has none of the values.
    NotIn,
    /// The label is set.
    Exists,
    /// The label is not set.
    DoesNotExist,
}
