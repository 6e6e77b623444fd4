//! Kubernetes operator that turns `AwsDeployUser` resources into IAM users, policies and
//! access keys, and rotates the keys with an overlap.
//!
//! # The map of the house
//!
//! The way of the data is the way through the folders:
//!
//! | folder | what | may use |
//! |---|---|---|
//! | [`api`] | the custom resources and the marks by which we know our own | kube-core, k8s-openapi, schemars |
//! | [`domain`] | **pure**: desired state, world, plan, protocol, schedule, rendering | `api`, jiff, serde; no client, no clock |
//! | [`aws`] | IAM and STS in our words; the only place that knows the SDK | `domain` types, never kube |
//! | [`cluster`] | the published Secret, the journal, status, Events; the only place that knows kube's errors | `api`, `domain`, never `aws` |
//! | [`reconcile`] | one pass: observe -> validate -> plan -> act -> report | all of the above |
//! | [`operator`] | settings, controller, HTTP endpoints, metrics, telemetry | `reconcile` |
//!
//! Beside them, [`trace`] makes the spans of a pass, for whoever collects traces.
//!
//! A test (`tests/it/house.rs`) holds the code to this table.

pub mod api;
pub mod aws;
pub mod cluster;
pub mod domain;
pub mod operator;
pub mod reconcile;
pub mod trace;
