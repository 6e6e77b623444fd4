//! The input of the rules, and the facts that several of them derive from it.

use jiff::{SignedDuration, Timestamp};

use super::{Note, RetireReason, ending};
use crate::{
    api::{Reason, user::DeletionPolicy},
    domain::{
        current_state::{AccessKey, CurrentState, IamUser},
        dates::saturating_add,
        desired::{Desired, DesiredKey},
        plan::RevocationPolicy,
        secret::{Integrity, PublishedFacts},
        settings::Settings,
        target::Target,
    },
};

/// The input of the rules: what is wanted for an IAM user that is ours, and what was observed.
pub struct RuleInput<'a> {
    pub target: &'a Target,
    pub mode: Mode<'a>,
    pub current: &'a CurrentState,
    pub user: &'a IamUser,
    /// On AWS's clock.
    pub now: Timestamp,
    pub settings: &'a Settings,
}

/// What is wanted for a resource.
#[derive(Clone, Debug)]
pub enum Mode<'a> {
    /// The spec is valid and a class allows it.
    Live {
        desired: &'a Desired,
        /// Policies and tags match the spec. No first key is created or published before.
        user_ready: bool,
        /// Why the target Secret cannot be written.
        conflict: Option<Note>,
    },
    /// No class allows the resource, or its spec is invalid.
    Revoked(&'a RevocationPolicy),
    /// The resource is being deleted.
    Deleting(DeletionPolicy),
}

impl<'a> RuleInput<'a> {
    /// `None` unless the resource is live.
    pub(super) fn desired(&self) -> Option<&'a Desired> {
        if let Mode::Live { desired, .. } = self.mode { Some(desired) } else { None }
    }

    /// `None` also if no key is declared.
    pub(in crate::domain::plan) fn desired_key(&self) -> Option<&'a DesiredKey> {
        self.desired()?.key.as_ref()
    }

    pub(super) fn user_ready(&self) -> bool {
        matches!(self.mode, Mode::Live { user_ready: true, .. })
    }

    pub(super) fn conflict(&self) -> Option<&Note> {
        if let Mode::Live { conflict, .. } = &self.mode { conflict.as_ref() } else { None }
    }

    /// How long a superseded key stays Active; `None` where none is retired. The spec of a resource that no class allows, or
    /// that is invalid, says nothing; the tag of the user has what a class allowed last.
    pub(super) fn overlap(&self) -> Option<SignedDuration> {
        match &self.mode {
            Mode::Live { .. } => self.desired_key().map(|key| key.overlap),
            Mode::Revoked(_) => self.user.recorded_overlap(),
            Mode::Deleting(_) => None,
        }
    }
}

