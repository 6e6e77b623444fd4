//! Conditions: how it stands, for people and for tools that wait. Pure.

use jiff::Timestamp;

use super::{
    current_state::CurrentState,
    plan::{Note, Plan},
};
use crate::api::{Condition, ConditionType, Reason, Time};

/// Three-valued, as conditions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told now.
    Unknown,
}

impl ConditionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition before it is dated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluatedCondition {
    /// Which.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why.
    pub note: Note,
}

/// A failure of a pass, as far as conditions are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileFailure {
    /// Which condition it falls upon.
    pub scope: FailureScope,
    /// What happened.
    pub note: Note,
    /// It goes away by itself, and what was established before it still holds as far as anybody knows.
    pub transient: bool,
}

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureScope {
    /// The cluster's rules or the resource itself.
    Authorization,
    /// Observation: nothing could be told.
    Observation,
    /// User, policies, tags.
    User,
    /// The key or the Secret.
    Key,
}

/// What a pass has found out.
#[derive(Clone, Debug)]
pub struct ReconcileOutcome<'a> {
    /// The last plan, if the pass came that far.
    pub plan: Option<&'a Plan>,
    /// The world after the last effect, if the pass came that far.
    pub current: Option<&'a CurrentState>,
    /// Failures, the first one first.
    pub failures: &'a [ReconcileFailure],
    /// Message for `Authorized=True`.
    pub authorization: Note,
    /// The pass stopped with effects left to do in a later pass.
    pub unfinished: bool,
}

/// The conditions of a resource after a pass.
///
/// `was_ready`: the resource was Ready at this very generation before the pass. A fault that
/// passes does not take that away: what was true a minute ago still is, as far as anybody knows.
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
    let pending = || Note::new(Reason::Pending, "the pass did not come to this yet");

    // AWS's quarantine does not disappear behind a policy that cannot be attached.
    let quarantined =
        outcome.plan.and_then(|plan| plan.user.as_ref()).filter(|note| note.reason == Reason::Quarantined);
    let user = match (failure(FailureScope::User), blind, outcome.plan) {
        (Some(failure), ..) if let Some(note) = quarantined => {
            let both = format!("{}. Besides: {}", note.message, failure.note.message);
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
                Note::new(Reason::Reconciled, "user, policies and tags are as declared"),
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
            // What nobody asked for is not missing.
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
            finding(ConditionType::RotationHealthy, rotation_state(plan.rotation.reason), plan.rotation.clone())
        }
        (None, None, None) => finding(ConditionType::RotationHealthy, ConditionStatus::Unknown, pending()),
    };

    let ready = ready(outcome, was_ready, [&authorized, &user, &key], refused);
    vec![ready, authorized, user, key, rotation]
}

/// Whether this says that the next rotation will come about. Waiting for a time that was asked for is as healthy as
/// having nothing due; a pause after a failure is not.
fn rotation_state(reason: Reason) -> ConditionStatus {
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
                "as declared when last seen; the present fault does not touch the published key",
            ),
        );
    }
    // What a person has to mend comes before what is merely not known yet.
    let worst = parts
        .iter()
        .find(|part| part.status == ConditionStatus::False)
        .or_else(|| parts.iter().find(|part| part.status == ConditionStatus::Unknown));
    if let Some(part) = worst {
        return finding(ConditionStatus::False, part.note.clone());
    }
    let message = if parts.iter().any(|part| part.note.reason == Reason::NotRequested) {
        "the user is as declared; it has access to the console and no access key"
    } else {
        "the user is as declared and its key is in the Secret"
    };
    finding(ConditionStatus::True, Note::new(Reason::Reconciled, message))
}

/// While a pause after a failure lasts, the words are those of the failure: it says what is waited for, and a restart
/// learns from it how long.
pub fn keep_failure_message(findings: &mut [EvaluatedCondition], before: &[Condition]) {
    let kept = |finding: &EvaluatedCondition| {
        let old = before
            .iter()
            .find(|old| old.type_ == finding.kind.as_str() && old.status == ConditionStatus::False.as_str())?;
        Some(Note::new(Reason::named(&old.reason)?, old.message.clone()))
    };
    for finding in findings.iter_mut().filter(|finding| finding.note.reason == Reason::BackingOff) {
        finding.note = kept(finding).unwrap_or_else(|| finding.note.clone());
    }
}

/// Dates the findings: `lastTransitionTime` moves only when the state flips.
#[must_use]
pub fn to_conditions(
    findings: Vec<EvaluatedCondition>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    // The API carries whole seconds; without this a pass would never equal what it reads back.
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

/// Messages end at 32 KiB in the API; nobody reads more than this.
fn clip(message: &str) -> String {
    const MOST: usize = 2_000;
    if message.chars().count() <= MOST {
        return message.to_owned();
    }
    message.chars().take(MOST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_was_asked_for_is_healthy_and_one_after_a_failure_is_not() {
        for healthy in [Reason::RotationPending, Reason::StillUsed, Reason::Overlap, Reason::Scheduled] {
            assert_eq!(rotation_state(healthy), ConditionStatus::True, "{healthy}");
        }
        for sick in [Reason::BackingOff, Reason::KeyNotAccepted, Reason::KeyQuotaExceeded, Reason::Quarantined] {
            assert_eq!(rotation_state(sick), ConditionStatus::False, "{sick}");
        }
    }

    #[test]
    fn during_a_pause_the_words_are_those_of_the_failure() {
        let finding = |reason| EvaluatedCondition {
            kind: ConditionType::RotationHealthy,
            status: ConditionStatus::False,
            note: Note::new(reason, "now"),
        };
        let told = |reason, before: Option<(&str, Reason)>| {
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
            told(Reason::BackingOff, Some(("False", Reason::LimitExceeded))),
            (Reason::LimitExceeded, "before".to_owned())
        );
        assert_eq!(told(Reason::BackingOff, Some(("True", Reason::Scheduled))), now(Reason::BackingOff));
        assert_eq!(told(Reason::BackingOff, None), now(Reason::BackingOff));
        assert_eq!(
            told(Reason::KeyQuotaExceeded, Some(("False", Reason::LimitExceeded))),
            now(Reason::KeyQuotaExceeded)
        );
    }

    #[test]
    fn a_quarantine_is_told_although_a_policy_cannot_be_attached() {
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
