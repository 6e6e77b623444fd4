//! Plans the deletion of a resource. Every step can be repeated.

use jiff::Timestamp;

use super::{
    Effect, Note, Plan, policies,
    rules::{self, Mode, RULES, RuleInput, Step, first_step},
};
use crate::{
    api::{
        AwsDeployUser, Reason,
        user::{DeletionPolicy, PolicyKind},
    },
    domain::{
        console::ConsoleSecret,
        current_state::{CurrentState, Grants, JournalSecret, PublishedSecret, UserAbsence},
        dates::saturating_add,
        policy,
        settings::Settings,
        target::Target,
    },
};

/// Plans a resource that is being deleted.
#[must_use]
pub fn plan_cleanup(
    target: &Target,
    policy: DeletionPolicy,
    current: &CurrentState,
    now: Timestamp,
    settings: &Settings,
) -> Plan {
    let plan = Plan::idle(Note::new(Reason::Deleting, "the resource is being deleted"));
    if !current.finalizer {
        return plan;
    }
    let step = if let Some(user) = current.owned_user(&target.owner) {
        first_step(RULES, &RuleInput { target, mode: Mode::Deleting(policy), current, user, now, settings })
    } else if let Some(until) = absence_confirmed_at(current, now, settings) {
        Step::Wait(until, absence_note(target, Reason::Deleting, "the finalizer is removed"))
    } else if current.secrets_unread {
        Step::Hold(rules::unread_note())
    } else if let Some(step) = remaining_policy(current, policy, now, settings) {
        step
    } else {
        Step::Do(remaining_object(current, policy).unwrap_or(Effect::RemoveFinalizer))
    };
    plan.with_step(step)
}

/// When it is certain that IAM has no user of ours; `None` if it is already.
///
/// `NoSuchEntity` may be an answer from before the user was created, and a user without our tags one from before it was
/// adopted. No record of what is ours is deleted before IAM has given this answer for longer than its replication lag.
pub(super) fn absence_confirmed_at(current: &CurrentState, now: Timestamp, settings: &Settings) -> Option<Timestamp> {
    let since = match current.user_absence {
        Some(UserAbsence::Removed) => return None,
        Some(UserAbsence::NotObserved { since }) => since.min(now),
        None => now,
    };
    Some(saturating_add(since, settings.recovery_delay)).filter(|due| now < *due)
}

pub(super) fn absence_note(target: &Target, reason: Reason, next: &str) -> Note {
    Note::new(
        reason,
        format!(
            "IAM has no user {} of this resource, but its answer may be older than the user: IAM is read again before {next}",
            target.user_name
        ),
    )
}

/// Deletes or releases a managed policy that is left when no user of ours is.
pub(super) fn remaining_policy(
    current: &CurrentState,
    policy: DeletionPolicy,
    now: Timestamp,
    settings: &Settings,
) -> Option<Step> {
    let step = match policy {
        DeletionPolicy::Retain => policies::release(current, now, settings),
        DeletionPolicy::Delete | DeletionPolicy::Force => policies::remove_all(current, now, settings),
    };
    Some(step).filter(|step| *step != Step::Idle)
}

/// Deletes or releases an object that is left in Kubernetes when no user of ours is left in AWS.
pub(super) fn remaining_object(current: &CurrentState, policy: DeletionPolicy) -> Option<Effect> {
    let retain = policy == DeletionPolicy::Retain;
    match (&current.published, &current.console, &current.journal) {
        (PublishedSecret::Ours(_), ..) if retain => Some(Effect::ReleaseSecret),
        (PublishedSecret::Ours(_), ..) => Some(Effect::DeleteSecret),
        (_, ConsoleSecret::Ours(_), _) if retain => Some(Effect::ReleaseConsoleSecret),
        (_, ConsoleSecret::Ours(_), _) => Some(Effect::DeleteConsoleSecret),
        (.., JournalSecret::Attempt { .. } | JournalSecret::Unknown(_)) => Some(Effect::CloseJournal),
        _ => None,
    }
}

/// The policies and groups that a resource declares, as a first guess of what its user has: removing them costs no read,
/// and `DeleteUser` fails if there are more.
#[must_use]
pub fn declared_grants(user: &AwsDeployUser, partition: &str) -> Grants {
    let policies = &user.spec.policies;
    let recorded = user.status.iter().flat_map(|status| &status.policies);
    let recorded: Vec<_> = recorded.filter(|policy| policy.kind == PolicyKind::Managed).collect();
    // Attached with a password that must be changed, unless the account lets all users change theirs. Detaching it where it
    // is not attached is no error.
    let change = user.spec.console.as_ref().filter(|console| console.password_reset_required);
    let change = change.map(|_| policy::managed_arn("IAMUserChangePassword", partition));
    Grants {
        attached: policies
            .managed
            .iter()
            .map(|name| policy::managed_arn(name, partition))
            .chain(change)
            .chain(recorded.iter().filter_map(|policy| policy.arn.clone()))
            .collect(),
        // Only the names matter; documents from templates are known to the class alone.
        inline: policies
            .documents
            .iter()
            .filter(|declared| recorded.iter().all(|policy| policy.name != declared.name))
            .map(|declared| (declared.name.clone(), declared.document.clone().unwrap_or_default()))
            .collect(),
        groups: user.spec.groups.iter().cloned().collect(),
    }
}
