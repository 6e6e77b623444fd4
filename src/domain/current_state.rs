//! The world as a pass has seen it: facts only, no clients and no secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{console::ConsoleSecret, dates, journal::Journal, restart::ObservedWorkload, secret::PublishedFacts};
use crate::api::user::RestartTarget;

/// Everything that `plan` looks at.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct CurrentState {
    /// The IAM user.
    pub iam: CurrentUser,
    /// When user, tags and keys in `iam` were read in this pass, on AWS's clock; none if they are remembered. Facts that a
    /// pass remembers are good enough to see that there is nothing to do, never to do something that cannot be undone.
    pub keys_read_at: Option<Timestamp>,
    /// True when its policies, groups and password were read in this pass too.
    pub grants_live: bool,
    /// The target Secret.
    pub published: PublishedSecret,
    /// The journal Secret.
    pub journal: JournalSecret,
    /// The Secret for the console password, looked for when there is or was console access.
    pub console: ConsoleSecret,
    /// How far the verification of a staged key has come; lost on a restart, then it starts over.
    pub verification: Option<Verification>,
    /// What AWS said of the last use of access keys, for those it was asked about since the process began.
    pub last_used: BTreeMap<String, LastUse>,
    /// In this pass AWS did not say when a key was last used; everything else is looked after all the same.
    pub last_used_failed: bool,
    /// Workloads that are to be restarted, for those that were looked at in this pass.
    pub workloads: BTreeMap<RestartTarget, ObservedWorkload>,
    /// Access keys that IAM said in this pass are deleted or do not exist.
    pub deleted_keys: BTreeSet<String>,
    /// Hints from the resource's own status. Losing them costs time, never safety.
    pub hints: StatusHints,
    /// The resource carries our finalizer.
    pub finalizer: bool,
    /// A change of user, policies or tags failed in this pass; keys are still looked after.
    pub user_sync_failed: bool,
    /// How a deletion knows that there is no user of ours. `None` while there is one, and where nothing is deleted.
    pub user_absence: Option<UserAbsence>,
}

/// How a deletion knows that there is no user of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAbsence {
    /// IAM has shown none to any look of this process since then. Its answers may be old: of before the user was made.
    NotObserved {
        /// When it was first looked for.
        since: Timestamp,
    },
    /// It was deleted or unmarked in this pass.
    Removed,
}

/// The IAM user, or its proven absence. A failed read is neither.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one of these a pass; found is the rule")]
pub enum CurrentUser {
    /// IAM answered `NoSuchEntity`.
    Absent,
    /// The user exists.
    Found(IamUser),
}

/// An IAM user with all that is declared about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IamUser {
    /// Name, in the spelling of IAM.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Unique id, changes when the user is deleted and created again.
    pub id: String,
    /// Tags, with keys in the spelling of IAM.
    pub tags: BTreeMap<String, String>,
    /// Access keys.
    pub keys: Vec<AccessKey>,
    /// ARN of its permissions boundary.
    pub boundary: Option<String>,
    /// What the user may do. `None` when it was not read because it does not matter (another
    /// owner's user, or a deletion that starts with what is known to be there).
    pub grants: Option<Grants>,
    /// What else hangs on the user and blocks its deletion. `None` when it was not looked for: only a
    /// refused `DeleteUser` is worth the five calls.
    pub deletion_blockers: Option<Vec<DeletionBlocker>>,
    /// Whether it has a console password. `None` when it was not asked, because none is or was declared.
    pub login_profile: Option<bool>,
}

/// Something beside keys and grants that hangs on a user. AWS's console removes it with the user, its API does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionBlocker {
    /// The password for the console.
    LoginProfile,
    /// A multi-factor device, by serial number.
    MfaDevice(String),
    /// A signing certificate, by id.
    SigningCertificate(String),
    /// An SSH key, by id.
    SshKey(String),
    /// A user name and password for one service, by id.
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
    /// Inline policies, decoded. A document that is not JSON is kept as a string value, so that it differs from any declared one.
    pub inline: BTreeMap<String, Value>,
    /// Groups that the user is in.
    pub groups: BTreeSet<String>,
}

/// An access key as `ListAccessKeys` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// Access key id.
    pub id: String,
    /// Active or Inactive.
    pub active: bool,
    /// When IAM made it, on AWS's clock, in whole seconds.
    pub created_at: Timestamp,
}

/// The target Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum PublishedSecret {
    /// There is none.
    Missing,
    /// There is one and it is not ours; the text says whose it is.
    Foreign(String),
    /// Ours.
    Ours(PublishedFacts),
}

