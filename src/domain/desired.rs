//! Desired state of a resource, complete and validated, and violations.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    handover::Consumer,
    managed_policy::{self, DocumentDigest, PolicyRecords},
    schedule::RotationSchedule,
    settings::Settings,
    target::Target,
    window::Windows,
};
pub use crate::api::class::OnQuarantine;
use crate::api::{SecretFormat, user::RestartTarget, well_known};

/// CIS AWS Foundations Benchmark 1.14 requires 90 days or less.
pub const DEFAULT_ROTATION_INTERVAL: SignedDuration = SignedDuration::from_hours(90 * 24);
pub const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// The cluster's part of the consent to adopt an existing IAM user. The other part is a tag by an AWS admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The resource does not request adoption.
    NotRequested,
    /// The resource requests adoption, the class denies it.
    NotPermitted,
    /// The resource requests adoption, the class allows it.
    Permitted,
}

/// What the class grants to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// IAM path of the user.
    pub path: String,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// Existing IAM users may be adopted, if an AWS admin consents too.
    pub adoption: bool,
    /// Replaced versions of a managed policy that are kept.
    pub keep_versions: usize,
    pub on_quarantine: OnQuarantine,
}

/// AWS account of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    pub id: String,
    /// The account's password policy allows users to change their password.
    pub users_may_change_passwords: bool,
}

/// Desired state: complete and free of contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub target: Target,
    /// IAM path of the user.
    pub path: String,
    /// Tags of the user, including those of the operator.
    pub tags: BTreeMap<String, String>,
    /// ARNs of the managed policies that are declared by name.
    pub attached: BTreeSet<String>,
    /// Documents that are inline policies, by name.
    pub inline: BTreeMap<String, Value>,
    /// Documents that are managed policies of the resource, by ARN.
    pub documents: BTreeMap<String, ManagedDocument>,
    /// IAM path of these managed policies.
    pub policy_path: String,
    /// Replaced versions of a managed policy that are kept.
    pub keep_versions: usize,
    pub groups: BTreeSet<String>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// `None` for a user with console access only.
    pub key: Option<DesiredKey>,
    pub secret: DesiredSecret,
    pub console: Option<DesiredConsole>,
    /// All access keys of the operator must be Inactive.
    pub credentials_revoked: bool,
    /// The Secrets outlive the resource, however that is deleted.
    pub retain: bool,
    pub adoption: Consent,
    pub on_quarantine: OnQuarantine,
}

/// Document that is a managed policy of the resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedDocument {
    /// Name of the document in the resource.
    pub name: String,
    pub document: Value,
    pub digest: DocumentDigest,
}

/// Access key and its rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredKey {
    /// Description, stored in the tag that the AWS console displays.
    pub description: Option<String>,
    pub schedule: RotationSchedule,
    /// When scheduled rotations may begin.
    pub windows: Windows,
    /// Time for which the previous key stays Active.
    pub overlap: SignedDuration,
    /// Longest extension of the overlap while AWS reports the previous key as used. `None`: the last use is not read.
    pub hold_while_used: Option<SignedDuration>,
    /// Value of the rotate annotation.
    pub rotate_request: Option<String>,
    /// Workloads that are restarted when a new key is published.
    pub restart: BTreeSet<RestartTarget>,
    /// Consumers that the previous key waits for.
    pub handover: Vec<Consumer>,
}

impl DesiredKey {
    /// For how long a superseded key stays Active at most: its overlap, and the longest of the extensions, which run at the same
    /// time.
    #[must_use]
    pub fn longest_overlap(&self, settings: &Settings) -> SignedDuration {
        let restart = (!self.restart.is_empty()).then_some(settings.restart_hold);
        let handover = self.handover.iter().map(|consumer| consumer.within).max();
        let extensions = [self.hold_while_used, restart, handover];
        self.overlap.saturating_add(extensions.into_iter().flatten().max().unwrap_or_default())
    }

    /// Consumers of `accessKey.handover` that have not confirmed this key.
    pub fn unconfirmed(&self, key_id: &str) -> impl Iterator<Item = &Consumer> {
        self.handover.iter().filter(move |consumer| consumer.confirmed.as_deref() != Some(key_id))
    }
}

/// Console access of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredConsole {
    pub secret_name: String,
    /// The password must be changed at the first sign-in.
    pub reset_required: bool,
    /// Value of the reset annotation.
    pub reset_request: Option<String>,
}

/// Secret of the access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSecret {
    /// AWS Region to write into the Secret.
    pub region: Option<String>,
    pub formats: BTreeSet<SecretFormat>,
    /// Templates by additional data key.
    pub templates: BTreeMap<String, String>,
    pub user_name: String,
    pub account_id: String,
    /// Labels, including those of the operator.
    pub labels: BTreeMap<String, String>,
    /// Annotations, except those that describe the key.
    pub annotations: BTreeMap<String, String>,
}

/// Error in a resource that its author can fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field below `spec`.
    pub field: &'static str,
    /// What is invalid, why, and what is allowed.
    pub message: String,
}

impl Desired {
    /// All documents with their names, whatever they become in IAM.
    pub fn all_documents(&self) -> impl Iterator<Item = (&String, &Value)> + Clone {
        let managed = self.documents.values().map(|managed| (&managed.name, &managed.document));
        self.inline.iter().chain(managed)
    }

    /// Whether no further policies are made, because the limit of those that are left without a declared document is reached.
    #[must_use]
    pub fn is_full(&self, records: &PolicyRecords) -> bool {
        managed_policy::left(records, |arn| self.documents.contains_key(arn)).count() >= managed_policy::MAX_LEFT
    }

    /// Keys of the tags that the resource and its class declare.
    pub fn declared_tag_keys(&self) -> impl Iterator<Item = &String> {
        self.tags.keys().filter(|key| !key.starts_with(well_known::TAG_PREFIX))
    }
}

impl Grant {
    /// Grant of a class with defaults, for tests and the model.
    #[must_use]
    pub fn minimal() -> Self {
        Self {
            path: "/awsdeploy/".to_owned(),
            boundary: None,
            adoption: false,
            keep_versions: 1,
            on_quarantine: OnQuarantine::Alert,
        }
    }
}

/// Joins all violations to one message.
#[must_use]
pub fn describe_violations(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("spec.{}: {}", violation.field, violation.message))
        .collect::<Vec<_>>()
        .join("; ")
}
