//! Liveness by brute force: from a state on, one controller runs without further faults and time passes. It must reach a
//! state in which nothing changes any more, and that state must be good.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;

use crate::{
    canonical::canonical,
    protocol::{Action, Protocol},
    state::{At, Budget, Controller, Key, State},
};

/// A controller that needs more steps than this loops.
const MAX_STEPS: usize = 600;

/// States that are known to converge.
#[derive(Debug, Default)]
pub struct Convergence {
    known: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Protocol {
    /// Whether one controller converges from here without further faults.
    ///
    /// The calls of a running reconcile are states of their own, so it is enough to check when one has ended. The other
    /// controllers have crashed.
    pub(crate) fn converges(&self, state: &State) -> bool {
        let alone = state.controllers.iter().take(self.controllers).find(|controller| controller.at == At::Idle);
        let Some(alone) = alone else { return true };
        let controllers = [Controller { cache: None, ..*alone }, Controller::default()];
        // Without further faults the rest of the budget makes no difference.
        let mut state = State { budget: Budget::default(), controllers, ..*state };
        canonical(&mut state);
        let mut path = Vec::new();
        for _ in 0..MAX_STEPS {
            let print = self.convergence.hasher.hash_one(state);
            if self.lock().contains(&print) {
                return self.record(path);
            }
            path.push(print);
            let before = state;
            if !self.reconcile(&mut state) {
                return false;
            }
            let unchanged = |state: &State| {
                (state.keys, state.secret, state.journal) == (before.keys, before.secret, before.journal)
            };
            if !unchanged(&state) {
                continue;
            }
            // Nothing to do now, but perhaps later.
            for least in self.leaps() {
                if unchanged(&state) {
                    state.leap(least);
                    canonical(&mut state);
                }
            }
            if unchanged(&state) {
                return is_good(&state) && self.record(path);
            }
        }
        false
    }

    /// A whole reconcile without faults. False if it does not end.
    fn reconcile(&self, state: &mut State) -> bool {
        for _ in 0..MAX_STEPS {
            // The default controller sorts last, so the remaining one has index 0.
            self.step(state, 0, Action::Step(0));
            let idle = state.controllers[0].at == At::Idle;
            if idle {
                // Convergence must not depend on the cache of a process.
                state.controllers[0].cache = None;
            }
            canonical(state);
            if idle {
                return true;
            }
        }
        false
    }

    fn record(&self, path: Vec<u64>) -> bool {
        self.lock().extend(path);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.convergence.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No attempt is running, every key is published or foreign, no tag is left over, and the Secret honours the request, unless
/// foreign keys take the slots.
fn is_good(state: &State) -> bool {
    let published = state.secret.map_or(0, |secret| secret.key);
    let working = state.keys.works(published);
    let honoured = state.secret.is_some_and(|secret| secret.honours == state.request);
    // Known limit: the key of a late writer that crashed. It also makes the orphan of another attempt without a response
    // ambiguous, and an ambiguous orphan is not deleted.
    let late = state.keys.existing().any(|key| key.truth.late);
    let accounted = |key: &Key| key.id == published || key.truth.foreign || late || (!working && key.tagged.is_some());
    // A slot that is not ours, or not any more, blocks the next key.
    let people = state.keys.existing().any(|key| key.truth.foreign);
    let blocked = state.keys.existing().count() >= 2 && (people || late);
    let tidy = state.journal.is_none() && state.keys.iter().all(|key| key.exists);
    tidy && state.keys.existing().all(accounted) && ((working && honoured) || blocked)
}
