//! The settings that decisions depend on.

use jiff::SignedDuration;

/// Times and limits of the protocol. The flags of the operator, see `operator/settings.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How old an `Intent` must be before its lost key is looked for; longer than the lag of IAM's lists.
    pub recovery_delay: SignedDuration,
    /// Successes in a row that STS must give before a key is published; 0 switches the check off.
    pub verify_successes: u32,
    /// Time between two checks.
    pub verify_interval: SignedDuration,
    /// After this long without acceptance the key is given up.
    pub verify_timeout: SignedDuration,
    /// How long a key stays Inactive before it is deleted.
    pub deletion_delay: SignedDuration,
    /// A superseded key that AWS saw used within this time counts as used now.
    pub last_used_window: SignedDuration,
    /// How much longer than its overlap a superseded key stays Active at most while a workload is not rolled out.
    pub restart_hold: SignedDuration,
    /// Time between two looks at a workload that was restarted a moment ago.
    pub restart_check_interval: SignedDuration,
    /// Smallest allowed rotation interval.
    pub min_rotation_interval: SignedDuration,
    /// Managed policies that the account allows per user (IAM quota, 10 unless raised).
    pub max_attached_policies: usize,
}

impl Settings {
    /// Least time between two keys that are made because one was lost, not because one was due.
    ///
    /// A sixtieth of the smallest rotation interval (one minute by default): a Secret deleted
    /// again and again must not become a way to burn keys.
    #[must_use]
    pub fn repair_interval(&self) -> SignedDuration {
        self.min_rotation_interval / 60
    }

    /// Uses of the old key this soon after the publication of the new one are those of consumers that were about to
    /// move. A hundredth of the window; by default a quarter of an hour, the grain of AWS's record.
    #[must_use]
    pub fn consumer_switch_time(&self) -> SignedDuration {
        self.last_used_window / 100
    }
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
            min_rotation_interval: SignedDuration::from_hours(1),
            max_attached_policies: 10,
        }
    }
}
