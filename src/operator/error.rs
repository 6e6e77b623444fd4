//! Why the operator cannot run.

use crate::cluster::ClusterError;

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No cluster.
    #[error("no Kubernetes cluster is configured: {0}. Set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Config(#[from] kube::config::InferConfigError),
    /// No client.
    #[error("the Kubernetes client cannot be set up: {0}")]
    Client(#[from] Box<kube::Error>),
    /// The cluster refuses something that is needed from the start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No CRD.
    #[error(
        "the cluster does not know {0}. Install the CRDs first: they come with the Helm chart, or kubectl apply -f crds/"
    )]
    Crd(String),
    /// The address is taken.
    #[error("cannot listen on {0} (--metrics-bind-address): {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
}

impl RunError {
    /// The first list tells whether the CRD is there, whether we may read it, and whether there is an API server at all.
    pub(super) fn from_first_list(kind: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::Crd(format!("{kind}: {}", status.message)),
            error => Self::Cluster(ClusterError::from_list(kind, &error)),
        }
    }
}
