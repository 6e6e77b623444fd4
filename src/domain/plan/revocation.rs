//! What to do for a resource that no class allows any more. Nothing is granted, only taken; every step can be repeated.

use jiff::{SignedDuration, Timestamp};

use super::{
    Effect, Note, Plan, RetireReason,
    cleanup::{self, CleanupInput},
    rotation::quarantine,
};
use crate::{
    api::{Reason, class::OnRevoked, user::DeletionPolicy},
    domain::{
        authorize::Revocation,
        console::ConsoleSecret,
        current_state::{CurrentState, IamUser, JournalSecret, PublishedSecret},
        dates::saturating_add,
        desired::OnQuarantine,
        owner::Ownership,
        policy,
        settings::Settings,
        target::Target,
    },
};

/// How a resource that is not allowed is dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationPolicy {
    /// How far it goes, and why.
    pub revocation: Revocation,
    /// What the class that allowed the resource last says of a key in public.
    pub on_quarantine: OnQuarantine,
    /// `spec.suspend`: a person who revokes keys is not stopped by a class.
    pub suspend: bool,
    /// The overlap that was declared: an old key is retired also from a frozen user.
    pub overlap: SignedDuration,
}

/// Decides what to do for a resource that is not allowed and not being deleted.
#[must_use]
pub fn plan_revocation(
    target: &Target,
    revoked: &RevocationPolicy,
    current: &CurrentState,
    now: Timestamp,
    settings: &Settings,
) -> Plan {
    let note = revoked.note();
    let mut plan = Plan::idle(note.clone());
    plan.user = Some(note.clone());
    let scene = super::cleanup::CleanupInput { policy: DeletionPolicy::Delete, current, now, settings };
    let user = current.user().filter(|user| target.owner.classify(&user.tags) == Ownership::Ours);
    let step = match user {
        Some(user) => revoked.step(&scene, user),
        None if revoked.revocation.action == OnRevoked::Delete => match (leave(current), scene.absent_until()) {
            (Some(_), Some(due)) => {
                let message = format!(
                    "{}, so it is asked once more after a safe waiting time before its Secrets go",
                    cleanup::unseen(target)
                );
                Step::Wait(Some(due), Note::new(Reason::Revoked, message))
            }
            (left, _) => left.map_or(Step::Rest(None), Step::Do),
        },
        None => Step::Rest(None),
    };
    match step {
        Step::Do(effect) => plan.effects.push(effect),
        Step::Rest(requeue_at) => plan.requeue_at = requeue_at,
        Step::Wait(requeue_at, note) => {
            plan.requeue_at = requeue_at;
            plan.user = Some(note);
        }
    }
    // It is told whatever else is done about it, and before it.
    if let Some(note) = user.and_then(|user| revoked.quarantine_note(user, current)) {
        plan.user = Some(note);
    }
    let working = user
        .zip(current.published())
        .is_some_and(|(user, published)| published.intact && user.key(&published.key_id).is_some_and(|key| key.active));
    let compromised = user.filter(|user| revoked.is_compromised(user)).and(plan.user.clone());
    plan.key = (!working).then(|| compromised.unwrap_or(note));
    plan
}

enum Step {
    Do(Effect),
    Wait(Option<Timestamp>, Note),
    Rest(Option<Timestamp>),
}

impl RevocationPolicy {
    /// Whether the keys of this user have to go although it is only frozen. A freeze is for the consumers of a key; one that is
    /// in public has others. Where the class would have it replaced, it goes without a successor: a frozen user gets no key.
    #[must_use]
    pub fn is_compromised(&self, user: &IamUser) -> bool {
        self.on_quarantine != OnQuarantine::Alert && !quarantine::attached(user).is_empty()
    }

    fn quarantine_note(&self, user: &IamUser, current: &CurrentState) -> Option<Note> {
        let keys = match (self.suspend || self.is_compromised(user), self.revocation.action) {
            (_, OnRevoked::Deactivate | OnRevoked::Delete) | (true, OnRevoked::Freeze) => {
                "All keys of this operator on the user are Inactive, and none is made before a class allows the resource again"
            }
            (false, OnRevoked::Freeze) => {
                "Nothing was done about its keys (onQuarantine: Alert), and none is made, because the resource is frozen: set spec.suspend to true to make them Inactive"
            }
        };
        quarantine::note(user, keys, user.keys.iter().filter(|key| !current.is_ours(&key.id)))
    }

