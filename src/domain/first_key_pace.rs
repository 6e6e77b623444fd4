//! Bounds how fast resources that take the place of deleted ones get their first keys.
//!
//! What the status records about the keys of a resource ends with it: a tenant that deletes it and creates it again would get a
//! key each time. An installation of many resources deletes none before, and waits for nothing.

use std::time::{Duration, Instant};

/// First keys that follow deletions at once.
const BURST: u32 = 100;
/// Time after which one further key follows, and after which one deletion is forgotten.
pub const FIRST_KEY_INTERVAL: Duration = Duration::from_secs(6);

/// The first keys of one namespace. Starts with the whole burst.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstKeyPace {
    /// Until then deletions count that no new resource has followed: one for each interval.
    counts_until: Option<Instant>,
    /// When the burst is whole again; `None` if it is.
    whole_at: Option<Instant>,
}

impl FirstKeyPace {
    /// Counts the deletion of a resource that may have had a key.
    pub fn count_deletion(&mut self, now: Instant) {
        self.counts_until = Some(self.counts_until.map_or(now, |until| until.max(now)) + FIRST_KEY_INTERVAL);
    }

    /// When a new resource may get its first key.
    #[must_use]
    pub fn reserve(&mut self, now: Instant) -> Instant {
        let replaced = self.counts_until.filter(|until| *until > now);
        // Resources that are deleted before they get their key use up deletions too, and then the burst.
        let is_used_up = self.whole_at.is_some_and(|whole_at| whole_at >= now + FIRST_KEY_INTERVAL * BURST);
        if replaced.is_none() && !is_used_up {
            return now;
        }
        self.counts_until = replaced.and_then(|until| until.checked_sub(FIRST_KEY_INTERVAL));
        let whole_at = self.whole_at.map_or(now, |whole_at| whole_at.max(now)) + FIRST_KEY_INTERVAL;
        self.whole_at = Some(whole_at);
        whole_at.checked_sub(FIRST_KEY_INTERVAL * BURST).map_or(now, |at| at.max(now))
    }

    /// Whether it differs from a new one.
    #[must_use]
    pub fn is_in_use(&self, now: Instant) -> bool {
        self.counts_until.max(self.whole_at).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(deletions: u32, now: Instant) -> FirstKeyPace {
        let mut pace = FirstKeyPace::default();
        (0..deletions).for_each(|_| pace.count_deletion(now));
        pace
    }

    #[test]
    fn first_keys_of_an_installation_do_not_wait() {
        let now = Instant::now();
        let mut pace = after(0, now);
        assert!((0..5_000).all(|_| pace.reserve(now) == now));
        // An upgrade that replaces some resources.
        let mut pace = after(50, now);
        assert!((0..5_000).all(|_| pace.reserve(now) == now));
    }

    #[test]
    fn resources_created_again_get_keys_at_a_bounded_rate() {
        const MINUTES: u32 = 60;
        let start = Instant::now();
        for live in [1, 4, 1_000] {
            let (mut pace, mut keys) = (FirstKeyPace::default(), 0_u32);
            let mut key_at: Vec<Instant> = (0..live).map(|_| pace.reserve(start)).collect();
            for second in 0..MINUTES * 60 {
                let now = start + Duration::from_secs(second.into());
                // Each resource is deleted when it has its key, and created again.
                for at in key_at.iter_mut().filter(|at| **at <= now) {
                    keys += 1;
                    pace.count_deletion(now);
                    *at = pace.reserve(now);
                }
            }
            let most = live + BURST + 20 * MINUTES;
            assert!((BURST..=most).contains(&keys), "{keys} keys of {live} resources in {MINUTES} minutes");
        }
    }

    #[test]
    fn resources_deleted_before_their_key_do_not_reset_the_pace() {
        let start = Instant::now();
        let (mut pace, mut keys) = (FirstKeyPace::default(), 0_u32);
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            // Nine of ten have no user yet when they are deleted, so that their deletion does not count.
            (0..9).for_each(|_| _ = pace.reserve(now));
            if pace.reserve(now) <= now {
                keys += 1;
                pace.count_deletion(now);
            }
        }
        assert!(keys <= BURST + 20 * 60, "{keys} keys");
    }

    #[test]
    fn forgotten_deletions_delay_no_key() {
        let now = Instant::now();
        let mut pace = after(1_000, now);
        let later = now + FIRST_KEY_INTERVAL * 1_000;
        assert!(pace.is_in_use(now) && !pace.is_in_use(later));
        assert!((0..5_000).all(|_| pace.reserve(later) == later));
    }

    #[test]
    fn resources_beyond_the_burst_wait_for_one_interval_each() {
        let now = Instant::now();
        let mut pace = after(1_000, now);
        let waits: Vec<Duration> = (0..BURST + 2).map(|_| pace.reserve(now) - now).collect();
        assert!(waits[..100].iter().all(Duration::is_zero));
        assert_eq!(waits[100..], [FIRST_KEY_INTERVAL, FIRST_KEY_INTERVAL * 2]);
    }
}
