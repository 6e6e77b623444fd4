//! Errors that prevent the operator from starting.

use crate::cluster::ClusterError;

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no Kubernetes cluster is configured: {0}. Set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Config(#[from] kube::config::InferConfigError),
    #[error("failed to create the Kubernetes client: {0}")]
    Client(#[from] Box<kube::Error>),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "the cluster does not serve {0}. Install the CRDs first: they come with the Helm chart, or kubectl apply -f crds/"
    )]
    CrdNotFound(String),
    #[error("failed to listen on {0} (--metrics-bind-address): {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("{0}")]
    InvalidSetting(String),
}

impl RunError {
    /// Classifies the error of the first list: no CRD, no RBAC permission, or no API server.
    pub(super) fn from_first_list(kind: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::CrdNotFound(format!("{kind}: {}", status.message)),
            error => Self::Cluster(ClusterError::from_list(kind, &error)),
        }
    }
}
