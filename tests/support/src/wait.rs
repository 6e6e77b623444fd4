//! Waiting for what will happen, with a deadline. Tests never sleep for a fixed time and hope.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{Error, Result};

/// How often [`eventually`] looks.
const INTERVAL: Duration = Duration::from_millis(25);

/// Asks `probe` until it answers, at most for `limit`. `what` names it in the error: "waited 5s for `what`".
///
/// A probe that hangs is cut off at the deadline too.
pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    let polling = async {
        loop {
            let next = Instant::now() + INTERVAL;
            if let Some(value) = probe().await {
                return value;
            }
            sleep_until(next).await;
        }
    };
    timeout_at(deadline, polling).await.map_err(|_| Error::TimedOut { what: what.into(), limit, tail: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_success_returns_without_delay() {
        let before = Instant::now();
        assert_eq!(eventually("it", Duration::from_secs(1), async || Some(7)).await.ok(), Some(7));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_probe_times_out_at_the_deadline() {
        let before = Instant::now();
        let error =
            eventually::<(), _, _>("a condition", Duration::from_secs(3), std::future::pending).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 3s for a condition");
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }
}
