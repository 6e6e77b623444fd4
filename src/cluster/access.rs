//! The operator's own rights in a namespace, checked before a key is created.

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::error::{ClusterError, ClusterErrorKind};

/// Verbs on Secrets that the rotation protocol needs. Secrets are accessed by name and never listed.
pub const VERBS: [&str; 4] = ["get", "create", "update", "delete"];

/// Checks access with a `SelfSubjectAccessReview`; its errors name the command that grants what is missing.
#[derive(Clone)]
pub struct SecretAccess {
    client: Client,
    current_user: String,
    cluster_role: String,
    restarts_cluster_role: String,
}

impl SecretAccess {
    /// `current_user` and the `ClusterRole`s for Secrets and for restarts appear in the suggested commands.
    #[must_use]
    pub fn new(client: Client, current_user: String, cluster_role: String, restarts_cluster_role: String) -> Self {
        Self { client, current_user, cluster_role, restarts_cluster_role }
    }

    /// Checks all verbs that the protocol needs on Secrets in a namespace: one review per verb, concurrently.
    ///
    /// # Errors
    /// `Forbidden` with the missing verbs and the command that grants them.
    pub async fn check(&self, namespace: &str) -> Result<(), ClusterError> {
        let allowed = try_join_all(VERBS.map(|verb| self.is_allowed(namespace, verb))).await?;
        let missing: Vec<_> =
            VERBS.into_iter().zip(allowed).filter(|(_, allowed)| !allowed).map(|(verb, _)| verb).collect();
        if missing.is_empty() { Ok(()) } else { Err(self.secret_access_denied(namespace, &missing.join(", "))) }
    }

    /// The error for a namespace in which the operator lacks `verbs` on Secrets.
    #[must_use]
    pub fn secret_access_denied(&self, namespace: &str, verbs: &str) -> ClusterError {
        ClusterError {
            action: format!("check access to Secrets in namespace {namespace}"),
            kind: ClusterErrorKind::Forbidden,
            message: format!(
                "the operator may not {verbs} Secrets there. A cluster admin can grant it: add {namespace} to the chart value secretAccess.namespaces, or run: {}",
                self.command(namespace, &self.cluster_role),
            ),
        }
    }

    /// The error for a namespace in which the operator may not restart workloads. `message` is the API server's.
    #[must_use]
    pub fn restart_access_denied(&self, namespace: &str, message: &str) -> ClusterError {
        ClusterError {
            action: format!("restart workloads in namespace {namespace}"),
            kind: ClusterErrorKind::Forbidden,
            message: format!(
                "the operator may not restart it ({message}). A cluster admin can grant it: add {namespace} to the chart value restartAccess.namespaces, or run: {}",
                self.command(namespace, &self.restarts_cluster_role),
            ),
        }
    }

    fn command(&self, namespace: &str, role: &str) -> String {
        let subject =
            match self.current_user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
                Some((namespace, name)) => format!("--serviceaccount={namespace}:{name}"),
                None => format!("--user={}", self.current_user),
            };
        format!("kubectl -n {namespace} create rolebinding {role} --clusterrole={role} {subject}")
    }

    async fn is_allowed(&self, namespace: &str, verb: &str) -> Result<bool, ClusterError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("secrets".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| ClusterError::new("create SelfSubjectAccessReview".to_owned(), &error))?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }
}
