//! What is left of a goal that this operator must not work towards: credentials are taken away all the same.

use super::{Goal, ReconcileError, Reconciliation, error::StepError};
use crate::{
    api::{AwsDeployUser, user::DeletionPolicy},
    domain::{account, conditions::FailureScope, desired::Violation},
};

/// Why this operator must not work towards a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The claim of another operator guards creation and change, and the release of a user.
    ServedElsewhere,
    /// The value that may keep the user cannot be read.
    UnknownDeletionPolicy,
}

/// `policy`: `None` if it cannot be read.
fn refusal(goal: &Goal, is_served_elsewhere: bool, policy: Option<DeletionPolicy>) -> Option<Refusal> {
    match (goal, policy) {
        (Goal::Delete, None) => Some(Refusal::UnknownDeletionPolicy),
        (Goal::Sync(_), _) | (Goal::Delete, Some(DeletionPolicy::Retain)) if is_served_elsewhere => {
            Some(Refusal::ServedElsewhere)
        }
        (Goal::Sync(_) | Goal::Revoke(_) | Goal::Delete, _) => None,
    }
}

impl Reconciliation<'_> {
    /// The goal, or what a revocation leaves of it.
    pub(super) fn restrict(&mut self, goal: Goal, user: &AwsDeployUser) -> Result<Goal, StepError> {
        let policy = Some(user.spec.deletion_policy).filter(|_| !self.deletion_policy_is_unknown);
        let error = match (refusal(&goal, self.served_by.is_some(), policy), self.served_by) {
            (None, _) => return Ok(goal),
            (Some(Refusal::ServedElsewhere), other) => {
                ReconcileError::served_by(other.unwrap_or_default(), &self.context.namespace)
            }
            (Some(Refusal::UnknownDeletionPolicy), _) => ReconcileError::Invalid(vec![Violation {
                field: "deletionPolicy",
                message: "this version of the operator does not know the value; nothing is deleted before a newer operator runs, or the value is changed".to_owned(),
            }]),
        };
        let failure = StepError::new(error, FailureScope::Authorization);
        if !user.spec.credentials_revoked() || account::recorded_user(user).is_none() {
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
            assert_eq!(refusal(&goal, is_served_elsewhere, policy), expected, "{is_served_elsewhere} {policy:?}");
        }
    }
}
