//! When and why a key is due, and what makes it wait.

use jiff::{SignedDuration, Timestamp};

use super::{Note, RotationInput};
use crate::{
    api::{Reason, duration::humanize},
    domain::{
        backoff::{self, ErrorClass},
        current_state::PublishedSecret,
        dates::saturating_add,
        owner::key_tag,
        schedule::spread_permille,
    },
};

/// Why a key is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// There never was one.
    First,
    /// The Secret is gone, was edited, or was renamed: nobody holds the value any more.
    Lost,
    /// The key in the Secret is gone from IAM or Inactive.
    Dead,
    /// AWS quarantines the user for a key that may be the one in the Secret.
    Compromised,
    /// Somebody asked.
    Requested,
    /// It is time.
    Scheduled,
}

impl Due {
    /// Consumers have no working key, or will not have one after their next start.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Self::First | Self::Lost | Self::Dead)
    }
}
impl RotationInput<'_> {
    pub(super) fn permille(&self) -> i32 {
        spread_permille(&self.desired.target.owner.uid)
    }

    /// When the schedule asks for the next rotation.
    pub(super) fn scheduled(&self) -> Option<Timestamp> {
        self.desired.key.as_ref()?.schedule.due(self.current.publication_time(self.now)?, self.permille())
    }

    /// When the next scheduled rotation begins: as it is due, or in the first window after that.
    pub(super) fn next_rotation(&self) -> Option<Timestamp> {
        let windows = &self.desired.key.as_ref()?.windows;
        self.scheduled().map(|due| windows.begin(due, self.now, self.permille()))
    }

    pub(super) fn due(&self) -> Option<Due> {
        let PublishedSecret::Ours(published) = &self.current.published else {
            let before = self.current.hints.last_rotation.is_some()
                || self.user.tags.keys().any(|tag| tag.starts_with(&key_tag("")));
            return Some(if before { Due::Lost } else { Due::First });
        };
        if !published.intact {
            return Some(Due::Lost);
        }
        if self.working().is_none() {
            return Some(Due::Dead);
        }
        if self.published_is_compromised(published) {
            return Some(Due::Compromised);
        }
        let request = &self.desired.key.as_ref()?.rotate_request;
        if request.is_some() && *request != published.rotate_honoured {
            return Some(Due::Requested);
        }
        self.next_rotation().is_some_and(|due| due <= self.now).then_some(Due::Scheduled)
    }

    /// Reasons to wait although a key is due: failures before, or a key made a moment ago.
    pub(super) fn held_back(&self, due: Due) -> Option<(Timestamp, Note)> {
        let hints = &self.current.hints;
        if let (Some(failed), 1..) = (hints.last_failure, hints.failed_attempts) {
            let pause =
                backoff::delay(ErrorClass::Transient, hints.failed_attempts, self.permille(), SignedDuration::ZERO);
            let until = saturating_add(failed, pause);
            if self.now < until {
                return Some((
                    until,
                    Note::new(Reason::BackingOff, "the last attempt failed; the next one follows after a pause"),
                ));
            }
        }
        if let Some(until) = self.after_the_date().filter(|_| due == Due::Compromised) {
            return Some((until, Note::new(Reason::RotationPending, "a new key follows in a second")));
        }
        if matches!(due, Due::First | Due::Scheduled) {
            return None;
        }
        let pause = self.settings.repair_interval();
        let ours = self.user.keys.iter().filter(|key| self.current.is_ours(&key.id)).map(|key| key.created_at);
        // A key of the future was made before the clock was set back; to count from it, or from now, could be to wait for ever.
        let made = ours.chain(hints.last_rotation).filter(|made| *made < saturating_add(self.now, pause));
        let until = saturating_add(made.max()?, pause);
        (self.now < until).then(|| {
            (
                until,
                Note::new(
                    Reason::RotationPending,
                    format!("a key was made less than {} ago; the next one follows after this pause", humanize(pause)),
                ),
            )
        })
    }
}
