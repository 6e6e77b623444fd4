//! Revocation: keys go Inactive at once, and no new one is made.

use super::{Effect, Note, RetireReason, RotationInput, Step};
use crate::{api::Reason, domain::desired::OnQuarantine};

pub(super) fn suspend(scene: &RotationInput<'_>) -> Option<Step> {
    let why = scene.suspended()?;
    let active = scene.user.keys.iter().find(|key| key.active && scene.current.is_ours(&key.id))?;
    Some(Step::Do(Effect::DeactivateKey(active.id.clone(), why)))
}

pub(super) fn hold_suspended(scene: &RotationInput<'_>) -> Option<Step> {
    let note = match scene.suspended()? {
        RetireReason::Quarantined => Note::new(
            Reason::Quarantined,
            "AWS quarantines the user: all access keys of this operator on it are Inactive and kept. A new one is made when the policy is detached",
        ),
        _ => Note::new(
            Reason::Suspended,
            "spec.suspend is true: all access keys of this operator on the user are Inactive and kept. Set it to false for a new key",
        ),
    };
    Some(Step::Hold(note))
}

impl RotationInput<'_> {
    /// Why all our keys are to be Inactive, if they are.
    pub(super) fn suspended(&self) -> Option<RetireReason> {
        if self.desired.suspend {
            return Some(RetireReason::Suspended);
        }
        self.quarantine_asks_for(OnQuarantine::Suspend).then_some(RetireReason::Quarantined)
    }
}
