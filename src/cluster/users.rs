//! Writes to `AwsDeployUser` resources: finalizer and status. Each is conditional: `Conflict` if the resource changed since it
//! was read.

use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    error::{ClusterError, ClusterErrorKind},
    user_stores::GuardedUser,
};
use crate::api::{AwsDeployUser, AwsDeployUserStatus, MANAGER, well_known};

/// Attempts to change the status of a resource that others change at the same time.
const STATUS_WRITES: u32 = 5;

/// `AwsDeployUser` resources of one namespace.
pub struct DeployUsers {
    api: Api<GuardedUser>,
    namespace: String,
}

impl DeployUsers {
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    pub async fn add_finalizer(&self, user: &AwsDeployUser) -> Result<AwsDeployUser, ClusterError> {
        let mut finalizers = user.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(well_known::FINALIZER.to_owned());
        self.set_finalizers(user, &finalizers).await
    }

    /// A resource that does not exist is no error.
    pub async fn remove_finalizer(&self, user: &AwsDeployUser) -> Result<(), ClusterError> {
        let mut finalizers = user.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != well_known::FINALIZER);
        ClusterError::ignore_not_found(self.set_finalizers(user, &finalizers).await)
    }

    /// UID of the resource of this name, read from the API server. `None` only when the API server responds 404.
    pub async fn uid(&self, name: &str) -> Result<Option<String>, ClusterError> {
        let found = self.api.get_opt(name).await.map_err(|error| self.error("get", name, &error))?;
        Ok(found.and_then(|user| user.meta().uid.clone()))
    }

    /// Replaces the status.
    pub async fn write_status(
        &self,
        user: &AwsDeployUser,
        status: AwsDeployUserStatus,
    ) -> Result<AwsDeployUser, ClusterError> {
        let name = user.metadata.name.clone().unwrap_or_default();
        let mut user = user.clone();
        user.metadata.managed_fields = None;
        user.status = Some(status);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = self.api.replace_subresource("status", &name, &params, &user).await;
        written.map(|written| returned(written, user)).map_err(|error| self.error("update status of", &name, &error))
    }

    /// Changes the status, and again if the resource was changed meanwhile: a tenant that writes all the time does not prevent
    /// it.
    pub async fn update_status(
        &self,
        user: &AwsDeployUser,
        change: impl Fn(AwsDeployUserStatus) -> AwsDeployUserStatus,
    ) -> Result<AwsDeployUser, ClusterError> {
        let name = user.metadata.name.as_deref().unwrap_or_default();
        let mut user = user.clone();
        for _ in 1..STATUS_WRITES {
            match self.write_status(&user, change(user.status.clone().unwrap_or_default())).await {
                Err(error) if error.kind == ClusterErrorKind::Conflict => {}
                written => return written,
            }
            let latest = self.api.get(name).await.map_err(|error| self.error("get", name, &error))?;
            user = latest.into_object().filter(|latest| latest.metadata.uid == user.metadata.uid).unwrap_or(user);
        }
        self.write_status(&user, change(user.status.clone().unwrap_or_default())).await
    }

    async fn set_finalizers(&self, user: &AwsDeployUser, finalizers: &[String]) -> Result<AwsDeployUser, ClusterError> {
        let name = user.metadata.name.clone().unwrap_or_default();
        let patch = json!({"metadata": {"resourceVersion": user.metadata.resource_version, "finalizers": finalizers}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let written = self.api.patch(&name, &params, &Patch::Merge(&patch)).await;
        written
            .map(|written| returned(written, user.clone()))
            .map_err(|error| self.error("set finalizers of", &name, &error))
    }

    fn error(&self, verb: &str, name: &str, error: &kube::Error) -> ClusterError {
        ClusterError::new(format!("{verb} AwsDeployUser {}/{name}", self.namespace), error)
    }
}

/// The resource as a write returned it. The API server accepted the write, whether or not its response can be read.
fn returned(written: GuardedUser, before: AwsDeployUser) -> AwsDeployUser {
    let metadata = written.meta().clone();
    written.into_object().unwrap_or(AwsDeployUser { metadata, ..before })
}
