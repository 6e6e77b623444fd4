//! The status and Events that follow from a reconcile. Pure.

use jiff::{SignedDuration, Timestamp};
use strum::VariantArray;

use crate::{
    api::{
        AwsDeployUser, AwsDeployUserStatus, Condition, ConditionType, Reason,
        user::{AccessKeyState, AccessKeyStatus, ClassReference, UserStatus},
        well_known,
    },
    cluster::PendingEvent,
    domain::{
        account::account_in_arn,
        backoff::{self, ErrorClass},
        conditions::{self, ReconcileFailure, ReconcileOutcome},
        current_state::{AccessKey, CurrentState, CurrentUser, IamUser, UserAbsence},
        desired::Desired,
        plan::{Effect, Note, Plan},
        target::Target,
    },
};

/// What the status is computed from.
pub(super) struct StatusInput<'a> {
    pub(super) user: &'a AwsDeployUser,
    pub(super) target: &'a Target,
    pub(super) desired: Option<&'a Desired>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) current: Option<&'a CurrentState>,
    pub(super) failures: Vec<ReconcileFailure>,
    /// This reconcile failed; false while it only waits out an earlier failure.
    pub(super) failed: bool,
    /// The class that allows the resource, if one does.
    pub(super) class: Option<&'a ClassReference>,
    pub(super) authorization: Note,
    pub(super) now: Timestamp,
}

