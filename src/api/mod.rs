//! The custom resources.
//!
//! The doc comments are the reference documentation: they become the descriptions in the CRDs and the output of
//! `kubectl explain`.

#![deny(missing_docs)]

pub mod class;
pub mod condition;
mod definition;
pub mod duration;
mod format;
pub mod secret;
pub mod template;
pub mod user;
pub mod well_known;

pub use class::{AwsDeployUserClass, AwsDeployUserClassSpec, AwsDeployUserClassStatus};
pub use condition::{Condition, ConditionType, Reason, Time};
pub use definition::{crds, crds_yaml};
pub use duration::HumanDuration;
pub use secret::{SecretFormat, SecretSpec};
pub use user::{AwsDeployUser, AwsDeployUserSpec, AwsDeployUserStatus};

/// API group of both kinds.
pub const GROUP: &str = "awsdeploy.dev";

/// Field manager, value of `app.kubernetes.io/managed-by`, and reporting controller of Events.
pub const MANAGER: &str = "aws-deploy-user-operator";
