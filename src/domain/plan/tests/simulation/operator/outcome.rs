//! What a reconcile reports: failures and the status.

use super::*;

pub(super) fn failure(fail: CallError, scope: FailureScope) -> ReconcileFailure {
    let class = class(fail);
    ReconcileFailure { scope, note: Note::new(Reason::Conflict, format!("{fail:?}")), class, transient: true }
}

fn class(fail: CallError) -> ErrorClass {
    match fail {
        CallError::Crash | CallError::Lost | CallError::NotAccepted | CallError::NoSuchEntity => ErrorClass::Transient,
        CallError::AlreadyExists | CallError::Conflict | CallError::NotFound | CallError::Undone => {
            ErrorClass::Conflict
        }
        CallError::Invalid | CallError::DeleteConflict => ErrorClass::Terminal,
        CallError::Limit => ErrorClass::Limit,
        CallError::Throttled => ErrorClass::Throttled,
    }
}

pub(super) fn report(status: &mut Status, cloud: &Cloud, current: &CurrentState, since: Option<Timestamp>) {
    status.generation = cloud.resource.metadata.generation;
    if let Some(user) = current.user() {
        status.user_id = Some(user.id.clone());
        status.tag_keys = cloud.resource.spec.tags.keys().filter(|key| user.tags.contains_key(*key)).cloned().collect();
        let inactive = user.keys.iter().filter(|key| !key.active);
        let since = |id: &String| status.inactive_since.get(id).copied().unwrap_or(floor(cloud.now));
        status.inactive_since = inactive.map(|key| (key.id.clone(), since(&key.id))).collect();
    }
    status.repairs = current.hints.repairs;
    status.last_attempt = current.last_attempt();
    status.last_rotation = current.verified().map(|facts| facts.published_at).or(status.last_rotation);
    status.failing_since = since.map(floor);
}
