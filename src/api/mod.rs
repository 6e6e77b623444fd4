//! The custom resources.
//!
//! The doc comments are the reference documentation: they become the descriptions in the CRDs and the output of
//! `kubectl explain`.

#![deny(missing_docs)]

pub mod class;
pub mod condition;
pub mod duration;
pub mod secret;
pub mod template;
pub mod user;
pub mod well_known;

pub use class::{AwsDeployUserClass, AwsDeployUserClassSpec, AwsDeployUserClassStatus};
pub use condition::{Condition, ConditionType, Reason, Time};
pub use duration::HumanDuration;
pub use secret::{SecretFormat, SecretSpec};
pub use user::{AwsDeployUser, AwsDeployUserSpec, AwsDeployUserStatus};

/// API group of both kinds.
pub const GROUP: &str = "awsdeploy.dev";

/// Field manager, value of `app.kubernetes.io/managed-by`, and reporting controller of Events.
pub const MANAGER: &str = "aws-deploy-user-operator";

/// DNS subdomain: the format of the names of Secrets, classes and workloads.
const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Plural name and YAML document of each custom resource definition.
///
/// # Errors
/// If a definition cannot be serialized, which would be a bug.
pub fn crds_yaml() -> Result<[(&'static str, String); 2], serde_saphyr::ser::Error> {
    use kube::CustomResourceExt;
    Ok([
        ("awsdeployusers", serde_saphyr::to_string(&AwsDeployUser::crd())?),
        ("awsdeployuserclasses", serde_saphyr::to_string(&AwsDeployUserClass::crd())?),
    ])
}
