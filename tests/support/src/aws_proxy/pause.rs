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
    outcome: Option<HoldOutcome>,
}

/// What becomes of a held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldOutcome {
    /// It goes on.
    Proceed,
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
    pub async fn wait_until_held(&self, within: Duration) -> bool {
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
        self.state.send_modify(|state| state.outcome = Some(HoldOutcome::Proceed));
    }

    /// Closes the connections of held calls. What was held before AWS never happens; later calls pass.
    pub fn abort(&self) {
        self.state.send_modify(|state| {
            // Later calls must pass, so with nothing held there is nothing to abort.
            state.outcome = Some(if state.held > 0 { HoldOutcome::Abort } else { HoldOutcome::Proceed });
        });
    }

    /// Holds the calling task until the outcome.
    pub(crate) async fn hold(&self) -> HoldOutcome {
        if self.state.borrow().outcome.is_some() {
            return HoldOutcome::Proceed;
        }
        self.state.send_modify(|state| {
            state.held += 1;
            state.arrived += 1;
        });
        let mut changes = self.state.subscribe();
        let outcome = match changes.wait_for(|state| state.outcome.is_some()).await {
            Ok(state) => state.outcome.unwrap_or(HoldOutcome::Proceed),
            Err(_) => HoldOutcome::Proceed,
        };
        self.state.send_modify(|state| state.held -= 1);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_pause_holds_until_the_verdict_and_later_calls_pass() {
        for (outcome, settle) in
            [(HoldOutcome::Proceed, Pause::release as fn(&Pause)), (HoldOutcome::Abort, Pause::abort)]
        {
            let pause = Pause::default();
            assert!(!pause.wait_until_held(Duration::from_millis(10)).await);
            let held = tokio::spawn({
                let pause = pause.clone();
                async move { pause.hold().await }
            });
            assert!(pause.wait_until_held(SOON).await);
            assert_eq!(pause.held(), 1);
            assert!(!held.is_finished());
            settle(&pause);
            assert_eq!(held.await.unwrap(), outcome);
            assert_eq!(pause.held(), 0);
            assert_eq!(pause.hold().await, HoldOutcome::Proceed);
        }
    }
}
