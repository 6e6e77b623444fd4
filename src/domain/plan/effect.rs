//! The verbs of a plan. They hold names and ids, never key material.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    api::user::RestartTarget,
    domain::{
        current_state::{CurrentState, DeletionBlocker},
        dates::saturating_add,
        journal::{AttemptPhase, Journal},
        restart::{self, Restarts},
        settings::Settings,
    },
};

/// Why an access key is set Inactive or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetireReason {
    /// Its overlap is over.
    OverlapEnded,
    /// It was held because it is used, or because AWS did not say whether it is, for as long as is allowed.
    HoldExpired,
    /// Workloads that are to be restarted for the key after it were not rolled out for as long as is allowed.
    RolloutTimedOut,
    /// AWS quarantines the user: others may know the key.
    Quarantined,
    /// Its secret is lost and the slot is needed for a key that works.
    FreesSlot,
    /// `spec.suspend`.
    Suspended,
    /// No access key is declared any more.
    RemovedFromSpec,
    /// It belongs to an attempt that was given up.
    Orphan,
    /// The user is being deleted.
    Cleanup,
    /// No class allows it any more.
    Revoked,
}

/// One thing to do. Everything but [`Effect::CreateKey`] can be repeated without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put our finalizer on the resource, before anything is made in AWS.
    AddFinalizer,
    /// Create the IAM user with path and tags in one call.
    CreateUser,
    /// Put our marks on a user that exists, in one call. Holds what the user is about to lose, in words: it is told first.
    AdoptUser(Vec<String>),
    /// Set these tags.
    TagUser(BTreeMap<String, String>),
    /// Remove these tags.
    UntagUser(BTreeSet<String>),
    /// Write an inline policy.
    PutInlinePolicy(String, Value),
    /// Remove an inline policy.
    DeleteInlinePolicy(String),
    /// Attach a managed policy.
    AttachPolicy(String),
    /// Detach a managed policy.
    DetachPolicy(String),
    /// Put the user into a group.
    AddToGroup(String),
    /// Take the user out of a group.
    RemoveFromGroup(String),
    /// Set the permissions boundary.
    PutBoundary(String),
    /// Write a new console password into its Secret, marked pending.
    WritePassword,
    /// Tell AWS the password in the Secret, then mark it applied.
    ApplyPassword,
    /// Take the console password away.
    RemovePassword,
    /// Delete the Secret of a console password.
    DeleteConsoleSecret,
    /// Take our owner reference off the Secret of a console password.
    ReleaseConsoleSecret,

    /// Write the journal, call `CreateAccessKey` once, write the key into the journal.
    CreateKey {
        /// Keys that the user has now.
        known: Vec<String>,
        /// Target Secret that is left behind, and the key in it.
        previous_secret: Option<(String, String)>,
    },
    /// Ask STS once whether AWS accepts the staged key.
    VerifyKey(String),
    /// Write the staged key into the target Secret, on condition that it is as this pass has read it.
    Publish {
        /// Its id.
        key_id: String,
        /// Target Secret that is left behind although the attempt began without knowing, and the key in it.
        left_behind: Option<(String, String)>,
    },
    /// Mark a published key as ours, and describe it for the console.
    TagKey(String),
    /// Give the attempt up. From then on a paused writer of it can store nothing any more.
    AbandonAttempt {
        /// Keys to be deleted.
        orphans: Vec<String>,
        /// True when a key was given up that AWS did not accept in time.
        failed: bool,
    },
    /// Write down, on the user, when its quarantine was first seen: keys made until then are replaced.
    RecordQuarantine(Timestamp),
    /// The quarantine is over: take that off the user.
    ClearQuarantine,
    /// Move the published Secret's resourceVersion, so that a paused publisher of an abandoned key fails.
    TouchPublished,
    /// Delete the journal: the attempt has come to its end.
    CloseJournal,
    /// Set a key Inactive.
    DeactivateKey(String, RetireReason),
    /// Delete a key.
    DeleteKey(String, RetireReason),
    /// Write the published Secret again with the key that it holds.
    RewriteSecret,
    /// Delete an earlier target Secret whose key has retired.
    DeletePreviousSecret(String),

    /// Ask when these keys were last used: whether a superseded key may go, and which of two lost ones makes room.
    ReadLastUsed(Vec<String>),
    /// Look at these workloads: whether they were restarted for the published key, and how far their rollout is.
    ReadWorkloads(Vec<RestartTarget>),
    /// Restart a workload for the key with this id, by an annotation of its pod template, unless that was done.
    RestartWorkload(RestartTarget, String),
    /// Write down in the published Secret how far the restarts are.
    RecordRestarts(Restarts),
    /// Find out what still hangs on the user and blocks its deletion.
    ReadGrants,
    /// Remove something of others that blocks the deletion of the user.
    RemoveDeletionBlocker(DeletionBlocker),
    /// Delete the IAM user.
    DeleteUser,
    /// Take our owner reference off the Secret so that it survives the resource.
    ReleaseSecret,
    /// Delete the published Secret.
    DeleteSecret,
    /// Remove our finalizer: nothing of the resource is left in AWS.
    RemoveFinalizer,
}

