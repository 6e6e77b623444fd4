//! Responses of the AWS query protocol, and the errors of IAM and STS.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use roxmltree::Document;

use super::call::Service;
use super::xml::{self, Edits};

/// An error response of IAM or STS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({status}): {message}")]
pub struct AwsError {
    /// HTTP status.
    pub status: u16,
    /// The `Code` element, by which SDKs classify the error.
    pub code: String,
    /// The `Message` element.
    pub message: String,
}

impl AwsError {
    /// An error with any status and code.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// The request is throttled. Unlike most services, IAM uses status 400 and no `Exception` suffix.
    #[must_use]
    pub fn throttling() -> Self {
        Self::new(400, "Throttling", "Rate exceeded")
    }

    /// An implicit deny: no policy allows the action.
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

    /// An explicit deny: a statement denies the action.
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

    /// The access key id is unknown. EC2 and S3 use other codes.
    #[must_use]
    pub fn invalid_client_token() -> Self {
        Self::new(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
    }

    /// The access key id is known, but the signature was made with another secret.
    #[must_use]
    pub fn signature_does_not_match() -> Self {
        Self::new(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        )
    }

    /// The clocks of caller and AWS are more than 15 minutes apart. IAM and STS use the code of a wrong secret; only
    /// the message differs.
    #[must_use]
    pub fn signature_expired(signed_at: &str, now: &str) -> Self {
        let order = if signed_at < now { "Signature expired" } else { "Signature not yet current" };
        let relation = if signed_at < now { "earlier" } else { "later" };
        Self::new(403, "SignatureDoesNotMatch", format!("{order}: {signed_at} is now {relation} than {now} (15 min.)"))
    }

    /// The common error of the query protocol for an expired request.
    #[must_use]
    pub fn request_expired() -> Self {
        Self::new(400, "RequestExpired", "Request has expired.")
    }

    /// 404: the entity does not exist.
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

    /// 409: the entity has deletion blockers.
    #[must_use]
    pub fn delete_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "DeleteConflict", message)
    }

    /// 409: a quota is exceeded.
    #[must_use]
    pub fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new(409, "LimitExceeded", message)
    }

    /// 409: an entity of this name was deleted and recreated recently.
    #[must_use]
    pub fn entity_temporarily_unmodifiable() -> Self {
        Self::new(
            409,
            "EntityTemporarilyUnmodifiable",
            "Entity is temporarily unmodifiable. Please wait several minutes and try again.",
        )
    }

    /// 409: concurrent writes to one user.
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

    /// 400: a parameter violates the API model.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    /// 400: one constraint of the API model, in the format that all AWS services share.
    #[must_use]
    pub fn constraint(value: &str, field: &str, constraint: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: Member must \
             {constraint}"
        ))
    }

    /// 400: the parameters are not valid together.
    #[must_use]
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidInput", message)
    }

    /// The emulator is unreachable or its response is malformed. AWS never sends this error: it means that the test
    /// setup is broken.
    #[must_use]
    pub fn upstream(detail: &str) -> Self {
        Self::new(502, "BadGateway", format!("no valid response from the emulator: {detail}"))
    }
}

/// An HTTP response of IAM or STS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsResponse {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// `x-amzn-requestid`; empty if the response is not from AWS.
    pub request_id: String,
    /// The body: XML in the query protocol, HTML for failures of the emulator.
    pub body: String,
}

impl AwsResponse {
    /// A success with these elements in `<ActionResult>`, which is omitted if `result` is empty.
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

    /// An error response in XML.
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

    /// The HTML page of a load balancer or proxy. No SDK can decode it, so the caller does not know the outcome of the
    /// call.
    #[must_use]
    pub fn html(status: u16) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8".to_owned(),
            request_id: String::new(),
            body: format!("<!doctype html>\n<html lang=en>\n<title>Error {status}</title>\n<h1>Error {status}</h1>\n"),
        }
    }

    /// The empty success of a proxy or captive portal. IAM always sends a request id, in a header and in a body.
    #[must_use]
    pub fn empty() -> Self {
        Self { status: 200, content_type: "text/xml".to_owned(), request_id: String::new(), body: String::new() }
    }

    /// Edits the XML body; a body that is not XML is unchanged.
    pub(super) fn edit_xml(mut self, edit: impl FnOnce(&Document<'_>, &mut Edits<'_>)) -> Self {
        let edited = Document::parse(&self.body).ok().map(|document| {
            let mut edits = Edits::new(&self.body);
            edit(&document, &mut edits);
            edits.finish()
        });
        if let Some(body) = edited {
            self.body = body;
        }
        self
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error code of an error in XML.
    #[must_use]
    pub fn error_code(&self) -> Option<String> {
        if self.is_success() { None } else { xml::text_in(&self.body, "Code") }
    }

    /// The error; `None` for a success.
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

/// A new request id in the format of AWS: a UUID.
pub(super) fn request_id() -> String {
    let hex = random_hex(32);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Random hexadecimal digits. Not cryptographically secure: the ids and secrets of a test double protect nothing.
pub(super) fn random_hex(digits: usize) -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut out = String::with_capacity(digits + 16);
    while out.len() < digits {
        // The standard library seeds each RandomState from the random numbers of the operating system.
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
    fn error_response_round_trips() {
        let error = AwsError::no_such_entity("no <such> thing & co");
        let response = AwsResponse::error(Service::Iam, &error);
        assert_eq!(response.status, 404);
        assert_eq!(response.as_error(), Some(error));
        assert!(response.body.contains("<Type>Sender</Type>"));
        assert!(AwsResponse::error(Service::Iam, &AwsError::service_failure()).body.contains("<Type>Receiver</Type>"));
    }

    #[test]
    fn success_contains_result_and_request_id() {
        let response = AwsResponse::success(Service::Sts, "GetCallerIdentity", "<Account>1</Account>");
        assert_eq!(xml::text_in(&response.body, "Account").as_deref(), Some("1"));
        assert_eq!(xml::text_in(&response.body, "RequestId"), Some(response.request_id));
        assert!(!AwsResponse::success(Service::Iam, "DeleteUser", "").body.contains("Result"));
    }

    #[test]
    fn html_response_has_no_error_code() {
        assert_eq!(AwsResponse::html(500).error_code(), None);
    }

    #[test]
    fn request_ids_are_unique() {
        assert_ne!(request_id(), request_id());
        assert_eq!(request_id().len(), 36);
    }
}
