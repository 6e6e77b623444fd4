//! Status of `AwsDeployUserClass` resources.

use kube::{Api, Client, api::PostParams};

use super::{error::ClusterError, guarded::Guarded};
use crate::api::{AwsDeployUserClass, AwsDeployUserClassStatus, MANAGER};

/// Writes the status of classes.
pub struct ClassStatusWriter {
    api: Api<Guarded<AwsDeployUserClass>>,
}

impl ClassStatusWriter {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// Replaces the status. `Conflict` if the class changed since it was read.
    pub async fn write(
        &self,
        class: &AwsDeployUserClass,
        status: AwsDeployUserClassStatus,
    ) -> Result<(), ClusterError> {
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut class = class.clone();
        class.metadata.managed_fields = None;
        class.status = Some(status);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = self.api.replace_subresource("status", &name, &params, &class).await;
        written
            .map(drop)
            .map_err(|error| ClusterError::new(format!("update status of AwsDeployUserClass {name}"), &error))
    }
}
