//! Plans: desired state, current state and time in; ordered effects, the next time and notes for conditions out.
//!
//! Planning decides everything and executes nothing. A reconcile executes the **first** effect, applies its result to the
//! current state and plans again: every decision is made on the newest facts, and a crash between two effects is the same
//! as a reconcile that ended there.

// A date that others can write must not overflow: `dates::saturating_add`.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod claim;
mod cleanup;
mod console;
mod effect;
mod policies;
mod revocation;
pub mod rules;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use claim::{Claim, evaluate_claim};
pub use cleanup::{declared_grants, plan_cleanup};
pub use effect::{Effect, EffectVerb, Freshness, RetireReason};
pub use revocation::{RevocationPolicy, plan_revocation};
pub use rules::required_restarts;

use super::{
    current_state::{CurrentState, CurrentUser, IamUser, KeyBackoff, PublishedSecret},
    dates::saturating_add,
    desired::Desired,
    owner::Ownership,
    settings::Settings,
    target::Target,
};
use crate::api::{Reason, well_known};
use rules::{Mode, RULES, Rule, RuleInput, Step};

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In order. A reconcile executes the first and plans again.
    pub effects: Vec<Effect>,
    /// When the next reconcile has something to do even if nothing changes.
    pub requeue_at: Option<Timestamp>,
    /// What keeps user and policies from matching the spec.
    pub user: Option<Note>,
    /// Why the published key is not usable.
    pub key: Option<Note>,
    /// The state of rotation, good or bad.
    pub rotation: Note,
    /// When the next rotation begins.
    pub next_rotation: Option<Timestamp>,
    /// When superseded keys are set Inactive, by their ids.
    pub deactivate_at: BTreeMap<String, Timestamp>,
}

/// Reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub reason: Reason,
    /// What happened, what is allowed, who can fix it.
    pub message: String,
}

impl Note {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Plan {
    /// A plan without effects.
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

    /// Whether it waits for the end of this back-off.
    #[must_use]
    pub fn waits_for(&self, backoff: KeyBackoff) -> bool {
        self.rotation == rules::backing_off(backoff)
    }

    /// A plan whose user, key and rotation are in the same state.
    fn uniform(note: Note) -> Self {
        Self { user: Some(note.clone()), key: Some(note.clone()), ..Self::idle(note) }
    }

