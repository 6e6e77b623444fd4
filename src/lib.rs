//! Kubernetes operator that reconciles `AwsDeployUser` resources into IAM users, policies and access keys, and rotates the
//! keys with an overlap.
//!
//! # Module layout
//!
//! Data flows through the modules in this order:
//!
//! | module | content | may use |
//! |---|---|---|
//! | [`api`] | custom resources, annotations and ownership tags | kube-core, k8s-openapi, schemars |
//! | [`domain`] | **pure**: desired state, observed state, plan, rotation protocol, schedule, rendering | `api`, jiff, serde; no client, no clock |
//! | [`aws`] | IAM and STS; the only module that uses the AWS SDK | `domain` types, never kube |
//! | [`cluster`] | published Secret, journal, status, Events; the only module that handles kube errors | `api`, `domain`, never `aws` |
//! | [`reconcile`] | one reconciliation: observe, validate, plan, act, update status | all of the above |
//! | [`operator`] | settings, controllers, HTTP server, metrics, telemetry | `reconcile` |
//!
//! [`trace`] creates the spans of a reconciliation.
//!
//! A test (`tests/it/architecture.rs`) enforces this table.

pub mod api;
pub mod aws;
pub mod cluster;
pub mod domain;
pub mod operator;
pub mod reconcile;
pub mod trace;
