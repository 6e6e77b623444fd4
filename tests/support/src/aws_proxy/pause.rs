//! Holds calls, so that a test can act meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Holds calls at one point of their processing, so that a test can act meanwhile: kill the operator, inspect AWS, run
/// another replica. Clones share the state.
///
/// After [`Pause::release`] or [`Pause::abort`] later calls are not held.
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

/// How a held call continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldOutcome {
    /// The call is processed.
    Proceed,
    /// The connection is closed. A call held before the commit never reaches AWS.
    Abort,
}

impl Default for Pause {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(PauseState::default())) }
    }
}

impl Pause {
    /// Waits until a call is or was held; `false` after the time limit.
    pub async fn wait_until_held(&self, within: Duration) -> bool {
        let mut changes = self.state.subscribe();
        let arrived = changes.wait_for(|state| state.arrived > 0);
        matches!(tokio::time::timeout(within, arrived).await, Ok(Ok(_)))
    }

    /// Number of calls held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.borrow().held
    }

    /// Continues held calls; later calls are not held.
    pub fn release(&self) {
        self.state.send_modify(|state| state.outcome = Some(HoldOutcome::Proceed));
    }

    /// Closes the connections of held calls; later calls are not held.
    pub fn abort(&self) {
        self.state.send_modify(|state| {
            // Later calls must not be aborted.
            state.outcome = Some(if state.held > 0 { HoldOutcome::Abort } else { HoldOutcome::Proceed });
        });
    }

    /// Holds the calling task until the call is released or aborted.
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

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn pause_holds_calls_until_released_or_aborted() {
        for (outcome, settle) in
            [(HoldOutcome::Proceed, Pause::release as fn(&Pause)), (HoldOutcome::Abort, Pause::abort)]
        {
            let pause = Pause::default();
            assert!(!pause.wait_until_held(Duration::from_millis(10)).await);
            let held = tokio::spawn({
                let pause = pause.clone();
                async move { pause.hold().await }
            });
            assert!(pause.wait_until_held(TIMEOUT).await);
            assert_eq!(pause.held(), 1);
            assert!(!held.is_finished());
            settle(&pause);
            assert_eq!(held.await.unwrap(), outcome);
            assert_eq!(pause.held(), 0);
            assert_eq!(pause.hold().await, HoldOutcome::Proceed);
        }
    }
}
