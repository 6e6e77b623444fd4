//! The Secret that holds an access key: its name and its content.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format;

/// Characters of a template.
pub const MAX_TEMPLATE_CHARS: u32 = 4_096;

/// Secret that holds the access key. The operator creates it and never adopts an existing Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// Name of the Secret in the namespace of this resource, at most 253 characters. It must match the class's
    /// `secrets.namePattern`. Immutable. Default: the name of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = format::OBJECT_NAME))]
    pub name: Option<String>,

    /// Formats of the key in the Secret, at most 5. All of them change in one write. At least one of `Environment`,
    /// `CredentialsFile`, `Csv` and `ProcessJson` is needed, because the operator reads the key from it. Default:
    /// `Environment` and `CredentialsFile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.exists(f, f != 'SesSmtp')")
        .message("formats needs at least one of Environment, CredentialsFile, Csv and ProcessJson: the operator reads the key from it"))]
    pub formats: Vec<SecretFormat>,

    /// Additional data keys of the Secret, at most 16, with a template of at most 4,096 characters each. Placeholders:
    /// `{{ accessKeyId }}`, `{{ secretAccessKey }}`, `{{ userName }}` and `{{ accountId }}`; with `region` also
    /// `{{ region }}`, `{{ sesSmtpPassword }}` and `{{ sesSmtpServer }}`. The filters `b64encode`, `urlencode` and `tojson`
    /// encode a value: `{{ secretAccessKey | urlencode }}`. Statements are not supported. A changed template does not rotate
    /// the key. The class must allow each data key (`secrets.templateKeys`); those in which a format holds the access key are
    /// not available, even if the format is not declared. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "templates")]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$') && k != '.' && !k.startsWith('..'))")
        .message("a data key of a Secret has 1 to 253 letters, digits, hyphens, underscores and dots; it is not a single dot and does not begin with two dots"))]
    #[x_kube(validation = Rule::new("self.all(k, !(k in ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'credentials', 'accessKeys.csv', 'configure-import.csv', 'credentials.json', 'smtp-username', 'smtp-password']))")
        .message("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, credentials, accessKeys.csv, configure-import.csv, credentials.json, smtp-username and smtp-password hold the access key in the formats of this operator; use another data key"))]
    pub template: BTreeMap<String, String>,

    /// Labels of the Secret, at most 32, in addition to the operator's own. A key has at most 317 characters, a value at most
    /// 63. The class must allow each key (`secrets.labelKeys`), except `app.kubernetes.io/name`,
    /// `app.kubernetes.io/component` and `app.kubernetes.io/version`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) <= 317)").message("keys of labels have at most 317 characters"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('awsdeploy.dev/') && k != 'app.kubernetes.io/managed-by')")
        .message("labels awsdeploy.dev/... and app.kubernetes.io/managed-by are set by this operator"))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the Secret, at most 32, in addition to the operator's own. A key has at most 317 characters, a value at
    /// most 1,024. The class must allow each key (`secrets.annotationKeys`). Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) <= 317)").message("keys of annotations have at most 317 characters"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('awsdeploy.dev/'))")
        .message("annotations awsdeploy.dev/... are set by this operator"))]
    pub annotations: BTreeMap<String, String>,
}

// The largest Secret of these limits fits into what the operator reads of a field (`cluster::guarded`).
fn templates(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    texts(16, MAX_TEMPLATE_CHARS)
}

fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    texts(32, 63)
}

fn annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    texts(32, 1_024)
}

fn texts(max_properties: u32, max_length: u32) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": max_properties,
        "additionalProperties": {"type": "string", "maxLength": max_length},
    })
}

/// Format of the access key in the Secret.
#[derive(
    JsonSchema,
    strum::IntoStaticStr,
    strum::VariantArray,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
)]
pub enum SecretFormat {
    /// Environment variables for `envFrom`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and with `region` also
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    Environment,
    /// `credentials` and `config`, the files that AWS SDKs and the AWS CLI read, with the profile `default`.
    CredentialsFile,
    /// `accessKeys.csv`, the file that the AWS console offers for download, and `configure-import.csv` for
    /// `aws configure import`.
    Csv,
    /// `credentials.json`, the output of a `credential_process`, and `credential-process`, a shell script that prints it
    /// with an expiration time, so that running programs pick up a new key.
    ProcessJson,
    /// `smtp-username`, `smtp-password` and `smtp-server` of Amazon SES. The password is derived from the key and is valid
    /// in one Region, so `region` must be set.
    SesSmtp,
}

/// Data keys in which a format holds the access key. No template may define them, so that the operator never reads an access key
/// that it did not write.
pub const KEY_MATERIAL_DATA_KEYS: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "credentials",
    "accessKeys.csv",
    "configure-import.csv",
    "credentials.json",
    "smtp-username",
    "smtp-password",
];

impl SecretFormat {
    /// Formats of a Secret that declares none.
    pub const DEFAULT: [Self; 2] = [Self::Environment, Self::CredentialsFile];

    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
