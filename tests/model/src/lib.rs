//! The rotation protocol, explored step by step.
//!
//! A controller of the model reads IAM, then the published Secret, then the journal, asks the
//! operator's own `plan` what to do, does it, learns the result and asks again, exactly as a pass
//! of the operator does. Between any two of these steps everything else may happen: another
//! controller takes steps of its own (there is no leader election at all), the controller dies, an
//! answer is lost, IAM's list lags, AWS does not accept a key, time passes, a person adds a key or
//! deletes the Secret. Stateright visits every order of these events within a [`Budget`].
//!
//! Only the world is modelled. What is decided is not: [`decide`] turns what a controller has seen
//! into the operator's `CurrentState` and calls the operator's code, so model and code cannot drift apart.

mod canonical;
mod decide;
#[cfg(test)]
mod model_check;
mod pass;
mod protocol;
mod settle;
pub mod state;

pub use canonical::{Renamed, canonical};
pub use decide::{Do, decide, rules_that_decided};
pub use protocol::{
    Action, FOREIGN_KEYS_ARE_LEFT, ID_AND_VALUE_BELONG_TOGETHER, IT_CONVERGES, ONE_CALL_AN_ATTEMPT, OVERLAP_IS_KEPT,
    PUBLISHED_KEY_WORKS, Protocol, Start, TWO_KEYS_AT_MOST, Variant,
};
pub use state::{Budget, State};
