//! What the proxy says: answers in the form of the AWS query protocol, and the errors of IAM and STS.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::Service;
use super::xml;

/// An error as IAM or STS would give it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({status}): {message}")]
pub struct AwsError {
    /// HTTP status.
    pub status: u16,
    /// The `Code` element, which is what SDKs decode the error by.
    pub code: String,
    /// The `Message` element.
    pub message: String,
}

impl AwsError {
    /// Any error.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// What IAM answers when a bucket is empty. Unlike most services it uses status 400 and no `Exception` suffix.
    #[must_use]
    pub fn throttling() -> Self {
        Self::new(400, "Throttling", "Rate exceeded")
    }

    /// A refusal by policy.
    #[must_use]
    pub fn access_denied(caller: &str, action: &str, resource: &str) -> Self {
        Self::new(
            403,
            "AccessDenied",
            format!(
                "User: {caller} is not authorized to perform: {action} on resource: {resource} because no \
                 identity-based policy allows the {action} action"
            ),
        )
    }

    /// A refusal by a statement that denies.
    #[must_use]
    pub fn explicitly_denied(caller: &str, action: &str, resource: &str) -> Self {
        Self::new(
            403,
            "AccessDenied",
            format!(
                "User: {caller} is not authorized to perform: {action} on resource: {resource} with an explicit deny in \
                 an identity-based policy"
            ),
        )
    }

    /// The unknown key id of STS and IAM; EC2 and S3 have other codes for it.
    #[must_use]
    pub fn invalid_client_token() -> Self {
        Self::new(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
    }

    /// The id is known, the signature was not made with its secret.
    #[must_use]
    pub fn signature_does_not_match() -> Self {
        Self::new(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        )
    }

    /// The clock of the caller and the clock of AWS are more than 15 minutes apart. IAM and STS have no own code for
    /// it, the message tells it apart from a wrong secret.
    #[must_use]
    pub fn signature_expired(signed_at: &str, now: &str) -> Self {
        let order = if signed_at < now { "Signature expired" } else { "Signature not yet current" };
        let relation = if signed_at < now { "earlier" } else { "later" };
        Self::new(403, "SignatureDoesNotMatch", format!("{order}: {signed_at} is now {relation} than {now} (15 min.)"))
    }

    /// The common error of the query protocol for a stale request.
    #[must_use]
    pub fn request_expired() -> Self {
        Self::new(400, "RequestExpired", "Request has expired.")
    }

    /// 404, the only error that means "absent".
    #[must_use]
    pub fn no_such_entity(message: impl Into<String>) -> Self {
        Self::new(404, "NoSuchEntity", message)
    }

    /// The user named in a call does not exist.
    #[must_use]
    pub fn no_such_user(name: &str) -> Self {
        Self::no_such_entity(format!("The user with name {name} cannot be found."))
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn entity_already_exists(message: impl Into<String>) -> Self {
        Self::new(409, "EntityAlreadyExists", message)
    }

    /// 409: something still hangs on it.
    #[must_use]
    pub fn delete_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "DeleteConflict", message)
    }

    /// 409: a quota is used up.
    #[must_use]
    pub fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new(409, "LimitExceeded", message)
    }

    /// 409: the name was deleted a moment ago and made again.
    #[must_use]
    pub fn entity_temporarily_unmodifiable() -> Self {
        Self::new(
            409,
            "EntityTemporarilyUnmodifiable",
            "Entity is temporarily unmodifiable. Please wait several minutes and try again.",
        )
    }

    /// 409: two writes to one user at once.
    #[must_use]
    pub fn concurrent_modification() -> Self {
        Self::new(
            409,
            "ConcurrentModification",
            "The request was rejected because multiple requests to change this object were submitted simultaneously.",
        )
    }

    /// 500 of the service itself, in XML.
    #[must_use]
    pub fn service_failure() -> Self {
        Self::new(500, "ServiceFailure", "The request processing has failed because of an unknown error.")
    }

    /// 503 of the service itself, in XML.
    #[must_use]
    pub fn service_unavailable() -> Self {
        Self::new(503, "ServiceUnavailable", "Service is unavailable.")
    }

    /// 400: a parameter breaks the model of the API.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    /// 400: one constraint of the API model, in the words that every AWS service uses.
    #[must_use]
    pub fn constraint(value: &str, field: &str, constraint: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: Member must \
             {constraint}"
        ))
    }

    /// 400: the parameters do not go together.
    #[must_use]
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidInput", message)
    }

    /// The emulator could not be reached or answered something that is not HTTP. Never sent by AWS: a test that sees
    /// it has a broken rig.
    #[must_use]
    pub fn upstream(detail: &str) -> Self {
        Self::new(502, "BadGateway", format!("the emulator did not answer: {detail}"))
    }
}

