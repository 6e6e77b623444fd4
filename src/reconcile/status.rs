//! The report step: status and Events, after every pass, also after a failed one.

use jiff::Timestamp;

use super::error::ReconcileError;
use crate::{
    api::{
        AwsDeployUser, AwsDeployUserStatus, Condition, ConditionType, Reason,
        user::{AccessKeyState, AccessKeyStatus, ClassReference, UserStatus},
        well_known,
    },
    cluster::PendingEvent,
    domain::{
        backoff,
        conditions::{self, ReconcileFailure, ReconcileOutcome},
        current_state::{AccessKey, CurrentState, CurrentUser, IamUser},
        desired::Desired,
        plan::{Note, Plan},
        target::Target,
    },
};

/// What a pass has to report on.
pub(super) struct Account<'a> {
    pub(super) user: &'a AwsDeployUser,
    pub(super) target: &'a Target,
    pub(super) desired: Option<&'a Desired>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) current: Option<&'a CurrentState>,
    pub(super) failures: Vec<ReconcileFailure>,
    /// A failure of this very pass, not one that is still being waited out.
    pub(super) failed_now: bool,
    /// The class that allows the resource, if one does.
    pub(super) class: Option<&'a ClassReference>,
    pub(super) authorization: Note,
    pub(super) now: Timestamp,
}

