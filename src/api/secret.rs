//! The Secret that holds an access key: its name and the forms in which the key stands in it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OBJECT_NAME;

/// The Secret that holds the key. The operator creates it and never takes over one that exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// Name of the Secret, in the namespace of this resource. Default: the name of this resource.
    /// A new name leads to a new key; the old Secret stays until its key is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    #[x_kube(validation = Rule::new("!self.endsWith('.awsdeploy-journal')")
        .message("names that end with .awsdeploy-journal are used by this operator"))]
    pub name: Option<String>,

    /// The forms in which the key stands in the Secret; all of them change in one write. At least one of
    /// `Environment`, `CredentialsFile`, `Csv` and `ProcessJson`, since the operator reads the key back from it.
    /// Default: `Environment` and `CredentialsFile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.exists(f, f != 'SesSmtp')")
        .message("formats must hold at least one of Environment, CredentialsFile, Csv and ProcessJson: the operator reads the key back from it"))]
    pub formats: Vec<SecretFormat>,

    /// Further data keys of the Secret, at most 16, each with a template of at most 65,536 characters as its value.
    /// `{{ accessKeyId }}`, `{{ secretAccessKey }}`, `{{ userName }}` and `{{ accountId }}` stand for what they
    /// say; with a `region` also `{{ region }}`, `{{ sesSmtpPassword }}` and `{{ sesSmtpServer }}`. The filters
    /// `b64encode`, `urlencode` and `tojson` encode a value: `{{ secretAccessKey | urlencode }}`. There are no
    /// statements. A changed template is written with the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "templates")]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$') && k != '.' && !k.startsWith('..'))")
        .message("a data key of a Secret has 1 to 253 letters, digits, hyphens, underscores and dots, is not a dot and does not begin with two dots"))]
    pub template: BTreeMap<String, String>,

    /// Labels of the Secret, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('awsdeploy.dev/') && k != 'app.kubernetes.io/managed-by')")
        .message("labels awsdeploy.dev/... and app.kubernetes.io/managed-by are set by this operator"))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the Secret, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('awsdeploy.dev/'))")
        .message("annotations awsdeploy.dev/... are set by this operator"))]
    pub annotations: BTreeMap<String, String>,
}

fn templates(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 65_536},
    })
}

/// A form in which the key stands in the Secret.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SecretFormat {
    /// Environment variables, fit for `envFrom`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and with a Region
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    Environment,
    /// `credentials` and `config`, the files of the AWS SDKs, with the profile `default`.
    CredentialsFile,
    /// `accessKeys.csv`, the file that the AWS console offers, and `configure-import.csv`, which
    /// `aws configure import` takes.
    Csv,
    /// `credentials.json`, the answer of a `credential_process`, and `credential-process`, a shell script that
    /// prints it with an expiry, so that programs that run pick up a new key.
    ProcessJson,
    /// `smtp-username`, `smtp-password` and `smtp-server` of Amazon SES. The password is made from the key and
    /// holds in one Region, so `region` must be set.
    SesSmtp,
}

impl SecretFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Environment, Self::CredentialsFile, Self::Csv, Self::ProcessJson, Self::SesSmtp];
    /// What is written when nothing is declared.
    pub const DEFAULT: [Self; 2] = [Self::Environment, Self::CredentialsFile];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "Environment",
            Self::CredentialsFile => "CredentialsFile",
            Self::Csv => "Csv",
            Self::ProcessJson => "ProcessJson",
            Self::SesSmtp => "SesSmtp",
        }
    }
}
