//! The target Secret apart from publications: conflicts, and content that does not match the spec.

use super::{Effect, Note, RuleInput, Step, due};
use crate::{api::Reason, domain::dates::saturating_add};

/// Which keys are published or in an attempt is not known: none is created, retired or deleted.
pub(super) fn hold_unread(input: &RuleInput<'_>) -> Option<Step> {
    input.current.secrets_unread.then(|| Step::Hold(unread_note()))
}

pub(in crate::domain::plan) fn unread_note() -> Note {
    Note::new(Reason::Pending, "the Secrets of the resource cannot be read; until then it only loses access")
}

/// `kubectl delete --cascade=foreground` and the prune of `GitOps` tools have dependents deleted before the operator can act.
pub(super) fn release(input: &RuleInput<'_>) -> Option<Step> {
    (input.desired()?.retain && input.current.secret_has_owner).then_some(Step::Do(Effect::ReleaseSecret))
}

/// An edit of the Secret, or the loss of the MAC key, costs no new key while the key itself is valid.
pub(super) fn confirm(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.unconfirmed().filter(|published| !published.immutable)?;
    let interval = input.settings.verify_interval;
    let refused_now = input
        .current
        .secret_refusals
        .is_some_and(|refusals| input.now.duration_since(refusals.last_at).abs() < interval);
    if refused_now {
        let note =
            Note::new(Reason::RotationPending, "AWS refused the access key in the Secret; it is asked once more");
        return Some(Step::Wait(saturating_add(input.now, interval), note));
    }
    Some(Step::Do(Effect::ConfirmSecret(published.key_id.clone())))
}

pub(super) fn rewrite(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.current.verified()?;
    if published.matches_spec {
        return None;
    }
    if let Some(note) = input.unwritable() {
        return Some(Step::Hold(note));
    }
    // The API server does not keep what is written: once is enough to know.
    let refused = input.current.key_backoff.filter(|backoff| backoff.reason == Reason::SecretConflict);
    if let Some(backoff) = refused.filter(|backoff| input.now < backoff.until) {
        return Some(Step::Hold(due::backing_off(backoff)));
    }
    Some(Step::Do(Effect::RewriteSecret))
}

impl RuleInput<'_> {
    /// Why no new key can be written into the Secret. An immutable Secret is no conflict while its key is not replaced.
    pub(super) fn unwritable(&self) -> Option<Note> {
        let immutable = self.current.published().is_some_and(|facts| facts.immutable);
        self.conflict().cloned().or_else(|| immutable.then(|| super::super::immutable(self.target)))
    }
}
