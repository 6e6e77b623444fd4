//! Conditions of an `AwsDeployUser`.

use jiff::Timestamp;

use super::{
    current_state::CurrentState,
    plan::{Note, Plan},
};
use crate::api::{Condition, ConditionType, Reason, Time};

/// Status of a condition.
#[derive(strum::IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Condition without transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluatedCondition {
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub note: Note,
}

/// Failure of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileFailure {
    pub scope: FailureScope,
    pub note: Note,
    /// The failure resolves without an action and does not invalidate what earlier reconciles established.
    pub transient: bool,
}

/// What a failure affects, and thereby which conditions report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureScope {
    /// The class, or the resource itself.
    Authorization,
    /// Reading the current state: nothing is known.
    Observation,
    /// User, policies, groups, tags.
    User,
    /// Access key or Secret.
    Key,
}

/// Result of a reconcile.
#[derive(Clone, Debug)]
pub struct ReconcileOutcome<'a> {
    /// Last plan, if one was computed.
    pub plan: Option<&'a Plan>,
    /// State after the last effect, if it was read.
    pub current: Option<&'a CurrentState>,
    /// Failures in order of time.
    pub failures: &'a [ReconcileFailure],
    /// Reason and message for `Authorized=True`.
    pub authorization: Note,
    /// The reconcile stopped before all effects were executed.
    pub unfinished: bool,
}

/// Evaluates the conditions after a reconcile.
///
/// `was_ready`: the resource was Ready at this generation before. A transient failure keeps it Ready, because the published
/// key is still valid.
#[must_use]
pub fn evaluate(outcome: &ReconcileOutcome<'_>, was_ready: bool) -> Vec<EvaluatedCondition> {
    let failure = |scope: FailureScope| outcome.failures.iter().find(|failure| failure.scope == scope);
    let blind = failure(FailureScope::Observation);
    let finding = |kind, status, note: Note| EvaluatedCondition { kind, status, note };

    let authorized = match failure(FailureScope::Authorization) {
        Some(failure) => finding(ConditionType::Authorized, ConditionStatus::False, failure.note.clone()),
        None => finding(ConditionType::Authorized, ConditionStatus::True, outcome.authorization.clone()),
    };
    let refused = failure(FailureScope::Authorization).is_some();
    let pending = || Note::new(Reason::Pending, "not evaluated yet");

    // A failure to attach a policy must not hide a quarantine.
    let quarantined =
        outcome.plan.and_then(|plan| plan.user.as_ref()).filter(|note| note.reason == Reason::Quarantined);
    let user = match (failure(FailureScope::User), blind, outcome.plan) {
        (Some(failure), ..) if let Some(note) = quarantined => {
            let both = format!("{}. In addition: {}", note.message, failure.note.message);
            finding(ConditionType::UserSynced, ConditionStatus::False, Note::new(note.reason, both))
        }
        (Some(failure), ..) => finding(ConditionType::UserSynced, ConditionStatus::False, failure.note.clone()),
        (None, Some(failure), _) => finding(ConditionType::UserSynced, ConditionStatus::Unknown, failure.note.clone()),
        (None, None, Some(plan)) if plan.user.is_some() => {
            finding(ConditionType::UserSynced, ConditionStatus::False, plan.user.clone().unwrap_or_else(pending))
        }
        (None, None, Some(_))
            if outcome.current.is_some_and(|current| current.user().is_some()) && !outcome.unfinished =>
        {
            finding(
                ConditionType::UserSynced,
                ConditionStatus::True,
                Note::new(Reason::Reconciled, "user, policies, groups and tags match the spec"),
            )
        }
        (None, None, _) => finding(ConditionType::UserSynced, ConditionStatus::Unknown, pending()),
    };

    let key = match (failure(FailureScope::Key), blind, outcome.plan, outcome.current) {
        (_, Some(failure), ..) => finding(ConditionType::KeyPublished, ConditionStatus::Unknown, failure.note.clone()),
        (failed, None, Some(plan), Some(current)) => match (&plan.key, failed) {
            (Some(note), Some(failure)) if matches!(note.reason, Reason::Pending | Reason::NotRequested) => {
                finding(ConditionType::KeyPublished, ConditionStatus::False, failure.note.clone())
            }
            // A key that is not declared is not missing.
            (Some(note), None) if note.reason == Reason::NotRequested => {
                finding(ConditionType::KeyPublished, ConditionStatus::True, note.clone())
            }
            (Some(note), _) => finding(ConditionType::KeyPublished, ConditionStatus::False, note.clone()),
            (None, _) => {
                let id = current.published().map_or("", |facts| facts.key_id.as_str());
                finding(
                    ConditionType::KeyPublished,
                    ConditionStatus::True,
                    Note::new(Reason::Published, format!("the Secret holds access key {id}")),
                )
            }
        },
        (Some(failure), ..) => finding(ConditionType::KeyPublished, ConditionStatus::False, failure.note.clone()),
        (None, ..) => finding(ConditionType::KeyPublished, ConditionStatus::Unknown, pending()),
    };

    let rotation = match (failure(FailureScope::Key), blind, outcome.plan) {
        (Some(failure), ..) => finding(ConditionType::RotationHealthy, ConditionStatus::False, failure.note.clone()),
        (None, Some(failure), _) => {
            finding(ConditionType::RotationHealthy, ConditionStatus::Unknown, failure.note.clone())
        }
        (None, None, Some(plan)) => {
            finding(ConditionType::RotationHealthy, rotation_status(plan.rotation.reason), plan.rotation.clone())
        }
        (None, None, None) => finding(ConditionType::RotationHealthy, ConditionStatus::Unknown, pending()),
    };

    let ready = ready(outcome, was_ready, [&authorized, &user, &key], refused);
    vec![ready, authorized, user, key, rotation]
}

