//! What is left of a goal that this operator must not work towards: access is taken away all the same.

use super::{Goal, ReconcileError, Reconciliation, error::StepError};
use crate::{
    api::{AwsDeployUser, user::DeletionPolicy},
    domain::{account, change_key::is_paused, conditions::FailureScope, desired::Violation},
};

/// Why this operator must not work towards a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The claim of another operator guards creation and change, and the release of a user.
    ServedElsewhere,
    /// The value that may keep the user cannot be read.
    UnknownDeletionPolicy,
    /// The author has paused the resource.
    Paused,
}

/// `policy`: `None` if it cannot be read.
fn refusal(goal: &Goal, is_served_elsewhere: bool, policy: Option<DeletionPolicy>, is_paused: bool) -> Option<Refusal> {
    match (goal, policy) {
        (Goal::Delete, None) => Some(Refusal::UnknownDeletionPolicy),
        (Goal::Sync(_), _) | (Goal::Delete, Some(DeletionPolicy::Retain)) if is_served_elsewhere => {
            Some(Refusal::ServedElsewhere)
        }
        (Goal::Sync(_), _) if is_paused => Some(Refusal::Paused),
        (Goal::Sync(_) | Goal::Revoke(_) | Goal::Delete, _) => None,
    }
}

impl Reconciliation<'_> {
    /// The goal, or what a revocation leaves of it.
    pub(super) fn restrict(&mut self, goal: Goal, user: &AwsDeployUser) -> Result<Goal, StepError> {
        let policy = Some(user.spec.deletion_policy).filter(|_| !self.deletion_policy_is_unknown);
        let refusal = refusal(&goal, self.served_by.is_some(), policy, is_paused(user));
        let is_recorded = account::recorded_user(user).is_some();
        let error = match (refusal, self.served_by) {
            (None, _) => return Ok(goal),
            (Some(Refusal::Paused), _) => ReconcileError::Paused,
            (Some(Refusal::ServedElsewhere), other) => {
                ReconcileError::served_by(other.unwrap_or_default(), &self.context.namespace)
            }
            (Some(Refusal::UnknownDeletionPolicy), _) => ReconcileError::Invalid(vec![Violation {
                field: "deletionPolicy",
                message: "this version of the operator does not know the value; nothing is deleted before a newer operator runs, or the value is changed".to_owned(),
            }]),
        };
        let failure = StepError::new(error, FailureScope::Authorization);
        // Previous keys of a paused resource end in time.
        if !is_recorded || !(user.spec.credentials_revoked() || refusal == Some(Refusal::Paused)) {
            return Err(failure);
        }
        self.failures.push(failure);
        Ok(Goal::Revoke(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_waits_for_its_policy_and_a_release_for_its_claim() {
        const RETAIN: Option<DeletionPolicy> = Some(DeletionPolicy::Retain);
        const DELETE: Option<DeletionPolicy> = Some(DeletionPolicy::Delete);
        for (goal, is_served_elsewhere, policy, expected) in [
            (Goal::Delete, false, DELETE, None),
            (Goal::Delete, false, RETAIN, None),
            (Goal::Delete, false, None, Some(Refusal::UnknownDeletionPolicy)),
            (Goal::Delete, true, DELETE, None),
            (Goal::Delete, true, RETAIN, Some(Refusal::ServedElsewhere)),
            (Goal::Revoke(None), true, RETAIN, None),
            (Goal::Revoke(None), true, None, None),
        ] {
            for is_paused in [false, true] {
                let found = refusal(&goal, is_served_elsewhere, policy, is_paused);
                assert_eq!(found, expected, "{is_served_elsewhere} {policy:?} {is_paused}");
            }
        }
    }
}
