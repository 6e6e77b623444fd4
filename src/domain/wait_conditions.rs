//! Conditions for clients that wait: `helm install --wait`, Flux and others by the rules of kstatus. A resource with `Stalled`
//! has failed, and its message is reported at once; any other one that is not Ready is waited for.

use super::{
    backoff::ErrorClass,
    conditions::{ConditionStatus, EvaluatedCondition, ReconcileOutcome},
};
use crate::api::{ConditionType, Reason};

/// `Stalled` while only an edit by a person makes the resource Ready, `Reconciling` while the operator is about to, neither
/// otherwise. Both are reported only while they are True.
pub(super) fn evaluate(outcome: &ReconcileOutcome<'_>, ready: &EvaluatedCondition) -> Option<EvaluatedCondition> {
    if ready.status == ConditionStatus::True {
        return None;
    }
    let condition = |kind| EvaluatedCondition { kind, status: ConditionStatus::True, note: ready.note.clone() };
    let failure = outcome.failures.iter().find(|failure| failure.note == ready.note);
    // A user whose owner is being deleted becomes free by itself. What else is scheduled, such as the end of a previous key,
    // changes nothing about an error.
    let is_released_soon =
        ready.note.reason == Reason::NotOwned && outcome.current.is_some_and(|current| current.owner_is_ending);
    let (stalls, progresses) = match failure {
        Some(failure) => (failure.class == ErrorClass::Terminal, failure.transient),
        None => (needs_an_edit(ready.note.reason) && !is_released_soon, is_progress(ready.note.reason)),
    };
    if stalls {
        Some(condition(ConditionType::Stalled))
    } else {
        progresses.then(|| condition(ConditionType::Reconciling))
    }
}

/// A decision of a plan that stays the same until a person edits the resource or the object that it names.
fn needs_an_edit(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CredentialsRevoked
            | Reason::Quarantined
            | Reason::NotOwned
            | Reason::SecretConflict
            | Reason::KeyQuotaExceeded
            | Reason::ForeignKeys
    )
}

fn is_progress(reason: Reason) -> bool {
    matches!(reason, Reason::Pending | Reason::Verifying | Reason::Recovering | Reason::Deleting)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::{
        conditions::{FailureScope, ReconcileFailure, evaluate as conditions},
        current_state::CurrentState,
        plan::{Note, Plan},
    };

    fn failure(class: ErrorClass, transient: bool) -> ReconcileFailure {
        let note = Note::new(Reason::InvalidSpec, "spec.x: wrong");
        ReconcileFailure { scope: FailureScope::Authorization, note, class, transient }
    }

    fn waiting(
        failures: &[ReconcileFailure],
        plan: Option<&Plan>,
        current: Option<&CurrentState>,
    ) -> Vec<(ConditionType, Reason)> {
        let authorization = Note::new(Reason::Allowed, "");
        let outcome = ReconcileOutcome { plan, current, failures, authorization, unfinished: false };
        let found = conditions(&outcome, false).into_iter();
        let waiting = [ConditionType::Stalled, ConditionType::Reconciling];
        found.filter(|found| waiting.contains(&found.kind)).map(|found| (found.kind, found.note.reason)).collect()
    }

    #[test]
    fn failure_stalls_by_the_class_of_its_back_off() {
        for (class, transient, expected) in [
            (ErrorClass::Terminal, false, Some(ConditionType::Stalled)),
            (ErrorClass::Denied, false, None),
            (ErrorClass::Limit, false, None),
            (ErrorClass::Transient, false, None),
            (ErrorClass::Transient, true, Some(ConditionType::Reconciling)),
            (ErrorClass::Throttled, true, Some(ConditionType::Reconciling)),
            (ErrorClass::Conflict, true, Some(ConditionType::Reconciling)),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|kind| (kind, Reason::InvalidSpec)).collect();
            assert_eq!(waiting(&[failure(class, transient)], None, None), expected, "{class:?} {transient}");
        }
    }

    #[test]
    fn plan_stalls_where_only_an_edit_helps() {
        let plan = |reason: Reason| Plan { user: Some(Note::new(reason, "x")), ..Plan::idle(Note::new(reason, "x")) };
        let of = |plan: &Plan| waiting(&[], Some(plan), None);
        for reason in [Reason::NotOwned, Reason::SecretConflict, Reason::CredentialsRevoked, Reason::Quarantined] {
            assert_eq!(of(&plan(reason)), [(ConditionType::Stalled, reason)], "{reason}");
            let scheduled = Plan { requeue_at: Some(Timestamp::UNIX_EPOCH), ..plan(reason) };
            assert_eq!(of(&scheduled), [(ConditionType::Stalled, reason)], "{reason}, and a previous key ends");
        }
        assert_eq!(of(&plan(Reason::Pending)), [(ConditionType::Reconciling, Reason::Pending)]);
        let ending = CurrentState { owner_is_ending: true, ..CurrentState::empty(Timestamp::UNIX_EPOCH) };
        assert_eq!(waiting(&[], Some(&plan(Reason::NotOwned)), Some(&ending)), [], "its owner is being deleted");
        let deleting = Plan::idle(Note::new(Reason::Deleting, ""));
        assert_eq!(of(&deleting), [(ConditionType::Reconciling, Reason::Deleting)]);
        let blocked = Plan { user: Some(Note::new(Reason::ForeignKeys, "x")), ..deleting };
        assert_eq!(of(&blocked), [(ConditionType::Stalled, Reason::ForeignKeys)]);
    }
}
