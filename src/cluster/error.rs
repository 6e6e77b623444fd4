//! Errors of the Kubernetes API, classified by what they mean for the operator.

use kube::Error;

/// A failed call to the Kubernetes API. Never holds content of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {message}")]
pub struct ClusterError {
    /// Verb, kind and name of the call.
    pub action: String,
    /// Classification.
    pub kind: ClusterErrorKind,
    /// Message of the API server, or of the operator for a transport error.
    pub message: String,
}

/// Classification of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterErrorKind {
    /// 404.
    NotFound,
    /// 409 on create.
    AlreadyExists,
    /// 409 on a conditional write: the object changed since it was read.
    Conflict,
    /// 401 or 403.
    Forbidden,
    /// The API server rejects the object.
    Invalid,
    /// No response, or a server error. A write may have had its effect.
    Unavailable,
}

impl ClusterErrorKind {
    /// Whether the API server rejected the call, so that it certainly had no effect.
    #[must_use]
    pub fn is_definite(self) -> bool {
        self != Self::Unavailable
    }
}

impl ClusterError {
    /// The error of a list of `kind`.
    #[must_use]
    pub fn from_list(kind: &str, error: &Error) -> Self {
        Self::new(format!("list {kind}"), error)
    }

    pub(super) fn new(action: String, error: &Error) -> Self {
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
            // The input may be a Secret, and serde quotes what it cannot parse.
            Error::SerdeError(_) => {
                (ClusterErrorKind::Unavailable, "the response of the API server cannot be parsed".to_owned())
            }
            other => (ClusterErrorKind::Unavailable, other.to_string()),
        };
        Self { action, kind, message }
    }
}
