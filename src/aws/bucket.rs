//! A token bucket per account: IAM's rates are unpublished and shared with everybody in the account.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Calls that may follow each other without waiting, in seconds of the full rate.
const BURST_SECONDS: f64 = 4.0;
/// The rate is never halved below this share of the full one.
const SLOWEST_SHARE: f64 = 1.0 / 64.0;
/// Every call that is not throttled gives back this share of the full rate.
const RECOVERY_SHARE: f64 = 1.0 / 100.0;
/// Calls under way are throttled together: what AWS says within this time counts once.
const ONE_EVENT: Duration = Duration::from_secs(1);

/// Spaces calls out; halves its rate when AWS throttles and recovers call by call.
pub(super) struct Bucket(Mutex<State>);

struct State {
    full: f64,
    rate: f64,
    tokens: f64,
    filled_at: Instant,
    halved_at: Option<Instant>,
}

impl Bucket {
    /// A bucket for `rate` calls per second.
    pub(super) fn new(rate: f64, now: Instant) -> Self {
        Self(Mutex::new(State { full: rate, rate, tokens: rate * BURST_SECONDS, filled_at: now, halved_at: None }))
    }

    /// Takes a token and says how long to wait before using it. Who comes first goes first.
    pub(super) fn reserve(&self, now: Instant) -> Duration {
        let mut state = self.lock();
        let elapsed = now.saturating_duration_since(state.filled_at).as_secs_f64();
        state.filled_at = now;
        state.tokens = (state.tokens + elapsed * state.rate).min(state.full * BURST_SECONDS) - 1.0;
        if state.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-state.tokens / state.rate) }
    }

    /// AWS asked to slow down.
    pub(super) fn throttled(&self, now: Instant) {
        let mut state = self.lock();
        if state.halved_at.is_some_and(|halved| now.saturating_duration_since(halved) < ONE_EVENT) {
            return;
        }
        state.halved_at = Some(now);
        state.rate = (state.rate / 2.0).max(state.full * SLOWEST_SHARE);
        state.tokens = state.tokens.min(0.0);
    }

    /// AWS answered without asking to slow down.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        state.rate = (state.rate + state.full * RECOVERY_SHARE).min(state.full);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Numbers only: a panic elsewhere cannot have left them half written.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_calls_are_spaced_by_the_rate() {
        let start = Instant::now();
        let bucket = Bucket::new(10.0, start);
        for _ in 0..40 {
            assert_eq!(bucket.reserve(start), Duration::ZERO);
        }
        assert_eq!(bucket.reserve(start), Duration::from_millis(100));
        assert_eq!(bucket.reserve(start), Duration::from_millis(200), "the next one queues behind");
        assert_eq!(bucket.reserve(start + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn throttling_halves_the_rate_and_answers_bring_it_back() {
        let start = Instant::now();
        let bucket = Bucket::new(10.0, start);
        bucket.throttled(start);
        assert_eq!(bucket.reserve(start), Duration::from_millis(200), "5 calls per second, no burst left");
        for _ in 0..16 {
            bucket.throttled(start + Duration::from_millis(900));
        }
        assert_eq!(bucket.reserve(start), Duration::from_millis(400), "calls that were under way count once");
        bucket.throttled(start + ONE_EVENT);
        assert_eq!(
            bucket.reserve(start + ONE_EVENT),
            Duration::from_millis(200),
            "2.5 calls per second: half a one is owed"
        );
        for _ in 0..100 {
            bucket.answered();
        }
        let later = start + Duration::from_mins(1);
        for _ in 0..40 {
            assert_eq!(bucket.reserve(later), Duration::ZERO);
        }
    }
}
