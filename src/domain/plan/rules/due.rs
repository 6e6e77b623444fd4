//! When and why a key is due, and what delays it.

use jiff::Timestamp;

use super::{Note, RuleInput};
use crate::{
    api::Reason,
    domain::{
        current_state::{KeyBackoff, PublishedSecret},
        dates::saturating_add,
        schedule::spread_permille,
    },
};

/// Why a new key is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// None was ever created.
    First,
    /// The Secret was deleted or edited, or its attempt was abandoned: the value exists nowhere else. Or it holds an earlier key
    /// that is about to end.
    Lost,
    /// The published key is not Active in IAM.
    Dead,
    /// AWS quarantines the user, and the published key may be the leaked one.
    Compromised,
    /// By the annotation `awsdeploy.dev/rotate`.
    Requested,
    Scheduled,
}

impl Due {
    /// The key replaces one that was lost.
    pub(super) fn is_repair(self) -> bool {
        matches!(self, Self::Lost | Self::Dead)
    }

    /// Consumers have no working key, or none after their next start.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Self::First | Self::Lost | Self::Dead)
    }
}

/// The failure itself is reported instead.
pub(in crate::domain::plan) fn backing_off(backoff: KeyBackoff) -> Note {
    Note::new(backoff.reason, "the last attempt failed; the next one follows after the back-off")
}

impl RuleInput<'_> {
    pub(super) fn permille(&self) -> i32 {
        spread_permille(&self.target.owner.uid)
    }

    /// When the next rotation is due by the schedule, whatever the windows are.
    pub(super) fn scheduled(&self) -> Option<Timestamp> {
        self.desired_key()?.schedule.due(self.current.publication_time(self.now)?, self.permille())
    }

    /// When the next scheduled rotation begins: when it is due, or in the first window after that. None does while the keys of
    /// the user must not work.
    pub(in crate::domain::plan) fn next_rotation(&self) -> Option<Timestamp> {
        if !self.wants_key() {
            return None;
        }
        let windows = &self.desired_key()?.windows;
        self.scheduled().map(|due| windows.begin(due, self.now, self.permille()))
    }

    pub(super) fn due(&self) -> Option<Due> {
        let PublishedSecret::Ours(published) = &self.current.published else {
            let before = self.current.was_published() || self.current.hints.last_attempt.is_some();
            return Some(if before { Due::Lost } else { Due::First });
        };
        if !published.is_verified() {
            return Some(Due::Lost);
        }
        if self.working().is_none() {
            return Some(Due::Dead);
        }
        if self.restored_until().is_some_and(|at| at <= self.now) {
            return Some(Due::Lost);
        }
        if self.published_is_compromised(published) {
            return Some(Due::Compromised);
        }
        let request = &self.desired_key()?.rotate_request;
        if request.is_some() && *request != published.rotate_honoured {
            return Some(Due::Requested);
        }
        self.next_rotation().is_some_and(|due| due <= self.now).then_some(Due::Scheduled)
    }

    /// Why a key that is due has to wait: earlier failures, or a key created a moment ago.
    pub(super) fn delay(&self, due: Due) -> Option<(Timestamp, Note)> {
        if let Some(backoff) = self.current.key_backoff.filter(|backoff| self.now < backoff.until) {
            return Some((backoff.until, backing_off(backoff)));
        }
        if let Some(until) = self.quarantine_pause_ends().filter(|_| due == Due::Compromised) {
            return Some((until, Note::new(Reason::RotationPending, "a new key follows in a second")));
        }
        if let Some(until) = self.current.first_key_at.filter(|until| due == Due::First && self.now < *until) {
            let message = format!(
                "many resources of this namespace were deleted and created again; the first key of this one follows at {until}"
            );
            return Some((until, Note::new(Reason::RotationPending, message)));
        }
        let until = self.earliest(due)?;
        (self.now < until).then(|| (until, Note::new(Reason::RotationPending, self.pause_message(due, until))))
    }

    /// Before this time no key is created for this reason, whatever a tenant edits. Every attempt counts, also one that was
    /// abandoned and whose key is deleted.
    fn earliest(&self, due: Due) -> Option<Timestamp> {
        let pause = match due {
            Due::First => return None,
            // The spec declares when; a changed spec must not make keys faster than the shortest interval.
            Due::Scheduled => self.settings.repair_interval.min(self.settings.min_rotation_interval),
            Due::Requested | Due::Compromised => self.settings.repair_interval,
            Due::Lost | Due::Dead if self.current.was_published() => self.settings.repair_pause(self.repairs()),
            Due::Lost | Due::Dead => self.settings.first_key_pause(self.repairs()),
        };
        let hints = &self.current.hints;
        let ours = self.user.keys.iter().filter(|key| self.current.is_ours(&key.id)).map(|key| key.created_at);
        // A key with a time in the future was created before the clock was set back: a pause from then may never end.
        let made = ours.chain(hints.last_attempt).filter(|made| *made < saturating_add(self.now, pause));
        Some(saturating_add(made.max()?, pause))
    }

    /// Repairs in a row so far. A key that lasted for twice the pause before its repair ends the row.
    pub(super) fn repairs(&self) -> u32 {
        let Some(repairs) = self.current.hints.repairs else { return 0 };
        let count = u32::try_from(repairs.count).unwrap_or(0);
        let ends = saturating_add(repairs.last_time, self.settings.repair_pause(count).saturating_mul(2));
        if self.now < ends { count } else { 0 }
    }

    fn pause_message(&self, due: Due, until: Timestamp) -> String {
        match self.repairs() {
            count @ 1.. if due.is_repair() => format!(
                "the access key was lost again after {count} repairs in a row: its Secret is deleted or edited, it is set Inactive or deleted in AWS, or its attempt is abandoned; the next key follows at {until}"
            ),
            _ => format!("a key was created a short time ago; the next one follows at {until}"),
        }
    }

    /// When a key that is lost is replaced, as a clause of a message.
    pub(super) fn replacement(&self) -> String {
        match self.due().and_then(|due| self.earliest(due)).filter(|until| self.now < *until) {
            Some(until) => format!("a new key follows at {until}"),
            None => "a new key follows".to_owned(),
        }
    }
}
