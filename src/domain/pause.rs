//! Conditions of a paused resource. Nothing works towards its spec, so that they stay as they were, except for what is still
//! observed: a key that does not work.

use super::{
    conditions::{self, ConditionStatus, EvaluatedCondition, ReconcileOutcome},
    plan::Note,
};
use crate::api::{Condition, ConditionType, Reason};

/// Evaluates the conditions after a reconcile of a paused resource. `note` says that it is paused.
#[must_use]
pub fn evaluate(outcome: &ReconcileOutcome<'_>, before: &[Condition], note: &Note) -> Vec<EvaluatedCondition> {
    let finding = |kind, status, note: Note| EvaluatedCondition { kind, status, note };
    let kept = |kind| recorded(kind, before).unwrap_or_else(|| finding(kind, ConditionStatus::Unknown, note.clone()));
    let quarantined = outcome.plan.and_then(|plan| plan.user.clone()).filter(|note| note.reason == Reason::Quarantined);
    let user = match quarantined {
        Some(note) => finding(ConditionType::UserSynced, ConditionStatus::False, note),
        None => kept(ConditionType::UserSynced),
    };
    let key = match unusable_key(outcome, note) {
        // A key that is not declared is not missing.
        Some(found) if found.reason != Reason::Paused || !has_no_key(before) => {
            finding(ConditionType::KeyPublished, ConditionStatus::False, found)
        }
        _ => kept(ConditionType::KeyPublished),
    };
    let was_ready = recorded(ConditionType::Ready, before).filter(|ready| ready.status == ConditionStatus::True);
    let worse = [&user, &key].into_iter().find(|part| part.status == ConditionStatus::False);
    let ready = match (was_ready, worse) {
        (Some(ready), None) => ready,
        (Some(_), Some(worse)) => finding(ConditionType::Ready, ConditionStatus::False, worse.note.clone()),
        (None, Some(worse)) if worse.note.reason == Reason::CredentialsRevoked => {
            finding(ConditionType::Ready, ConditionStatus::False, worse.note.clone())
        }
        (None, _) => finding(ConditionType::Ready, ConditionStatus::False, note.clone()),
    };
    let stalled = (ready.status == ConditionStatus::False)
        .then(|| finding(ConditionType::Stalled, ConditionStatus::True, ready.note.clone()));
    let rotation = finding(ConditionType::RotationHealthy, ConditionStatus::False, note.clone());
    let all = [ready, kept(ConditionType::Authorized), user, key, rotation];
    all.into_iter().chain(stalled).collect()
}

/// `Paused`, present while the resource is.
#[must_use]
pub fn condition(note: Note) -> EvaluatedCondition {
    EvaluatedCondition { kind: ConditionType::Paused, status: ConditionStatus::True, note }
}

/// For the conditions.
#[must_use]
pub fn note() -> Note {
    Note::new(
        Reason::Paused,
        "the annotation awsdeploy.dev/paused is true: nothing is created, changed or rotated until it is removed; deletion, revocation and the end of previous keys continue",
    )
}

fn unusable_key(outcome: &ReconcileOutcome<'_>, paused: &Note) -> Option<Note> {
    let found = outcome.plan?.key.as_ref()?;
    if matches!(found.reason, Reason::CredentialsRevoked | Reason::Quarantined) {
        return Some(found.clone());
    }
    let is_read = outcome.current.is_some_and(|current| !current.secrets_unread);
    is_read.then(|| Note::new(Reason::Paused, format!("there is no usable access key, and {}", paused.message)))
}

fn has_no_key(before: &[Condition]) -> bool {
    recorded(ConditionType::KeyPublished, before).is_some_and(|key| key.note.reason == Reason::NotRequested)
}

fn recorded(kind: ConditionType, before: &[Condition]) -> Option<EvaluatedCondition> {
    let found = conditions::find(before, kind)?;
    let status = match found.status.as_str() {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    };
    Some(EvaluatedCondition { kind, status, note: Note::new(found.reason.parse().ok()?, found.message.clone()) })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        api::Time,
        domain::{current_state::CurrentState, plan::Plan},
    };

    fn before(ready: &str, key: Reason) -> Vec<Condition> {
        let condition = |kind: &str, status: &str, reason: Reason| Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: "as it was".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        vec![condition("Ready", ready, Reason::Reconciled), condition("KeyPublished", "True", key)]
    }

    fn status_and_reason(before: &[Condition], key: Option<Reason>) -> [(ConditionStatus, Reason); 2] {
        let key = key.map(|reason| Note::new(reason, "key"));
        let plan = Plan { key, ..Plan::idle(Note::new(Reason::Frozen, "")) };
        let current = CurrentState::empty(Timestamp::UNIX_EPOCH);
        let authorization = Note::new(Reason::Allowed, "");
        let outcome = ReconcileOutcome {
            plan: Some(&plan),
            current: Some(&current),
            failures: &[],
            authorization,
            unfinished: false,
        };
        let found = evaluate(&outcome, before, &note());
        let of = |kind| found.iter().find(|found| found.kind == kind).map(|found| (found.status, found.note.reason));
        [ConditionType::Ready, ConditionType::RotationHealthy].map(|kind| of(kind).unwrap())
    }

    #[test]
    fn paused_resource_stays_ready_while_its_key_works() {
        let paused = (ConditionStatus::False, Reason::Paused);
        let ready = (ConditionStatus::True, Reason::Reconciled);
        let of = status_and_reason;
        assert_eq!(of(&before("True", Reason::Published), None), [ready, paused]);
        assert_eq!(of(&before("False", Reason::Published), None), [paused, paused]);
        assert_eq!(of(&[], None), [paused, paused], "a new resource");
        assert_eq!(of(&before("True", Reason::Published), Some(Reason::Frozen)), [paused, paused], "the key is gone");
        assert_eq!(of(&before("True", Reason::NotRequested), Some(Reason::Frozen)), [ready, paused], "console only");
        for reason in [Reason::CredentialsRevoked, Reason::Quarantined] {
            let found = of(&before("True", Reason::Published), Some(reason));
            assert_eq!(found, [(ConditionStatus::False, reason), paused]);
        }
    }
}
