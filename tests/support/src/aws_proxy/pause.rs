//! Holding a call on its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Holds calls at a point of their way, so that a test can act while one is there: kill the operator, read the truth,
/// let another replica run. Clones are the same pause.
///
/// Letting go is for good: calls that come later pass.
#[derive(Clone)]
pub struct Pause {
    state: Arc<watch::Sender<PauseState>>,
}

#[derive(Clone, Copy, Default)]
struct PauseState {
    held: usize,
    arrived: usize,
    verdict: Option<Verdict>,
}

/// What becomes of a held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Go,
    /// The connection is closed; held before AWS, it never happens.
    Abort,
}

impl Default for Pause {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(PauseState::default())) }
    }
}

impl Pause {
    /// Waits until a call has been held, now or before. Whether one was, within the time.
    pub async fn paused(&self, within: Duration) -> bool {
        let mut changes = self.state.subscribe();
        let arrived = changes.wait_for(|state| state.arrived > 0);
        matches!(tokio::time::timeout(within, arrived).await, Ok(Ok(_)))
    }

    /// Calls held right now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.borrow().held
    }

    /// Lets held calls go on, and later ones pass.
    pub fn release(&self) {
        self.state.send_modify(|state| state.verdict = Some(Verdict::Go));
    }

    /// Closes the connections of held calls. What was held before AWS never happens; later calls pass.
    pub fn abort(&self) {
        self.state.send_modify(|state| {
            // Later calls must pass, so with nothing held there is nothing to abort.
            state.verdict = Some(if state.held > 0 { Verdict::Abort } else { Verdict::Go });
        });
    }

    /// Holds the calling task until the verdict.
    pub(crate) async fn hold(&self) -> Verdict {
        if self.state.borrow().verdict.is_some() {
            return Verdict::Go;
        }
        self.state.send_modify(|state| {
            state.held += 1;
            state.arrived += 1;
        });
        let mut changes = self.state.subscribe();
        let verdict = match changes.wait_for(|state| state.verdict.is_some()).await {
            Ok(state) => state.verdict.unwrap_or(Verdict::Go),
            Err(_) => Verdict::Go,
        };
        self.state.send_modify(|state| state.held -= 1);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_pause_holds_until_the_verdict_and_later_calls_pass() {
        for (verdict, settle) in [(Verdict::Go, Pause::release as fn(&Pause)), (Verdict::Abort, Pause::abort)] {
            let pause = Pause::default();
            assert!(!pause.paused(Duration::from_millis(10)).await);
            let held = tokio::spawn({
                let pause = pause.clone();
                async move { pause.hold().await }
            });
            assert!(pause.paused(SOON).await);
            assert_eq!(pause.held(), 1);
            assert!(!held.is_finished());
            settle(&pause);
            assert_eq!(held.await.unwrap(), verdict);
            assert_eq!(pause.held(), 0);
            assert_eq!(pause.hold().await, Verdict::Go);
        }
    }
}