    fn step(&self, scene: &CleanupInput<'_>, user: &IamUser) -> Step {
        let compromised = self.is_compromised(user);
        let deactivates = self.suspend || self.revocation.action != OnRevoked::Freeze;
        if deactivates || compromised {
            let why = match (self.suspend, compromised) {
                (true, _) => RetireReason::Suspended,
                (false, true) => RetireReason::Quarantined,
                (false, false) => RetireReason::Revoked,
            };
            // All keys stop working before anything else is done.
            if let Some(key) = user.keys.iter().find(|key| key.active && scene.current.is_ours(&key.id)) {
                return Step::Do(Effect::DeactivateKey(key.id.clone(), why));
            }
            if deactivates && user.login_profile == Some(true) {
                return Step::Do(Effect::RemovePassword);
            }
        }
        if self.revocation.action == OnRevoked::Delete
            && let Some(effect) = strip(user)
        {
            return Step::Do(effect);
        }
        // A key that was not handed out yet is given up; one that was is marked as ours.
        match scene.end_attempt(user) {
            Some(Ok(effect)) => return Step::Do(effect),
            Some(Err((requeue_at, note))) => return Step::Wait(requeue_at, note),
            None => {}
        }
        match self.revocation.action {
            OnRevoked::Delete => match scene.delete(user, false) {
                Ok(effect) => Step::Do(effect),
                Err((requeue_at, note)) => Step::Wait(requeue_at, note),
            },
            OnRevoked::Freeze | OnRevoked::Deactivate => self.retire(scene, user),
        }
    }

    /// Sets an old key Inactive when its overlap is over. It is deleted once the resource is allowed again.
    fn retire(&self, scene: &CleanupInput<'_>, user: &IamUser) -> Step {
        let Some(published) = scene.current.published() else { return Step::Rest(None) };
        if !published.intact || !user.key(&published.key_id).is_some_and(|key| key.active) {
            return Step::Rest(None);
        }
        let superseded =
            user.keys.iter().filter(|key| key.active && key.id != published.key_id && user.is_tagged(&key.id));
        let publication_time = scene.current.publication_time(scene.now).unwrap_or(scene.now);
        let until = |created_at: Timestamp| saturating_add(publication_time.max(created_at), self.overlap);
        let next = superseded.map(|key| (until(key.created_at), key)).min_by_key(|(at, _)| *at);
        match next {
            Some((at, key)) if at <= scene.now => {
                Step::Do(Effect::DeactivateKey(key.id.clone(), RetireReason::OverlapEnded))
            }
            Some((at, _)) => Step::Rest(Some(at)),
            None => Step::Rest(None),
        }
    }

    /// What holds now, for conditions.
    #[must_use]
    pub fn note(&self) -> Note {
        let Revocation { action: how, reason: why } = &self.revocation;
        let because = why.as_ref().map(|why| format!(", because {why}")).unwrap_or_default();
        if self.suspend {
            return Note::new(Reason::Suspended, "spec.suspend is true: all access keys of this operator are Inactive");
        }
        match how {
            OnRevoked::Freeze => Note::new(
                Reason::Frozen,
                format!(
                    "frozen{because}: user and published key stay as they are and the key stays valid; nothing more is granted, and no new key is made"
                ),
            ),
            OnRevoked::Deactivate => Note::new(
                Reason::Revoked,
                format!("revoked (onRevoked: Deactivate){because}: all access keys of this operator are Inactive"),
            ),
            OnRevoked::Delete => {
                Note::new(Reason::Revoked, format!("revoked (onRevoked: Delete){because}: the IAM user is removed"))
            }
        }
    }
}

/// Takes away what the user may do. It comes before the user itself: keys that others made keep that, and nothing else.
fn strip(user: &IamUser) -> Option<Effect> {
    let Some(grants) = &user.grants else { return Some(Effect::ReadGrants) };
    let attached = grants.attached.iter().find(|arn| !policy::is_quarantine(arn));
    attached
        .map(|arn| Effect::DetachPolicy(arn.clone()))
        .or_else(|| grants.inline.keys().next().map(|name| Effect::DeleteInlinePolicy(name.clone())))
        .or_else(|| grants.groups.iter().next().map(|group| Effect::RemoveFromGroup(group.clone())))
}

/// What is left in Kubernetes when the user is gone. The finalizer stays: the resource does.
fn leave(current: &CurrentState) -> Option<Effect> {
    match (&current.published, &current.journal, &current.console) {
        (PublishedSecret::Ours(_), ..) => Some(Effect::DeleteSecret),
        (_, JournalSecret::Attempt { .. }, _) => Some(Effect::CloseJournal),
        (.., ConsoleSecret::Ours(_)) => Some(Effect::DeleteConsoleSecret),
        _ => None,
    }
}
