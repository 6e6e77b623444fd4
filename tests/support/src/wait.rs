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
    let asking = async {
        loop {
            let next = Instant::now() + INTERVAL;
            if let Some(answer) = probe().await {
                return answer;
            }
            sleep_until(next).await;
        }
    };
    timeout_at(deadline, asking).await.map_err(|_| Error::TimedOut { what: what.into(), limit, tail: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_at_once_when_it_is_so_already() {
        let before = Instant::now();
        assert_eq!(eventually("it", Duration::from_secs(1), async || Some(7)).await.ok(), Some(7));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline_even_if_the_probe_hangs() {
        let before = Instant::now();
        let error = eventually::<(), _, _>("godot", Duration::from_secs(3), std::future::pending).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 3s for godot");
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }
}
