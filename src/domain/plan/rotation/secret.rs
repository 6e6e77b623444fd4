//! The target Secret, apart from publications: what stands in the way of writing it, and what is put in order.

use super::{Effect, Note, Scene, Step};

pub(super) fn hold_conflict(scene: &Scene<'_>) -> Option<Step> {
    scene.conflict.clone().map(Step::Hold)
}

pub(super) fn drop_previous_secret(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published()?;
    let (name, _) =
        published.previous.iter().find(|(_, key_id)| !scene.user.key(key_id).is_some_and(|key| key.active))?;
    Some(Step::Do(Effect::DeletePreviousSecret(name.clone())))
}

pub(super) fn rewrite(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published()?;
    (published.intact && !published.as_declared && !published.immutable).then_some(Step::Do(Effect::RewriteSecret))
}

impl Scene<'_> {
    /// Why no other key can be written into the Secret. An immutable one is no conflict before that is wanted.
    pub(super) fn unwritable(&self) -> Option<Note> {
        let immutable = self.world.published().is_some_and(|facts| facts.immutable);
        self.conflict.clone().or_else(|| immutable.then(|| super::super::immutable(self.desired)))
    }
}
