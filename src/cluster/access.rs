//! Whether the operator may handle Secrets in a namespace, asked before a key is made.

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::error::{ClusterError, ClusterErrorKind};

/// What the protocol needs: it reads, creates, replaces and deletes Secrets by name. Nothing lists them.
pub const VERBS: [&str; 4] = ["get", "create", "update", "delete"];

/// Asks the API server about the operator's own rights.
#[derive(Clone)]
pub struct SecretAccess {
    client: Client,
    current_user: String,
    cluster_role: String,
    restarts_cluster_role: String,
}

impl SecretAccess {
    /// The user and the `ClusterRole`s, for Secrets and for restarts, that the fix is written for.
    #[must_use]
    pub fn new(client: Client, current_user: String, cluster_role: String, restarts_cluster_role: String) -> Self {
        Self { client, current_user, cluster_role, restarts_cluster_role }
    }

    /// Fails with the exact command that grants what is missing.
    pub async fn check(&self, namespace: &str) -> Result<(), ClusterError> {
        let allowed = try_join_all(VERBS.map(|verb| self.may(namespace, verb))).await?;
        let missing: Vec<_> =
            VERBS.into_iter().zip(allowed).filter(|(_, allowed)| !allowed).map(|(verb, _)| verb).collect();
        if missing.is_empty() { Ok(()) } else { Err(self.secret_access_denied(namespace, &missing.join(", "))) }
    }

    /// The error for a namespace in which the operator may not handle Secrets.
    #[must_use]
    pub fn secret_access_denied(&self, namespace: &str, what: &str) -> ClusterError {
        ClusterError {
            action: format!("check access to Secrets in namespace {namespace}"),
            kind: ClusterErrorKind::Forbidden,
            message: format!(
                "the operator may not {what} Secrets there. A cluster admin can grant it: add {namespace} to the chart value secretAccess.namespaces, or run: {}",
                self.command(namespace, &self.cluster_role),
            ),
        }
    }

    /// The error for a namespace in which the operator may not restart workloads. `said` are the API server's words.
    #[must_use]
    pub fn restart_access_denied(&self, namespace: &str, said: &str) -> ClusterError {
        ClusterError {
            action: format!("restart workloads in namespace {namespace}"),
            kind: ClusterErrorKind::Forbidden,
            message: format!(
                "the operator may not restart it ({said}). A cluster admin can grant it: add {namespace} to the chart value restartAccess.namespaces, or run: {}",
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

    async fn may(&self, namespace: &str, verb: &str) -> Result<bool, ClusterError> {
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
            .map_err(|error| ClusterError::of("create SelfSubjectAccessReview".to_owned(), &error))?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }
}
