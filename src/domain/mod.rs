//! PURE: everything that is decided, and nothing that is done.
//!
//! No client, no clock, no async. Time is an argument. This is what the unit tables, the
//! property tests and the model run.

pub mod account;
pub mod authorize;
pub mod backoff;
pub mod change_key;
pub mod class_conditions;
pub mod conditions;
pub mod console;
pub mod current_state;
pub mod dates;
pub mod desired;
pub mod fair_queue;
pub mod first_key_pace;
pub mod handover;
pub mod installation;
pub mod journal;
pub mod key_tag;
pub mod managed_policy;
mod memo;
pub mod operator_policy;
pub mod owner;
pub mod pause;
mod placement;
pub mod plan;
pub mod policy;
pub mod policy_document;
pub mod reconcile_rate;
pub mod restart;
pub mod role_policy;
pub mod schedule;
pub mod secret;
pub mod settings;
pub mod stale_journal;
pub mod target;
pub mod validate;
mod wait_conditions;
pub mod window;
