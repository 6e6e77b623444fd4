//! The story, chapter by chapter. Each function is a claim.

pub(crate) mod faults;
pub(crate) mod install;
pub(crate) mod keys;
pub(crate) mod release;
pub(crate) mod restarts;
