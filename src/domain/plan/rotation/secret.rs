//! The target Secret, apart from publications: what stands in the way of writing it, and what is put in order.

use super::{Effect, Note, RotationInput, Step};

pub(super) fn hold_conflict(scene: &RotationInput<'_>) -> Option<Step> {
    scene.conflict.clone().map(Step::Hold)
}

pub(super) fn drop_previous_secret(scene: &RotationInput<'_>) -> Option<Step> {
    let published = scene.current.published()?;
    let (name, _) =
        published.previous.iter().find(|(_, key_id)| !scene.user.key(key_id).is_some_and(|key| key.active))?;
    Some(Step::Do(Effect::DeletePreviousSecret(name.clone())))
}

pub(super) fn rewrite(scene: &RotationInput<'_>) -> Option<Step> {
    let published = scene.current.published()?;
    (published.intact && !published.matches_spec && !published.immutable).then_some(Step::Do(Effect::RewriteSecret))
}

impl RotationInput<'_> {
    /// Why no other key can be written into the Secret. An immutable one is no conflict before that is wanted.
    pub(super) fn unwritable(&self) -> Option<Note> {
        let immutable = self.current.published().is_some_and(|facts| facts.immutable);
        self.conflict.clone().or_else(|| immutable.then(|| super::super::immutable(self.desired)))
    }
}
