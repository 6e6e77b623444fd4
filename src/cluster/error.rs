//! Errors of the Kubernetes API, classified by what they mean for the operator.

use kube::{Error, core::Status, runtime::watcher};

/// Reason of kube for an error response that is no Status.
const NO_STATUS: &str = "Failed to parse error data";

/// A failed call to the Kubernetes API. Quotes no body of a request or a response.
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
    /// 401, or 403 of RBAC.
    Forbidden,
    /// 403 of an admission policy, a webhook or a quota.
    Refused,
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

    /// The error of a watch of `kind`.
    #[must_use]
    pub fn from_watch(kind: &str, error: &watcher::Error) -> Self {
        let action = format!("watch {kind}");
        match error {
            watcher::Error::InitialListFailed(error) => Self::from_list(kind, error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => Self::new(action, error),
            watcher::Error::WatchError(status) => Self::from_status(action, status),
            watcher::Error::NoResourceVersion => {
                let message = "the API server returned no resourceVersion".to_owned();
                Self { action, kind: ClusterErrorKind::Unavailable, message }
            }
        }
    }

    pub(super) fn new(action: String, error: &Error) -> Self {
        let message = match error {
            Error::Api(status) => return Self::from_status(action, status),
            // Serde quotes what it cannot parse.
            Error::SerdeError(error) => format!(
                "the response of the API server cannot be parsed ({:?} error at line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            ),
            // Errors of sockets, TLS and HTTP, which never see a whole body.
            Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) | Error::RustlsTls(_) => error.to_string(),
            Error::Auth(_) => "the operator failed to authenticate to the API server".to_owned(),
            // An allow-list: a later version of kube may quote more.
            _ => "the request or the response is malformed".to_owned(),
        };
        Self { action, kind: ClusterErrorKind::Unavailable, message }
    }

    /// The result of a write that ends something: what does not exist is done.
    pub(super) fn ignore_not_found<T>(result: Result<T, Self>) -> Result<(), Self> {
        match result {
            Err(error) if error.kind != ClusterErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn from_status(action: String, status: &Status) -> Self {
        let kind = match (status.code, status.reason.as_str()) {
            (404, _) => ClusterErrorKind::NotFound,
            (409, "AlreadyExists") => ClusterErrorKind::AlreadyExists,
            (409, _) => ClusterErrorKind::Conflict,
            (403, _) if !is_of_rbac(&status.message) => ClusterErrorKind::Refused,
            (401 | 403, _) => ClusterErrorKind::Forbidden,
            (408 | 429, _) => ClusterErrorKind::Unavailable,
            (400..500, _) => ClusterErrorKind::Invalid,
            _ => ClusterErrorKind::Unavailable,
        };
        // kube makes a Status of any other response, with the whole body as message.
        let message = if status.reason == NO_STATUS {
            format!("HTTP status {} without an explanation of the API server", status.code)
        } else {
            status.message.clone()
        };
        Self { action, kind, message }
    }
}

/// RBAC refuses in these words; admission policies, webhooks and quotas use others.
fn is_of_rbac(message: &str) -> bool {
    message.contains(" cannot ") && message.contains(" resource ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_of_admission_is_no_missing_permission() {
        let kind = |message: &str| {
            let status =
                Status { code: 403, reason: "Forbidden".to_owned(), message: message.to_owned(), ..Status::default() };
            ClusterError::from_status("create Secret a/b".to_owned(), &status).kind
        };
        let account = "system:serviceaccount:o:o";
        for rbac in [
            format!(
                "secrets \"b\" is forbidden: User \"{account}\" cannot create resource \"secrets\" in API group \"\" in the namespace \"a\""
            ),
            format!(
                "secrets is forbidden: User \"{account}\" cannot list resource \"secrets\" in API group \"\" at the cluster scope"
            ),
        ] {
            assert_eq!(kind(&rbac), ClusterErrorKind::Forbidden, "{rbac}");
        }
        for admission in [
            "secrets \"b\" is forbidden: ValidatingAdmissionPolicy 'require-team' with binding 'all' denied request: label team is missing",
            "admission webhook \"validate.kyverno.svc-fail\" denied the request: label team is missing",
            "secrets \"b\" is forbidden: exceeded quota: small, requested: secrets=1, used: secrets=5, limited: secrets=5",
        ] {
            assert_eq!(kind(admission), ClusterErrorKind::Refused, "{admission}");
        }
    }
}
