//! The status and Events that follow from a reconcile. Pure.

use jiff::Timestamp;
use strum::VariantArray;

use crate::{
    api::{
        AwsDeployUser, AwsDeployUserStatus, ConditionType, Reason,
        user::{AccessKeyState, AccessKeyStatus, ClassReference, PolicyKind, PolicyStatus, UserStatus},
    },
    cluster::PendingEvent,
    domain::{
        account::account_in_arn,
        backoff::{self, Backoff, DelayInput, ErrorClass},
        change_key::{AttemptKey, is_paused},
        conditions::{self, FailureScope, ReconcileFailure, ReconcileOutcome},
        current_state::{AccessKey, CurrentState, CurrentUser, IamUser, UserAbsence},
        dates::floor,
        desired::Desired,
        managed_policy, pause,
        plan::{Effect, Note, Plan},
        target::Target,
    },
};

/// What the status is computed from.
pub(super) struct StatusInput<'a> {
    pub(super) user: &'a AwsDeployUser,
    pub(super) target: &'a Target,
    pub(super) desired: Option<&'a Desired>,
    /// Warnings about its documents; `None` without a desired state.
    pub(super) policy_warnings: Option<Vec<String>>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) current: Option<&'a CurrentState>,
    pub(super) failures: Vec<ReconcileFailure>,
    /// Since when the resource fails.
    pub(super) failing_since: Option<Timestamp>,
    /// The class that allows the resource, if one does.
    pub(super) class: Option<&'a ClassReference>,
    /// The class that allowed the resource last does not exist.
    pub(super) class_is_missing: bool,
    pub(super) authorization: Note,
    pub(super) now: Timestamp,
}

/// The status after a reconcile.
pub(super) fn status(input: &StatusInput<'_>) -> AwsDeployUserStatus {
    let before = input.user.status.clone().unwrap_or_default();
    let generation = input.user.metadata.generation;
    let outcome = ReconcileOutcome {
        plan: input.plan,
        current: input.current,
        failures: &input.failures,
        authorization: input.authorization.clone(),
        unfinished: input.plan.is_some_and(|plan| plan.effects.iter().any(Effect::is_user_sync)),
    };
    let is_held = input.failures.iter().any(|failure| failure.note.reason == Reason::Paused);
    let (mut findings, generation) = if is_held {
        // Nothing was done for a changed spec.
        (pause::evaluate(&outcome, &before.conditions, &pause::note()), before.observed_generation)
    } else {
        (conditions::evaluate(&outcome, was_ready(input.user)), generation)
    };
    findings.extend(is_paused(input.user).then(|| pause::condition(pause::note())));
    let conditions = conditions::to_conditions(findings, &before.conditions, generation, input.now);
    let mut after = AwsDeployUserStatus { observed_generation: generation, conditions, ..before };
    if let Some(class) = input.class {
        after.class = Some(class.clone());
        after.revocation = None;
    }
    if let Some(class) = after.class.as_mut().filter(|_| !input.class_is_missing) {
        class.missing_since = None;
    }
    if let Some(warnings) = &input.policy_warnings {
        after.policy_warnings.clone_from(warnings);
    }
    if let Some(current) = input.current {
        after.policies = policies(input, current, &after.policies);
        add_observed(&mut after, input, current);
    }
    if is_held {
        after.next_rotation_time = None;
    }
    after.failing_since = input.failing_since.map(floor);
    after
}

/// What the documents are in IAM, and what is recorded of managed policies.
fn policies(input: &StatusInput<'_>, current: &CurrentState, before: &[PolicyStatus]) -> Vec<PolicyStatus> {
    let mut records = current.hints.policies.clone();
    for policy in current.policies.ours() {
        let declared = input.desired.and_then(|desired| desired.documents.get(&policy.arn));
        records.entry(policy.arn.clone()).or_default().observe(policy, declared.map(|document| document.digest));
    }
    let grants = current.owned_user(&input.target.owner).map(|user| user.grants.as_ref());
    let is_there = |name: &&String| match grants {
        Some(grants) => grants.is_none_or(|grants| grants.inline.contains_key(*name)),
        None => false,
    };
    let recorded = before.iter().filter(|policy| policy.kind == PolicyKind::Inline).map(|policy| &policy.name);
    match input.desired {
        Some(desired) => managed_policy::status(desired.inline.keys().filter(is_there), &records),
        None => managed_policy::status(recorded.filter(is_there), &records),
    }
}

