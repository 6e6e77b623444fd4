//! The rotation protocol: an ordered chain of small rules, the first that has something to say decides.
//!
//! `docs/rotation.md` tells the protocol as a story and what breaks without each rule.
//! The order is part of the protocol: an attempt that was begun is brought to its end
//! before anything else happens, and nothing is deleted before its fence is up.

mod attempt;
mod due;
mod input;
pub(super) mod quarantine;
mod removed_from_spec;
mod replace;
mod restart;
mod retire;
mod revoke;
mod secret;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub(super) use attempt::orphans;
pub use input::RotationInput;
pub use restart::owed as required_restarts;

use super::{Effect, Note, RetireReason};
use crate::api::Reason;

/// What a rule has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Do this.
    Do(Effect),
    /// Nothing before this time.
    Wait(Timestamp, Note),
    /// Nothing before something changes.
    Hold(Note),
    /// All is well.
    Idle,
}

/// The chain's verdict.
pub(super) struct RotationDecision {
    pub(super) effect: Option<Effect>,
    /// The effect is a revocation, which waits for nothing.
    pub(super) revokes: bool,
    pub(super) requeue_at: Option<Timestamp>,
    /// AWS quarantines the user.
    pub(super) quarantine: Option<Note>,
    pub(super) key: Option<Note>,
    pub(super) rotation: Note,
    pub(super) next_rotation: Option<Timestamp>,
    pub(super) deactivate_at: BTreeMap<String, Timestamp>,
}

type Rule = fn(&RotationInput<'_>) -> Option<Step>;

/// The chain. Read it as the protocol's specification.
pub const RULES: &[(&str, Rule)] = &[
    ("suspended keys are Inactive", revoke::suspend),
    ("keys that are not declared any more are Inactive", removed_from_spec::deactivate),
    ("a journal of unknown format is left alone", attempt::unknown_journal),
    ("a quarantine that keys are replaced for is dated, and undated when it is over", quarantine::date),
    ("the published key of an abandoned attempt stays", attempt::keep_published_orphan),
    ("a paused publisher of an abandoned key is fenced off", attempt::fence_publisher),
    ("orphans are deleted behind the fence", attempt::delete_orphans),
    ("an abandoned attempt is closed", attempt::close_abandoned),
    ("a published key is tagged, never before it is published", attempt::tag_published),
    ("a finished attempt is closed", attempt::close_finished),
    ("a staged key that is not declared any more is given up", removed_from_spec::give_up),
    ("a staged key that was revoked is given up", attempt::give_up_revoked),
    ("a staged key that AWS accepts is published", attempt::publish),
    ("a staged key that cannot be published in time is given up", attempt::give_up_staged),
    ("a staged key is verified", attempt::verify),
    ("an intent without an answer is abandoned after the dwell", attempt::abandon_intent),
    ("a suspended user gets no key", revoke::hold_suspended),
    ("where no key is declared, what is left of one goes", removed_from_spec::clear),
    ("a Secret that is not ours is not written", secret::hold_conflict),
    ("workloads are restarted for a new key, and followed until they are rolled out", restart::restart),
    ("tags of keys that are gone are removed", retire::untag_gone),
    ("before a key that may be held retires, AWS is asked whether it is used", retire::ask),
    ("a superseded key is retired after its overlap", retire::retire),
    ("a key that is due is replaced", replace::replace),
    ("an earlier target Secret goes with its key", secret::drop_previous_secret),
    ("the Secret is as declared", secret::rewrite),
];

/// Runs the chain.
pub(super) fn decide(scene: &RotationInput<'_>) -> RotationDecision {
    let step = RULES.iter().find_map(|(_, rule)| rule(scene)).unwrap_or(Step::Idle);
    let next_rotation = scene.next_rotation();
    let mut outlook = RotationDecision {
        effect: None,
        revokes: scene.no_key_wanted(),
        quarantine: scene.quarantine_note(),
        requeue_at: None,
        key: scene.key_note(),
        rotation: scene.at_rest(next_rotation),
        next_rotation,
        deactivate_at: scene.deactivate_at(),
    };
    match step {
        Step::Do(effect) => {
            if scene.current.journal().is_some() && scene.desired.key.is_some() {
                outlook.rotation = Note::new(Reason::Verifying, "a new access key is under way");
            }
            outlook.effect = Some(effect);
        }
        Step::Wait(until, note) => {
            outlook.requeue_at = Some(until);
            outlook.rotation = note;
        }
        Step::Hold(note) => {
            // A retirement that is held up too is no reason to come back at once, again and again.
            outlook.requeue_at = scene.retirement().filter(|at| *at > scene.now);
            // Where nobody has a key yet, that is why.
            if note.reason == Reason::KeyQuotaExceeded
                && outlook.key.as_ref().is_some_and(|key| key.reason == Reason::Pending)
            {
                outlook.key = Some(note.clone());
            }
            outlook.rotation = note;
        }
        Step::Idle => outlook.requeue_at = [scene.retirement(), next_rotation].into_iter().flatten().min(),
    }
    if outlook.effect.is_none() {
        outlook.requeue_at = [outlook.requeue_at, scene.next_restart_check()].into_iter().flatten().min();
        // Something that a person has to mend does not hide behind a time that is waited for.
        let waiting = matches!(outlook.rotation.reason, Reason::RotationPending | Reason::Overlap | Reason::StillUsed);
        if let Some(note) = scene.restart_note().filter(|note| waiting && note.reason != Reason::Restarting) {
            outlook.rotation = note;
        }
    }
    outlook
}
