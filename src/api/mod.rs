//! The custom resources: what people write and what they read back.
//!
//! The doc comments in here are the reference documentation: they become the
//! descriptions of the CRD and so the output of `kubectl explain`.

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

/// Field manager, `app.kubernetes.io/managed-by` value and reporting controller.
pub const MANAGER: &str = "aws-deploy-user-operator";

/// Names of Secrets, classes and workloads, as the API server takes them: DNS subdomains.
const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The custom resource definitions as YAML: plural name and document of each.
///
/// # Errors
/// When they cannot be written as YAML, which would be a defect.
pub fn crds_yaml() -> Result<[(&'static str, String); 2], serde_saphyr::ser::Error> {
    use kube::CustomResourceExt;
    Ok([
        ("awsdeployusers", serde_saphyr::to_string(&AwsDeployUser::crd())?),
        ("awsdeployuserclasses", serde_saphyr::to_string(&AwsDeployUserClass::crd())?),
    ])
}
