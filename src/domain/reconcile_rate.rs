//! Bounds how often changes of one resource cause a reconcile.

use std::time::{Duration, Instant};

/// Changes that are served at once.
const BURST: u32 = 6;
/// Time after which one further change is served: six in a minute.
pub const CHANGE_INTERVAL: Duration = Duration::from_secs(10);

/// The reconciles that changes of one resource may cause. Starts with the whole burst.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReconcileRate {
    /// When the burst is whole again; `None` if it is.
    whole_at: Option<Instant>,
}

impl ReconcileRate {
    /// How long a change has to wait. `None`: it is served now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let missing = self.whole_at?.checked_duration_since(now)?;
        missing.checked_sub(CHANGE_INTERVAL * (BURST - 1)).filter(|wait| !wait.is_zero())
    }

    /// Counts a reconcile that a change caused.
    pub fn count(&mut self, now: Instant) {
        let whole_at = self.whole_at.map_or(now, |whole_at| whole_at.max(now));
        // Urgent changes are counted and do not wait: they must not delay later ones beyond one burst.
        self.whole_at = Some((whole_at + CHANGE_INTERVAL).min(now + CHANGE_INTERVAL * BURST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_beyond_the_burst_are_served_six_times_a_minute() {
        let start = Instant::now();
        let mut rate = ReconcileRate::default();
        let mut served = Vec::new();
        for second in 0..180 {
            let now = start + Duration::from_secs(second);
            if rate.wait(now).is_none() {
                rate.count(now);
                served.push(second);
            }
        }
        let in_minute = |minute: u64| served.iter().filter(|second| **second / 60 == minute).count();
        assert_eq!((in_minute(1), in_minute(2)), (6, 6), "{served:?}");
        assert!(in_minute(0) <= 12, "{served:?}");
    }

    #[test]
    fn resource_that_rarely_changes_never_waits() {
        let start = Instant::now();
        let mut rate = ReconcileRate::default();
        for change in 0..50 {
            let now = start + CHANGE_INTERVAL * change;
            assert_eq!(rate.wait(now), None);
            rate.count(now);
        }
    }

    #[test]
    fn wait_ends_when_one_interval_has_passed() {
        let start = Instant::now();
        let mut rate = ReconcileRate::default();
        (0..BURST).for_each(|_| rate.count(start));
        assert_eq!(rate.wait(start), Some(CHANGE_INTERVAL));
        (0..100).for_each(|_| rate.count(start));
        assert_eq!(rate.wait(start), Some(CHANGE_INTERVAL), "urgent changes add no further wait");
        assert_eq!(rate.wait(start + CHANGE_INTERVAL), None);
    }
}
