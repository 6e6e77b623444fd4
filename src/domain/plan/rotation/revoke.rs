//! Revocation: keys go Inactive at once, and no new one is made.

use super::{Effect, Note, Scene, Step, Why};
use crate::api::Reason;

pub(super) fn suspend(scene: &Scene<'_>) -> Option<Step> {
    if !scene.desired.suspend {
        return None;
    }
    let active = scene.user.keys.iter().find(|key| key.active && scene.world.is_ours(&key.id))?;
    Some(Step::Do(Effect::DeactivateKey(active.id.clone(), Why::Suspended)))
}

pub(super) fn hold_suspended(scene: &Scene<'_>) -> Option<Step> {
    scene.desired.suspend.then(|| {
        Step::Hold(Note::new(
            Reason::Suspended,
            "spec.suspend is true: all access keys of this operator on the user are Inactive and kept. Set it to false for a new key",
        ))
    })
}
