//! Keys that must not work are set Inactive before anything else is done, and no new key is created.

use super::{Effect, Mode, Note, RetireReason, RuleInput, Step, removed_from_spec};
use crate::{
    api::{Reason, class::OnRevoked},
    domain::desired::OnQuarantine,
};

pub(super) fn deactivate(input: &RuleInput<'_>) -> Option<Step> {
    let reason = input.deactivation_reason()?;
    let active = input.user.keys.iter().find(|key| key.active && input.current.is_ours(&key.id))?;
    Some(Step::Do(Effect::DeactivateKey(active.id.clone(), reason)))
}

/// A live user whose keys must not work gets none. Revoked keys are kept for forensics.
pub(super) fn hold_keyless(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let note = match input.deactivation_reason()? {
        RetireReason::RemovedFromSpec => return Some(removed_from_spec::clear(input)),
        RetireReason::Quarantined => Note::new(
            Reason::Quarantined,
            "AWS quarantines the user: all access keys of this operator on it are Inactive and kept. A new key is created when the policy is detached",
        ),
        _ => Note::new(
            Reason::CredentialsRevoked,
            "spec.credentials is Revoked: all access keys of this operator on the user are Inactive and kept. Set it to Active for a new key",
        ),
    };
    Some(Step::Hold(note))
}

impl RuleInput<'_> {
    /// Why all our keys must be Inactive, if they must. A deletion deactivates keys of other owners too, in its own rule.
    fn deactivation_reason(&self) -> Option<RetireReason> {
        match &self.mode {
            Mode::Live { desired, .. } => {
                self.keyless_reason().or_else(|| desired.key.is_none().then_some(RetireReason::RemovedFromSpec))
            }
            Mode::Revoked(policy) if policy.credentials_revoked => Some(RetireReason::CredentialsRevoked),
            Mode::Revoked(policy) if policy.is_compromised(self.user) => Some(RetireReason::Quarantined),
            Mode::Revoked(policy) => (policy.revocation.action != OnRevoked::Freeze).then_some(RetireReason::Revoked),
            Mode::Deleting(_) => None,
        }
    }

    /// Why a live user has no working key and gets none, if so.
    pub(super) fn keyless_reason(&self) -> Option<RetireReason> {
        if self.desired()?.credentials_revoked {
            return Some(RetireReason::CredentialsRevoked);
        }
        self.quarantine_asks_for(OnQuarantine::Revoke).then_some(RetireReason::Quarantined)
    }

    /// Whether the user is to have a working key.
    pub(in crate::domain::plan) fn wants_key(&self) -> bool {
        self.keyless_reason().is_none() && self.desired_key().is_some()
    }
}
