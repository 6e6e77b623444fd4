//! Conditions of an `AwsDeployUser`.

use jiff::Timestamp;

use super::{
    backoff::ErrorClass,
    current_state::CurrentState,
    dates::floor,
    plan::{Note, Plan},
    wait_conditions,
};
use crate::api::{Condition, ConditionType, Reason, Time};

/// How an error of AWS introduces the id of its request; `)` follows.
pub const REQUEST_ID: &str = " (AWS request id ";

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
    /// Decides the back-off.
    pub class: ErrorClass,
    /// The failure resolves without an action and does not invalidate what earlier reconciles established.
    pub transient: bool,
}

/// What a failure affects, and thereby which conditions report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureScope {
    /// The class, or the resource itself.
    Authorization,
    /// Reading the current state: nothing is known.
    Observation,
    /// User, policies, groups, tags.
    User,
    /// Reading the managed policies of documents: all else is known.
    Policies,
    /// Access key or Secret.
    Key,
    /// Writing the status: no condition can report it.
    Status,
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
        (None, None, _) if let Some(failure) = failure(FailureScope::Policies) => {
            finding(ConditionType::UserSynced, ConditionStatus::Unknown, failure.note.clone())
        }
        (None, None, Some(_)) if outcome.current.is_some_and(is_known) && !outcome.unfinished => finding(
            ConditionType::UserSynced,
            ConditionStatus::True,
            Note::new(Reason::Reconciled, "user, policies, groups and tags match the spec"),
        ),
        (None, None, _) => finding(ConditionType::UserSynced, ConditionStatus::Unknown, pending()),
    };

    let key = match (failure(FailureScope::Key), blind, outcome.plan, outcome.current) {
        (_, Some(failure), plan, _) => match plan.and_then(|plan| plan.key.as_ref()) {
            // Known from IAM alone.
            Some(note) if matches!(note.reason, Reason::CredentialsRevoked | Reason::Revoked | Reason::Quarantined) => {
                finding(ConditionType::KeyPublished, ConditionStatus::False, note.clone())
            }
            _ => finding(ConditionType::KeyPublished, ConditionStatus::Unknown, failure.note.clone()),
        },
        (failed, None, Some(plan), Some(current)) => match (&plan.key, failed) {
            (Some(note), Some(failure)) if matches!(note.reason, Reason::Pending | Reason::NotRequested) => {
                finding(ConditionType::KeyPublished, ConditionStatus::False, failure.note.clone())
            }
            // A key that is not declared is not missing.
            (Some(note), None) if note.reason == Reason::NotRequested => {
                finding(ConditionType::KeyPublished, ConditionStatus::True, note.clone())
            }
            (Some(note), _) => finding(ConditionType::KeyPublished, ConditionStatus::False, note.clone()),
            // The key works, but the Secret lacks something that is declared.
            (None, Some(failure)) if failure.note.reason == Reason::SecretConflict => {
                finding(ConditionType::KeyPublished, ConditionStatus::False, failure.note.clone())
            }
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
    let waiting = wait_conditions::evaluate(outcome, &ready);
    [ready, authorized, user, key, rotation].into_iter().chain(waiting).collect()
}

/// Whether the user and its policies were read.
fn is_known(current: &CurrentState) -> bool {
    current.user().is_some() && !current.policies.are_unread
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
        | Reason::AwaitingHandover
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

/// The condition of this type.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
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
    let now = floor(now);
    findings
        .into_iter()
        .map(|finding| {
            let status = finding.status.as_str();
            let old = find(before, finding.kind).filter(|old| old.status == status);
            let since = old.map_or(Time(now), |old| old.last_transition_time.clone());
            let message = clip(&finding.note.message);
            // The same failure has another request id at each try.
            let is_same = |old: &&Condition| without_request_ids(&old.message) == without_request_ids(&message);
            let reported = old.filter(is_same).map(|old| old.message.clone());
            Condition {
                type_: finding.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: finding.note.reason.as_str().to_owned(),
                message: reported.unwrap_or(message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// A message without the ids of requests to AWS.
fn without_request_ids(message: &str) -> String {
    let mut parts = message.split(REQUEST_ID);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or("", |(_, rest)| rest))
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
        for healthy in
            [Reason::AwaitingHandover, Reason::RotationPending, Reason::StillUsed, Reason::Overlap, Reason::Scheduled]
        {
            assert_eq!(rotation_status(healthy), ConditionStatus::True, "{healthy}");
        }
        for sick in [Reason::Throttled, Reason::KeyNotAccepted, Reason::KeyQuotaExceeded, Reason::Quarantined] {
            assert_eq!(rotation_status(sick), ConditionStatus::False, "{sick}");
        }
    }

    #[test]
    fn another_request_id_is_no_other_message() {
        let message = |id: &str, rest: &str| format!("GetUser: denied{REQUEST_ID}{id}). Allow it{rest}");
        let after = |before: &str, message: String| {
            let note = Note::new(Reason::AccessDenied, message);
            let finding = EvaluatedCondition { kind: ConditionType::Ready, status: ConditionStatus::False, note };
            let old = Condition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: "AccessDenied".to_owned(),
                message: before.to_owned(),
                observed_generation: None,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            };
            to_conditions(vec![finding], &[old], None, Timestamp::UNIX_EPOCH)[0].message.clone()
        };
        assert_eq!(after(&message("1", ""), message("2", "")), message("1", ""));
        assert_eq!(after(&message("1", ""), message("2", " now")), message("2", " now"));
        assert_eq!(after("something else", message("2", "")), message("2", ""));
    }

    #[test]
    fn quarantine_is_reported_despite_other_failures() {
        let mut plan = Plan::idle(Note::new(Reason::Scheduled, ""));
        plan.user = Some(Note::new(Reason::Quarantined, "quarantined"));
        let failure = |transient| ReconcileFailure {
            scope: FailureScope::User,
            note: Note::new(Reason::LimitExceeded, "no more policies"),
            class: ErrorClass::Limit,
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

    #[test]
    fn revoked_key_is_reported_although_secrets_are_unread() {
        let failures = [ReconcileFailure {
            scope: FailureScope::Observation,
            note: Note::new(Reason::SecretAccessDenied, "refused"),
            class: ErrorClass::Denied,
            transient: false,
        }];
        let key = |reason| {
            let plan = Plan { key: Some(Note::new(reason, "key")), ..Plan::idle(Note::new(Reason::Pending, "")) };
            let outcome = ReconcileOutcome {
                plan: Some(&plan),
                current: None,
                failures: &failures,
                authorization: Note::new(Reason::Allowed, ""),
                unfinished: false,
            };
            let findings = evaluate(&outcome, true);
            let key = findings.iter().find(|finding| finding.kind == ConditionType::KeyPublished).unwrap();
            (key.status, key.note.reason)
        };
        for revoked in [Reason::CredentialsRevoked, Reason::Revoked, Reason::Quarantined] {
            assert_eq!(key(revoked), (ConditionStatus::False, revoked));
        }
        for unknown in [Reason::Pending, Reason::Frozen] {
            assert_eq!(key(unknown), (ConditionStatus::Unknown, Reason::SecretAccessDenied), "{unknown}");
        }
    }
}
