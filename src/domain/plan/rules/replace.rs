//! Replaces a key that is due; where both key slots of the user are taken, one of our own keys is deleted first.

use jiff::Timestamp;

use super::{Effect, Note, RetireReason, RuleInput, Step, due::Due};
use crate::{
    api::Reason,
    domain::{current_state::AccessKey, dates::floor, owner::MAX_TAGS_PER_USER},
};

/// IAM's quota of access keys per user; it cannot be raised, and an Inactive key counts.
const MAX_KEYS_PER_USER: usize = 2;

pub(super) fn replace(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let due = input.due()?;
    // A key that cannot be published would be abandoned, and so would each one after it.
    if let Some(note) = input.unwritable() {
        return Some(Step::Hold(note));
    }
    if let Some((until, note)) = input.delay(due) {
        return Some(Step::Wait(until, note));
    }
    if input.user.keys.len() < MAX_KEYS_PER_USER {
        // A first key must not work with other permissions than the declared ones.
        if !input.user_ready() && input.current.published().is_none() {
            return Some(Step::Hold(Note::new(
                Reason::Pending,
                "the access key is created once the user's policies and tags match the spec",
            )));
        }
        if let Some(note) = input.missing_tag_room() {
            return Some(Step::Hold(note));
        }
        return Some(Step::Do(Effect::CreateKey {
            known: input.user.keys.iter().map(|key| key.id.clone()).collect(),
            repairs: due.is_repair().then(|| input.repairs().saturating_add(1)),
        }));
    }
    Some(input.free_slot(due))
}

impl RuleInput<'_> {
    /// Why a new key could not be tagged as the operator's. A key without its tag is never retired.
    fn missing_tag_room(&self) -> Option<Note> {
        let wanted = if self.desired_key().is_some_and(|key| key.description.is_some()) { 2 } else { 1 };
        let found = self.user.tags.len();
        (found.saturating_add(wanted) > MAX_TAGS_PER_USER).then(|| {
            Note::new(
                Reason::LimitExceeded,
                format!(
                    "a new access key needs {wanted} tags on the IAM user {}, which has {found} of the {MAX_TAGS_PER_USER} that IAM allows; remove tags of others in AWS, or declare fewer in spec.tags",
                    self.user.name
                ),
            )
        })
    }

    /// A key is due and both slots are in use.
    fn free_slot(&self, due: Due) -> Step {
        let working = self.working().map(|facts| facts.key_id.as_str());
        let spare: Vec<&AccessKey> = self
            .user
            .keys
            .iter()
            .filter(|key| Some(key.id.as_str()) != working && self.current.is_ours(&key.id))
            .collect();
        // All keys are compromised: the superseded one needs no overlap.
        if let Some(compromised) = spare.iter().find(|key| due == Due::Compromised && self.is_compromised(key)) {
            return Step::Do(if compromised.active {
                Effect::DeactivateKey(compromised.id.clone(), RetireReason::Quarantined)
            } else {
                Effect::DeleteKey(compromised.id.clone(), RetireReason::FreesSlot)
            });
        }
        // Also if a person asks for a new key before.
        if let (Some(until), Some(newer)) = (self.restored_until(), spare.first()) {
            return match self.restored_note() {
                Some(note) if self.now < until => Step::Wait(until, note),
                _ if newer.active => Step::Do(Effect::DeactivateKey(newer.id.clone(), RetireReason::FreesSlot)),
                _ => Step::Do(Effect::DeleteKey(newer.id.clone(), RetireReason::FreesSlot)),
            };
        }
        if due.is_urgent() {
            let published = self.current.published().map(|facts| facts.key_id.as_str());
            let dead =
                spare.iter().filter(|key| !key.active).min_by_key(|key| (published == Some(&key.id), key.created_at));
            if let Some(dead) = dead {
                return Step::Do(Effect::DeleteKey(dead.id.clone(), RetireReason::FreesSlot));
            }
            // Both are ours and the values of both are lost: the one that has been unused for longer is deleted.
            if spare.len() >= MAX_KEYS_PER_USER {
                return self.delete_least_recently_used(&spare);
            }
        }
        let Some(key) = spare.first() else { return Step::Hold(self.quota_exceeded()) };
        // The published key is older than this one: an earlier Secret came back.
        if !key.active && self.deletable_at(key) <= self.now {
            return Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::FreesSlot));
        }
        // Without a successor there is no overlap, and the other key is not ours.
        let until = if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) };
        let Some(until) = until else { return Step::Hold(self.quota_exceeded()) };
        let end = if key.active { "set Inactive" } else { "deleted" };
        let held = [self.restart_note(), self.handover_note(), self.hold_note()].into_iter().flatten();
        let due = format!(
            "a rotation is due; both key slots of the user are in use, and the previous key {} is {end} at {}",
            key.id,
            floor(until),
        );
        let sentences: Vec<String> = std::iter::once(due).chain(held.map(|note| note.message)).collect();
        Step::Wait(until, Note::new(Reason::RotationPending, sentences.join(". ")))
    }

    fn delete_least_recently_used(&self, spare: &[&AccessKey]) -> Step {
        let young = |asked_at| self.now.duration_since(asked_at).abs() < self.settings.recovery_delay;
        let answer = |key: &AccessKey| self.current.last_used.get(&key.id).filter(|answer| young(answer.asked_at));
        if spare.iter().all(|key| answer(key).is_some()) {
            let idle = |key: &AccessKey| answer(key).and_then(|answer| answer.used_at).unwrap_or(Timestamp::MIN);
            let oldest = spare.iter().min_by_key(|key| (idle(key), key.created_at));
            return oldest
                .map_or(Step::Idle, |key| Step::Do(Effect::DeactivateKey(key.id.clone(), RetireReason::FreesSlot)));
        }
        if self.current.last_used_failed {
            return Step::Hold(Note::new(
                Reason::RotationPending,
                "both key slots of the user are in use, and AWS did not report which key was used last",
            ));
        }
        Step::Do(Effect::ReadLastUsed(spare.iter().map(|key| key.id.clone()).collect()))
    }

    fn quota_exceeded(&self) -> Note {
        let foreign: Vec<&str> = self.foreign().map(|key| key.id.as_str()).collect();
        Note::new(
            Reason::KeyQuotaExceeded,
            format!(
                "a rotation is due, but IAM allows two access keys per user and {} not created by this operator: {}. Delete one in AWS; the operator never changes them",
                if foreign.len() == 1 { "one was" } else { "both were" },
                foreign.join(", ")
            ),
        )
    }
}
