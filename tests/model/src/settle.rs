//! Liveness, by brute force: from a state on, one controller is left alone and time passes. It must
//! come to rest, and at rest everything must be as it should be.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;

use crate::{
    canonical::canonical,
    protocol::{Action, Protocol},
    state::{At, Budget, Controller, DWELL, Key, LIMIT, OVERLAP, State},
};

/// A controller that needs more steps than this is going in circles.
const MOST_STEPS: usize = 600;

/// States that are known to come to rest as they should.
#[derive(Debug, Default)]
pub struct Settled {
    known: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Protocol {
    /// Whether one controller, left alone, brings everything to its end from here.
    ///
    /// Where a pass is under way its next calls are states of their own, so it is enough to ask when
    /// one has ended. The others, if there are any, have died.
    pub(crate) fn converges(&self, state: &State) -> bool {
        let alone = state.controllers.iter().take(self.controllers).find(|controller| controller.at == At::Idle);
        let Some(alone) = alone else { return true };
        let controllers = [Controller { memory: None, ..*alone }, Controller::default()];
        // No more trouble: what is left of the budget makes no difference.
        let mut state = State { budget: Budget::default(), controllers, ..*state };
        canonical(&mut state);
        let mut path = Vec::new();
        for _ in 0..MOST_STEPS {
            let print = self.settled.hasher.hash_one(state);
            if self.lock().contains(&print) {
                return self.remember(path);
            }
            path.push(print);
            let before = state;
            if !self.pass(&mut state) {
                return false;
            }
            let unchanged = |state: &State| {
                (state.keys, state.secret, state.journal) == (before.keys, before.secret, before.journal)
            };
            if !unchanged(&state) {
                continue;
            }
            // Nothing to do now; perhaps later.
            for least in [DWELL, LIMIT, OVERLAP] {
                if unchanged(&state) {
                    state.leap(least);
                    canonical(&mut state);
                }
            }
            if unchanged(&state) {
                return is_good(&state) && self.remember(path);
            }
        }
        false
    }

    /// A whole pass in which all goes well. False if it does not end.
    fn pass(&self, state: &mut State) -> bool {
        for _ in 0..MOST_STEPS {
            // The one that is left is the first one: the other is nothing, and that is less.
            self.step(state, 0, Action::Step(0));
            let idle = state.controllers[0].at == At::Idle;
            if idle {
                // A process may forget; convergence must not hang on its memory.
                state.controllers[0].memory = None;
            }
            canonical(state);
            if idle {
                return true;
            }
        }
        false
    }

    fn remember(&self, path: Vec<u64>) -> bool {
        self.lock().extend(path);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.settled.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At rest: no attempt is under way, every key is published or a person's, no tag is left over, and
/// the Secret has what was asked for, unless people have taken the slots.
fn is_good(state: &State) -> bool {
    let published = state.secret.map_or(0, |secret| secret.key);
    let working = state.keys.works(published);
    let honoured = state.secret.is_some_and(|secret| secret.honours == state.request);
    // A key of a late writer that died is the limit. It also makes the orphan of another attempt that had no
    // answer one of two keys that could be it, and then none is deleted.
    let late = state.keys.living().any(|key| key.truth.late);
    let accounted = |key: &Key| key.id == published || key.truth.foreign || late || (!working && key.tagged.is_some());
    // A slot that is not ours, or is not ours any more, stands in the way of the next key.
    let people = state.keys.living().any(|key| key.truth.foreign);
    let blocked = state.keys.living().count() >= 2 && (people || late);
    let tidy = state.journal.is_none() && state.keys.iter().all(|key| key.there);
    tidy && state.keys.living().all(accounted) && ((working && honoured) || blocked)
}
