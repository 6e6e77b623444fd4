//! Tests of the scenario, in order of execution: see `TESTS` in main.rs.

pub(crate) mod faults;
pub(crate) mod handover;
pub(crate) mod install;
pub(crate) mod keys;
pub(crate) mod release;
pub(crate) mod restarts;
