//! Deletes what an earlier spec with an access key has left: the keys after the deletion delay, then their Secrets and tags.

use super::{Effect, Note, RetireReason, RuleInput, Step, retire};
use crate::{api::Reason, domain::current_state::PublishedSecret};

/// Comes after the keys were set Inactive.
pub(super) fn clear(input: &RuleInput<'_>) -> Step {
    // The Secret is kept as long as its key can be activated again.
    let ours = input.user.keys.iter().filter(|key| input.current.is_ours(&key.id));
    if let Some((until, key)) = ours.map(|key| (input.deletable_at(key), key)).min_by_key(|(until, _)| *until) {
        if input.now >= until {
            return Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::RemovedFromSpec));
        }
        let message = format!("the spec declares no access key: {} is Inactive and is deleted at {until}", key.id);
        return Step::Wait(until, Note::new(Reason::NotRequested, message));
    }
    let secret = matches!(input.current.published, PublishedSecret::Ours(_)).then_some(Step::Do(Effect::DeleteSecret));
    // Tags prove which keys were ours, so they are removed last.
    secret.or_else(|| retire::untag_deleted(input)).unwrap_or(Step::Idle)
}

impl RuleInput<'_> {
    pub(super) fn not_requested(&self) -> Option<Note> {
        let message = "the spec declares console and no accessKey: the user needs no access key";
        self.desired().is_some_and(|desired| desired.key.is_none()).then(|| Note::new(Reason::NotRequested, message))
    }
}
