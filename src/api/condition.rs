//! Condition types and the closed list of reasons, shared by conditions, Events, logs and metrics.

use std::fmt;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The conditions of an `AwsDeployUser`. All are positive: `True` is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Summary: the declared user exists as declared and its Secret holds a working key.
    Ready,
    /// A class allows what the resource asks for.
    Authorized,
    /// User, policies and tags in IAM are as declared.
    UserSynced,
    /// The Secret holds a key that AWS accepts.
    KeyPublished,
    /// Nothing stands in the way of the next rotation.
    RotationHealthy,
}

impl ConditionType {
    /// All types, in the order in which they are reported.
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Authorized, Self::UserSynced, Self::KeyPublished, Self::RotationHealthy];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Authorized => "Authorized",
            Self::UserSynced => "UserSynced",
            Self::KeyPublished => "KeyPublished",
            Self::RotationHealthy => "RotationHealthy",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition is as it is, or what an Event tells. A closed list: dashboards,
        /// alerts and scripts may rely on the spelling.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The reason of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }

            /// One sentence for the reference documentation.
            #[must_use]
            pub fn describe(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}

reasons! {
    // Good.
    /// All is as declared.
    Reconciled,
    /// A class allows it.
    Allowed,
    /// The Secret holds a key that AWS accepts.
    Published,
    /// The next rotation is scheduled.
    Scheduled,
    /// `rotation.every` is `Never`: the key is rotated on request only.
    ManualOnly,
    /// An old key is still valid until its overlap ends.
    Overlap,
    /// No access key is declared: the user has access to the console only.
    NotRequested,
    /// An old key stays valid beyond its overlap, because AWS still sees it used (`rotation.holdWhileUsed`).
    StillUsed,
    /// Workloads of `accessKey.restart` are being rolled out with a new key; the old one stays valid until they are.
    Restarting,
    /// A rotation is due and waits for its time: a window, the end of an overlap, a pause after a key made before.
    RotationPending,

    // Under way.
    /// The first pass has not come to an end yet.
    Pending,
    /// A new key was made; AWS is asked until it accepts it everywhere.
    Verifying,
    /// A key attempt was cut off; it is being cleaned up after a safe waiting time.
    Recovering,
    /// The resource is being deleted.
    Deleting,

    // A person has to do something.
    /// `spec.suspend` is true: all keys of this user are Inactive.
    Suspended,
    /// AWS has attached its quarantine policy: it found an access key of the user in public.
    Quarantined,
    /// No class allows what the resource asks for.
    NotAllowed,
    /// Not allowed any more: user and published key stay as they are, nothing more is granted.
    Frozen,
    /// Not allowed any more: the access keys are Inactive, or the user is removed.
    Revoked,
    /// The operator's credentials are of another AWS account than the class or the user.
    WrongAccount,
    /// The resource contradicts itself or a limit of IAM.
    InvalidSpec,
    /// An IAM user of that name exists and belongs to somebody else.
    NotOwned,
    /// A Secret of that name exists and belongs to somebody else.
    SecretConflict,
    /// Both access key slots of the user are in use and at least one key is not ours.
    KeyQuotaExceeded,
    /// Deletion waits: the user has access keys that this operator did not make.
    ForeignKeys,
    /// A managed policy that is declared does not exist.
    PolicyNotFound,
    /// A group that is declared does not exist.
    GroupNotFound,
    /// The permissions boundary of the class does not exist.
    BoundaryNotFound,
    /// AWS refuses a policy document.
    MalformedPolicy,
    /// A quota of IAM is used up.
    LimitExceeded,
    /// AWS denies the operator an action.
    AccessDenied,
    /// AWS does not let the operator take the role of the class.
    AssumeRoleDenied,
    /// The operator has no AWS credentials or AWS does not accept them.
    OperatorCredentials,
    /// The operator may not read or write Secrets in this namespace.
    SecretAccessDenied,
    /// A workload of `accessKey.restart` does not exist, or the operator may not restart it.
    RestartFailed,
    /// A workload of `accessKey.restart` was restarted and does not come to the end of its rollout.
    RolloutStuck,
    /// The clock of this cluster is too far from the clock of AWS.
    ClockSkew,
    /// The journal was written by a newer version of the operator.
    UnknownJournal,
    /// The machine has no random numbers to make a password of.
    NoRandomness,
    /// AWS refuses a request as invalid.
    InvalidRequest,

    // Goes away by itself.
    /// AWS asks to slow down.
    Throttled,
    /// AWS cannot be reached or answers with a fault of its own.
    AwsUnavailable,
    /// The Kubernetes API cannot be reached or answers with a fault of its own.
    KubernetesUnavailable,
    /// Somebody else wrote at the same time; the pass starts over.
    Conflict,
    /// AWS has not accepted a new key in time; it was removed and another one will be made.
    KeyNotAccepted,
    /// An attempt to make a key failed; the next one follows after a pause.
    BackingOff,

    // Told as Events.
    /// The IAM user was created.
    UserCreated,
    /// The IAM user had been deleted in AWS and was created again.
    UserRecreated,
    /// An IAM user that exists is about to be taken over; told before anything is changed.
    UserAdoptable,
    /// An IAM user that existed was taken over.
    UserAdopted,
    /// The IAM user was deleted.
    UserDeleted,
    /// The IAM user was left in AWS, without our marks.
    UserRetained,
    /// Policies, groups, boundary or tags were changed to what is declared.
    UserChanged,
    /// The user got a console password.
    PasswordSet,
    /// A workload was restarted with a new key.
    Restarted,
    /// A superseded access key was set Inactive.
    KeyDeactivated,
    /// An access key was deleted.
    KeyDeleted,
    /// A key of a cut-off attempt, whose secret nobody holds, was deleted.
    OrphanDeleted,
    /// The Secret was written again without a new key.
    SecretRepaired,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_and_fit_the_condition_schema() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.as_str()), "{reason} twice");
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
            assert!(reason.describe().trim().ends_with('.'), "{reason}");
        }
    }
}
