//! When and why a key is due, and what delays it.

use jiff::{SignedDuration, Timestamp};

use super::{Note, RuleInput};
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

/// Why a new key is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// None was ever published.
    First,
    /// The Secret was deleted, edited or renamed: the value exists nowhere else.
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
    /// Consumers have no working key, or none after their next start.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Self::First | Self::Lost | Self::Dead)
    }
}

impl RuleInput<'_> {
    pub(super) fn permille(&self) -> i32 {
        spread_permille(&self.target.owner.uid)
    }

    /// When the next rotation is due by the schedule, whatever the windows are.
    pub(super) fn scheduled(&self) -> Option<Timestamp> {
        self.desired_key()?.schedule.due(self.current.publication_time(self.now)?, self.permille())
    }

    /// When the next scheduled rotation begins: when it is due, or in the first window after that.
    pub(in crate::domain::plan) fn next_rotation(&self) -> Option<Timestamp> {
        let windows = &self.desired_key()?.windows;
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
        let request = &self.desired_key()?.rotate_request;
        if request.is_some() && *request != published.rotate_honoured {
            return Some(Due::Requested);
        }
        self.next_rotation().is_some_and(|due| due <= self.now).then_some(Due::Scheduled)
    }

    /// Why a key that is due has to wait: earlier failures, or a key created a moment ago.
    pub(super) fn delay(&self, due: Due) -> Option<(Timestamp, Note)> {
        let hints = &self.current.hints;
        if let (Some(failed), 1..) = (hints.last_failure, hints.failed_attempts) {
            let pause = backoff::delay(
                hints.failure_class.unwrap_or(ErrorClass::Transient),
                hints.failed_attempts,
                self.permille(),
                SignedDuration::ZERO,
            );
            let until = saturating_add(failed, pause);
            if self.now < until {
                return Some((
                    until,
                    Note::new(Reason::BackingOff, "the last attempt failed; the next one follows after the back-off"),
                ));
            }
        }
        if let Some(until) = self.quarantine_pause_ends().filter(|_| due == Due::Compromised) {
            return Some((until, Note::new(Reason::RotationPending, "a new key follows in a second")));
        }
        if matches!(due, Due::First | Due::Scheduled) {
            return None;
        }
        let pause = self.settings.repair_interval();
        let ours = self.user.keys.iter().filter(|key| self.current.is_ours(&key.id)).map(|key| key.created_at);
        // A key with a time in the future was created before the clock was set back: a pause from then may never end.
        let made = ours.chain(hints.last_rotation).filter(|made| *made < saturating_add(self.now, pause));
        let until = saturating_add(made.max()?, pause);
        (self.now < until).then(|| {
            (
                until,
                Note::new(
                    Reason::RotationPending,
                    format!(
                        "a key was created less than {} ago; the next one follows after this interval",
                        humanize(pause)
                    ),
                ),
            )
        })
    }
}
