//! Current state, as a reconcile observed it: facts only, no clients and no secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    backoff::ErrorClass,
    console::ConsoleSecret,
    dates,
    journal::Journal,
    owner::{self, Owner},
    restart::ObservedWorkload,
    secret::PublishedFacts,
};
use crate::api::user::RestartTarget;

/// Observed state that `plan` compares with the desired state.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct CurrentState {
    pub iam: CurrentUser,
    /// When user, tags and keys in `iam` were read in this reconcile, on AWS's clock. `None`: they come from the cache, which
    /// suffices to find that nothing is to be done, but not for an effect that cannot be undone.
    pub keys_read_at: Option<Timestamp>,
    /// Policies, groups and password were read in this reconcile.
    pub grants_live: bool,
    pub published: PublishedSecret,
    pub journal: JournalSecret,
    /// Read only if console access is or was declared.
    pub console: ConsoleSecret,
    /// Verification of a staged key. Starts over after a restart of the operator.
    pub verification: Option<Verification>,
    /// Last use of access keys, by key id, as far as this process has read it.
    pub last_used: BTreeMap<String, LastUse>,
    /// Reading the last use of a key failed in this reconcile; the other rules still apply.
    pub last_used_failed: bool,
    /// Workloads to restart, as far as this reconcile has read them.
    pub workloads: BTreeMap<RestartTarget, ObservedWorkload>,
    /// Access keys that IAM confirmed as deleted or missing in this reconcile.
    pub deleted_keys: BTreeSet<String>,
    /// Losing them costs time, not safety.
    pub hints: StatusHints,
    /// The resource has the operator's finalizer.
    pub finalizer: bool,
    /// The status records name and account of the IAM user and this operator as the one that serves the resource. Nothing is
    /// written in AWS before, except to revoke and to delete.
    pub user_recorded: bool,
    /// A change of user, policies or tags failed in this reconcile; rules for keys still apply.
    pub user_sync_failed: bool,
    /// Set only for deletions without an IAM user of the resource.
    pub user_absence: Option<UserAbsence>,
}

/// Why a deletion considers the IAM user as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAbsence {
    /// No read of this process found the user. Reads of IAM are eventually consistent and may precede its creation.
    NotObserved {
        /// Time of the first such read.
        since: Timestamp,
    },
    /// The user was deleted, or its ownership tags were removed, in this reconcile.
    Removed,
}

/// IAM user, or its confirmed absence. A failed read is neither.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one value per reconcile, usually `Found`")]
pub enum CurrentUser {
    /// IAM returned `NoSuchEntity`.
    Absent,
    Found(IamUser),
}

/// Observed IAM user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IamUser {
    /// Name with the case that IAM returns.
    pub name: String,
    pub arn: String,
    /// Unique id (`AIDA...`), which changes when the user is deleted and created again.
    pub id: String,
    /// Tags; keys have the case that IAM returns.
    pub tags: BTreeMap<String, String>,
    pub keys: Vec<AccessKey>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// `None` if not read: the user has another owner, or a deletion starts from the declared grants.
    pub grants: Option<Grants>,
    /// Entities that block `DeleteUser`. `None` if not read: that takes five calls and is done only after a
    /// `DeleteConflict`.
    pub deletion_blockers: Option<Vec<DeletionBlocker>>,
    /// Whether the user has a console password. `None` if not read, because none is or was declared.
    pub login_profile: Option<bool>,
}

/// An observed IAM user, as the target of a write: a user that was not observed cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRef {
    name: String,
    arn: String,
    id: String,
}

impl UserRef {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Unique id (`AIDA...`).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Entity of a user, other than keys and grants, that must be deleted before the user. The AWS console deletes it
/// implicitly, the API does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionBlocker {
    /// Console password.
    LoginProfile,
    /// MFA device, by serial number.
    MfaDevice(String),
    /// Signing certificate, by id.
    SigningCertificate(String),
    /// SSH public key, by id.
    SshKey(String),
    /// Service-specific credential, by id.
    ServiceCredential(String),
}

impl fmt::Display for DeletionBlocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginProfile => formatter.write_str("console password"),
            Self::MfaDevice(serial) => write!(formatter, "MFA device {serial}"),
            Self::SigningCertificate(id) => write!(formatter, "signing certificate {id}"),
            Self::SshKey(id) => write!(formatter, "SSH key {id}"),
            Self::ServiceCredential(id) => write!(formatter, "service-specific credential {id}"),
        }
    }
}

/// Policies and groups of a user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// ARNs of attached managed policies.
    pub attached: BTreeSet<String>,
    /// Inline policies, by name. A document that is not JSON is a string value, so that it differs from every declared one.
    pub inline: BTreeMap<String, Value>,
    pub groups: BTreeSet<String>,
}

/// Access key as returned by `ListAccessKeys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    pub id: String,
    pub active: bool,
    /// On AWS's clock, in whole seconds.
    pub created_at: Timestamp,
}

/// Secret that holds the access key.
#[derive(Clone, Debug, PartialEq)]
pub enum PublishedSecret {
    Missing,
    /// The Secret is owned by another object or by none; the text names the owner.
    Foreign(String),
    Ours(PublishedFacts),
}

/// Secret that holds the journal of a key attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalSecret {
    /// No attempt is in progress.
    None,
    /// The format is unknown to this version, or the journal names another resource; the text is the error.
    Unknown(String),
    /// An attempt of this resource is in progress.
    Attempt {
        /// UID of the journal Secret, which identifies the attempt.
        attempt: String,
        journal: Journal,
    },
}

/// Last use of an access key, as returned by `GetAccessKeyLastUsed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// `None`: no recorded use. AWS records uses with a delay.
    pub used_at: Option<Timestamp>,
    /// When AWS returned it.
    pub asked_at: Timestamp,
}