/// What an effect asks of the facts it is decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What a pass remembers is good enough: the effect can be repeated and undone.
    Cached,
    /// The IAM user with its tags, its access keys, Secret and journal must have been read in this pass, in this
    /// order; its policies, groups and password are as they are remembered.
    ///
    /// Whose the user is, which keys there are and which of them are ours, published or in an attempt: that is all
    /// that making, revoking and deleting a key depend on, and all of it is in these four reads. What the user may do
    /// is no part of it. Remembered policies decide one thing more, whether a first key may be made already, and
    /// there the worst is a key of a user whose policy somebody took away a moment ago: the same that happens when it
    /// is taken away a moment later, and put back by the next look.
    LiveKeys,
    /// All of IAM that is about the user, Secret and journal must have been read in this pass, in this order.
    Live,
}

impl Freshness {
    /// Whether the world was seen well enough.
    #[must_use]
    pub fn is_met_by(self, current: &CurrentState) -> bool {
        match self {
            Self::Cached => true,
            Self::LiveKeys => current.keys_read_at.is_some(),
            Self::Live => current.keys_read_at.is_some() && current.grants_live,
        }
    }
}

impl Effect {
    /// Unrepeatable and destructive effects are decided on live facts only.
    #[must_use]
    pub fn required_freshness(&self) -> Freshness {
        // A quarantine is a policy.
        if matches!(self, Self::DeactivateKey(_, RetireReason::Quarantined)) {
            return Freshness::Live;
        }
        match self {
            Self::CreateKey { .. }
            | Self::AbandonAttempt { .. }
            | Self::DeactivateKey(..)
            | Self::DeleteKey(..)
            | Self::DeletePreviousSecret(_)
            | Self::UntagUser(_) => Freshness::LiveKeys,
            Self::CreateUser
            | Self::AdoptUser(_)
            | Self::RecordQuarantine(_)
            | Self::ClearQuarantine
            | Self::DeleteUser
            | Self::DetachPolicy(_)
            | Self::DeleteInlinePolicy(_)
            | Self::RemoveFromGroup(_)
            | Self::RemoveDeletionBlocker(_)
            | Self::WritePassword
            | Self::RemovePassword
            | Self::DeleteConsoleSecret
            | Self::DeleteSecret
            | Self::RemoveFinalizer => Freshness::Live,
            Self::AddFinalizer
            | Self::TagUser(_)
            | Self::PutInlinePolicy(..)
            | Self::AttachPolicy(_)
            | Self::AddToGroup(_)
            | Self::PutBoundary(_)
            | Self::ApplyPassword
            | Self::ReleaseConsoleSecret
            | Self::VerifyKey(_)
            | Self::Publish { .. }
            | Self::TagKey(_)
            | Self::TouchPublished
            | Self::CloseJournal
            | Self::RewriteSecret
            | Self::ReadLastUsed(_)
            | Self::ReadWorkloads(_)
            | Self::RestartWorkload(..)
            | Self::RecordRestarts(_)
            | Self::ReadGrants
            | Self::ReleaseSecret => Freshness::Cached,
        }
    }

    /// Whether the effect may be done on what was seen; else the facts that it needs are read anew before.
    #[must_use]
    pub fn can_run_on(&self, current: &CurrentState, settings: &Settings) -> bool {
        let in_time = match (self, current.journal(), current.keys_read_at) {
            // A list that was read before the dwell was over may not show the orphan yet, however late it is now.
            (
                Self::AbandonAttempt { .. },
                Some(Journal { phase: AttemptPhase::Intent { .. }, started_at, .. }),
                Some(read_at),
            ) => read_at >= saturating_add(*started_at, settings.recovery_delay),
            _ => true,
        };
        in_time && self.required_freshness().is_met_by(current)
    }

