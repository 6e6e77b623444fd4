//! What to do for a resource that is being deleted. Every step can be repeated.

use jiff::Timestamp;

use super::{Effect, Note, Plan, RetireReason, rotation, user::is_consent_to};
use crate::{
    api::{Reason, user::DeletionPolicy, well_known},
    domain::{
        console::ConsoleSecret,
        current_state::{CurrentState, IamUser, JournalSecret, PublishedSecret, UserAbsence},
        dates::saturating_add,
        journal::{AttemptPhase, Journal},
        owner::{Owner, Ownership, key_tag},
        policy,
        settings::Settings,
        target::Target,
    },
};

/// Decides what to do for a resource that is being deleted.
///
/// Keys that others made on our user are found before anything is taken from the user: then the
/// deletion waits and says so, unless the policy is `Force`.
#[must_use]
pub fn plan_cleanup(
    target: &Target,
    policy: DeletionPolicy,
    current: &CurrentState,
    now: Timestamp,
    settings: &Settings,
) -> Plan {
    let mut plan = Plan::idle(Note::new(Reason::Deleting, "the resource is being deleted"));
    if !current.finalizer {
        return plan;
    }
    let scene = CleanupInput { policy, current, now, settings };
    match scene.decide(target) {
        Ok(effect) => plan.effects.push(effect),
        Err((requeue_at, note)) => {
            plan.requeue_at = requeue_at;
            plan.user = Some(note);
        }
    }
    plan
}

/// What the rules look at.
pub(super) struct CleanupInput<'a> {
    pub(super) policy: DeletionPolicy,
    pub(super) current: &'a CurrentState,
    pub(super) now: Timestamp,
    pub(super) settings: &'a Settings,
}

pub(super) type Verdict = Result<Effect, (Option<Timestamp>, Note)>;

