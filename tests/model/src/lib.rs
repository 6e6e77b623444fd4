//! Model of the rotation protocol, explored step by step.
//!
//! A controller of the model reads IAM, then the published Secret, then the journal, calls the operator's own `plan`,
//! executes the first effect, applies the result and plans again, exactly as a reconcile of the operator does. Between any
//! two of these steps anything else may happen: another controller takes steps (there is no leader election), the
//! controller crashes, a response is lost, IAM's list lags, AWS does not accept a key, time passes, a person creates a key
//! or deletes the Secret. Stateright visits every order of these events within a [`Budget`].
//!
//! Only IAM and Kubernetes are modelled. Decisions are not: [`decide`] converts what a controller has observed into the
//! operator's `CurrentState` and calls the operator's code, so model and code cannot diverge.

mod canonical;
mod convergence;
mod decide;
#[cfg(test)]
mod model_check;
mod protocol;
mod reconcile;
pub mod state;

pub use canonical::{Renamed, canonical};
pub use decide::{DecisionInput, Do, decide, rules_that_decided};
pub use protocol::{
    Action, CONVERGES, FOREIGN_KEYS_ARE_UNTOUCHED, HANDOVER_IS_AWAITED, HANDOVER_IS_BOUNDED, Handover,
    ID_AND_VALUE_BELONG_TOGETHER, ONE_CALL_PER_ATTEMPT, OVERLAP_IS_KEPT, PUBLISHED_KEY_WORKS, Protocol, Start,
    TWO_KEYS_AT_MOST, Variant,
};
pub use state::{Budget, State};