/// Status of `RotationHealthy`. Waiting for a declared time is healthy, a back-off after a failure is not.
fn rotation_status(reason: Reason) -> ConditionStatus {
    match reason {
        Reason::Scheduled
        | Reason::ManualOnly
        | Reason::Overlap
        | Reason::NotRequested
        | Reason::StillUsed
        | Reason::Restarting
        | Reason::RotationPending
        | Reason::Verifying
        | Reason::Recovering => ConditionStatus::True,
        Reason::Pending | Reason::Deleting => ConditionStatus::Unknown,
        _ => ConditionStatus::False,
    }
}

fn ready(
    outcome: &ReconcileOutcome<'_>,
    was_ready: bool,
    parts: [&EvaluatedCondition; 3],
    refused: bool,
) -> EvaluatedCondition {
    let finding = |status, note| EvaluatedCondition { kind: ConditionType::Ready, status, note };
    if outcome.plan.is_some_and(|plan| plan.rotation.reason == Reason::Deleting) {
        let note = outcome.plan.and_then(|plan| plan.user.clone());
        let failure = outcome.failures.first().map(|failure| failure.note.clone());
        return finding(
            ConditionStatus::False,
            failure.or(note).unwrap_or_else(|| Note::new(Reason::Deleting, "the resource is being deleted")),
        );
    }
    let transient = !outcome.failures.is_empty() && outcome.failures.iter().all(|failure| failure.transient);
    if was_ready
        && transient
        && !refused
        && parts.iter().all(|part| part.status != ConditionStatus::False || part.note.reason == Reason::Pending)
    {
        return finding(
            ConditionStatus::True,
            Note::new(
                Reason::Reconciled,
                "the last successful reconcile found everything as declared; the current failure does not affect the published key",
            ),
        );
    }
    // Report failures that need an action before conditions that are unknown.
    let worst = parts
        .iter()
        .find(|part| part.status == ConditionStatus::False)
        .or_else(|| parts.iter().find(|part| part.status == ConditionStatus::Unknown));
    if let Some(part) = worst {
        return finding(ConditionStatus::False, part.note.clone());
    }
    let message = if parts.iter().any(|part| part.note.reason == Reason::NotRequested) {
        "the user matches the spec; it has console access and no access key"
    } else {
        "the user matches the spec and its key is in the Secret"
    };
    finding(ConditionStatus::True, Note::new(Reason::Reconciled, message))
}