impl CleanupInput<'_> {
    fn decide(&self, target: &Target) -> Verdict {
        let user = self.current.user().filter(|user| target.owner.classify(&user.tags) == Ownership::Ours);
        match (user, self.policy) {
            (Some(user), DeletionPolicy::Retain) => {
                self.end_attempt(user).unwrap_or_else(|| Ok(self.retain(&target.owner, user)))
            }
            (Some(user), DeletionPolicy::Delete) => self.end_attempt(user).unwrap_or_else(|| self.delete(user, false)),
            (Some(user), DeletionPolicy::Force) => self.delete(user, true),
            (None, policy) => match self.absent_until() {
                Some(due) => {
                    let message = format!(
                        "{}, so it is asked once more after a safe waiting time before the resource goes",
                        unseen(target)
                    );
                    Err((Some(due), Note::new(Reason::Deleting, message)))
                }
                None => Ok(self.leave(policy)),
            },
        }
    }

    /// Brings an attempt under way to an end, so that its key is known: published, or deleted.
    pub(super) fn end_attempt(&self, user: &IamUser) -> Option<Verdict> {
        let JournalSecret::Attempt { attempt, journal: Journal { phase, started_at, .. } } = &self.current.journal
        else {
            return None;
        };
        let published = self.current.published();
        let is_published = |id: &str| published.is_some_and(|facts| facts.key_id == id);
        Some(match phase {
            AttemptPhase::Intent { known } => {
                let due = saturating_add(*started_at, self.settings.recovery_delay);
                if self.now < due {
                    let message =
                        "an attempt to make an access key was cut off; the deletion goes on after a safe waiting time";
                    return Some(Err((Some(due), Note::new(Reason::Recovering, message))));
                }
                let orphans = rotation::orphans(self.current, user, known, *started_at);
                Ok(Effect::AbandonAttempt { orphans, failed: false })
            }
            AttemptPhase::Keyed { key_id, .. } if is_published(key_id) && !user.is_tagged(key_id) => {
                Ok(Effect::TagKey(key_id.clone()))
            }
            AttemptPhase::Keyed { key_id, .. } if is_published(key_id) => Ok(Effect::CloseJournal),
            AttemptPhase::Keyed { key_id, .. } => {
                Ok(Effect::AbandonAttempt { orphans: vec![key_id.clone()], failed: false })
            }
            AttemptPhase::Abandoned { orphans } => {
                if let Some(facts) = published {
                    if orphans.contains(&facts.key_id) && !user.is_tagged(&facts.key_id) {
                        return Some(Ok(Effect::TagKey(facts.key_id.clone())));
                    }
                    if facts.fence.as_ref() != Some(attempt) {
                        return Some(Ok(Effect::TouchPublished));
                    }
                }
                let orphan = orphans.iter().find(|id| !is_published(id) && !self.current.deleted_keys.contains(*id));
                Ok(orphan.map_or(Effect::CloseJournal, |id| Effect::DeleteKey(id.clone(), RetireReason::Orphan)))
            }
        })
    }

    pub(super) fn delete(&self, user: &IamUser, force: bool) -> Verdict {
        let foreign: Vec<&str> =
            user.keys.iter().filter(|key| !self.current.is_ours(&key.id)).map(|key| key.id.as_str()).collect();
        if !force && !foreign.is_empty() {
            return Err((
                None,
                Note::new(
                    Reason::ForeignKeys,
                    format!(
                        "the IAM user {} has access keys that this operator did not make: {}. Nothing is taken from the user. Delete these keys in AWS, or set spec.deletionPolicy to Force to have them removed too, or to Retain to leave the user",
                        user.name,
                        foreign.join(", ")
                    ),
                ),
            ));
        }
        if user.login_profile == Some(true) {
            return Ok(Effect::RemovePassword);
        }
        // All keys stop working before the first one is gone.
        if let Some(key) = user.keys.iter().find(|key| key.active) {
            return Ok(Effect::DeactivateKey(key.id.clone(), RetireReason::Cleanup));
        }
        if let Some(key) = user.keys.first() {
            return Ok(Effect::DeleteKey(key.id.clone(), RetireReason::Cleanup));
        }
        let Some(grants) = &user.grants else { return Ok(Effect::ReadGrants) };
        if let Some(arn) = grants.attached.iter().next() {
            return Ok(Effect::DetachPolicy(arn.clone()));
        }
        if let Some(name) = grants.inline.keys().next() {
            return Ok(Effect::DeleteInlinePolicy(name.clone()));
        }
        if let Some(group) = grants.groups.iter().next() {
            return Ok(Effect::RemoveFromGroup(group.clone()));
        }
        if let Some(leftover) = user.deletion_blockers.iter().flatten().next() {
            return Ok(Effect::RemoveDeletionBlocker(leftover.clone()));
        }
        Ok(Effect::DeleteUser)
    }

    fn retain(&self, owner: &Owner, user: &IamUser) -> Effect {
        // Our marks alone: tags that were declared, the console's descriptions and the keys stay.
        // So does the consent of an AWS admin that another resource takes the user over.
        let ours = |(key, value): &(&String, &String)| {
            let consent = key.eq_ignore_ascii_case(well_known::TAG_ADOPTABLE_BY);
            key.to_lowercase().starts_with(well_known::TAG_PREFIX) && (!consent || is_consent_to(owner, key, value))
        };
        let marks: std::collections::BTreeSet<String> =
            user.tags.iter().filter(ours).map(|(key, _)| key.clone()).collect();
        // The Secret first: once the user is unmarked, a repeated pass would not know it as ours.
        if matches!(self.current.published, PublishedSecret::Ours(_)) {
            return Effect::ReleaseSecret;
        }
        if matches!(self.current.console, ConsoleSecret::Ours(_)) {
            return Effect::ReleaseConsoleSecret;
        }
        debug_assert!(marks.iter().any(|key| !key.starts_with(&key_tag(""))), "an owned user carries ownership tags");
        Effect::UntagUser(marks)
    }

    /// `NoSuchEntity` may be an answer of before the user was made, or a user without our marks one of before it was
    /// adopted. Nothing that proves what is ours is let go before IAM has said so for longer than its answers are old: this
    /// is until when.
    pub(super) fn absent_until(&self) -> Option<Timestamp> {
        let since = match self.current.user_absence {
            Some(UserAbsence::Removed) => return None,
            Some(UserAbsence::NotObserved { since }) => since.min(self.now),
            None => self.now,
        };
        Some(saturating_add(since, self.settings.recovery_delay)).filter(|due| self.now < *due)
    }

    /// Nothing of ours is left in AWS.
    fn leave(&self, policy: DeletionPolicy) -> Effect {
        match (&self.current.published, &self.current.journal) {
            (PublishedSecret::Ours(_), _) if policy == DeletionPolicy::Retain => Effect::ReleaseSecret,
            (PublishedSecret::Ours(_), _) => Effect::DeleteSecret,
            _ if matches!(self.current.console, ConsoleSecret::Ours(_)) => match policy {
                DeletionPolicy::Retain => Effect::ReleaseConsoleSecret,
                DeletionPolicy::Delete | DeletionPolicy::Force => Effect::DeleteConsoleSecret,
            },
            (_, JournalSecret::Attempt { .. }) => Effect::CloseJournal,
            _ => Effect::RemoveFinalizer,
        }
    }
}

/// Why a user that is not there may be there.
pub(super) fn unseen(target: &Target) -> String {
    format!("IAM shows no user {} of this resource. Its answers may be older than the user", target.user_name)
}

/// The policies and groups that a resource declares, as a first guess of what hangs on its user: removing
/// them costs no read, and `DeleteUser` tells if there is more.
#[must_use]
pub fn declared_grants(user: &crate::api::AwsDeployUser, partition: &str) -> crate::domain::current_state::Grants {
    let policies = &user.spec.policies;
    // It comes with a password that has to be changed, unless the account lets everybody do that: then there is
    // nothing to detach, which is no error.
    let change = user.spec.console.as_ref().filter(|console| console.password_reset_required);
    let change = change.map(|_| policy::managed_arn("IAMUserChangePassword", partition));
    crate::domain::current_state::Grants {
        attached: policies.managed.iter().map(|name| policy::managed_arn(name, partition)).chain(change).collect(),
        // Their names are enough; what a template made is known to its class alone.
        inline: policies
            .inline
            .iter()
            .map(|inline| (inline.name.clone(), inline.document.clone().unwrap_or_default()))
            .collect(),
        groups: user.spec.groups.iter().cloned().collect(),
    }
}
