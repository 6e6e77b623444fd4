//! The plan step: desired state + world + now -> what to do next, when to look again, and why.
//!
//! `plan` decides everything and does nothing. A pass does the **first** effect, learns its
//! result, and asks again; so every decision is made on the newest facts, and a crash between two
//! effects is the same as a pass that ended there.

// A sum of a date that others could write must not end a pass: `dates::saturating_add`.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod claim;
mod cleanup;
mod console;
mod effect;
mod revocation;
pub mod rotation;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use claim::{Claim, evaluate_claim};
pub use cleanup::{declared_grants, plan_cleanup};
pub use effect::{Effect, Freshness, RetireReason};
pub use revocation::{RevocationPolicy, plan_revocation};
pub use rotation::required_restarts;

use super::{
    current_state::{CurrentState, CurrentUser, PublishedSecret},
    desired::Desired,
    settings::Settings,
};
use crate::api::Reason;

/// What to do, when to look again, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Effects in order. A pass does the first and plans again.
    pub effects: Vec<Effect>,
    /// When the next pass has something to do even if nothing changes.
    pub requeue_at: Option<Timestamp>,
    /// Something that stands in the way of user and policies.
    pub user: Option<Note>,
    /// Something to tell about the key in the Secret.
    pub key: Option<Note>,
    /// Something to tell about rotation, good or bad.
    pub rotation: Note,
    /// When the next rotation begins.
    pub next_rotation: Option<Timestamp>,
    /// When superseded keys are set Inactive, by their ids.
    pub deactivate_at: BTreeMap<String, Timestamp>,
}

/// A reason with a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The reason.
    pub reason: Reason,
    /// What happened, what is allowed, who can mend it.
    pub message: String,
}

impl Note {
    /// A note.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Plan {
    /// Nothing to do.
    pub(crate) fn idle(rotation: Note) -> Self {
        Self {
            effects: Vec::new(),
            requeue_at: None,
            user: None,
            key: None,
            rotation,
            next_rotation: None,
            deactivate_at: BTreeMap::new(),
        }
    }
}

/// Decides what to do for a resource that is not being deleted.
#[must_use]
pub fn plan(desired: &Desired, current: &CurrentState, now: Timestamp, settings: &Settings) -> Plan {
    let claim = current.user().map(|user| evaluate_claim(&desired.target, desired.adoption, &desired.path, user));
    if let Some(Claim::NotOwned(note)) = claim {
        return Plan { user: Some(note.clone()), key: Some(note.clone()), ..Plan::idle(note) };
    }
    let adopt = claim == Some(Claim::Adoptable);
    // A Secret that is not ours is found before anything is made in AWS.
    let conflict = secret_conflict(desired, current);
    if let (Some(note), true) = (&conflict, adopt || current.iam == CurrentUser::Absent) {
        return Plan { key: Some(note.clone()), ..Plan::idle(note.clone()) };
    }
    let mut effects = Vec::new();
    if !current.finalizer {
        effects.push(Effect::AddFinalizer);
    }
    let Some(iam_user) = current.user() else {
        effects.push(Effect::CreateUser);
        let pending = Note::new(Reason::Pending, "the IAM user is about to be created");
        return Plan { effects, key: Some(pending.clone()), ..Plan::idle(pending) };
    };
    if adopt {
        effects.push(Effect::AdoptUser(user::losses(desired, iam_user)));
        let pending = Note::new(Reason::Pending, "the IAM user is about to be adopted");
        return Plan { effects, key: Some(pending.clone()), ..Plan::idle(pending) };
    }

    let mut sync = if current.user_sync_failed { Vec::new() } else { user::sync(desired, iam_user, current) };
    let mut user_note = None;
    match console::decide(desired, iam_user, current).filter(|_| !current.user_sync_failed) {
        Some(Ok(effect)) => sync.push(effect),
        Some(Err(note)) => user_note = Some(note),
        None => {}
    }
    let scene = rotation::RotationInput {
        desired,
        current,
        user: iam_user,
        now,
        settings,
        user_ready: sync.is_empty() && !current.user_sync_failed,
        conflict,
    };
    let outlook = rotation::decide(&scene);
    // Revocation does not wait for anything, not even for a policy that AWS refuses.
    if outlook.revokes {
        effects.extend(outlook.effect.iter().cloned());
        effects.extend(sync);
    } else {
        effects.extend(sync);
        effects.extend(outlook.effect.iter().cloned());
    }
    Plan {
        effects,
        requeue_at: outlook.requeue_at,
        user: outlook.quarantine.or(user_note),
        key: outlook.key,
        rotation: outlook.rotation,
        next_rotation: outlook.next_rotation,
        deactivate_at: outlook.deactivate_at,
    }
}

/// The target Secret or the journal cannot be written because of somebody else.
fn secret_conflict(desired: &Desired, current: &CurrentState) -> Option<Note> {
    use super::current_state::JournalSecret;
    // Nothing is going to be written.
    desired.key.as_ref()?;
    let target = &desired.target;
    let (name, whose) = match (&current.published, &current.journal) {
        (PublishedSecret::Foreign(whose), _) => (&target.secret_name, whose.clone()),
        (_, JournalSecret::Foreign(whose)) => (&target.journal_name, whose.clone()),
        (PublishedSecret::Ours(facts), _) if facts.immutable && !(facts.intact && facts.matches_spec) => {
            return Some(immutable(desired));
        }
        _ => return None,
    };
    Some(cannot_be_written(name, &whose, KEY_IS_MADE, KEY_SECRET))
}

/// An immutable Secret is left alone as long as its key works and no other is due.
fn immutable(desired: &Desired) -> Note {
    cannot_be_written(
        &desired.target.secret_name,
        "it was made immutable by hand; delete it, a new key is published then",
        KEY_IS_MADE,
        KEY_SECRET,
    )
}

const KEY_IS_MADE: &str = "access key is made";
const KEY_SECRET: &str = "spec.accessKey.secret.name";

fn cannot_be_written(name: &str, why: &str, what: &str, field: &str) -> Note {
    Note::new(
        Reason::SecretConflict,
        format!(
            "Secret {name} cannot be written: {why}. No {what} before this is solved: remove that Secret, or set {field} to a free name"
        ),
    )
}
