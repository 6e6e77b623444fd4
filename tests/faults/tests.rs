//! Tests of the `it` binary that the scenarios reuse, included by path.

#![allow(dead_code, reason = "the it binary uses all of them")]

#[path = "../it/bad_input.rs"]
pub(crate) mod bad_input;
#[path = "../it/crash.rs"]
pub(crate) mod crash;
#[path = "../it/iam.rs"]
pub(crate) mod iam;
#[path = "../it/leader.rs"]
pub(crate) mod leader;
#[path = "../it/lifecycle.rs"]
pub(crate) mod lifecycle;
#[path = "../it/ownership.rs"]
pub(crate) mod ownership;
#[path = "../it/quarantine.rs"]
pub(crate) mod quarantine;
#[path = "../it/rotation.rs"]
pub(crate) mod rotation;
#[path = "../it/rotation_timing.rs"]
pub(crate) mod rotation_timing;
