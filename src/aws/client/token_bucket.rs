//! Client-side rate limit per account: the quotas of IAM are unpublished and shared by all callers of the account.

use std::time::{Duration, Instant};

/// Size of the bucket, in seconds of the full rate.
const BURST_SECONDS: f64 = 4.0;
/// Lower bound of the rate, as a share of the full rate.
const MIN_RATE_SHARE: f64 = 1.0 / 64.0;
/// Share of the full rate that each call without throttling restores.
const RECOVERY_SHARE: f64 = 1.0 / 100.0;
/// Concurrent calls are throttled together: throttling within this time halves the rate once.
const THROTTLE_WINDOW: Duration = Duration::from_secs(1);
/// A token that is missing by less counts as whole: the arithmetic is not exact.
const TOKEN_PRECISION: f64 = 1e-6;
/// Added to each wait, so that it ends after the token is there.
const ROUNDING: Duration = Duration::from_micros(1);

/// Spaces calls out; halves its rate when AWS throttles and recovers call by call.
pub(crate) struct TokenBucket {
    full_rate: f64,
    rate: f64,
    tokens: f64,
    filled_at: Instant,
    halved_at: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn new(calls_per_second: f64, now: Instant) -> Self {
        Self {
            full_rate: calls_per_second,
            rate: calls_per_second,
            tokens: calls_per_second * BURST_SECONDS,
            filled_at: now,
            halved_at: None,
        }
    }

    /// The time until a call may be made; zero: now. A rate below one call in [`BURST_SECONDS`] still fills one token.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + elapsed * self.rate).min((self.full_rate * BURST_SECONDS).max(1.0));
        let missing = 1.0 - self.tokens - TOKEN_PRECISION;
        if missing <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.rate) + ROUNDING }
    }

    /// Counts a call.
    pub(super) fn take(&mut self, now: Instant) {
        self.wait(now);
        self.tokens -= 1.0;
    }

    /// Halves the rate, once per [`THROTTLE_WINDOW`], and drops the burst.
    pub(super) fn slow_down(&mut self, now: Instant) {
        if self.halved_at.is_some_and(|halved| now.saturating_duration_since(halved) < THROTTLE_WINDOW) {
            return;
        }
        self.wait(now);
        self.halved_at = Some(now);
        self.rate = (self.rate / 2.0).max(self.full_rate * MIN_RATE_SHARE);
        self.tokens = self.tokens.min(0.0);
    }

    /// Restores a share of the rate after a call without throttling.
    pub(super) fn recover(&mut self) {
        self.rate = (self.rate + self.full_rate * RECOVERY_SHARE).min(self.full_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of the next call from `now`, which is then counted.
    fn next_call(bucket: &mut TokenBucket, now: Instant) -> Instant {
        let at = now + bucket.wait(now);
        bucket.take(at);
        at
    }

    fn assert_wait(bucket: &mut TokenBucket, now: Instant, millis: u64) {
        let (wait, expected) = (bucket.wait(now), Duration::from_millis(millis));
        assert!(wait.abs_diff(expected) < Duration::from_millis(1), "{wait:?}, not {expected:?}");
    }

    #[test]
    fn burst_is_free_and_later_calls_are_spaced_by_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10.0, start);
        for _ in 0..40 {
            assert_eq!(next_call(&mut bucket, start), start);
        }
        assert_wait(&mut bucket, start, 100);
        let next = next_call(&mut bucket, start);
        assert_wait(&mut bucket, next, 100);
        assert_wait(&mut bucket, start + Duration::from_secs(10), 0);
    }

    #[test]
    fn throttling_halves_the_rate_and_success_restores_it() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10.0, start);
        bucket.slow_down(start);
        assert_wait(&mut bucket, start, 200);
        for _ in 0..16 {
            bucket.slow_down(start + Duration::from_millis(900));
        }
        assert_wait(&mut bucket, start, 200);
        bucket.slow_down(start + THROTTLE_WINDOW);
        assert_wait(&mut bucket, start + THROTTLE_WINDOW, 400);
        for _ in 0..100 {
            bucket.recover();
        }
        let later = start + Duration::from_mins(1);
        for _ in 0..40 {
            assert_eq!(next_call(&mut bucket, later), later);
        }
    }

    #[test]
    fn rate_of_a_call_in_a_minute_makes_one_call_in_a_minute() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1.0 / 60.0, start);
        let first = next_call(&mut bucket, start);
        let second = next_call(&mut bucket, first);
        assert!((second - first).abs_diff(Duration::from_mins(1)) < Duration::from_millis(10));
    }
}
