//! Plans a resource that no class allows, or whose spec is invalid. Access is only removed, and every step can be repeated.

use jiff::Timestamp;

use super::{
    Note, Plan,
    cleanup::{absence_confirmed_at, absence_note, remaining_object, remaining_policy},
    later_retirement,
    rules::{Mode, RULES, RuleInput, Step, first_step, quarantine},
};
use crate::{
    api::{Reason, class::OnRevoked, user::DeletionPolicy},
    domain::{
        authorize::Revocation,
        current_state::{CurrentState, IamUser},
        desired::OnQuarantine,
        settings::Settings,
        target::Target,
    },
};

/// What is done to a resource that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationPolicy {
    pub revocation: Revocation,
    /// From the class that allowed the resource last.
    pub on_quarantine: OnQuarantine,
    /// `spec.credentials: Revoked`: a class does not stop a person from revoking keys.
    pub credentials_revoked: bool,
}

/// Plans a resource that is not allowed and not being deleted.
#[must_use]
pub fn plan_revocation(
    target: &Target,
    policy: &RevocationPolicy,
    current: &CurrentState,
    now: Timestamp,
    settings: &Settings,
) -> Plan {
    let note = policy.note();
    let plan = Plan { requeue_at: policy.revocation.until, ..Plan::uniform(note.clone()) };
    let Some(user) = current.owned_user(&target.owner) else {
        let left = || {
            remaining_policy(current, DeletionPolicy::Delete, now, settings)
                .or_else(|| remaining_object(current, DeletionPolicy::Delete).map(Step::Do))
        };
        let left = (policy.revocation.action == OnRevoked::Delete).then(left).flatten();
        return plan.with_step(match (left, absence_confirmed_at(current, now, settings)) {
            (None, _) => Step::Idle,
            (Some(_), Some(until)) => {
                Step::Wait(until, absence_note(target, Reason::Revoked, "its Secrets are deleted"))
            }
            (Some(step), None) => step,
        });
    };
    let input = RuleInput { target, mode: Mode::Revoked(policy), current, user, now, settings };
    let mut plan = plan.with_step(first_step(RULES, &input));
    // Reported whatever else is done about the user.
    let quarantine_note = policy.quarantine_note(&input);
    if let Some(note) = &quarantine_note {
        plan.user = Some(note.clone());
    }
    let compromised = quarantine_note.filter(|_| policy.is_compromised(user));
    plan.key = input.working().is_none().then(|| compromised.unwrap_or(note));
    plan.deactivate_at = input.deactivate_at();
    let times = [plan.requeue_at, policy.revocation.until, later_retirement(&input)];
    plan.requeue_at = times.into_iter().flatten().min();
    plan
}

impl RevocationPolicy {
    /// Whether keys of a frozen user are set Inactive because AWS found one in public. A freeze protects the consumers of a
    /// key, but a leaked key has others. Where the class says `Rotate` the key gets no successor: a frozen user gets no key.
    #[must_use]
    pub fn is_compromised(&self, user: &IamUser) -> bool {
        self.on_quarantine != OnQuarantine::Alert && !quarantine::attached(user).is_empty()
    }

    fn quarantine_note(&self, input: &RuleInput<'_>) -> Option<Note> {
        let keys = match (self.credentials_revoked || self.is_compromised(input.user), self.revocation.action) {
            (_, OnRevoked::Deactivate | OnRevoked::Delete) | (true, OnRevoked::Freeze) => {
                "All keys of this operator on the user are Inactive, and none is created before a class allows the resource again"
            }
            (false, OnRevoked::Freeze) => {
                "Nothing was done about its keys (onQuarantine: Alert), and none is created, because the resource is frozen: set spec.credentials to Revoked to set them Inactive"
            }
        };
        quarantine::note(input.user, keys, input.foreign())
    }

    /// For the conditions.
    #[must_use]
    pub fn note(&self) -> Note {
        let Revocation { action, reason, .. } = &self.revocation;
        let because = reason.as_ref().map(|reason| format!(", because {reason}")).unwrap_or_default();
        if self.credentials_revoked {
            return Note::new(
                Reason::CredentialsRevoked,
                "spec.credentials is Revoked: all access keys of this operator are Inactive",
            );
        }
        match action {
            OnRevoked::Freeze => Note::new(
                Reason::Frozen,
                format!(
                    "frozen{because}: the user is not changed and the published key stays valid; nothing more is granted, and no new key is created"
                ),
            ),
            OnRevoked::Deactivate => Note::new(
                Reason::Revoked,
                format!(
                    "revoked (onRevoked: Deactivate){because}: all access keys of this operator are Inactive, and the user has no policies and groups"
                ),
            ),
            OnRevoked::Delete => {
                Note::new(Reason::Revoked, format!("revoked (onRevoked: Delete){because}: the IAM user is deleted"))
            }
        }
    }
}
