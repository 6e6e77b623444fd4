//! The verbs of a plan. They hold names and ids, never key material.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

use crate::domain::world::Leftover;

/// Why an access key is set Inactive or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its overlap is over.
    Retired,
    /// Its secret is lost and the slot is needed for a key that works.
    MakesRoom,
    /// `spec.suspend`.
    Suspended,
    /// It belongs to an attempt that was given up.
    Orphan,
    /// The user is being deleted.
    Cleanup,
    /// No class allows it any more.
    Revoked,
}

/// One thing to do. Everything but [`Effect::MintKey`] can be repeated without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put our finalizer on the resource, before anything is made in AWS.
    AddFinalizer,
    /// Create the IAM user with path and tags in one call.
    CreateUser,
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
    MintKey {
        /// Keys that the user has now.
        known: Vec<String>,
        /// Target Secret that is left behind, and the key in it.
        previous_secret: Option<(String, String)>,
    },
    /// Ask STS once whether AWS accepts the staged key.
    VerifyKey(String),
    /// Write the staged key into the target Secret, on condition that it is as this pass has read it.
    Publish(String),
    /// Mark a published key as ours, and describe it for the console.
    TagKey(String),
    /// Give the attempt up. From then on a paused writer of it can store nothing any more.
    AbandonAttempt {
        /// Keys to be deleted.
        orphans: Vec<String>,
        /// True when a key was given up that AWS did not accept in time.
        failed: bool,
    },
    /// Move the published Secret's resourceVersion, so that a paused publisher of an abandoned key fails.
    TouchPublished,
    /// Delete the journal: the attempt has come to its end.
    CloseJournal,
    /// Set a key Inactive.
    DeactivateKey(String, Why),
    /// Delete a key.
    DeleteKey(String, Why),
    /// Write the published Secret again with the key that it holds.
    RewriteSecret,
    /// Delete an earlier target Secret whose key has retired.
    DeletePreviousSecret(String),

    /// Ask when each key was last used; decides which of two lost keys makes room.
    ReadLastUsed,
    /// Find out what still hangs on the user and blocks its deletion.
    ReadGrants,
    /// Remove something of others that blocks the deletion of the user.
    RemoveLeftover(Leftover),
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
pub enum Facts {
    /// What a pass remembers is good enough: the effect can be repeated and undone.
    Remembered,
    /// IAM, Secret and journal must have been read in this pass, in this order.
    Live,
}

impl Effect {
    /// Unrepeatable and destructive effects are decided on live facts only.
    #[must_use]
    pub fn needs(&self) -> Facts {
        match self {
            Self::CreateUser
            | Self::MintKey { .. }
            | Self::AbandonAttempt { .. }
            | Self::DeactivateKey(..)
            | Self::DeleteKey(..)
            | Self::DeletePreviousSecret(_)
            | Self::DeleteUser
            | Self::DetachPolicy(_)
            | Self::DeleteInlinePolicy(_)
            | Self::RemoveFromGroup(_)
            | Self::RemoveLeftover(_)
            | Self::WritePassword
            | Self::RemovePassword
            | Self::DeleteConsoleSecret
            | Self::UntagUser(_)
            | Self::DeleteSecret
            | Self::RemoveFinalizer => Facts::Live,
            Self::AddFinalizer
            | Self::TagUser(_)
            | Self::PutInlinePolicy(..)
            | Self::AttachPolicy(_)
            | Self::AddToGroup(_)
            | Self::PutBoundary(_)
            | Self::ApplyPassword
            | Self::ReleaseConsoleSecret
            | Self::VerifyKey(_)
            | Self::Publish(_)
            | Self::TagKey(_)
            | Self::TouchPublished
            | Self::CloseJournal
            | Self::RewriteSecret
            | Self::ReadLastUsed
            | Self::ReadGrants
            | Self::ReleaseSecret => Facts::Remembered,
        }
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
            Self::MintKey { .. } => "MintKey",
            Self::VerifyKey(_) => "VerifyKey",
            Self::Publish(_) => "Publish",
            Self::TagKey(_) => "TagKey",
            Self::AbandonAttempt { .. } => "AbandonAttempt",
            Self::TouchPublished => "TouchPublished",
            Self::CloseJournal => "CloseJournal",
            Self::DeactivateKey(..) => "DeactivateKey",
            Self::DeleteKey(..) => "DeleteKey",
            Self::RewriteSecret => "RewriteSecret",
            Self::DeletePreviousSecret(_) => "DeletePreviousSecret",
            Self::ReadLastUsed => "ReadLastUsed",
            Self::ReadGrants => "ReadGrants",
            Self::RemoveLeftover(_) => "RemoveLeftover",
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
            Self::RemoveLeftover(leftover) => write!(formatter, "{verb} {leftover}"),
            Self::VerifyKey(id) | Self::Publish(id) | Self::TagKey(id) => write!(formatter, "{verb} {id}"),
            Self::DeactivateKey(id, why) | Self::DeleteKey(id, why) => write!(formatter, "{verb} {id} ({why:?})"),
            Self::AbandonAttempt { orphans, .. } => write!(formatter, "{verb} orphans: {}", orphans.join(", ")),
            _ => formatter.write_str(verb),
        }
    }
}
