//! Errors that prevent the operator from starting.

use std::error::Error as _;

use kube::config::{InferConfigError, KubeconfigError};

use crate::cluster::{ClusterError, ClusterErrorKind};

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no Kubernetes cluster is configured: {0}. Set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Config(String),
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

impl From<InferConfigError> for RunError {
    fn from(error: InferConfigError) -> Self {
        // The parser quotes the lines of a kubeconfig that it cannot parse, and they may hold a token.
        let kubeconfig = error.source().and_then(|source| source.downcast_ref());
        Self::Config(match kubeconfig {
            Some(KubeconfigError::Parse(_)) => "the kubeconfig cannot be parsed".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl RunError {
    /// Classifies the error of the first list: no CRD, no RBAC permission, or no API server.
    pub(super) fn from_first_list(kind: &str, error: &kube::Error) -> Self {
        let error = ClusterError::from_list(kind, error);
        if error.kind == ClusterErrorKind::NotFound {
            return Self::CrdNotFound(format!("{kind}: {}", error.message));
        }
        Self::Cluster(error)
    }
}
