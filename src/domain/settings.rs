//! Settings of the domain logic.

use jiff::SignedDuration;

/// Longest time between two repairs in a row, unless `repair_interval` is longer.
pub const MAX_REPAIR_PAUSE: SignedDuration = SignedDuration::from_hours(24);

/// More doublings do not fit into the factor.
const MAX_DOUBLINGS: u32 = 30;

/// Times and limits of the rotation protocol. `operator/settings.rs` maps flags to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Age of an `Intent` before the key of an interrupted attempt is searched for. Must exceed the delay of IAM's lists.
    pub recovery_delay: SignedDuration,
    /// Consecutive STS calls that must succeed before a key is published; 0 disables the verification.
    pub verify_successes: u32,
    /// Time between two verification calls.
    pub verify_interval: SignedDuration,
    /// Time after which a key that AWS does not accept is deleted.
    pub verify_timeout: SignedDuration,
    /// Time for which a key stays Inactive before it is deleted.
    pub deletion_delay: SignedDuration,
    /// A superseded key whose last use is within this time counts as used.
    pub last_used_window: SignedDuration,
    /// Longest extension of the overlap of a superseded key while a restarted workload is not rolled out.
    pub restart_hold: SignedDuration,
    /// Time between two reads of a workload that was restarted recently.
    pub restart_check_interval: SignedDuration,
    /// Time for which a deleted class takes nothing from the users that it allowed: it may be replaced.
    pub class_absence_grace: SignedDuration,
    /// Shortest time from one key to the next, unless the next one is scheduled; doubles for each repair in a row, see
    /// [`Settings::repair_pause`].
    pub repair_interval: SignedDuration,
    /// Shortest allowed rotation interval.
    pub min_rotation_interval: SignedDuration,
    /// Quota of IAM for managed policies per user, 10 unless raised.
    pub max_attached_policies: usize,
}

impl Settings {
    /// Time from one key to the replacement of a lost one after this number of repairs in a row, at most
    /// [`MAX_REPAIR_PAUSE`]. A tenant that deletes or edits the Secret repeatedly must not make keys without limit.
    #[must_use]
    pub fn repair_pause(&self, repairs: u32) -> SignedDuration {
        doubled(self.repair_interval, repairs)
    }

    /// The same for a resource that has never had a key, because every attempt was interrupted: consumers wait for it.
    #[must_use]
    pub fn first_key_pause(&self, repairs: u32) -> SignedDuration {
        doubled(self.recovery_delay.min(self.repair_interval), repairs)
    }

    /// Uses of the previous key within this time after the publication of the new one are ignored: consumers need time to
    /// switch. A hundredth of `last_used_window`, by default about 15 minutes, the resolution of AWS's record.
    #[must_use]
    pub fn consumer_switch_time(&self) -> SignedDuration {
        self.last_used_window / 100
    }
}

fn doubled(pause: SignedDuration, times: u32) -> SignedDuration {
    let doubled = pause.checked_mul(1 << times.min(MAX_DOUBLINGS)).unwrap_or(MAX_REPAIR_PAUSE);
    doubled.min(MAX_REPAIR_PAUSE.max(pause))
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recovery_delay: SignedDuration::from_secs(60),
            verify_successes: 3,
            verify_interval: SignedDuration::from_secs(1),
            verify_timeout: SignedDuration::from_mins(5),
            deletion_delay: SignedDuration::from_mins(10),
            last_used_window: SignedDuration::from_hours(26),
            restart_hold: SignedDuration::from_hours(24),
            restart_check_interval: SignedDuration::from_secs(10),
            class_absence_grace: SignedDuration::from_mins(5),
            repair_interval: SignedDuration::from_mins(10),
            min_rotation_interval: SignedDuration::from_hours(1),
            max_attached_policies: 10,
        }
    }
}