    /// Adds the step of a revocation or deletion; what it waits for is the state of the user.
    fn with_step(mut self, step: Step) -> Self {
        match step {
            Step::Do(effect) => self.effects.push(effect),
            Step::Wait(until, note) => (self.requeue_at, self.user) = (Some(until), Some(note)),
            Step::Hold(note) => self.user = Some(note),
            Step::Idle => {}
        }
        self
    }
}

/// Plans a resource that is valid, allowed and not being deleted.
#[must_use]
pub fn plan(desired: &Desired, current: &CurrentState, now: Timestamp, settings: &Settings) -> Plan {
    plan_by(RULES, desired, current, now, settings)
}

/// As [`plan`], by these rules: a test leaves one out to show what it prevents.
#[must_use]
pub fn plan_by(rules: &[Rule], desired: &Desired, current: &CurrentState, now: Timestamp, settings: &Settings) -> Plan {
    let claim = current.user().map(|user| evaluate_claim(&desired.target, desired.adoption, &desired.path, user));
    match (claim.as_ref(), current.user()) {
        (Some(Claim::NotOwned(_)), Some(user)) if current.owner_is_ending => {
            return await_end_of_owner(&desired.target, user, now, settings);
        }
        (Some(Claim::NotOwned(note)), _) => return Plan::uniform(note.clone()),
        _ => {}
    }
    let adopt = claim == Some(Claim::Adoptable);
    // A Secret of another owner is reported before anything is created in AWS.
    let conflict = secret_conflict(desired, current);
    if let (Some(note), true) = (&conflict, adopt || current.iam == CurrentUser::Absent) {
        return Plan { user: None, ..Plan::uniform(note.clone()) };
    }
    // Also for a user that is found by its ownership tags: the status says which operator serves it.
    let record =
        !current.user_recorded || !user::records_tags(desired, current) || policies::need_record(desired, current);
    let record = (record && !current.user_sync_failed).then_some(Effect::RecordUser).into_iter();
    let mut effects: Vec<Effect> = record.chain((!current.finalizer).then_some(Effect::AddFinalizer)).collect();
    if current.secrets_unread && (adopt || current.iam == CurrentUser::Absent) {
        let pending = Note::new(Reason::Pending, "the IAM user is created once its Secrets can be read");
        return Plan { user: None, ..Plan::uniform(pending) };
    }
    if current.user_sync_failed && (adopt || current.user().is_none()) {
        let pending = Note::new(Reason::Pending, "the IAM user is created or adopted after the back-off");
        return Plan { user: None, ..Plan::uniform(pending) };
    }
    let Some(user) = current.user() else {
        effects.push(Effect::CreateUser);
        let pending = Note::new(Reason::Pending, "the IAM user is about to be created");
        return Plan { effects, user: None, ..Plan::uniform(pending) };
    };
    if adopt {
        effects.push(Effect::AdoptUser(user::losses(desired, user, current)));
        let pending = Note::new(Reason::Pending, "the IAM user is about to be adopted");
        return Plan { effects, user: None, ..Plan::uniform(pending) };
    }

    let policies = policies::sync(desired, user.grants.as_ref(), current, now, settings);
    let (mut user_note, is_blocked, recheck_at) = (policies.note.clone(), policies.is_blocked, policies.recheck_at);
    let mut sync = if current.user_sync_failed { Vec::new() } else { user::sync(desired, user, current, policies) };
    match console::next_step(desired, user, current).filter(|_| !current.user_sync_failed) {
        Some(Step::Do(effect)) => sync.push(effect),
        Some(Step::Hold(note) | Step::Wait(_, note)) => user_note = user_note.or(Some(note)),
        Some(Step::Idle) | None => {}
    }
    let user_ready = sync.is_empty() && !current.user_sync_failed && !is_blocked;
    let input = RuleInput {
        target: &desired.target,
        mode: Mode::Live { desired, user_ready, conflict },
        current,
        user,
        now,
        settings,
    };
    let next_rotation = input.next_rotation();
    let plan = Plan {
        effects: Vec::new(),
        requeue_at: None,
        user: input.quarantine_note().or(user_note),
        key: input.key_note(),
        rotation: input.rotation_note(next_rotation),
        next_rotation,
        deactivate_at: input.deactivate_at(),
    };
    let mut plan = rotate(plan, rules::first_step(rules, &input), &input, sync);
    plan.requeue_at = plan.requeue_at.into_iter().chain(recheck_at).min();
    // A rotation that waits has no time at which it begins, and is not overdue: `RotationHealthy` says what it waits for.
    let waits =
        plan.effects.is_empty() && matches!(plan.rotation.reason, Reason::RotationPending | Reason::KeyQuotaExceeded);
    plan.next_rotation.take_if(|begins| waits && *begins <= now);
    // A key that must not work waits for no write to the resource.
    if !matches!(plan.effects.first(), Some(Effect::DeactivateKey(..))) {
        plan.effects.splice(0..0, effects);
    }
    plan
}

/// Another resource of the namespace had the user: its name is free soon, or IAM's answer is older than its end.
fn await_end_of_owner(target: &Target, user: &IamUser, now: Timestamp, settings: &Settings) -> Plan {
    let (name, owner) = (&user.name, &target.owner);
    let who = match owner.classify(&user.tags) {
        Ownership::Other(who) => who,
        Ownership::Ours | Ownership::Untagged => String::new(),
    };
    let message = format!(
        "the IAM user {name} belongs to {who}, which is deleted or being deleted; it is not changed. IAM is read again about once a minute, and the user is created when that one is gone. If it remains, an AWS admin can delete it, or transfer it to this resource: aws iam tag-user --user-name {name} --tags Key={},Value={} Key={},Value={}",
        well_known::TAG_NAME,
        owner.name,
        well_known::TAG_UID,
        owner.uid
    );
    let requeue_at = Some(saturating_add(now, settings.recovery_delay));
    Plan { requeue_at, ..Plan::uniform(Note::new(Reason::NotOwned, message)) }
}

/// Adds the step of the rules, and the writes to the user in the right order.
fn rotate(mut plan: Plan, step: Step, input: &RuleInput<'_>, sync: Vec<Effect>) -> Plan {
    plan.requeue_at = later_retirement(input);
    match step {
        Step::Do(effect) => {
            if input.current.journal().is_some() && input.desired_key().is_some() {
                plan.rotation = Note::new(Reason::Verifying, "a new access key is being created and verified");
            }
            // Deactivation waits for nothing, neither for a policy that AWS refuses nor for a write to the resource.
            if input.wants_key() && !matches!(effect, Effect::DeactivateKey(..)) {
                plan.effects.extend(sync);
                plan.effects.push(effect);
            } else {
                plan.effects.push(effect);
                plan.effects.extend(sync);
            }
            return plan;
        }
        Step::Wait(until, note) => {
            plan.requeue_at = Some(plan.requeue_at.map_or(until, |at| at.min(until)));
            plan.rotation = note;
        }
        Step::Hold(note) => {
            // Without a published key, the quota is the reason.
            let pending = plan.key.as_ref().is_some_and(|key| key.reason == Reason::Pending);
            if matches!(note.reason, Reason::KeyQuotaExceeded | Reason::LimitExceeded) && pending {
                plan.key = Some(note.clone());
            }
            plan.rotation = note;
        }
        Step::Idle => plan.requeue_at = [input.retirements().min(), plan.next_rotation].into_iter().flatten().min(),
    }
    plan.effects.extend(sync);
    let checks = [plan.requeue_at, input.next_restart_check(), input.handover_deadline(), input.next_ending_warning()];
    plan.requeue_at = checks.into_iter().flatten().min();
    // A failure that a person has to fix is not hidden behind a time that is waited for.
    let waiting = matches!(plan.rotation.reason, Reason::RotationPending | Reason::Overlap | Reason::StillUsed);
    if let Some(note) = input.unfinished_note().filter(|_| waiting) {
        plan.rotation = note;
    }
    plan
}

/// A deletion that is overdue and held up would be requeued at once, again and again.
fn later_retirement(input: &RuleInput<'_>) -> Option<Timestamp> {
    input.retirements().filter(|at| *at > input.now).min()
}

/// Why the target Secret cannot be written; `None` also if it is not going to be.
fn secret_conflict(desired: &Desired, current: &CurrentState) -> Option<Note> {
    desired.key.as_ref()?;
    let target = &desired.target;
    match &current.published {
        PublishedSecret::Foreign(owner) => Some(not_writable(&target.secret_name, owner, NO_KEY, KEY_SECRET_FIELD)),
        PublishedSecret::Ours(facts) if facts.immutable && !(facts.is_verified() && facts.matches_spec) => {
            Some(immutable(target))
        }
        PublishedSecret::Ours(_) | PublishedSecret::Missing => None,
    }
}

/// An immutable Secret is no conflict while its key works and no other is due.
fn immutable(target: &Target) -> Note {
    let why = "it was made immutable by hand; delete it, then a new key is published";
    not_writable(&target.secret_name, why, NO_KEY, KEY_SECRET_FIELD)
}

const NO_KEY: &str = "no access key is created";
const KEY_SECRET_FIELD: &str = "spec.accessKey.secret.name";

fn not_writable(name: &str, why: &str, consequence: &str, field: &str) -> Note {
    Note::new(
        Reason::SecretConflict,
        format!(
            "Secret {name} cannot be written: {why}. Until then {consequence}: delete that Secret, or create the resource again with another {field}"
        ),
    )
}
