//! Answers of AWS that many need and one asks for.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::AwsError;

/// A failure is everybody's for this long: a thousand resources of an account that refuses us are no storm.
const PAUSE: Duration = Duration::from_secs(2);

/// An answer that is kept. Who comes while it is being asked for waits for the same answer, good or bad.
pub(super) struct SingleFlight<T> {
    answer: Mutex<Option<T>>,
    asking: tokio::sync::Mutex<Option<Failure>>,
}

struct Failure {
    at: Instant,
    error: AwsError,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { answer: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// The answer, if there is one.
    pub(super) fn peek(&self) -> Option<T> {
        self.lock().clone()
    }

    /// Takes the answer away if it is the wrong one.
    pub(super) fn invalidate(&self, wrong: impl Fn(&T) -> bool) {
        self.lock().take_if(|answer| wrong(answer));
    }

    /// The answer that is kept, if it is good enough, else a new one.
    pub(super) async fn get(
        &self,
        good: impl Fn(&T) -> bool,
        ask: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let kept = || self.peek().filter(|answer| good(answer));
        if let Some(answer) = kept() {
            return Ok(answer);
        }
        let came = Instant::now();
        let mut failure = self.asking.lock().await;
        if let Some(answer) = kept() {
            return Ok(answer);
        }
        if let Some(failure) = failure.as_ref().filter(|failure| failure.at >= came || failure.at.elapsed() < PAUSE) {
            return Err(failure.error.clone());
        }
        self.ask(&mut failure, ask).await
    }

    /// Asks for a new answer while the old one will do. `None` if somebody else does or has, or it failed a moment ago.
    pub(super) async fn refresh(
        &self,
        good: impl Fn(&T) -> bool,
        ask: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Option<Result<T, AwsError>> {
        let mut failure = self.asking.try_lock().ok()?;
        if self.peek().is_some_and(|answer| good(&answer)) {
            return None;
        }
        if failure.as_ref().is_some_and(|failure| failure.at.elapsed() < PAUSE) {
            return None;
        }
        Some(self.ask(&mut failure, ask).await)
    }

    async fn ask(
        &self,
        failure: &mut Option<Failure>,
        ask: impl AsyncFnOnce() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let result = ask().await;
        *failure = result.as_ref().err().map(|error| Failure { at: Instant::now(), error: error.clone() });
        if let Ok(answer) = &result {
            *self.lock() = Some(answer.clone());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // Replaced as a whole: a panic elsewhere cannot have left it half written.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::aws::AwsErrorKind;

    fn refused() -> AwsError {
        AwsError { operation: "X", kind: AwsErrorKind::AccessDenied, message: String::new(), request_id: None }
    }

    async fn ask_ten(
        asked: &SingleFlight<u32>,
        calls: &AtomicU32,
        answer: &Result<u32, AwsError>,
    ) -> Vec<Result<u32, AwsError>> {
        let ask = || {
            asked.get(
                |_| true,
                async || {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer.clone()
                },
            )
        };
        join_all((0..10).map(|_| ask())).await
    }

    #[tokio::test]
    async fn one_asks_and_all_who_wait_get_its_answer_good_or_bad() {
        let (asked, calls) = (SingleFlight::default(), AtomicU32::new(0));
        assert_eq!(ask_ten(&asked, &calls, &Err(refused())).await, vec![Err(refused()); 10]);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(ask_ten(&asked, &calls, &Ok(1)).await, vec![Err(refused()); 10], "a moment later it is the same");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let asked = SingleFlight::default();
        assert_eq!(ask_ten(&asked, &calls, &Ok(1)).await, vec![Ok(1); 10]);
        assert_eq!(ask_ten(&asked, &calls, &Ok(2)).await, vec![Ok(1); 10], "it is kept");
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_good_enough_or_forgotten_is_asked_for_anew() {
        let asked = SingleFlight::default();
        assert_eq!(asked.get(|_| true, async || Ok(1)).await, Ok(1));
        assert_eq!(asked.get(|kept| *kept > 1, async || Ok(2)).await, Ok(2));
        asked.invalidate(|kept| *kept == 1);
        assert_eq!(asked.peek(), Some(2), "only the one that is meant");
        asked.invalidate(|kept| *kept == 2);
        assert_eq!(asked.get(|_| true, async || Ok(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn a_renewal_that_fails_leaves_what_there_is() {
        let asked = SingleFlight::default();
        assert_eq!(asked.get(|_| true, async || Ok(1)).await, Ok(1));
        let old = |answer: &u32| *answer > 1;
        assert_eq!(asked.refresh(old, async || Err(refused())).await, Some(Err(refused())));
        assert_eq!(asked.peek(), Some(1));
        assert_eq!(asked.refresh(old, async || Ok(2)).await, None, "it failed a moment ago");
        let asked = SingleFlight::default();
        assert_eq!(asked.refresh(old, async || Ok(2)).await, Some(Ok(2)));
        assert_eq!(asked.refresh(old, async || Ok(3)).await, None, "somebody else has renewed it");
    }
}
