//! What to do for a resource that is being deleted. Every step can be repeated.

use jiff::Timestamp;

use super::{Effect, Note, Plan, Why, rotation, user::is_consent_to};
use crate::{
    api::{Reason, mark, user::DeletionPolicy},
    domain::{
        console::ConsoleSecret,
        dates::later,
        journal::{Journal, Mode},
        owner::{Owner, Ownership, key_tag},
        policy,
        settings::Settings,
        target::Target,
        world::{IamUser, JournalSeen, NoUser, Published, World},
    },
};

/// How the resource leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// What happens in AWS.
    pub policy: DeletionPolicy,
}

/// Decides what to do for a resource that is being deleted.
///
/// Keys that others made on our user are found before anything is taken from the user: then the
/// deletion waits and says so, unless the policy is `Force`.
#[must_use]
pub fn cleanup(target: &Target, leaving: Leaving, world: &World, now: Timestamp, settings: &Settings) -> Plan {
    let mut plan = Plan::at_rest(Note::new(Reason::Deleting, "the resource is being deleted"));
    if !world.finalizer {
        return plan;
    }
    let scene = Scene { leaving, world, now, settings };
    match scene.decide(target) {
        Ok(effect) => plan.effects.push(effect),
        Err((wake_at, note)) => {
            plan.wake_at = wake_at;
            plan.user = Some(note);
        }
    }
    plan
}

/// What the rules look at.
pub(super) struct Scene<'a> {
    pub(super) leaving: Leaving,
    pub(super) world: &'a World,
    pub(super) now: Timestamp,
    pub(super) settings: &'a Settings,
}

pub(super) type Verdict = Result<Effect, (Option<Timestamp>, Note)>;

impl Scene<'_> {
    fn decide(&self, target: &Target) -> Verdict {
        let user = self.world.user().filter(|user| target.owner.of(&user.tags) == Ownership::Ours);
        match (user, self.leaving.policy) {
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
        let JournalSeen::Attempt { attempt, journal: Journal { mode, started_at, .. } } = &self.world.journal else {
            return None;
        };
        let published = self.world.published();
        let is_published = |id: &str| published.is_some_and(|facts| facts.key_id == id);
        Some(match mode {
            Mode::Intent { known } => {
                let due = later(*started_at, self.settings.intent_dwell);
                if self.now < due {
                    let message =
                        "an attempt to make an access key was cut off; the deletion goes on after a safe waiting time";
                    return Some(Err((Some(due), Note::new(Reason::Recovering, message))));
                }
                let orphans = rotation::orphans(self.world, user, known, *started_at);
                Ok(Effect::AbandonAttempt { orphans, failed: false })
            }
            Mode::Keyed { key_id, .. } if is_published(key_id) && !user.is_tagged(key_id) => {
                Ok(Effect::TagKey(key_id.clone()))
            }
            Mode::Keyed { key_id, .. } if is_published(key_id) => Ok(Effect::CloseJournal),
            Mode::Keyed { key_id, .. } => Ok(Effect::AbandonAttempt { orphans: vec![key_id.clone()], failed: false }),
            Mode::Abandoned { orphans } => {
                if let Some(facts) = published {
                    if orphans.contains(&facts.key_id) && !user.is_tagged(&facts.key_id) {
                        return Some(Ok(Effect::TagKey(facts.key_id.clone())));
                    }
                    if facts.fence.as_ref() != Some(attempt) {
                        return Some(Ok(Effect::TouchPublished));
                    }
                }
                let orphan = orphans.iter().find(|id| !is_published(id) && !self.world.gone.contains(*id));
                Ok(orphan.map_or(Effect::CloseJournal, |id| Effect::DeleteKey(id.clone(), Why::Orphan)))
            }
        })
    }

    pub(super) fn delete(&self, user: &IamUser, force: bool) -> Verdict {
        let foreign: Vec<&str> =
            user.keys.iter().filter(|key| !self.world.is_ours(&key.id)).map(|key| key.id.as_str()).collect();
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
        if user.login == Some(true) {
            return Ok(Effect::RemovePassword);
        }
        // All keys stop working before the first one is gone.
        if let Some(key) = user.keys.iter().find(|key| key.active) {
            return Ok(Effect::DeactivateKey(key.id.clone(), Why::Cleanup));
        }
        if let Some(key) = user.keys.first() {
            return Ok(Effect::DeleteKey(key.id.clone(), Why::Cleanup));
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
        if let Some(leftover) = user.leftovers.iter().flatten().next() {
            return Ok(Effect::RemoveLeftover(leftover.clone()));
        }
        Ok(Effect::DeleteUser)
    }

    fn retain(&self, owner: &Owner, user: &IamUser) -> Effect {
        // Our marks alone: tags that were declared, the console's descriptions and the keys stay.
        // So does the consent of an AWS admin that another resource takes the user over.
        let ours = |(key, value): &(&String, &String)| {
            let consent = key.eq_ignore_ascii_case(mark::TAG_ADOPTABLE_BY);
            key.to_lowercase().starts_with(mark::TAG_PREFIX) && (!consent || is_consent_to(owner, key, value))
        };
        let marks: std::collections::BTreeSet<String> =
            user.tags.iter().filter(ours).map(|(key, _)| key.clone()).collect();
        // The Secret first: once the user is unmarked, a repeated pass would not know it as ours.
        if matches!(self.world.published, Published::Ours(_)) {
            return Effect::ReleaseSecret;
        }
        if matches!(self.world.console, ConsoleSecret::Ours(_)) {
            return Effect::ReleaseConsoleSecret;
        }
        debug_assert!(marks.iter().any(|key| !key.starts_with(&key_tag(""))), "an owned user carries ownership tags");
        Effect::UntagUser(marks)
    }

    /// `NoSuchEntity` may be an answer of before the user was made, or a user without our marks one of before it was
    /// adopted. Nothing that proves what is ours is let go before IAM has said so for longer than its answers are old: this
    /// is until when.
    pub(super) fn absent_until(&self) -> Option<Timestamp> {
        let since = match self.world.no_user {
            Some(NoUser::Removed) => return None,
            Some(NoUser::Unseen { since }) => since.min(self.now),
            None => self.now,
        };
        Some(later(since, self.settings.intent_dwell)).filter(|due| self.now < *due)
    }

    /// Nothing of ours is left in AWS.
    fn leave(&self, policy: DeletionPolicy) -> Effect {
        match (&self.world.published, &self.world.journal) {
            (Published::Ours(_), _) if policy == DeletionPolicy::Retain => Effect::ReleaseSecret,
            (Published::Ours(_), _) => Effect::DeleteSecret,
            _ if matches!(self.world.console, ConsoleSecret::Ours(_)) => match policy {
                DeletionPolicy::Retain => Effect::ReleaseConsoleSecret,
                DeletionPolicy::Delete | DeletionPolicy::Force => Effect::DeleteConsoleSecret,
            },
            (_, JournalSeen::Attempt { .. }) => Effect::CloseJournal,
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
pub fn declared_grants(user: &crate::api::AwsDeployUser, partition: &str) -> crate::domain::world::Grants {
    let policies = &user.spec.policies;
    // It comes with a password that has to be changed, unless the account lets everybody do that: then there is
    // nothing to detach, which is no error.
    let change = user.spec.console.as_ref().filter(|console| console.password_reset_required);
    let change = change.map(|_| policy::managed_arn("IAMUserChangePassword", partition));
    crate::domain::world::Grants {
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
