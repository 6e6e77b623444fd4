//! What the rules look at, and what several of them ask of it.

use jiff::Timestamp;

use super::{Note, RetireReason};
use crate::{
    api::Reason,
    domain::{
        current_state::{AccessKey, CurrentState, IamUser},
        dates::saturating_add,
        desired::Desired,
        secret::PublishedFacts,
        settings::Settings,
    },
};

/// What the rules look at.
pub struct RotationInput<'a> {
    /// Declared.
    pub desired: &'a Desired,
    /// Found.
    pub current: &'a CurrentState,
    /// The user, which is ours.
    pub user: &'a IamUser,
    /// Now, on AWS's clock.
    pub now: Timestamp,
    /// Times and limits.
    pub settings: &'a Settings,
    /// Policies and tags are as declared; a first key is not handed out before.
    pub user_ready: bool,
    /// The Secret cannot be written.
    pub conflict: Option<Note>,
}

impl RotationInput<'_> {
    /// The published Secret, if AWS knows its key as Active. A key that was published a moment
    /// ago may not be in IAM's lists yet.
    pub(super) fn working(&self) -> Option<&PublishedFacts> {
        let published = self.current.published()?;
        let (at, dwell) = (self.current.publication_time(self.now)?, self.settings.recovery_delay);
        // A time in the future is none to count from: the clock was set back since.
        let too_young_to_be_listed =
            self.listed_at() < saturating_add(at, dwell) && published.published_at < saturating_add(self.now, dwell);
        let alive = self.user.key(&published.key_id).map_or(too_young_to_be_listed, |key| key.active);
        (alive && published.intact).then_some(published)
    }

    /// When the working key was handed out.
    pub(super) fn publication_time(&self) -> Option<Timestamp> {
        self.working().and_then(|_| self.current.publication_time(self.now))
    }

    /// When IAM's list was made. What is missing from it is judged by this, not by now: a pass may have been slow.
    pub(super) fn listed_at(&self) -> Timestamp {
        self.current.keys_read_at.unwrap_or(self.now)
    }

    /// Nobody is to get a key now.
    pub(super) fn no_key_wanted(&self) -> bool {
        self.suspended().is_some() || self.desired.key.is_none()
    }

    pub(super) fn foreign(&self) -> impl Iterator<Item = &AccessKey> {
        self.user.keys.iter().filter(|key| !self.current.is_ours(&key.id))
    }

    pub(super) fn key_note(&self) -> Option<Note> {
        if let Some(conflict) = &self.conflict {
            return Some(conflict.clone());
        }
        match self.suspended() {
            Some(RetireReason::Quarantined) => {
                return Some(Note::new(
                    Reason::Quarantined,
                    "AWS quarantines the user: the key in the Secret is Inactive",
                ));
            }
            Some(_) => {
                let message = if self.desired.key.is_some() {
                    "spec.suspend is true: the key in the Secret is Inactive"
                } else {
                    "spec.suspend is true: the user has no access"
                };
                return Some(Note::new(Reason::Suspended, message));
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
            None => Note::new(Reason::Pending, "no access key is published yet"),
            Some(facts) if !facts.intact => {
                Note::new(Reason::Pending, "the Secret was edited by hand; a new key is on its way")
            }
            Some(facts) => Note::new(
                Reason::Pending,
                format!("AWS does not know {} as an Active key; a new one is on its way", facts.key_id),
            ),
        })
    }

    pub(super) fn at_rest(&self, next: Option<Timestamp>) -> Note {
        if let Some(note) = self.not_requested() {
            return note;
        }
        if let Some(note) = self.restart_note() {
            return note;
        }
        if let Some(held) = self.held() {
            return held;
        }
        match (self.retirement(), next) {
            (Some(until), _) => Note::new(
                Reason::Overlap,
                format!("the key before is valid until {until} so that consumers can move over"),
            ),
            (None, Some(begins)) => match self.scheduled().filter(|due| *due <= self.now) {
                Some(due) => Note::new(
                    Reason::RotationPending,
                    format!("a rotation has been due since {due}; it begins in the next window, at {begins}"),
                ),
                None => Note::new(Reason::Scheduled, "the next rotation is scheduled"),
            },
            (None, None) => {
                Note::new(Reason::ManualOnly, "keys are rotated on request only (annotation awsdeploy.dev/rotate)")
            }
        }
    }
}