/// The status after a reconcile.
pub(super) fn status(input: &StatusInput<'_>) -> AwsDeployUserStatus {
    let before = input.user.status.clone().unwrap_or_default();
    let generation = input.user.metadata.generation;
    let was_ready = before.observed_generation == generation
        && condition(&before.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True");
    let outcome = ReconcileOutcome {
        plan: input.plan,
        current: input.current,
        failures: &input.failures,
        authorization: input.authorization.clone(),
        unfinished: input.plan.is_some_and(|plan| plan.effects.iter().any(Effect::is_user_sync)),
    };
    let mut findings = conditions::evaluate(&outcome, was_ready);
    conditions::keep_failure_message(&mut findings, &before.conditions);
    let conditions = conditions::to_conditions(findings, &before.conditions, generation, input.now);
    let mut after = AwsDeployUserStatus { observed_generation: generation, conditions, ..before };
    if let Some(class) = input.class {
        after.class = Some(class.clone());
        after.revocation = None;
    }
    if let Some(current) = input.current {
        add_observed(&mut after, input, current);
    }
    if input.failed {
        after.failed_attempts = after.failed_attempts.saturating_add(1);
        after.last_failure_time = Some(floor(input.now));
    } else if input.failures.is_empty() && input.plan.is_none_or(|plan| plan.rotation.reason != Reason::BackingOff) {
        // A reconcile that only waited is no success.
        after.failed_attempts = 0;
    }
    after
}

fn add_observed(after: &mut AwsDeployUserStatus, input: &StatusInput<'_>, current: &CurrentState) {
    let known: Vec<AccessKeyStatus> = std::mem::take(&mut after.access_keys);
    let recorded_account = after.user.as_ref().map(|user| user.account.clone());
    match &current.iam {
        CurrentUser::Found(user) if input.target.owner.owns(&user.tags) => {
            let tag_keys = match input.desired {
                Some(desired) => applied_tag_keys(desired, user),
                None => after.user.take().map(|user| user.tag_keys).unwrap_or_default(),
            };
            after.user = Some(UserStatus {
                name: user.name.clone(),
                account: recorded_account.or(account_in_arn(&user.arn).map(str::to_owned)).unwrap_or_default(),
                arn: Some(user.arn.clone()),
                id: Some(user.id.clone()),
                tag_keys,
            });
            after.access_keys = access_keys(input, current, user, &known);
        }
        // The resource stays bound to the name until everything of it is removed.
        CurrentUser::Found(_) | CurrentUser::Absent => {
            let is_idle = input.plan.is_some_and(|plan| plan.effects.is_empty() && plan.requeue_at.is_none());
            let is_removed = current.user_absence == Some(UserAbsence::Removed) && is_idle;
            let unbound =
                |user: UserStatus| UserStatus { name: user.name, account: user.account, ..UserStatus::default() };
            after.user = after.user.take().filter(|_| !is_removed).map(unbound);
        }
    }
    let published = current.published();
    // Without a key in the spec no Secret is missing.
    let is_removed = input.user.spec.effective_access_key().is_none();
    if published.is_some() || after.secret_name.is_none() || is_removed {
        after.secret_name = published.map(|_| input.target.secret_name.clone());
    }
    after.last_rotation_time =
        published.map(|facts| facts.published_at).or(after.last_rotation_time.filter(|_| !is_removed));
    after.next_rotation_time = input.plan.and_then(|plan| plan.next_rotation);
}

/// Keys of declared tags that the user carries now: a tag that is removed from the spec later is removed from the user, tags
/// of others are not.
fn applied_tag_keys(desired: &Desired, user: &IamUser) -> Vec<String> {
    let declared = desired.tags.keys().filter(|key| !key.starts_with(well_known::TAG_PREFIX));
    let carried = |key: &&String| user.tags.keys().any(|other| other.to_lowercase() == key.to_lowercase());
    declared.filter(carried).cloned().collect()
}

fn access_keys(
    input: &StatusInput<'_>,
    current: &CurrentState,
    user: &IamUser,
    known: &[AccessKeyStatus],
) -> Vec<AccessKeyStatus> {
    let published = current.published();
    let mut keys: Vec<AccessKeyStatus> = user
        .keys
        .iter()
        .map(|key| {
            let state = key_state(current, user, key);
            let before = known.iter().find(|status| status.id == key.id);
            let superseded_at =
                published.map(|facts| facts.published_at).filter(|_| state == AccessKeyState::Superseded);
            AccessKeyStatus {
                id: key.id.clone(),
                state,
                created_at: Some(key.created_at),
                superseded_at,
                retires_at: input.plan.and_then(|plan| plan.deactivate_at.get(&key.id).copied()),
                inactive_since: (!key.active)
                    .then(|| recorded_inactive_since(before, input.now).unwrap_or(floor(input.now))),
                // Also known from before a restart of the operator.
                last_used_at: current
                    .last_used
                    .get(&key.id)
                    .and_then(|answer| answer.used_at)
                    .or(before.and_then(|status| status.last_used_at)),
            }
        })
        .collect();
    keys.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
    keys
}

/// Since when the key was observed Inactive. Ignores timestamps in the future (the clock was set back), so that the deletion
/// delay ends.
fn recorded_inactive_since(before: Option<&AccessKeyStatus>, now: Timestamp) -> Option<Timestamp> {
    before?.inactive_since.filter(|since| *since <= now)
}

fn key_state(current: &CurrentState, user: &IamUser, key: &AccessKey) -> AccessKeyState {
    let published = current.published().is_some_and(|facts| facts.key_id == key.id);
    if !current.is_ours(&key.id) {
        AccessKeyState::Foreign
    } else if !key.active {
        AccessKeyState::Inactive
    } else if published {
        AccessKeyState::Published
    } else if user.is_tagged(&key.id) {
        AccessKeyState::Superseded
    } else {
        AccessKeyState::Staged
    }
}

/// The Events of changed conditions: one for each turn for the worse, none while it lasts. A superseded key that is still
/// used is reported before its hold ends, although no condition is False yet.
pub(super) fn condition_events(before: Option<&AwsDeployUserStatus>, after: &AwsDeployUserStatus) -> Vec<PendingEvent> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut events: Vec<PendingEvent> = Vec::new();
    for kind in ConditionType::VARIANTS.iter().copied() {
        let Some(new) = condition(&after.conditions, kind) else { continue };
        if new.status != "False" && new.reason != Reason::StillUsed.as_str() {
            continue;
        }
        let Ok(reason) = new.reason.parse::<Reason>() else { continue };
        let is_progress = matches!(reason, Reason::Pending | Reason::Deleting | Reason::BackingOff);
        let is_unchanged =
            condition(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        if !is_progress && !is_unchanged && !events.iter().any(|event| event.reason == reason) {
            events.push(PendingEvent { reason, note: new.message.clone(), warning: reason != Reason::Suspended });
        }
    }
    events
}

/// Joins all changes of user and policies into one Event. Changes of a user that was in sync correct drift.
pub(super) fn summarize_changes(mut events: Vec<PendingEvent>, was_in_sync: bool) -> Vec<PendingEvent> {
    let changes: Vec<String> =
        events.iter().filter(|event| event.reason == Reason::UserChanged).map(|event| event.note.clone()).collect();
    events.retain(|event| event.reason != Reason::UserChanged);
    // The losses of an adopted user have an Event of their own and are no drift.
    let is_drift = was_in_sync && events.iter().all(|event| event.reason != Reason::UserAdopted);
    if !changes.is_empty() {
        let cause = if is_drift { "corrected drift in AWS: " } else { "" };
        events.push(PendingEvent {
            reason: Reason::UserChanged,
            note: format!("{cause}{}", changes.join("; ")),
            warning: is_drift,
        });
    }
    events
}

fn condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// The class of the failure of a key attempt that a status reports; the one with the longest back-off if there are several.
pub(super) fn failure_class(status: &AwsDeployUserStatus) -> Option<ErrorClass> {
    let of_keys = [ConditionType::KeyPublished, ConditionType::RotationHealthy];
    let conditions = of_keys.into_iter().filter_map(|kind| condition(&status.conditions, kind));
    let classes = conditions
        .filter(|condition| condition.status != "True")
        .filter_map(|condition| backoff::waiting_class(condition.reason.parse().ok()?));
    classes.max_by_key(|class| backoff::delay(*class, 1, 0, SignedDuration::ZERO))
}

/// The end of a back-off that another process left unfinished.
pub(super) fn backoff_until(user: &AwsDeployUser, permille: i32, now: Timestamp) -> Option<Timestamp> {
    let status = user.status.as_ref()?;
    // A changed spec and a deletion are tried at once.
    if status.observed_generation != user.metadata.generation || user.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let bad = status.conditions.iter().filter(|condition| condition.status != "True");
    let reasons = bad.filter_map(|condition| condition.reason.parse::<Reason>().ok());
    let failures = u32::try_from(status.failed_attempts).unwrap_or(0);
    backoff::backoff_until(reasons, failures, status.last_failure_time?, permille, now)
}

/// Whether the resource at its present generation was Ready when its status was written. A transient failure does not make it
/// not Ready: it says nothing about the user.
pub(super) fn was_ready(user: &AwsDeployUser) -> bool {
    user.status.as_ref().is_some_and(|status| {
        status.observed_generation == user.metadata.generation
            && condition(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
    })
}

/// Times in status have whole seconds.
fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    /// A resource whose reconcile failed three times in a row, the last time a minute ago.
    fn failed() -> AwsDeployUser {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1", "generation": 2}, "spec": {},
            "status": {
                "observedGeneration": 2, "failedAttempts": 3, "lastFailureTime": "2026-11-21T09:59:00Z",
                "conditions": [{"type": "RotationHealthy", "status": "False", "reason": "LimitExceeded",
                    "message": "quota", "lastTransitionTime": "2026-11-21T09:00:00Z"}],
            },
        }))
        .unwrap()
    }

    fn after(user: &AwsDeployUser, rotation: Reason) -> AwsDeployUserStatus {
        let plan = Plan::idle(Note::new(rotation, "words"));
        status(&StatusInput {
            user,
            target: &Target::from_resource(user, "cluster").unwrap(),
            desired: None,
            class: None,
            plan: Some(&plan),
            current: None,
            failures: Vec::new(),
            failed: false,
            authorization: Note::new(Reason::Allowed, ""),
            now: now(),
        })
    }

    #[test]
    fn waiting_out_a_failure_is_no_success() {
        let waited = after(&failed(), Reason::BackingOff);
        assert_eq!(waited.failed_attempts, 3);
        let rotation = condition(&waited.conditions, ConditionType::RotationHealthy).unwrap();
        assert_eq!((rotation.reason.as_str(), rotation.message.as_str()), ("LimitExceeded", "quota"));
        assert_eq!(after(&failed(), Reason::Scheduled).failed_attempts, 0);
    }

    #[test]
    fn operator_restart_keeps_back_off_of_unchanged_resource() {
        let left =
            |user: &AwsDeployUser| backoff_until(user, 0, now()).map(|until| until.duration_since(now()).as_mins());
        assert_eq!(left(&failed()), Some(29));
        let mut changed = failed();
        changed.metadata.generation = Some(3);
        assert_eq!(left(&changed), None);
        let mut deleted = failed();
        deleted.metadata.deletion_timestamp = Some(crate::api::Time(now()));
        assert_eq!(left(&deleted), None);
        let mut recovered = failed();
        recovered.status.as_mut().unwrap().conditions[0].status = "True".to_owned();
        assert_eq!(left(&recovered), None);
    }

    #[test]
    fn resource_stays_bound_until_its_user_is_removed() {
        let mut user = failed();
        let recorded = json!({"name": "u", "account": "123456789012", "arn": "arn", "id": "AIDA1"});
        user.status.as_mut().unwrap().user = serde_json::from_value(recorded).unwrap();
        let after = |user_absence, plan: &Plan| {
            let current = CurrentState { user_absence, ..CurrentState::empty(now()) };
            status(&StatusInput {
                user: &user,
                target: &Target::from_resource(&user, "cluster").unwrap(),
                desired: None,
                class: None,
                plan: Some(plan),
                current: Some(&current),
                failures: Vec::new(),
                failed: false,
                authorization: Note::new(Reason::Allowed, ""),
                now: now(),
            })
            .user
        };
        let idle = Plan::idle(Note::new(Reason::Revoked, ""));
        let busy = Plan { effects: vec![Effect::DeleteSecret], ..idle.clone() };
        let bound = UserStatus { name: "u".into(), account: "123456789012".into(), ..UserStatus::default() };
        assert_eq!(after(None, &idle), Some(bound.clone()));
        let unseen = Some(UserAbsence::NotObserved { since: now() });
        assert_eq!(after(unseen, &idle), Some(bound.clone()), "IAM may not list it yet");
        assert_eq!(after(Some(UserAbsence::Removed), &busy), Some(bound), "its Secret is left");
        assert_eq!(after(Some(UserAbsence::Removed), &idle), None);
    }

    #[test]
    fn superseded_key_in_use_is_reported_once() {
        let used = after(&failed(), Reason::StillUsed);
        let count = |before: Option<&AwsDeployUserStatus>| {
            let events = condition_events(before, &used);
            events.iter().filter(|event| event.reason == Reason::StillUsed && event.warning).count()
        };
        assert_eq!(count(failed().status.as_ref()), 1);
        assert_eq!(count(Some(&used)), 0);
    }
}
