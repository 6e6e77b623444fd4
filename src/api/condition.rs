//! Condition types and reasons of conditions, Events, logs and metrics.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types of an `AwsDeployUser`, in the order of the status. `True` is the healthy status of the first five; the
/// others are present only while they are True.
#[derive(
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
pub enum ConditionType {
    /// Summary: the IAM user matches the resource and its Secret holds a valid access key.
    Ready,
    /// A class allows what the resource declares.
    Authorized,
    /// User, policies, groups and tags in IAM match the resource.
    UserSynced,
    /// The Secret holds an access key that AWS accepts.
    KeyPublished,
    /// The next rotation is not blocked.
    RotationHealthy,
    /// The operator is about to make the resource Ready.
    Reconciling,
    /// Waiting is useless: only an edit by a person makes the resource Ready.
    Stalled,
    /// The annotation `awsdeploy.dev/paused` stops all that creates, changes or rotates.
    Paused,
}

impl ConditionType {
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Reason of a condition or an Event. Dashboards, alerts and scripts may rely on the names.
#[derive(
    strum::Display,
    strum::EnumMessage,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
pub enum Reason {
    // Healthy.
    /// Everything matches the resource.
    Reconciled,
    /// A class allows what the resource declares.
    Allowed,
    /// The Secret holds an access key that AWS accepts.
    Published,
    /// The next rotation is scheduled.
    Scheduled,
    /// `rotation.every` is `Never`: the key is rotated on request only.
    ManualOnly,
    /// The previous key is still valid until its overlap ends, or Inactive until it is deleted.
    Overlap,
    /// No access key is declared: the user has console access only.
    NotRequested,
    /// The previous key stays valid after its overlap, because AWS reports it as used (`rotation.holdWhileUsed`).
    StillUsed,
    /// Workloads of `accessKey.restart` are rolled out with a new key; the previous key stays valid meanwhile.
    Restarting,
    /// A consumer of `accessKey.handover` has not confirmed the new key yet; the previous key stays valid meanwhile.
    AwaitingHandover,
    /// A rotation is due and waits: for a window, the end of the previous key, or the pause after a recent key.
    RotationPending,

    // In progress.
    /// The first reconcile is not complete.
    Pending,
    /// A new key was created; the operator waits until AWS accepts it.
    Verifying,
    /// An attempt to create a key was interrupted; it is cleaned up after the recovery delay.
    Recovering,
    /// The resource is being deleted.
    Deleting,

    // Needs an action by a person.
    /// `spec.credentials` is `Revoked`: all access keys of this user are Inactive.
    CredentialsRevoked,
    /// The annotation `awsdeploy.dev/paused` is `true`: nothing is created, changed or rotated.
    Paused,
    /// AWS has attached a quarantine policy: it found an access key of the user in public.
    Quarantined,
    /// No class allows what the resource declares.
    NotAllowed,
    /// The class no longer allows the user: user and published key are kept, nothing more is granted.
    Frozen,
    /// The class no longer allows the user: its access keys are Inactive, or the user is deleted.
    Revoked,
    /// The operator's credentials belong to another AWS account than the class or the user.
    WrongAccount,
    /// The operator of another namespace serves the resource, by `status.operatorNamespace`.
    ServedElsewhere,
    /// The resource contradicts itself or exceeds a limit of IAM.
    InvalidSpec,
    /// An IAM user of that name exists and is owned by another resource or by no resource.
    NotOwned,
    /// A Secret of that name exists and is owned by another resource or by no resource.
    SecretConflict,
    /// The user has two access keys, the quota of IAM, and at least one of them was not created by the operator.
    KeyQuotaExceeded,
    /// The deletion is blocked: the user has access keys that this operator did not create.
    ForeignKeys,
    /// A declared managed policy does not exist.
    PolicyNotFound,
    /// A managed policy of a document that is no longer declared is attached to another user, group or role.
    PolicyInUse,
    /// A declared group does not exist.
    GroupNotFound,
    /// The permissions boundary of the class does not exist.
    BoundaryNotFound,
    /// AWS rejects a policy document.
    MalformedPolicy,
    /// A quota of IAM is exhausted.
    LimitExceeded,
    /// AWS denies the operator an action.
    AccessDenied,
    /// AWS denies the operator to assume the role of the class.
    AssumeRoleDenied,
    /// The operator has no AWS credentials, or AWS rejects them.
    OperatorCredentials,
    /// The operator may not read or write Secrets in this namespace.
    SecretAccessDenied,
    /// An admission policy, a webhook or a quota of the cluster refuses a write of the operator.
    AdmissionDenied,
    /// A workload of `accessKey.restart` does not exist, or the operator may not restart it.
    RestartFailed,
    /// A workload of `accessKey.restart` was restarted and its rollout does not complete.
    RolloutStuck,
    /// A consumer of `accessKey.handover` has not confirmed the new key, and its time is over.
    HandoverOverdue,
    /// The previous key ends within a day, although it is used or a consumer has not confirmed the new one.
    PreviousKeyEnding,
    /// The previous key ends within an hour, although it is used or a consumer has not confirmed the new one.
    PreviousKeyEndingSoon,
    /// The clocks of this cluster and of AWS differ too much.
    ClockSkew,
    /// The journal was written by a newer version of the operator.
    UnknownJournal,
    /// The machine provides no random numbers for a password.
    NoRandomness,
    /// AWS rejects a request as invalid.
    InvalidRequest,

    // Resolves without an action.
    /// AWS throttles requests.
    Throttled,
    /// AWS cannot be reached or returns a server error.
    AwsUnavailable,
    /// The Kubernetes API cannot be reached or returns a server error.
    KubernetesUnavailable,
    /// Another client wrote at the same time; the reconcile starts over.
    Conflict,
    /// AWS did not accept a new key in time; the key was deleted and another one is created.
    KeyNotAccepted,

    // Events only.
    /// The IAM user was created.
    UserCreated,
    /// The IAM user had been deleted in AWS and was created again.
    UserRecreated,
    /// An existing IAM user is about to be adopted; published before the first change.
    UserAdoptable,
    /// An existing IAM user was adopted.
    UserAdopted,
    /// The IAM user was deleted.
    UserDeleted,
    /// The IAM user was kept in AWS, without the ownership tags of the operator.
    UserRetained,
    /// Policies, groups, boundary or tags were changed to match the resource.
    UserChanged,
    /// Part of a document has no effect (`status.policyWarnings`), or others made versions of its policy.
    PolicyWarning,
    /// A console password was set.
    PasswordSet,
    /// A workload was restarted for a new key.
    Restarted,
    /// A superseded access key was set Inactive.
    KeyDeactivated,
    /// An access key was deleted.
    KeyDeleted,
    /// An access key of an interrupted attempt, whose secret was never stored, was deleted.
    OrphanDeleted,
    /// The Secret was written again without a new key.
    SecretRepaired,
}

impl Reason {
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// One sentence for the reference documentation.
    #[must_use]
    pub fn describe(self) -> &'static str {
        strum::EnumMessage::get_documentation(&self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn reasons_fit_the_condition_schema_and_are_described() {
        for reason in Reason::VARIANTS {
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert!(reason.describe().ends_with('.') && !reason.describe().contains('\n'), "{reason}");
        }
    }
}