/// One answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsResponse {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// `x-amzn-requestid`.
    pub request_id: String,
    /// The body, as text: the query protocol answers in XML, the emulator's own failures are HTML.
    pub body: String,
}

impl AwsResponse {
    /// A success with these elements inside `<ActionResult>`; none for actions that only say done.
    #[must_use]
    pub fn success(service: Service, action: &str, result: &str) -> Self {
        let request_id = request_id();
        let result = if result.is_empty() { String::new() } else { xml::wrap(&format!("{action}Result"), result) };
        let body = format!(
            "<{action}Response xmlns=\"{}\">{result}<ResponseMetadata><RequestId>{request_id}</RequestId>\
             </ResponseMetadata></{action}Response>",
            service.namespace()
        );
        Self { status: 200, content_type: "text/xml".to_owned(), request_id, body }
    }

    /// An error of the service.
    #[must_use]
    pub fn error(service: Service, error: &AwsError) -> Self {
        let request_id = request_id();
        let side = if error.status >= 500 { "Receiver" } else { "Sender" };
        let body = format!(
            "<ErrorResponse xmlns=\"{}\"><Error><Type>{side}</Type>{}{}</Error><RequestId>{request_id}</RequestId>\
             </ErrorResponse>",
            service.namespace(),
            xml::leaf("Code", &error.code),
            xml::leaf("Message", &error.message),
        );
        Self { status: error.status, content_type: "text/xml".to_owned(), request_id, body }
    }

    /// What a load balancer says when nothing behind it does: a body that no SDK can decode, so the outcome of the
    /// call is unknown to the caller.
    #[must_use]
    pub fn html_500() -> Self {
        Self {
            status: 500,
            content_type: "text/html; charset=utf-8".to_owned(),
            request_id: request_id(),
            body: "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n\
                   <h1>Internal Server Error</h1>\n"
                .to_owned(),
        }
    }

    /// 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error code, if this is an error in XML.
    #[must_use]
    pub fn error_code(&self) -> Option<String> {
        if self.is_success() { None } else { xml::text_in(&self.body, "Code") }
    }

    /// This answer as an error, if it is one.
    #[must_use]
    pub fn as_error(&self) -> Option<AwsError> {
        if self.is_success() {
            return None;
        }
        Some(AwsError::new(
            self.status,
            self.error_code().unwrap_or_else(|| "Unknown".to_owned()),
            xml::text_in(&self.body, "Message").unwrap_or_default(),
        ))
    }
}

/// A request id in the shape of AWS's: a UUID, new on every call.
pub(super) fn request_id() -> String {
    let hex = random_hex(32);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Hexadecimal digits that differ on every call. Good enough for ids and for the secrets of a test double; nothing
/// here guards anything.
pub(super) fn random_hex(digits: usize) -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut out = String::with_capacity(digits + 16);
    while out.len() < digits {
        // Each RandomState is seeded apart by the standard library, from the operating system's randomness.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
        let _ = write!(out, "{:016x}", hasher.finish());
    }
    out.truncate(digits);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back() {
        let error = AwsError::no_such_entity("no <such> thing & co");
        let answer = AwsResponse::error(Service::Iam, &error);
        assert_eq!(answer.status, 404);
        assert_eq!(answer.as_error(), Some(error));
        assert!(answer.body.contains("<Type>Sender</Type>"));
        assert!(AwsResponse::error(Service::Iam, &AwsError::service_failure()).body.contains("<Type>Receiver</Type>"));
    }

    #[test]
    fn a_success_has_its_result_and_a_request_id() {
        let answer = AwsResponse::success(Service::Sts, "GetCallerIdentity", "<Account>1</Account>");
        assert_eq!(xml::text_in(&answer.body, "Account").as_deref(), Some("1"));
        assert_eq!(xml::text_in(&answer.body, "RequestId"), Some(answer.request_id));
        assert!(!AwsResponse::success(Service::Iam, "DeleteUser", "").body.contains("Result"));
    }

    #[test]
    fn html_is_no_aws_error() {
        assert_eq!(AwsResponse::html_500().error_code(), None);
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(request_id(), request_id());
        assert_eq!(request_id().len(), 36);
    }
}