    /// Whether the effect is about user, policies and tags. If it fails, keys are looked after all the same.
    #[must_use]
    pub fn is_user_sync(&self) -> bool {
        matches!(
            self,
            Self::TagUser(_)
                | Self::UntagUser(_)
                | Self::PutInlinePolicy(..)
                | Self::DeleteInlinePolicy(_)
                | Self::AttachPolicy(_)
                | Self::DetachPolicy(_)
                | Self::AddToGroup(_)
                | Self::RemoveFromGroup(_)
                | Self::PutBoundary(_)
                | Self::WritePassword
                | Self::ApplyPassword
                | Self::RemovePassword
                | Self::DeleteConsoleSecret
        )
    }

    /// The verb, for logs and metrics.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::CreateUser => "CreateUser",
            Self::AdoptUser(_) => "AdoptUser",
            Self::TagUser(_) => "TagUser",
            Self::UntagUser(_) => "UntagUser",
            Self::PutInlinePolicy(..) => "PutInlinePolicy",
            Self::DeleteInlinePolicy(_) => "DeleteInlinePolicy",
            Self::AttachPolicy(_) => "AttachPolicy",
            Self::DetachPolicy(_) => "DetachPolicy",
            Self::AddToGroup(_) => "AddToGroup",
            Self::RemoveFromGroup(_) => "RemoveFromGroup",
            Self::PutBoundary(_) => "PutBoundary",
            Self::WritePassword => "WritePassword",
            Self::ApplyPassword => "ApplyPassword",
            Self::RemovePassword => "RemovePassword",
            Self::DeleteConsoleSecret => "DeleteConsoleSecret",
            Self::ReleaseConsoleSecret => "ReleaseConsoleSecret",
            Self::CreateKey { .. } => "CreateKey",
            Self::VerifyKey(_) => "VerifyKey",
            Self::Publish { .. } => "Publish",
            Self::TagKey(_) => "TagKey",
            Self::AbandonAttempt { .. } => "AbandonAttempt",
            Self::RecordQuarantine(_) => "RecordQuarantine",
            Self::ClearQuarantine => "ClearQuarantine",
            Self::TouchPublished => "TouchPublished",
            Self::CloseJournal => "CloseJournal",
            Self::DeactivateKey(..) => "DeactivateKey",
            Self::DeleteKey(..) => "DeleteKey",
            Self::RewriteSecret => "RewriteSecret",
            Self::DeletePreviousSecret(_) => "DeletePreviousSecret",
            Self::ReadLastUsed(_) => "ReadLastUsed",
            Self::ReadWorkloads(_) => "ReadWorkloads",
            Self::RestartWorkload(..) => "RestartWorkload",
            Self::RecordRestarts(_) => "RecordRestarts",
            Self::ReadGrants => "ReadGrants",
            Self::RemoveDeletionBlocker(_) => "RemoveDeletionBlocker",
            Self::DeleteUser => "DeleteUser",
            Self::ReleaseSecret => "ReleaseSecret",
            Self::DeleteSecret => "DeleteSecret",
            Self::RemoveFinalizer => "RemoveFinalizer",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.verb();
        match self {
            Self::TagUser(tags) => write!(formatter, "{verb} {}", tags.keys().cloned().collect::<Vec<_>>().join(", ")),
            Self::UntagUser(keys) => {
                write!(formatter, "{verb} {}", keys.iter().cloned().collect::<Vec<_>>().join(", "))
            }
            Self::PutInlinePolicy(name, _) | Self::DeleteInlinePolicy(name) | Self::DeletePreviousSecret(name) => {
                write!(formatter, "{verb} {name}")
            }
            Self::AttachPolicy(arn) | Self::DetachPolicy(arn) | Self::PutBoundary(arn) => {
                write!(formatter, "{verb} {arn}")
            }
            Self::AddToGroup(group) | Self::RemoveFromGroup(group) => write!(formatter, "{verb} {group}"),
            Self::RemoveDeletionBlocker(leftover) => write!(formatter, "{verb} {leftover}"),
            Self::VerifyKey(id) | Self::Publish { key_id: id, .. } | Self::TagKey(id) => {
                write!(formatter, "{verb} {id}")
            }
            Self::DeactivateKey(id, why) | Self::DeleteKey(id, why) => write!(formatter, "{verb} {id} ({why:?})"),
            Self::ReadLastUsed(ids) => write!(formatter, "{verb} {}", ids.join(", ")),
            Self::ReadWorkloads(all) => {
                write!(formatter, "{verb} {}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Self::RestartWorkload(target, id) => write!(formatter, "{verb} {target} for {id}"),
            Self::RecordRestarts(restarts) => {
                write!(formatter, "{verb} {}", restart::encode(restarts).unwrap_or_else(|| "all done".to_owned()))
            }
            Self::AbandonAttempt { orphans, .. } => write!(formatter, "{verb} orphans: {}", orphans.join(", ")),
            _ => formatter.write_str(verb),
        }
    }
}
