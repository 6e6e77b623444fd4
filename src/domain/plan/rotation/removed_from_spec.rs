//! No access key is declared: what is left of an earlier one goes, its keys at once, their slots and Secrets later.

use super::{Effect, Note, RetireReason, RotationInput, Step, retire, secret};
use crate::{api::Reason, domain::current_state::PublishedSecret};

pub(super) fn deactivate(scene: &RotationInput<'_>) -> Option<Step> {
    if scene.desired.key.is_some() {
        return None;
    }
    let active = scene.user.keys.iter().find(|key| key.active && scene.current.is_ours(&key.id))?;
    Some(Step::Do(Effect::DeactivateKey(active.id.clone(), RetireReason::RemovedFromSpec)))
}

/// Also where IAM's list does not show the key yet.
pub(super) fn give_up(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed().filter(|_| scene.desired.key.is_none() && scene.suspended().is_none())?;
    Some(Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed: false }))
}

/// The end of the chain for a user without a key.
pub(super) fn clear(scene: &RotationInput<'_>) -> Option<Step> {
    if scene.desired.key.is_some() {
        return None;
    }
    // While they can still be activated again, the Secret holds what belongs to them.
    let last = scene.user.keys.iter().filter(|key| scene.current.is_ours(&key.id));
    if let Some((until, key)) = last.map(|key| (scene.deletable_at(key), key)).min_by_key(|(until, _)| *until) {
        if scene.now >= until {
            return Some(Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::RemovedFromSpec)));
        }
        let message =
            format!("no access key is declared any more: {} is Inactive and will be deleted at {until}", key.id);
        return Some(Step::Wait(until, Note::new(Reason::NotRequested, message)));
    }
    let secret = matches!(scene.current.published, PublishedSecret::Ours(_)).then_some(Step::Do(Effect::DeleteSecret));
    // The tags tell of keys that were ours; they go last, so that a crash forgets nothing.
    secret::drop_previous_secret(scene).or(secret).or_else(|| retire::untag_gone(scene)).or(Some(Step::Idle))
}

impl RotationInput<'_> {
    /// What there is to say of the key where none is declared.
    pub(super) fn not_requested(&self) -> Option<Note> {
        let message = "the spec has console and no accessKey: the user has no access key and needs none";
        self.desired.key.is_none().then(|| Note::new(Reason::NotRequested, message))
    }
}