impl RuleInput<'_> {
    /// The published Secret, if its MAC is valid and IAM lists its key as Active. A key that was published a moment ago may be
    /// missing from IAM's list.
    pub(in crate::domain::plan) fn working(&self) -> Option<&PublishedFacts> {
        let published = self.current.verified()?;
        let (at, delay) = (self.current.publication_time(self.now)?, self.settings.recovery_delay);
        // A time in the future says nothing about the age of the key: the clock was set back since.
        let too_young_to_be_listed =
            self.listed_at() < saturating_add(at, delay) && published.published_at < saturating_add(self.now, delay);
        let alive = self.user.key(&published.key_id).map_or(too_young_to_be_listed, |key| key.active);
        alive.then_some(published)
    }

    /// The published Secret, if it has no valid MAC, and AWS decides whether its key is valid: IAM lists the key as one that
    /// the operator tagged, and AWS has not refused it twice.
    pub(super) fn unconfirmed(&self) -> Option<&PublishedFacts> {
        let published = self.current.published().filter(|facts| facts.integrity == Integrity::Unverified)?;
        let is_ours = self.user.is_tagged(&published.key_id);
        let is_active = self.user.key(&published.key_id).is_some_and(|key| key.active);
        (is_ours && is_active && !self.is_refused()).then_some(published)
    }

    /// AWS refused the key in the Secret at two times: a single refusal may be the lag of AWS.
    fn is_refused(&self) -> bool {
        self.current.secret_refusals.is_some_and(|refusals| {
            refusals.last_at.duration_since(refusals.first_at).abs() >= self.settings.verify_interval
        })
    }

    /// When IAM's list was read. What is missing from it is judged by this time, not by now: a reconcile may be slow.
    pub(super) fn listed_at(&self) -> Timestamp {
        self.current.keys_read_at.unwrap_or(self.now)
    }

    pub(in crate::domain::plan) fn foreign(&self) -> impl Iterator<Item = &AccessKey> {
        self.user.keys.iter().filter(|key| !self.current.is_ours(&key.id))
    }

    /// Why the published key is not usable, if it is not.
    pub(in crate::domain::plan) fn key_note(&self) -> Option<Note> {
        if let Some(conflict) = self.conflict() {
            return Some(conflict.clone());
        }
        match self.keyless_reason() {
            Some(RetireReason::Quarantined) => {
                return Some(Note::new(
                    Reason::Quarantined,
                    "AWS quarantines the user: the key in the Secret is Inactive",
                ));
            }
            Some(_) => {
                let message = if self.desired_key().is_some() {
                    "spec.credentials is Revoked: the key in the Secret is Inactive"
                } else {
                    "spec.credentials is Revoked: the user has no access"
                };
                return Some(Note::new(Reason::CredentialsRevoked, message));
            }
            None => {}
        }
        if let Some(note) = self.not_requested() {
            return Some(note);
        }
        if self.working().is_some() {
            return None;
        }
        Some(match self.current.published() {
            None if self.current.was_published() => {
                Note::new(Reason::Pending, format!("the Secret was deleted; {}", self.replacement()))
            }
            None => Note::new(Reason::Pending, "no access key is published yet"),
            Some(_) if self.unconfirmed().is_some() => Note::new(
                Reason::Pending,
                "the Secret was edited, or the MAC key of the operator was replaced; the Secret is signed again if AWS accepts its access key",
            ),
            Some(facts) if !facts.is_verified() => {
                Note::new(Reason::Pending, format!("the Secret was edited by hand; {}", self.replacement()))
            }
            Some(facts) => Note::new(
                Reason::Pending,
                format!("access key {} is not Active in IAM; {}", facts.key_id, self.replacement()),
            ),
        })
    }

    /// What a person has to fix before all consumers have the new key.
    pub(in crate::domain::plan) fn unfinished_note(&self) -> Option<Note> {
        let is_healthy = |reason| {
            matches!(reason, Reason::Restarting | Reason::AwaitingHandover | Reason::StillUsed | Reason::Overlap)
        };
        let mut notes =
            [self.restart_note(), self.handover_note(), self.hold_note()].into_iter().flatten().collect::<Vec<_>>();
        notes.retain(|note| !is_healthy(note.reason));
        // The reason decides about the Event: the end of a key is reported whatever else a person has to fix.
        notes.sort_by_key(|note| !ending::is_ending(note.reason));
        notes.into_iter().reduce(|first, second| {
            Note::new(first.reason, format!("{}. In addition: {}", first.message, second.message))
        })
    }

    /// The state of rotation while no step is due.
    pub(in crate::domain::plan) fn rotation_note(&self, next: Option<Timestamp>) -> Note {
        if let Some(note) = self.not_requested() {
            return note;
        }
        if let Some(note) = self.unfinished_note().or_else(|| self.restart_note()) {
            return note;
        }
        if let Some(note) = self.restored_note().or_else(|| self.handover_note()).or_else(|| self.hold_note()) {
            return note;
        }
        if let Some(note) = self.overlap_note() {
            return note;
        }
        match next {
            Some(begins) => match self.scheduled().filter(|due| *due <= self.now) {
                Some(due) => Note::new(
                    Reason::RotationPending,
                    format!("a rotation has been due since {due}; it begins in the next window, at {begins}"),
                ),
                None => Note::new(Reason::Scheduled, "the next rotation is scheduled"),
            },
            None => Note::new(Reason::ManualOnly, "keys are rotated on request only (annotation awsdeploy.dev/rotate)"),
        }
    }
}
