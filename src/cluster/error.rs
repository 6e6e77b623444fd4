//! Errors of the Kubernetes API, told apart by what they mean for us.

use kube::Error;

/// A call to Kubernetes that did not succeed. Never holds content of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {message}")]
pub struct ClusterError {
    /// What was tried: verb, kind and name.
    pub action: String,
    /// What it means.
    pub kind: ClusterErrorKind,
    /// The API server's message, or ours for faults on the way.
    pub message: String,
}

/// What an error of Kubernetes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterErrorKind {
    /// 404.
    NotFound,
    /// 409 on create.
    AlreadyExists,
    /// 409 on a conditional write: somebody else wrote in between.
    Conflict,
    /// 401 or 403.
    Forbidden,
    /// The API server refuses the object.
    Invalid,
    /// No answer, or a fault of the server. A write may have had its effect.
    Unavailable,
}

impl ClusterErrorKind {
    /// Whether the API server has said no: the call certainly had no effect.
    #[must_use]
    pub fn is_definite(self) -> bool {
        self != Self::Unavailable
    }
}

impl ClusterError {
    /// The error of listing what the operator cannot work without.
    #[must_use]
    pub fn listing(kind: &str, error: &Error) -> Self {
        Self::of(format!("list {kind}"), error)
    }

    pub(super) fn of(action: String, error: &Error) -> Self {
        let (kind, message) = match error {
            Error::Api(status) => {
                let kind = match (status.code, status.reason.as_str()) {
                    (404, _) => ClusterErrorKind::NotFound,
                    (409, "AlreadyExists") => ClusterErrorKind::AlreadyExists,
                    (409, _) => ClusterErrorKind::Conflict,
                    (401 | 403, _) => ClusterErrorKind::Forbidden,
                    (408 | 429, _) => ClusterErrorKind::Unavailable,
                    (400..500, _) => ClusterErrorKind::Invalid,
                    _ => ClusterErrorKind::Unavailable,
                };
                (kind, status.message.clone())
            }
            // The input may be a Secret, and serde quotes what it cannot read.
            Error::SerdeError(_) => {
                (ClusterErrorKind::Unavailable, "the API server's answer cannot be read".to_owned())
            }
            other => (ClusterErrorKind::Unavailable, other.to_string()),
        };
        Self { action, kind, message }
    }
}
