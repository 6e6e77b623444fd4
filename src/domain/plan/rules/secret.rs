//! The target Secret apart from publications: conflicts, content that does not match the spec, and its predecessors.

use super::{Effect, Note, RuleInput, Step};

pub(super) fn hold_conflict(input: &RuleInput<'_>) -> Option<Step> {
    input.conflict().cloned().map(Step::Hold)
}

pub(super) fn delete_previous_secret(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.current.published()?;
    let (name, _) =
        published.previous.iter().find(|(_, key_id)| !input.user.key(key_id).is_some_and(|key| key.active))?;
    Some(Step::Do(Effect::DeletePreviousSecret(name.clone())))
}

pub(super) fn rewrite(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.current.published()?;
    (published.intact && !published.matches_spec && !published.immutable).then_some(Step::Do(Effect::RewriteSecret))
}

impl RuleInput<'_> {
    /// Why no new key can be written into the Secret. An immutable Secret is no conflict while its key is not replaced.
    pub(super) fn unwritable(&self) -> Option<Note> {
        let immutable = self.current.published().is_some_and(|facts| facts.immutable);
        self.conflict().cloned().or_else(|| immutable.then(|| super::super::immutable(self.target)))
    }
}