/// The status after this pass.
pub(super) fn status(account: &Account<'_>) -> AwsDeployUserStatus {
    let before = account.user.status.clone().unwrap_or_default();
    let generation = account.user.metadata.generation;
    let was_ready = before.observed_generation == generation
        && condition(&before.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True");
    let outcome = ReconcileOutcome {
        plan: account.plan,
        current: account.current,
        failures: &account.failures,
        authorization: account.authorization.clone(),
        unfinished: account.plan.is_some_and(|plan| plan.effects.iter().any(crate::domain::plan::Effect::is_user_sync)),
    };
    let mut findings = conditions::evaluate(&outcome, was_ready);
    conditions::keep_failure_message(&mut findings, &before.conditions);
    let conditions = conditions::to_conditions(findings, &before.conditions, generation, account.now);
    let mut after = AwsDeployUserStatus { observed_generation: generation, conditions, ..before };
    if let Some(class) = account.class {
        after.class = Some(class.clone());
        after.revocation = None;
    }
    if let Some(current) = account.current {
        observed(&mut after, account, current);
    }
    if account.failed_now {
        after.failed_attempts = after.failed_attempts.saturating_add(1);
        after.last_failure_time = Some(floor(account.now));
    } else if account.failures.is_empty() && account.plan.is_none_or(|plan| plan.rotation.reason != Reason::BackingOff)
    {
        // A pass that only waited was no success.
        after.failed_attempts = 0;
    }
    after
}

fn observed(after: &mut AwsDeployUserStatus, account: &Account<'_>, current: &CurrentState) {
    let known: Vec<AccessKeyStatus> = std::mem::take(&mut after.access_keys);
    match &current.iam {
        CurrentUser::Found(user)
            if account.target.owner.classify(&user.tags) == crate::domain::owner::Ownership::Ours =>
        {
            let tag_keys = match account.desired {
                Some(desired) => declared_tags(desired, user),
                None => after.user.take().map(|user| user.tag_keys).unwrap_or_default(),
            };
            after.user =
                Some(UserStatus { name: user.name.clone(), arn: user.arn.clone(), id: user.id.clone(), tag_keys });
            after.access_keys = keys(account, current, user, &known);
        }
        CurrentUser::Found(_) | CurrentUser::Absent => after.user = None,
    }
    let published = current.published();
    // Without a key in the spec a Secret that is gone is not one that is missing.
    let withdrawn = account.user.spec.effective_access_key().is_none();
    if published.is_some() || after.secret_name.is_none() || withdrawn {
        after.secret_name = published.map(|_| account.target.secret_name.clone());
    }
    after.last_rotation_time =
        published.map(|facts| facts.published_at).or(after.last_rotation_time.filter(|_| !withdrawn));
    after.next_rotation_time = account.plan.and_then(|plan| plan.next_rotation);
}

/// Tags of resource and class that the user carries now, so that one that is no longer declared can be told from somebody else's.
fn declared_tags(desired: &Desired, user: &IamUser) -> Vec<String> {
    let declared = desired.tags.keys().filter(|key| !key.starts_with(well_known::TAG_PREFIX));
    let carried = |key: &&String| user.tags.keys().any(|other| other.to_lowercase() == key.to_lowercase());
    declared.filter(carried).cloned().collect()
}

fn keys(
    account: &Account<'_>,
    current: &CurrentState,
    user: &IamUser,
    known: &[AccessKeyStatus],
) -> Vec<AccessKeyStatus> {
    let published = current.published();
    let mut keys: Vec<AccessKeyStatus> = user
        .keys
        .iter()
        .map(|key| {
            let state = state(current, user, key);
            let before = known.iter().find(|status| status.id == key.id);
            let superseded_at =
                published.map(|facts| facts.published_at).filter(|_| state == AccessKeyState::Superseded);
            AccessKeyStatus {
                id: key.id.clone(),
                state,
                created_at: Some(key.created_at),
                superseded_at,
                retires_at: account.plan.and_then(|plan| plan.deactivate_at.get(&key.id).copied()),
                inactive_since: (!key.active)
                    .then(|| noted_inactive(before, account.now).unwrap_or(floor(account.now))),
                // What was heard before a restart still holds.
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

/// Since when the key was seen Inactive. A time of the future was noted before the clock was set back; the waiting time
/// begins anew rather than never to end.
fn noted_inactive(before: Option<&AccessKeyStatus>, now: Timestamp) -> Option<Timestamp> {
    before?.inactive_since.filter(|since| *since <= now)
}

fn state(current: &CurrentState, user: &IamUser, key: &AccessKey) -> AccessKeyState {
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

/// What the flips of conditions have to say: one Event for each turn for the worse, none while it stays bad. A key that
/// is used although it should not be is no turn for the worse yet, and somebody has to know before it is one.
pub(super) fn news(before: Option<&AwsDeployUserStatus>, after: &AwsDeployUserStatus) -> Vec<PendingEvent> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut told: Vec<PendingEvent> = Vec::new();
    for kind in ConditionType::ALL {
        let Some(new) = condition(&after.conditions, kind) else { continue };
        if new.status != "False" && new.reason != Reason::StillUsed.as_str() {
            continue;
        }
        let Some(reason) = Reason::named(&new.reason) else { continue };
        let idle = matches!(reason, Reason::Pending | Reason::Deleting | Reason::BackingOff);
        let same = condition(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        if !idle && !same && !told.iter().any(|news| news.reason == reason) {
            told.push(PendingEvent { reason, note: new.message.clone(), warning: reason != Reason::Suspended });
        }
    }
    told
}

/// What was done in this pass, changes of user and policies in one sentence.
pub(super) fn deeds(mut news: Vec<PendingEvent>, drift: bool) -> Vec<PendingEvent> {
    let changes: Vec<String> =
        news.iter().filter(|news| news.reason == Reason::UserChanged).map(|news| news.note.clone()).collect();
    news.retain(|news| news.reason != Reason::UserChanged);
    // What an adopted user loses was told before; nobody has tampered with it.
    let drift = drift && news.iter().all(|news| news.reason != Reason::UserAdopted);
    if !changes.is_empty() {
        let why = if drift { "changed in AWS by somebody else, put back as declared: " } else { "" };
        news.push(PendingEvent {
            reason: Reason::UserChanged,
            note: format!("{why}{}", changes.join("; ")),
            warning: drift,
        });
    }
    news
}

fn condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Until when a resource rests that another process left in the middle of a back-off.
pub(super) fn backoff_until(user: &AwsDeployUser, permille: i32, now: Timestamp) -> Option<Timestamp> {
    let status = user.status.as_ref()?;
    // A change of the spec is a new chance, and a deletion is not about what failed.
    if status.observed_generation != user.metadata.generation || user.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let bad = status.conditions.iter().filter(|condition| condition.status != "True");
    let reasons = bad.filter_map(|condition| Reason::named(&condition.reason));
    let failures = u32::try_from(status.failed_attempts).unwrap_or(0);
    backoff::backoff_until(reasons, failures, status.last_failure_time?, permille, now)
}

/// Whether the resource as it is now was Ready when its status was written. A fault that passes does not count: it is no word
/// about the user.
pub(super) fn was_ready(user: &AwsDeployUser) -> bool {
    user.status.as_ref().is_some_and(|status| {
        status.observed_generation == user.metadata.generation
            && condition(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
    })
}

/// The failures as conditions see them, worst news first.
pub(super) fn failures(errors: &[(ReconcileError, conditions::FailureScope)]) -> Vec<ReconcileFailure> {
    errors.iter().map(|(error, about)| error.failure(*about)).collect()
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

    /// A resource whose last pass failed three times, a minute ago.
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
        status(&Account {
            user,
            target: &Target::from_resource(user, "cluster").unwrap(),
            desired: None,
            class: None,
            plan: Some(&plan),
            current: None,
            failures: Vec::new(),
            failed_now: false,
            authorization: Note::new(Reason::Allowed, ""),
            now: now(),
        })
    }

    #[test]
    fn a_pass_that_waits_out_a_failure_is_no_success() {
        let waited = after(&failed(), Reason::BackingOff);
        assert_eq!(waited.failed_attempts, 3);
        let rotation = condition(&waited.conditions, ConditionType::RotationHealthy).unwrap();
        assert_eq!((rotation.reason.as_str(), rotation.message.as_str()), ("LimitExceeded", "quota"));
        assert_eq!(after(&failed(), Reason::Scheduled).failed_attempts, 0);
    }

    #[test]
    fn a_restart_rests_until_the_pause_is_over_unless_the_resource_changed() {
        let left =
            |user: &AwsDeployUser| backoff_until(user, 0, now()).map(|until| until.duration_since(now()).as_mins());
        assert_eq!(left(&failed()), Some(29));
        let mut changed = failed();
        changed.metadata.generation = Some(3);
        assert_eq!(left(&changed), None);
        let mut leaving = failed();
        leaving.metadata.deletion_timestamp = Some(crate::api::Time(now()));
        assert_eq!(left(&leaving), None);
        let mut mended = failed();
        mended.status.as_mut().unwrap().conditions[0].status = "True".to_owned();
        assert_eq!(left(&mended), None);
    }

    #[test]
    fn a_key_in_use_is_told_once_although_nothing_is_bad_yet() {
        let used = after(&failed(), Reason::StillUsed);
        let told = |before: Option<&AwsDeployUserStatus>| {
            let news = news(before, &used);
            news.iter().filter(|piece| piece.reason == Reason::StillUsed && piece.warning).count()
        };
        assert_eq!(told(failed().status.as_ref()), 1);
        assert_eq!(told(Some(&used)), 0);
    }
}