/// The Event for versions of managed policies that others made, when they are first observed: they use up what IAM allows.
fn versions_of_others(before: Option<&AwsDeployUserStatus>, after: &AwsDeployUserStatus) -> Option<PendingEvent> {
    let before = before.map(|status| managed_policy::records(&status.policies)).unwrap_or_default();
    let new = |policy: &&PolicyStatus| {
        let known = policy.arn.as_ref().and_then(|arn| before.get(arn));
        policy.other_versions.iter().any(|version| known.is_none_or(|known| !known.other_versions.contains(version)))
    };
    let describe = |policy: &PolicyStatus| {
        format!("{} of {}", policy.other_versions.join(", "), policy.arn.as_deref().unwrap_or_default())
    };
    let found: Vec<String> = after.policies.iter().filter(new).map(describe).collect();
    let note = || {
        format!(
            "the operator has no record of making these versions of managed policies: {}. It keeps them, and IAM allows {} of a policy; an AWS admin can delete those that are not needed: aws iam delete-policy-version",
            found.join("; "),
            managed_policy::MAX_VERSIONS
        )
    };
    (!found.is_empty()).then(|| PendingEvent { reason: Reason::PolicyWarning, note: note(), warning: true })
}

fn add_observed(after: &mut AwsDeployUserStatus, input: &StatusInput<'_>, current: &CurrentState) {
    let known: Vec<AccessKeyStatus> = std::mem::take(&mut after.access_keys);
    let recorded_account = after.user.as_ref().map(|user| user.account.clone());
    match &current.iam {
        CurrentUser::Found(user) if input.target.owner.owns(&user.tags) => {
            let tag_keys = match input.desired {
                Some(desired) => recorded_tag_keys(desired, current, user),
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
            let is_removed = current.user_absence == Some(UserAbsence::Removed) && is_idle && !may_be_left(current);
            let unbound = |user: UserStatus| UserStatus { arn: None, id: None, ..user };
            after.user = after.user.take().filter(|_| !is_removed).map(unbound);
        }
    }
    if current.secrets_unread {
        return;
    }
    let published = current.published();
    // Without a key in the spec no Secret is missing.
    let is_removed = input.user.spec.effective_access_key().is_none();
    if published.is_some() || is_removed {
        after.secret_name = published.map(|_| input.target.secret_name.clone());
    }
    after.last_rotation_time =
        current.verified().map(|facts| facts.published_at).or(after.last_rotation_time.filter(|_| !is_removed));
    after.last_key_attempt_time = current.last_attempt();
    after.key_repairs = current.hints.repairs;
    after.next_rotation_time = input.plan.and_then(|plan| plan.next_rotation);
}

/// Whether something of a resource without a user may be left in AWS, or a key in its Secret.
fn may_be_left(current: &CurrentState) -> bool {
    let policies = &current.policies;
    let are_left = policies.ours().next().is_some() || !current.hints.policies.is_empty();
    policies.are_unread || are_left || current.secrets_unread
}

/// Keys of tags that are the operator's to remove: the declared ones that were recorded before they were written, and those that
/// are no longer declared and not removed yet.
fn recorded_tag_keys(desired: &Desired, current: &CurrentState, user: &IamUser) -> Vec<String> {
    let is_carried = |key: &String| user.tags.keys().any(|other| other.to_lowercase() == key.to_lowercase());
    let is_declared = |key: &String| desired.tags.contains_key(key);
    current.hints.tag_keys.iter().filter(|key| is_declared(key) || is_carried(key)).cloned().collect()
}

fn access_keys(
    input: &StatusInput<'_>,
    current: &CurrentState,
    user: &IamUser,
    known: &[AccessKeyStatus],
) -> Vec<AccessKeyStatus> {
    let published = current.verified();
    let mut keys: Vec<AccessKeyStatus> = user
        .keys
        .iter()
        .map(|key| {
            let before = known.iter().find(|status| status.id == key.id);
            let state = match before {
                Some(before) if current.secrets_unread && key.active => before.state,
                _ => key_state(current, user, key),
            };
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
/// used is reported before its hold ends, although no condition is False yet. Warnings about policies are reported when they
/// change, so once per edit of a document.
pub(super) fn condition_events(
    before_status: Option<&AwsDeployUserStatus>,
    after: &AwsDeployUserStatus,
) -> Vec<PendingEvent> {
    let before = before_status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut events: Vec<PendingEvent> = Vec::new();
    for kind in ConditionType::VARIANTS.iter().copied() {
        let Some(new) = conditions::find(&after.conditions, kind) else { continue };
        if new.status != "False" && new.reason != Reason::StillUsed.as_str() {
            continue;
        }
        let Ok(reason) = new.reason.parse::<Reason>() else { continue };
        let is_progress = matches!(reason, Reason::Pending | Reason::Deleting);
        let is_unchanged =
            conditions::find(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        if !is_progress && !is_unchanged && !events.iter().any(|event| event.reason == reason) {
            let is_declared = matches!(reason, Reason::CredentialsRevoked | Reason::Paused);
            events.push(PendingEvent { reason, note: new.message.clone(), warning: !is_declared });
        }
    }
    events.extend(versions_of_others(before_status, after));
    let warnings = &after.policy_warnings;
    if !warnings.is_empty() && before_status.is_none_or(|before| before.policy_warnings != *warnings) {
        events.push(PendingEvent { reason: Reason::PolicyWarning, note: warnings.join("; "), warning: true });
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

/// The back-off that another process left unfinished. A changed spec and a deletion are tried at once.
pub(super) fn recorded_backoff(user: &AwsDeployUser, input: &DelayInput) -> Backoff {
    let is_current = |status: &&AwsDeployUserStatus| {
        status.observed_generation == user.metadata.generation && user.metadata.deletion_timestamp.is_none()
    };
    let status = user.status.as_ref().filter(is_current);
    let failing =
        status.into_iter().flat_map(|status| &status.conditions).filter(|condition| condition.status != "True");
    let failures = failing.filter_map(|condition| {
        let scope = match condition.type_.parse().ok()? {
            _ if condition.status == "Unknown" => FailureScope::Observation,
            ConditionType::UserSynced => FailureScope::User,
            ConditionType::KeyPublished | ConditionType::RotationHealthy => FailureScope::Key,
            ConditionType::Ready
            | ConditionType::Authorized
            | ConditionType::Reconciling
            | ConditionType::Stalled
            | ConditionType::Paused => return None,
        };
        let reason: Reason = condition.reason.parse().ok()?;
        let class = backoff::waiting_class(reason)?;
        let transient = matches!(class, ErrorClass::Throttled | ErrorClass::Transient);
        Some(ReconcileFailure { scope, note: Note::new(reason, condition.message.clone()), class, transient })
    });
    Backoff::restore(AttemptKey::new(user), status.and_then(|status| status.failing_since), failures, input)
}

/// Whether the resource at its present generation was Ready when its status was written. A transient failure does not make it
/// not Ready: it says nothing about the user.
pub(super) fn was_ready(user: &AwsDeployUser) -> bool {
    user.status.as_ref().is_some_and(|status| {
        status.observed_generation == user.metadata.generation
            && conditions::find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    /// A resource that has failed for a minute.
    fn failed() -> AwsDeployUser {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1", "generation": 2}, "spec": {},
            "status": {
                "observedGeneration": 2, "failingSince": "2026-11-21T09:59:00Z",
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
            policy_warnings: None,
            class: None,
            class_is_missing: false,
            plan: Some(&plan),
            current: None,
            failures: Vec::new(),
            failing_since: None,
            authorization: Note::new(Reason::Allowed, ""),
            now: now(),
        })
    }

    #[test]
    fn operator_restart_keeps_back_off_of_unchanged_resource() {
        let input = DelayInput { now: now(), permille: 0, slow_resync: jiff::SignedDuration::from_mins(10) };
        let left = |user: &AwsDeployUser| {
            recorded_backoff(user, &input).next_retry(&input).map(|until| until.duration_since(now()).as_mins())
        };
        assert_eq!(left(&failed()), Some(29));
        let failure = recorded_backoff(&failed(), &input).failure(FailureScope::Key).cloned().unwrap();
        assert_eq!((failure.note.reason, failure.note.message.as_str()), (Reason::LimitExceeded, "quota"));
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
        let after_state = |current: &CurrentState, plan: &Plan| {
            status(&StatusInput {
                user: &user,
                target: &Target::from_resource(&user, "cluster").unwrap(),
                desired: None,
                policy_warnings: None,
                class: None,
                class_is_missing: false,
                plan: Some(plan),
                current: Some(current),
                failures: Vec::new(),
                failing_since: None,
                authorization: Note::new(Reason::Allowed, ""),
                now: now(),
            })
            .user
        };
        let after =
            |user_absence, plan: &Plan| after_state(&CurrentState { user_absence, ..CurrentState::empty(now()) }, plan);
        let idle = Plan::idle(Note::new(Reason::Revoked, ""));
        let busy = Plan { effects: vec![Effect::DeleteSecret], ..idle.clone() };
        let bound = UserStatus { name: "u".into(), account: "123456789012".into(), ..UserStatus::default() };
        assert_eq!(after(None, &idle), Some(bound.clone()));
        let unseen = Some(UserAbsence::NotObserved { since: now() });
        assert_eq!(after(unseen, &idle), Some(bound.clone()), "IAM may not list it yet");
        assert_eq!(after(Some(UserAbsence::Removed), &busy), Some(bound.clone()), "its Secret is left");
        assert_eq!(after(Some(UserAbsence::Removed), &idle), None);
        let removed = || CurrentState { user_absence: Some(UserAbsence::Removed), ..CurrentState::empty(now()) };
        let policies = managed_policy::CurrentPolicies::unread;
        assert_eq!(after_state(&CurrentState { policies: policies(), ..removed() }, &idle), Some(bound.clone()));
        assert_eq!(after_state(&CurrentState { secrets_unread: true, ..removed() }, &idle), Some(bound.clone()));
        let mut recorded = removed();
        recorded
            .hints
            .policies
            .insert("arn:aws:iam::1:policy/u/u+s3".to_owned(), managed_policy::RecordedPolicy::default());
        assert_eq!(after_state(&recorded, &idle), Some(bound), "a policy is left");
    }

    #[test]
    fn unread_secrets_and_a_missing_class_keep_their_records() {
        let mut user = failed();
        user.spec.console = serde_json::from_value(json!({})).unwrap();
        let before = user.status.as_mut().unwrap();
        before.secret_name = Some("keys".into());
        let class =
            json!({"name": "c", "generation": 1, "onRevoked": "Deactivate", "missingSince": "2026-11-21T09:59:00Z"});
        before.class = serde_json::from_value(class).unwrap();
        let plan = Plan::idle(Note::new(Reason::Pending, ""));
        let after = |unread: bool| {
            let current = CurrentState { secrets_unread: unread, ..CurrentState::empty(now()) };
            status(&StatusInput {
                user: &user,
                target: &Target::from_resource(&user, "cluster").unwrap(),
                desired: None,
                policy_warnings: None,
                class: None,
                class_is_missing: unread,
                plan: Some(&plan),
                current: Some(&current),
                failures: Vec::new(),
                failing_since: None,
                authorization: Note::new(Reason::Allowed, ""),
                now: now(),
            })
        };
        assert_eq!(after(true).secret_name.as_deref(), Some("keys"));
        assert_eq!(after(false).secret_name, None, "the console needs no Secret for a key");
        let missing_since = |status: AwsDeployUserStatus| status.class.unwrap().missing_since;
        assert_eq!(missing_since(after(true)), Some(now() - SignedDuration::from_mins(1)));
        assert_eq!(missing_since(after(false)), None, "the class is there again");
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

    #[test]
    fn versions_of_others_are_reported_once() {
        let with = |others: &[&str]| {
            let record = managed_policy::RecordedPolicy {
                id: Some("ANPA1".into()),
                other_versions: others.iter().map(|version| (*version).to_owned()).collect(),
                ..Default::default()
            };
            let records = [("arn:aws:iam::123456789012:policy/u/u+s3".to_owned(), record)].into();
            AwsDeployUserStatus { policies: managed_policy::status([], &records), ..Default::default() }
        };
        let notes = |before: Option<&AwsDeployUserStatus>, after: &AwsDeployUserStatus| -> Vec<String> {
            condition_events(before, after).into_iter().map(|event| event.note).collect()
        };
        let [note] = &notes(None, &with(&["v3"]))[..] else { panic!("one Event") };
        assert!(
            note.contains("v3 of arn:aws:iam::123456789012:policy/u/u+s3") && note.contains("IAM allows 5"),
            "{note}"
        );
        assert!(notes(Some(&with(&["v3"])), &with(&["v3"])).is_empty());
        assert!(notes(Some(&with(&["v3"])), &with(&[])).is_empty());
        assert_eq!(notes(Some(&with(&["v3"])), &with(&["v3", "v4"])).len(), 1);
    }
}
