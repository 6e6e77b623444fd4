//! Cached response; concurrent callers share one request and its result.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::AwsError;

/// A failure is shared with all callers for this long: 1,000 resources of an account that rejects the operator cause one
/// request and not 1,000.
const FAILURE_TTL: Duration = Duration::from_secs(2);

/// A cached value. Callers that arrive during a request wait for its result, be it a value or an error.
pub(crate) struct SingleFlight<T> {
    value: Mutex<Option<T>>,
    /// Held during a request; holds the failure of the last one.
    request: tokio::sync::Mutex<Option<Failure>>,
}

struct Failure {
    at: Instant,
    error: AwsError,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { value: Mutex::default(), request: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// The cached value.
    pub(crate) fn peek(&self) -> Option<T> {
        self.value.lock().clone()
    }

    /// Drops the cached value if it is the stale one.
    pub(crate) fn invalidate(&self, is_stale: impl Fn(&T) -> bool) {
        self.value.lock().take_if(|value| is_stale(value));
    }

    /// The cached value if it is valid, else the result of a request.
    pub(crate) async fn get(
        &self,
        is_valid: impl Fn(&T) -> bool,
        fetch: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let cached = || self.peek().filter(|value| is_valid(value));
        if let Some(value) = cached() {
            return Ok(value);
        }
        let arrived_at = Instant::now();
        let mut failure = self.request.lock().await;
        if let Some(value) = cached() {
            return Ok(value);
        }
        let recent = |failure: &&Failure| failure.at >= arrived_at || failure.at.elapsed() < FAILURE_TTL;
        if let Some(failure) = failure.as_ref().filter(recent) {
            return Err(failure.error.clone());
        }
        self.fetch(&mut failure, fetch).await
    }

    /// Replaces a value that is valid but not fresh. `None` if another caller does or has done so, or failed within
    /// [`FAILURE_TTL`].
    pub(crate) async fn refresh(
        &self,
        is_fresh: impl Fn(&T) -> bool,
        fetch: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Option<Result<T, AwsError>> {
        let mut failure = self.request.try_lock().ok()?;
        if self.peek().is_some_and(|value| is_fresh(&value)) {
            return None;
        }
        if failure.as_ref().is_some_and(|failure| failure.at.elapsed() < FAILURE_TTL) {
            return None;
        }
        Some(self.fetch(&mut failure, fetch).await)
    }

    async fn fetch(
        &self,
        failure: &mut Option<Failure>,
        fetch: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let result = fetch().await;
        *failure = result.as_ref().err().map(|error| Failure { at: Instant::now(), error: error.clone() });
        if let Ok(value) = &result {
            *self.value.lock() = Some(value.clone());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::aws::AwsErrorKind;

    fn denied() -> AwsError {
        AwsError { operation: "X", kind: AwsErrorKind::AccessDenied, message: String::new(), request_id: None }
    }

    async fn get_ten_times(
        flight: &SingleFlight<u32>,
        requests: &AtomicU32,
        response: &Result<u32, AwsError>,
    ) -> Vec<Result<u32, AwsError>> {
        let get = || {
            flight.get(
                |_| true,
                async || {
                    requests.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    response.clone()
                },
            )
        };
        join_all((0..10).map(|_| get())).await
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_request_and_its_result() {
        let (flight, requests) = (SingleFlight::default(), AtomicU32::new(0));
        assert_eq!(get_ten_times(&flight, &requests, &Err(denied())).await, vec![Err(denied()); 10]);
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        let within_ttl = get_ten_times(&flight, &requests, &Ok(1)).await;
        assert_eq!(within_ttl, vec![Err(denied()); 10], "the failure is shared for a moment");
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        let flight = SingleFlight::default();
        assert_eq!(get_ten_times(&flight, &requests, &Ok(1)).await, vec![Ok(1); 10]);
        assert_eq!(get_ten_times(&flight, &requests, &Ok(2)).await, vec![Ok(1); 10], "the value is cached");
        assert_eq!(requests.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn invalid_or_invalidated_value_is_requested_again() {
        let flight = SingleFlight::default();
        assert_eq!(flight.get(|_| true, async || Ok(1)).await, Ok(1));
        assert_eq!(flight.get(|value| *value > 1, async || Ok(2)).await, Ok(2));
        flight.invalidate(|value| *value == 1);
        assert_eq!(flight.peek(), Some(2), "only the stale value is dropped");
        flight.invalidate(|value| *value == 2);
        assert_eq!(flight.get(|_| true, async || Ok(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn failed_refresh_keeps_the_cached_value() {
        let flight = SingleFlight::default();
        assert_eq!(flight.get(|_| true, async || Ok(1)).await, Ok(1));
        let is_fresh = |value: &u32| *value > 1;
        assert_eq!(flight.refresh(is_fresh, async || Err(denied())).await, Some(Err(denied())));
        assert_eq!(flight.peek(), Some(1));
        assert_eq!(flight.refresh(is_fresh, async || Ok(2)).await, None, "it failed a moment ago");
        let flight = SingleFlight::default();
        assert_eq!(flight.refresh(is_fresh, async || Ok(2)).await, Some(Ok(2)));
        assert_eq!(flight.refresh(is_fresh, async || Ok(3)).await, None, "another caller has refreshed it");
    }
}