/// The journal Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalSecret {
    /// No attempt is under way.
    None,
    /// A Secret of that name exists and is not ours; the text says whose it is.
    Foreign(String),
    /// Written by a version whose format we do not know.
    Unknown(String),
    /// An attempt of ours. `attempt` is the UID of the journal Secret: it names the attempt.
    Attempt {
        /// UID of the journal Secret.
        attempt: String,
        /// What it says.
        journal: Journal,
    },
}

/// AWS's answer to the question when a key was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// When, as far as AWS knows by then; it learns of uses late. `None`: never, as far as it knows.
    pub used_at: Option<Timestamp>,
    /// When it was asked.
    pub asked_at: Timestamp,
}

/// Progress of the STS check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The key that is being checked.
    pub key_id: String,
    /// Successes in a row.
    pub successes: u32,
    /// When the last check was made.
    pub last_at: Timestamp,
}

/// Hints from status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusHints {
    /// Since when a key was seen Inactive.
    pub inactive_since: BTreeMap<String, Timestamp>,
    /// Failed passes in a row, zero when the spec changed since.
    pub failed_attempts: u32,
    /// When the last one failed.
    pub last_failure: Option<Timestamp>,
    /// When the last key was published.
    pub last_rotation: Option<Timestamp>,
    /// Name of the Secret that holds the last published key.
    pub secret_name: Option<String>,
    /// `UserId` of the last pass.
    pub user_id: Option<String>,
    /// Keys of the declared tags that the last pass had set.
    pub tag_keys: BTreeSet<String>,
}

impl IamUser {
    /// The key with this id.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&AccessKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The path in its ARN, such as `/awsdeploy/`; `None` if the ARN is not that of a user.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        let path = self.arn.split_once(":user")?.1;
        Some(&path[..=path.rfind('/')?])
    }

    /// Whether AWS has attached its quarantine policy, as far as policies are known.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.grants.iter().flat_map(|grants| &grants.attached).any(|arn| super::policy::is_quarantine(arn))
    }

    /// Whether the key carries our ownership tag. Tag keys are compared as IAM does, ignoring case.
    #[must_use]
    pub fn is_tagged(&self, id: &str) -> bool {
        self.key_tag(id).is_some()
    }

    /// When it was tagged with the key, right behind its publication; `None` without the tag, or if it does not say so.
    #[must_use]
    pub fn tagged_at(&self, id: &str) -> Option<Timestamp> {
        self.key_tag(id)?.parse().ok()
    }

    fn key_tag(&self, id: &str) -> Option<&str> {
        let wanted = super::owner::key_tag(id);
        self.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(&wanted)).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
impl CurrentState {
    /// A world that was read at this time and in which there is nothing, for tests to put something into.
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
            user_sync_failed: false,
            user_absence: None,
        }
    }
}

impl CurrentState {
    /// The user, if there is one.
    #[must_use]
    pub fn user(&self) -> Option<&IamUser> {
        match &self.iam {
            CurrentUser::Found(user) => Some(user),
            CurrentUser::Absent => None,
        }
    }

    /// Our published Secret, if there is one.
    #[must_use]
    pub fn published(&self) -> Option<&PublishedFacts> {
        match &self.published {
            PublishedSecret::Ours(facts) => Some(facts),
            PublishedSecret::Missing | PublishedSecret::Foreign(_) => None,
        }
    }

    /// When the key in our published Secret was handed out, as far as that can be believed.
    #[must_use]
    pub fn publication_time(&self, now: Timestamp) -> Option<Timestamp> {
        let facts = self.published()?;
        let made_at = self.user().and_then(|user| user.key(&facts.key_id)).map(|key| key.created_at);
        let tagged_at = self.user().and_then(|user| user.tagged_at(&facts.key_id));
        Some(dates::publication_time(facts.published_at, made_at, tagged_at, now))
    }

    /// The journal of our attempt, if one is under way.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        match &self.journal {
            JournalSecret::Attempt { journal, .. } => Some(journal),
            JournalSecret::None | JournalSecret::Foreign(_) | JournalSecret::Unknown(_) => None,
        }
    }

    /// Whether this key was made by us: tagged, published, or named by the journal.
    #[must_use]
    pub fn is_ours(&self, id: &str) -> bool {
        self.user().is_some_and(|user| user.is_tagged(id))
            || self.published().is_some_and(|facts| facts.key_id == id)
            || self.journal().is_some_and(|journal| journal.references_key(id))
    }
}
