//! Current state, as a reconcile observed it: facts only, no clients and no secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    console::ConsoleSecret,
    dates,
    journal::Journal,
    key_tag::KeyTag,
    managed_policy::{CurrentPolicies, PolicyRecords},
    owner::{self, Owner},
    restart::ObservedWorkload,
    secret::PublishedFacts,
};
use crate::api::{
    Reason,
    user::{KeyRepairs, RestartTarget},
    well_known,
};

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
    /// Managed policies that the operator made for documents of the resource.
    pub policies: CurrentPolicies,
    /// When this process first found that IAM does not list a recorded policy that is to be removed.
    pub policies_missing_since: Option<Timestamp>,
    pub published: PublishedSecret,
    /// `None`: AWS has not refused the key in the published Secret as it is now.
    pub secret_refusals: Option<SecretRefusals>,
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
    /// Access keys that IAM deleted in this reconcile.
    pub deleted_keys: BTreeSet<String>,
    /// Tagged access keys that IAM's lists have lacked for less than the recovery delay. One list may come from a replica that
    /// lags behind.
    pub newly_missing_keys: BTreeSet<String>,
    /// Access keys that were to be deleted in this reconcile and that IAM does not know, or not yet.
    pub unknown_keys: BTreeSet<String>,
    /// A Secret or the journal of the resource could not be read: the operator only takes access away.
    pub secrets_unread: bool,
    /// A Secret of the resource has an owner reference: the garbage collector deletes it with the resource.
    pub secret_has_owner: bool,
    /// The ownership tags of the user name another resource of the namespace, which is deleted or being deleted.
    pub owner_is_ending: bool,
    /// Losing them costs time, not safety.
    pub hints: StatusHints,
    /// The resource has the operator's finalizer.
    pub finalizer: bool,
    /// The status records name and account of the IAM user and this operator as the one that serves the resource. Nothing is
    /// written in AWS before, except to revoke and to delete.
    pub user_recorded: bool,
    /// A change of user, policies or tags failed in this reconcile, or is in back-off: none is planned. Rules for keys still
    /// apply.
    pub user_sync_failed: bool,
    /// The key or its Secret is in back-off.
    pub key_backoff: Option<KeyBackoff>,
    /// When the resource may get its first key: others of its namespace were deleted and created again.
    pub first_key_at: Option<Timestamp>,
    /// Set only for deletions without an IAM user of the resource.
    pub user_absence: Option<UserAbsence>,
}

/// A failure of the key or its Secret that is not tried again yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBackoff {
    pub until: Timestamp,
    /// Of the failure.
    pub reason: Reason,
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
    /// It may work: IAM lists it neither as Inactive nor as Expired. Whether a key that is about to be published works is asked of
    /// STS.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// `None`: no recorded use. AWS records uses with a delay.
    pub used_at: Option<Timestamp>,
    /// Service and region of that use, as AWS names them.
    pub service: Option<String>,
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

/// Refusals by STS of the key in a published Secret without a valid MAC. Starts over after a restart of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRefusals {
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

impl SecretRefusals {
    /// These refusals and one more.
    #[must_use]
    pub fn with(before: Option<Self>, now: Timestamp) -> Self {
        Self { first_at: before.map_or(now, |before| before.first_at), last_at: now }
    }
}

/// Hints from the status of the resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusHints {
    /// When a key was first observed as Inactive, by key id.
    pub inactive_since: BTreeMap<String, Timestamp>,
    pub last_rotation: Option<Timestamp>,
    /// When the last attempt to create a key began that has ended.
    pub last_attempt: Option<Timestamp>,
    /// Keys made in a row because the one before was lost.
    pub repairs: Option<KeyRepairs>,
    /// Unique id of the IAM user.
    pub user_id: Option<String>,
    /// Keys of the declared tags that the operator set.
    pub tag_keys: BTreeSet<String>,
    /// Managed policies of documents.
    pub policies: PolicyRecords,
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
        self.key_tag_value(id).is_some()
    }

    /// When the ownership tag of the key was set, directly after its publication. `None` without a tag or a valid date in it.
    #[must_use]
    pub fn tagged_at(&self, id: &str) -> Option<Timestamp> {
        self.key_tag(id).map(|tag| tag.published_at)
    }

    /// The ownership tag of the key. `None` without a tag, or if its value was changed by hand.
    #[must_use]
    pub fn key_tag(&self, id: &str) -> Option<KeyTag> {
        self.key_tag_value(id)?.parse().ok()
    }

    /// The overlap that a class allowed last, from its tag.
    #[must_use]
    pub fn recorded_overlap(&self) -> Option<SignedDuration> {
        let recorded: SignedDuration = owner::tag_value(&self.tags, well_known::TAG_OVERLAP)?.parse().ok()?;
        Some(recorded.max(SignedDuration::ZERO))
    }

    /// Ids of the keys that are tagged as the operator's and that IAM does not list.
    pub fn missing_keys(&self) -> impl Iterator<Item = &str> {
        let ids = self.tags.keys().filter_map(|tag| owner::tagged_key_id(tag));
        ids.filter(|id| self.key(id).is_none())
    }

    fn key_tag_value(&self, id: &str) -> Option<&str> {
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
            policies: CurrentPolicies::default(),
            policies_missing_since: None,
            published: PublishedSecret::Missing,
            secret_refusals: None,
            journal: JournalSecret::None,
            console: ConsoleSecret::Missing,
            verification: None,
            last_used: BTreeMap::new(),
            last_used_failed: false,
            workloads: BTreeMap::new(),
            deleted_keys: BTreeSet::new(),
            newly_missing_keys: BTreeSet::new(),
            unknown_keys: BTreeSet::new(),
            secrets_unread: false,
            secret_has_owner: false,
            owner_is_ending: false,
            hints: StatusHints::default(),
            finalizer: true,
            user_recorded: true,
            user_sync_failed: false,
            key_backoff: None,
            first_key_at: None,
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

    /// The published Secret, if its MAC is valid: only then it says something about its key.
    #[must_use]
    pub fn verified(&self) -> Option<&PublishedFacts> {
        self.published().filter(|facts| facts.is_verified())
    }

    /// When the key in the published Secret was published, see [`dates::publication_time`]. `None` without a valid MAC.
    #[must_use]
    pub fn publication_time(&self, now: Timestamp) -> Option<Timestamp> {
        let facts = self.verified()?;
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

    /// When the last attempt to create a key began.
    #[must_use]
    pub fn last_attempt(&self) -> Option<Timestamp> {
        self.hints.last_attempt.max(self.journal().map(|journal| journal.started_at))
    }

    /// Whether a key of the resource was published before, whatever is left of it.
    #[must_use]
    pub fn was_published(&self) -> bool {
        let is_key_tag = |tag: &String| tag.starts_with(&owner::key_tag(""));
        self.hints.last_rotation.is_some() || self.user().is_some_and(|user| user.tags.keys().any(is_key_tag))
    }

    /// Whether the operator created this key: it is tagged, published with a valid MAC, or referenced by the journal.
    #[must_use]
    pub fn is_ours(&self, id: &str) -> bool {
        self.user().is_some_and(|user| user.is_tagged(id))
            || self.verified().is_some_and(|facts| facts.key_id == id)
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
