//! A key that is due is replaced; where both slots are taken, room is made among our own keys.

use jiff::Timestamp;

use super::{Effect, Note, RetireReason, RotationInput, Step, due::Due};
use crate::{api::Reason, domain::current_state::AccessKey};

/// Access keys per user (IAM quota, cannot be raised; an Inactive key counts).
const SLOTS: usize = 2;

pub(super) fn replace(scene: &RotationInput<'_>) -> Option<Step> {
    let due = scene.due()?;
    // A key that cannot be handed out would be given up, and the next one, and the next.
    if let Some(note) = scene.unwritable() {
        return Some(Step::Hold(note));
    }
    if let Some((until, note)) = scene.held_back(due) {
        return Some(Step::Wait(until, note));
    }
    if scene.user.keys.len() < SLOTS {
        // Nobody gets a first key of a user that is not yet what it should be.
        if !scene.user_ready && scene.current.published().is_none() {
            return Some(Step::Hold(Note::new(
                Reason::Pending,
                "the access key is made once the user's policies and tags are as declared",
            )));
        }
        return Some(Step::Do(Effect::CreateKey {
            known: scene.user.keys.iter().map(|key| key.id.clone()).collect(),
            previous_secret: scene.left_behind(),
        }));
    }
    Some(scene.make_room(due))
}

impl RotationInput<'_> {
    /// The Secret that a new key leaves behind because the target was renamed.
    pub(super) fn left_behind(&self) -> Option<(String, String)> {
        let name = self.current.hints.secret_name.as_ref().filter(|name| **name != self.desired.target.secret_name)?;
        // The key in it is the newest one that was ever published.
        let key = self.user.keys.iter().filter(|key| self.user.is_tagged(&key.id)).max_by_key(|key| key.created_at);
        Some((name.clone(), key.map(|key| key.id.clone()).unwrap_or_default()))
    }

    /// Both slots are in use and a key is due.
    pub(super) fn make_room(&self, due: Due) -> Step {
        let working = self.working().map(|facts| facts.key_id.as_str());
        let spare: Vec<&AccessKey> = self
            .user
            .keys
            .iter()
            .filter(|key| Some(key.id.as_str()) != working && self.current.is_ours(&key.id))
            .collect();
        // All were there when the quarantine was seen: the one that consumers are moving away from makes room at once.
        if let Some(bad) = spare.iter().find(|key| due == Due::Compromised && self.is_compromised(key)) {
            return Step::Do(if bad.active {
                Effect::DeactivateKey(bad.id.clone(), RetireReason::Quarantined)
            } else {
                Effect::DeleteKey(bad.id.clone(), RetireReason::FreesSlot)
            });
        }
        if due.is_urgent() {
            let published = self.current.published().map(|facts| facts.key_id.as_str());
            let dead =
                spare.iter().filter(|key| !key.active).min_by_key(|key| (published == Some(&key.id), key.created_at));
            if let Some(dead) = dead {
                return Step::Do(Effect::DeleteKey(dead.id.clone(), RetireReason::FreesSlot));
            }
            // Both are ours and nobody holds a value of them in a Secret of ours: the one that was not used for longest goes.
            if spare.len() >= SLOTS {
                return self.idle_makes_room(&spare);
            }
        }
        let Some(key) = spare.first() else { return Step::Hold(self.slot_taken()) };
        // Without a working key there is no publication to count from: its slot is kept, and the other is not ours.
        let until = if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) };
        let Some(until) = until else { return Step::Hold(self.slot_taken()) };
        let message =
            format!("a rotation is due; both key slots of the user are in use until the overlap of {} ends", key.id);
        Step::Wait(until, Note::new(Reason::RotationPending, message))
    }

    fn idle_makes_room(&self, spare: &[&AccessKey]) -> Step {
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
                "both key slots of the user are in use, and AWS does not say which key can be spared",
            ));
        }
        Step::Do(Effect::ReadLastUsed(spare.iter().map(|key| key.id.clone()).collect()))
    }

    pub(super) fn slot_taken(&self) -> Note {
        let foreign: Vec<&str> = self.foreign().map(|key| key.id.as_str()).collect();
        Note::new(
            Reason::KeyQuotaExceeded,
            format!(
                "a rotation is due, but IAM allows two access keys per user and {} not made by this operator: {}. Delete one in AWS; the operator never touches them",
                if foreign.len() == 1 { "one was" } else { "both were" },
                foreign.join(", ")
            ),
        )
    }
}