/// Keeps reason and message of the failure during its back-off: they say what the operator waits for, and a restarted
/// operator derives the remaining back-off from them.
pub fn keep_failure_message(findings: &mut [EvaluatedCondition], before: &[Condition]) {
    let kept = |finding: &EvaluatedCondition| {
        let old = before
            .iter()
            .find(|old| old.type_ == finding.kind.as_str() && old.status == ConditionStatus::False.as_str())?;
        Some(Note::new(old.reason.parse().ok()?, old.message.clone()))
    };
    for finding in findings.iter_mut().filter(|finding| finding.note.reason == Reason::BackingOff) {
        finding.note = kept(finding).unwrap_or_else(|| finding.note.clone());
    }
}

/// Sets transition times: `lastTransitionTime` changes only when the status changes.
#[must_use]
pub fn to_conditions(
    findings: Vec<EvaluatedCondition>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    // The API stores whole seconds: a fraction would differ from the stored status and cause a write in every reconcile.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    findings
        .into_iter()
        .map(|finding| {
            let status = finding.status.as_str();
            let since = before
                .iter()
                .find(|old| old.type_ == finding.kind.as_str() && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                type_: finding.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: finding.note.reason.as_str().to_owned(),
                message: clip(&finding.note.message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The API allows 32 KiB; limit messages to a readable length.
fn clip(message: &str) -> String {
    const MAX_CHARACTERS: usize = 2_000;
    if message.chars().count() <= MAX_CHARACTERS {
        return message.to_owned();
    }
    message.chars().take(MAX_CHARACTERS).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_waits_are_healthy_and_back_offs_are_not() {
        for healthy in [Reason::RotationPending, Reason::StillUsed, Reason::Overlap, Reason::Scheduled] {
            assert_eq!(rotation_status(healthy), ConditionStatus::True, "{healthy}");
        }
        for sick in [Reason::BackingOff, Reason::KeyNotAccepted, Reason::KeyQuotaExceeded, Reason::Quarantined] {
            assert_eq!(rotation_status(sick), ConditionStatus::False, "{sick}");
        }
    }

    #[test]
    fn back_off_keeps_the_message_of_the_failure() {
        let finding = |reason| EvaluatedCondition {
            kind: ConditionType::RotationHealthy,
            status: ConditionStatus::False,
            note: Note::new(reason, "now"),
        };
        let kept = |reason, before: Option<(&str, Reason)>| {
            let mut findings = [finding(reason)];
            let before = before.map(|(status, reason)| Condition {
                type_: "RotationHealthy".to_owned(),
                status: status.to_owned(),
                reason: reason.to_string(),
                message: "before".to_owned(),
                observed_generation: None,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            });
            keep_failure_message(&mut findings, &Vec::from_iter(before));
            (findings[0].note.reason, findings[0].note.message.clone())
        };
        let now = |reason| (reason, "now".to_owned());
        assert_eq!(
            kept(Reason::BackingOff, Some(("False", Reason::LimitExceeded))),
            (Reason::LimitExceeded, "before".to_owned())
        );
        assert_eq!(kept(Reason::BackingOff, Some(("True", Reason::Scheduled))), now(Reason::BackingOff));
        assert_eq!(kept(Reason::BackingOff, None), now(Reason::BackingOff));
        assert_eq!(
            kept(Reason::KeyQuotaExceeded, Some(("False", Reason::LimitExceeded))),
            now(Reason::KeyQuotaExceeded)
        );
    }

    #[test]
    fn quarantine_is_reported_despite_other_failures() {
        let mut plan = Plan::idle(Note::new(Reason::Scheduled, ""));
        plan.user = Some(Note::new(Reason::Quarantined, "quarantined"));
        let failure = |transient| ReconcileFailure {
            scope: FailureScope::User,
            note: Note::new(Reason::LimitExceeded, "no more policies"),
            transient,
        };
        for failures in [vec![], vec![failure(false)], vec![failure(true)]] {
            let outcome = ReconcileOutcome {
                plan: Some(&plan),
                current: None,
                failures: &failures,
                authorization: Note::new(Reason::Allowed, ""),
                unfinished: false,
            };
            let findings = evaluate(&outcome, true);
            let user = findings.iter().find(|finding| finding.kind == ConditionType::UserSynced).unwrap();
            assert_eq!((user.status, user.note.reason), (ConditionStatus::False, Reason::Quarantined));
            assert_eq!(user.note.message.contains("no more policies"), !failures.is_empty());
            assert_eq!(
                (findings[0].status, findings[0].note.reason),
                (ConditionStatus::False, Reason::Quarantined),
                "Ready"
            );
        }
    }
}