/// Progress of the verification of a new key with STS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    pub key_id: String,
    /// Consecutive successes.
    pub successes: u32,
    /// Time of the last check.
    pub last_at: Timestamp,
}

/// Hints from the status of the resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusHints {
    /// When a key was first observed as Inactive, by key id.
    pub inactive_since: BTreeMap<String, Timestamp>,
    /// Consecutive failed reconciles; zero after a change of the spec.
    pub failed_attempts: u32,
    pub last_failure: Option<Timestamp>,
    pub last_rotation: Option<Timestamp>,
    /// Name of the Secret that holds the last published key.
    pub secret_name: Option<String>,
    /// Unique id of the IAM user.
    pub user_id: Option<String>,
    /// Class of the last failure of a key attempt; `None` counts as transient.
    pub failure_class: Option<ErrorClass>,
    /// Keys of the declared tags that the operator set.
    pub tag_keys: BTreeSet<String>,
}

impl IamUser {
    #[must_use]
    pub fn reference(&self) -> UserRef {
        UserRef { name: self.name.clone(), arn: self.arn.clone(), id: self.id.clone() }
    }

    #[must_use]
    pub fn key(&self, id: &str) -> Option<&AccessKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// IAM path from the ARN, such as `/awsdeploy/`. `None` if the ARN is not that of a user.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        let path = self.arn.split_once(":user")?.1;
        Some(&path[..=path.rfind('/')?])
    }

    /// Whether AWS has attached a quarantine policy. False if the policies were not read.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.grants.iter().flat_map(|grants| &grants.attached).any(|arn| super::policy::is_quarantine(arn))
    }

    /// Whether the user has the ownership tag of the key. Ignores the case of tag keys, as IAM does.
    #[must_use]
    pub fn is_tagged(&self, id: &str) -> bool {
        self.key_tag(id).is_some()
    }

    /// When the ownership tag of the key was set, directly after its publication. `None` without a tag or a valid date in it.
    #[must_use]
    pub fn tagged_at(&self, id: &str) -> Option<Timestamp> {
        self.key_tag(id)?.parse().ok()
    }

    fn key_tag(&self, id: &str) -> Option<&str> {
        owner::tag_value(&self.tags, &owner::key_tag(id))
    }
}

#[cfg(test)]
impl CurrentState {
    /// State without any object, read at this time.
    pub(crate) fn empty(read_at: Timestamp) -> Self {
        Self {
            iam: CurrentUser::Absent,
            keys_read_at: Some(read_at),
            grants_live: true,
            published: PublishedSecret::Missing,
            journal: JournalSecret::None,
            console: ConsoleSecret::Missing,
            verification: None,
            last_used: BTreeMap::new(),
            last_used_failed: false,
            workloads: BTreeMap::new(),
            deleted_keys: BTreeSet::new(),
            hints: StatusHints::default(),
            finalizer: true,
            user_recorded: true,
            user_sync_failed: false,
            user_absence: None,
        }
    }
}

impl CurrentState {
    #[must_use]
    pub fn user(&self) -> Option<&IamUser> {
        match &self.iam {
            CurrentUser::Found(user) => Some(user),
            CurrentUser::Absent => None,
        }
    }

    /// The observed user, if its ownership tags name this resource.
    #[must_use]
    pub fn owned_user(&self, owner: &Owner) -> Option<&IamUser> {
        self.user().filter(|user| owner.owns(&user.tags))
    }

    /// The published Secret, if this resource owns it.
    #[must_use]
    pub fn published(&self) -> Option<&PublishedFacts> {
        match &self.published {
            PublishedSecret::Ours(facts) => Some(facts),
            PublishedSecret::Missing | PublishedSecret::Foreign(_) => None,
        }
    }

    /// When the key in the published Secret was published, see [`dates::publication_time`].
    #[must_use]
    pub fn publication_time(&self, now: Timestamp) -> Option<Timestamp> {
        let facts = self.published()?;
        let created_at = self.user().and_then(|user| user.key(&facts.key_id)).map(|key| key.created_at);
        let tagged_at = self.user().and_then(|user| user.tagged_at(&facts.key_id));
        Some(dates::publication_time(facts.published_at, created_at, tagged_at, now))
    }

    /// Journal of the attempt in progress.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        match &self.journal {
            JournalSecret::Attempt { journal, .. } => Some(journal),
            JournalSecret::None | JournalSecret::Unknown(_) => None,
        }
    }

    /// Whether the operator created this key: it is tagged, published, or referenced by the journal.
    #[must_use]
    pub fn is_ours(&self, id: &str) -> bool {
        self.user().is_some_and(|user| user.is_tagged(id))
            || self.published().is_some_and(|facts| facts.key_id == id)
            || self.journal().is_some_and(|journal| journal.references_key(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_observed_user_of_the_resource_is_written() {
        let owner = Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u1".into() };
        let other = Owner { uid: "u2".into(), ..owner.clone() };
        let observed = |tags| {
            let user = IamUser { name: "u".into(), arn: "arn".into(), id: "AIDA1".into(), tags, ..IamUser::default() };
            CurrentState { iam: CurrentUser::Found(user), ..CurrentState::empty(Timestamp::UNIX_EPOCH) }
        };
        let target = observed(owner.tags()).owned_user(&owner).unwrap().reference();
        assert_eq!((target.name(), target.arn(), target.id()), ("u", "arn", "AIDA1"));
        assert_eq!(observed(other.tags()).owned_user(&owner), None, "a user of another resource");
        assert_eq!(observed(BTreeMap::new()).owned_user(&owner), None, "a user without marks");
        assert_eq!(CurrentState::empty(Timestamp::UNIX_EPOCH).owned_user(&owner), None);
    }
}
