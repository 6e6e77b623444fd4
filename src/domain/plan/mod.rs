//! The plan step: desired state + world + now -> what to do next, when to look again, and why.
//!
//! `plan` decides everything and does nothing. A pass does the **first** effect, learns its
//! result, and asks again; so every decision is made on the newest facts, and a crash between two
//! effects is the same as a pass that ended there.

// A sum of a date that others could write must not end a pass: `dates::later`.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod cleanup;
mod console;
mod effect;
mod revoked;
pub mod rotation;
mod standing;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use cleanup::{Leaving, cleanup, declared_grants};
pub use effect::{Effect, Facts, Why};
pub use revoked::{Revoked, revoked};
pub use rotation::restarts_owed;
pub use standing::{Standing, standing};

use super::{
    desired::Desired,
    settings::Settings,
    world::{Iam, Published, World},
};
use crate::api::Reason;

/// What to do, when to look again, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Effects in order. A pass does the first and plans again.
    pub effects: Vec<Effect>,
    /// When the next pass has something to do even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Something that stands in the way of user and policies.
    pub user: Option<Note>,
    /// Something to tell about the key in the Secret.
    pub key: Option<Note>,
    /// Something to tell about rotation, good or bad.
    pub rotation: Note,
    /// When the next rotation begins.
    pub next_rotation: Option<Timestamp>,
    /// When superseded keys are set Inactive, by their ids.
    pub retires: BTreeMap<String, Timestamp>,
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
    pub(crate) fn at_rest(rotation: Note) -> Self {
        Self {
            effects: Vec::new(),
            wake_at: None,
            user: None,
            key: None,
            rotation,
            next_rotation: None,
            retires: BTreeMap::new(),
        }
    }
}

/// Decides what to do for a resource that is not being deleted.
#[must_use]
pub fn plan(desired: &Desired, world: &World, now: Timestamp, settings: &Settings) -> Plan {
    let standing = world.user().map(|user| standing(&desired.target, desired.adoption, &desired.path, user));
    if let Some(Standing::Stranger(note)) = standing {
        return Plan { user: Some(note.clone()), key: Some(note.clone()), ..Plan::at_rest(note) };
    }
    let adopt = standing == Some(Standing::Adoptable);
    // A Secret that is not ours is found before anything is made in AWS.
    let conflict = secret_conflict(desired, world);
    if let (Some(note), true) = (&conflict, adopt || world.iam == Iam::Absent) {
        return Plan { key: Some(note.clone()), ..Plan::at_rest(note.clone()) };
    }
    let mut effects = Vec::new();
    if !world.finalizer {
        effects.push(Effect::AddFinalizer);
    }
    let Some(iam_user) = world.user() else {
        effects.push(Effect::CreateUser);
        let pending = Note::new(Reason::Pending, "the IAM user is about to be created");
        return Plan { effects, key: Some(pending.clone()), ..Plan::at_rest(pending) };
    };
    if adopt {
        effects.push(Effect::Adopt(user::losses(desired, iam_user)));
        let pending = Note::new(Reason::Pending, "the IAM user is about to be adopted");
        return Plan { effects, key: Some(pending.clone()), ..Plan::at_rest(pending) };
    }

    let mut sync = if world.user_sync_failed { Vec::new() } else { user::sync(desired, iam_user, world) };
    let mut user_note = None;
    match console::decide(desired, iam_user, world).filter(|_| !world.user_sync_failed) {
        Some(Ok(effect)) => sync.push(effect),
        Some(Err(note)) => user_note = Some(note),
        None => {}
    }
    let scene = rotation::Scene {
        desired,
        world,
        user: iam_user,
        now,
        settings,
        user_ready: sync.is_empty() && !world.user_sync_failed,
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
        wake_at: outlook.wake_at,
        user: outlook.quarantine.or(user_note),
        key: outlook.key,
        rotation: outlook.rotation,
        next_rotation: outlook.next_rotation,
        retires: outlook.retires,
    }
}

/// The target Secret or the journal cannot be written because of somebody else.
fn secret_conflict(desired: &Desired, world: &World) -> Option<Note> {
    use super::world::JournalSeen;
    // Nothing is going to be written.
    desired.key.as_ref()?;
    let target = &desired.target;
    let (name, whose) = match (&world.published, &world.journal) {
        (Published::Foreign(whose), _) => (&target.secret_name, whose.clone()),
        (_, JournalSeen::Foreign(whose)) => (&target.journal_name, whose.clone()),
        (Published::Ours(facts), _) if facts.immutable && !(facts.intact && facts.as_declared) => {
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
