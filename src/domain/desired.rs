//! The desired state: what a resource declares, whole and checked, or what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;

use super::{schedule::RotationSchedule, target::Target, window::Windows};
pub use crate::api::class::OnQuarantine;
use crate::api::{SecretFormat, user::RestartTarget};

/// Rotation interval when nothing is declared. CIS 1.14 asks for 90 days or less.
pub const DEFAULT_ROTATION_INTERVAL: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Overlap when nothing is declared.
pub const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// The cluster's side of the consent to take over an IAM user that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The resource does not ask for it.
    NotRequested,
    /// The resource asks, the cluster does not permit it.
    NotPermitted,
    /// The resource asks, the cluster permits it.
    Permitted,
}

/// What the cluster's rules grant to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Path of the IAM user.
    pub path: String,
    /// ARN of the policy that limits whatever the user is granted.
    pub boundary: Option<String>,
    /// IAM users that exist may be taken over, if AWS agrees too.
    pub adoption: bool,
    /// What follows when AWS quarantines the user.
    pub on_quarantine: OnQuarantine,
}

/// The AWS account that the user lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    /// Account id.
    pub id: String,
    /// Users may change their own password without a policy of their own.
    pub users_may_change_passwords: bool,
}

/// The desired state: complete and free of contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The names.
    pub target: Target,
    /// Path of the IAM user.
    pub path: String,
    /// Tags that the user must carry, ours among them.
    pub tags: BTreeMap<String, String>,
    /// ARNs of the managed policies.
    pub attached: BTreeSet<String>,
    /// Inline policies.
    pub inline: BTreeMap<String, Value>,
    /// Groups.
    pub groups: BTreeSet<String>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// The access key and its rotation; `None` for a user who has access to the console only.
    pub key: Option<DesiredKey>,
    /// The Secret of the access key.
    pub secret: DesiredSecret,
    /// Console access.
    pub console: Option<DesiredConsole>,
    /// All our keys are to be Inactive.
    pub suspend: bool,
    /// Whether an IAM user that exists may be taken over.
    pub adoption: Consent,
    /// What follows when AWS quarantines the user.
    pub on_quarantine: OnQuarantine,
}

/// The access key and its rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredKey {
    /// Description, stored where the console shows it.
    pub description: Option<String>,
    /// When keys are replaced.
    pub schedule: RotationSchedule,
    /// When a scheduled replacement may begin.
    pub windows: Windows,
    /// How long an old key stays Active after a new one was published.
    pub overlap: SignedDuration,
    /// How much longer at most, while AWS sees it used. `None`: AWS is not asked.
    pub hold_while_used: Option<SignedDuration>,
    /// Value of the rotate annotation.
    pub rotate_request: Option<String>,
    /// Workloads that are restarted when a new key is published.
    pub restart: BTreeSet<RestartTarget>,
}

/// Console access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredConsole {
    /// Name of the Secret.
    pub secret_name: String,
    /// The password has to be changed at the first sign-in.
    pub reset_required: bool,
    /// Value of the reset annotation.
    pub reset_request: Option<String>,
}

/// The Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSecret {
    /// AWS Region that is written into it.
    pub region: Option<String>,
    /// Forms of the key.
    pub formats: BTreeSet<SecretFormat>,
    /// Further data keys, each with its template.
    pub templates: BTreeMap<String, String>,
    /// Name of the IAM user.
    pub user_name: String,
    /// Account id.
    pub account_id: String,
    /// Labels, ours among them.
    pub labels: BTreeMap<String, String>,
    /// Annotations, without those that speak of the key in it.
    pub annotations: BTreeMap<String, String>,
}

/// Something in the resource that cannot be done, told so that its writer can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the resource.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Grant {
    /// What the minimal class grants: the usual path, and no limit. Tests and the model begin with it.
    #[must_use]
    pub fn minimal() -> Self {
        Self { path: "/awsdeploy/".to_owned(), boundary: None, adoption: false, on_quarantine: OnQuarantine::Alert }
    }
}

/// All violations in one message.
#[must_use]
pub fn describe_violations(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("spec.{}: {}", violation.field, violation.message))
        .collect::<Vec<_>>()
        .join("; ")
}
