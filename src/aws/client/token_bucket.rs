//! Client-side rate limit per account: the quotas of IAM are unpublished and shared by all callers of the account.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Size of the bucket, in seconds of the full rate.
const BURST_SECONDS: f64 = 4.0;
/// Lower bound of the rate, as a share of the full rate.
const MIN_RATE_SHARE: f64 = 1.0 / 64.0;
/// Share of the full rate that each call without throttling restores.
const RECOVERY_SHARE: f64 = 1.0 / 100.0;
/// Concurrent calls are throttled together: throttling within this time halves the rate once.
const THROTTLE_WINDOW: Duration = Duration::from_secs(1);

/// Spaces calls out; halves its rate when AWS throttles and recovers call by call.
pub(crate) struct TokenBucket(Mutex<State>);

struct State {
    full_rate: f64,
    rate: f64,
    tokens: f64,
    filled_at: Instant,
    halved_at: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn new(calls_per_second: f64, now: Instant) -> Self {
        Self(Mutex::new(State {
            full_rate: calls_per_second,
            rate: calls_per_second,
            tokens: calls_per_second * BURST_SECONDS,
            filled_at: now,
            halved_at: None,
        }))
    }

    /// Takes a token and returns how long to wait before it may be used. First come, first served.
    pub(super) fn reserve(&self, now: Instant) -> Duration {
        let mut state = self.0.lock();
        let elapsed = now.saturating_duration_since(state.filled_at).as_secs_f64();
        state.filled_at = now;
        state.tokens = (state.tokens + elapsed * state.rate).min(state.full_rate * BURST_SECONDS) - 1.0;
        if state.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-state.tokens / state.rate) }
    }

    /// Halves the rate, once per [`THROTTLE_WINDOW`], and drops the burst.
    pub(super) fn slow_down(&self, now: Instant) {
        let mut state = self.0.lock();
        if state.halved_at.is_some_and(|halved| now.saturating_duration_since(halved) < THROTTLE_WINDOW) {
            return;
        }
        state.halved_at = Some(now);
        state.rate = (state.rate / 2.0).max(state.full_rate * MIN_RATE_SHARE);
        state.tokens = state.tokens.min(0.0);
    }

    /// Restores a share of the rate after a call without throttling.
    pub(super) fn recover(&self) {
        let mut state = self.0.lock();
        state.rate = (state.rate + state.full_rate * RECOVERY_SHARE).min(state.full_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_free_and_later_calls_are_spaced_by_the_rate() {
        let start = Instant::now();
        let bucket = TokenBucket::new(10.0, start);
        for _ in 0..40 {
            assert_eq!(bucket.reserve(start), Duration::ZERO);
        }
        assert_eq!(bucket.reserve(start), Duration::from_millis(100));
        assert_eq!(bucket.reserve(start), Duration::from_millis(200), "the next call queues behind");
        assert_eq!(bucket.reserve(start + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn throttling_halves_the_rate_and_success_restores_it() {
        let start = Instant::now();
        let bucket = TokenBucket::new(10.0, start);
        bucket.slow_down(start);
        assert_eq!(bucket.reserve(start), Duration::from_millis(200), "5 calls per second, no burst");
        for _ in 0..16 {
            bucket.slow_down(start + Duration::from_millis(900));
        }
        assert_eq!(bucket.reserve(start), Duration::from_millis(400), "concurrent calls count once");
        bucket.slow_down(start + THROTTLE_WINDOW);
        assert_eq!(
            bucket.reserve(start + THROTTLE_WINDOW),
            Duration::from_millis(200),
            "2.5 calls per second: half a token is missing"
        );
        for _ in 0..100 {
            bucket.recover();
        }
        let later = start + Duration::from_mins(1);
        for _ in 0..40 {
            assert_eq!(bucket.reserve(later), Duration::ZERO);
        }
    }
}
