//! The status of an `AwsDeployUser`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::class::{OnQuarantine, OnRevoked};

/// Observed state. Only the operator writes it: it relies on `user`, `class`, `revocation` and `operatorNamespace`. The rest is
/// derived from AWS and the Secrets, and losing it is safe.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsDeployUserStatus {
    /// `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Class that last authorized the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassReference>,

    /// Revocation in progress or complete. Written before the first change to the user, so that an interrupted revocation is
    /// completed. Absent while the resource is authorized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<OnRevoked>,

    /// Namespace of the operator that serves the resource. Until a cluster admin clears the field, another operator creates and
    /// changes nothing; it only takes credentials away and deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,

    /// IAM user that the resource is bound to. Without it nothing of the resource exists in AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserStatus>,

    /// Policies of `spec.policies.documents`: what each document is in IAM. A managed policy is recorded before it is created, and
    /// until IAM has deleted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string(), "as".to_string()]))]
    pub policies: Vec<PolicyStatus>,

    /// Access keys of the user, including those of others. Contains ids, never secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_keys: Vec<AccessKeyStatus>,

    /// Name of the Secret that holds the published access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// When the current access key was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_rotation_time: Option<Timestamp>,

    /// When the last attempt to create an access key began, whether or not its key was published. The next one follows after the
    /// operator's `--repair-interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_key_attempt_time: Option<Timestamp>,

    /// When the next rotation begins: when it is due, or in the first window after that. Absent if keys are rotated only on
    /// request, while the credentials are revoked or the resource is paused, and while a rotation that is due waits for a slot or
    /// a pause after a recent key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub next_rotation_time: Option<Timestamp>,

    /// Access keys that replaced a lost one, in a row. Absent if none was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_repairs: Option<KeyRepairs>,

    /// What the policy documents probably do not mean, such as misspelt actions. IAM accepts them; nothing waits for a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_warnings: Vec<String>,

    /// When the failures in a row began; the back-off grows with the time since then. Absent while nothing fails. Written
    /// when a failure begins and when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub failing_since: Option<Timestamp>,

    /// Conditions `Ready`, `Authorized`, `UserSynced`, `KeyPublished` and `RotationHealthy`. Present only while they are True:
    /// `Reconciling`, the operator is about to make the resource Ready; `Stalled`, only an edit by a person does; and `Paused`, by
    /// the annotation `awsdeploy.dev/paused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// Class that last authorized a resource.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassReference {
    /// Name of the class.
    pub name: String,
    /// `metadata.generation` of the class.
    pub generation: i64,
    /// `onRevoked` of the class; applies when the class is deleted.
    pub on_revoked: OnRevoked,
    /// `onQuarantine` of the class; applies when the class is deleted.
    #[serde(default)]
    pub on_quarantine: OnQuarantine,
    /// Since when the class does not exist. Its `onRevoked` applies after the operator's `--class-absence-grace`, unless the class
    /// is created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub missing_since: Option<Timestamp>,
    /// AWS account of the class. Used to revoke access after the class was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountReference>,
}

/// AWS account of a class and the role that was assumed in it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountReference {
    /// Account id.
    pub id: String,
    /// ARN of the assumed role. Absent if the operator's own credentials were used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// External id that was sent when the role was assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// IAM user of a resource. Name and account are recorded before the user is created, and do not change afterwards.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserStatus {
    /// Name of the user.
    pub name: String,
    /// Id of the AWS account of the user.
    pub account: String,
    /// ARN of the user. Absent while the user does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Unique id (`AIDA...`). It changes when the user is deleted and created again under the same name. Absent while the user
    /// does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Keys of the tags that the operator set. A tag in this list that is no longer declared is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_keys: Vec<String>,
}

/// What a policy document is in IAM.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyKind {
    /// A policy that is part of the user.
    Inline,
    /// A customer managed policy that belongs to the resource.
    Managed,
}

/// Policy of a document of the resource.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Name of the document in `spec.policies.documents`.
    pub name: String,
    /// What the document is in IAM.
    #[serde(rename = "as")]
    pub kind: PolicyKind,
    /// ARN of the managed policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Unique id of the managed policy (`ANPA...`). Absent until the operator has observed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Version of the managed policy that the operator made the default. Another default is drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_version: Option<String>,
    /// Versions of the managed policy that the operator made and that exist. It deletes no others while the policy is declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Versions of the managed policy that the operator has no record of making, as far as it has read them. They count towards
    /// the five that IAM allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_versions: Vec<String>,
}

/// Access keys in a row that replaced a lost one: its Secret was deleted or edited, it was set Inactive or deleted in AWS, or its
/// attempt was abandoned before any key was published.
/// The time to the next one doubles with each; a key that lasts for twice that time ends the row.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRepairs {
    /// Number of these keys, from 1.
    pub count: i32,
    /// When the last of them was created.
    #[schemars(schema_with = "time")]
    pub last_time: Timestamp,
}

/// Observed access key of the user.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyStatus {
    /// Access key id.
    pub id: String,
    /// State of the key.
    pub state: AccessKeyState,
    /// When IAM created the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub created_at: Option<Timestamp>,
    /// When a newer key was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub superseded_at: Option<Timestamp>,
    /// When the key is set Inactive: the end of its overlap, or the latest time if it is held for its consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub retires_at: Option<Timestamp>,
    /// When the operator first observed the key as Inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub inactive_since: Option<Timestamp>,
    /// Last use that AWS reported (`GetAccessKeyLastUsed`). Read only for keys whose overlap has ended, and only if
    /// `rotation.holdWhileUsed` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_used_at: Option<Timestamp>,
}

/// State of an access key.
#[derive(
    JsonSchema, strum::IntoStaticStr, strum::VariantNames, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum AccessKeyState {
    /// Created, not in the Secret yet.
    Staged,
    /// In the Secret.
    Published,
    /// Replaced by a newer key and still Active for its overlap.
    Superseded,
    /// Set Inactive: deleted after the deletion delay, or kept while `spec.credentials` is `Revoked`.
    Inactive,
    /// Not created by this operator; never changed, and deleted only by `deletionPolicy: Force`.
    Foreign,
}

impl AccessKeyState {
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

fn time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time"})
}

fn optional_time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "nullable": true})
}
