//! Errors of AWS, told apart by what they mean for us.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::{client::result::SdkError, http::Response};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The operation that takes the role of another account.
pub const ASSUME_ROLE: &str = "AssumeRole";

/// A call to AWS that did not succeed. Holds AWS's message and request id, never a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}{}", self.request_id.as_ref().map(|id| format!(" (AWS request id {id})")).unwrap_or_default())]
pub struct AwsError {
    /// The operation, in IAM's spelling.
    pub operation: &'static str,
    /// What it means.
    pub kind: AwsErrorKind,
    /// AWS's own message, or ours for faults on the way.
    pub message: String,
    /// AWS's request id, for its support and for `CloudTrail`.
    pub request_id: Option<String>,
}

/// What an error of AWS means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwsErrorKind {
    /// 404: it does not exist. The only proof of absence.
    NoSuchEntity,
    /// 409: the name is taken.
    EntityAlreadyExists,
    /// 409: something still hangs on what is to be deleted.
    DeleteConflict,
    /// 409: a quota is used up.
    LimitExceeded,
    /// 400: not a policy document.
    MalformedPolicyDocument,
    /// 400: a policy that users cannot have.
    PolicyNotAttachable,
    /// 400: the request itself is wrong.
    InvalidInput,
    /// 403: the operator may not do this.
    AccessDenied,
    /// 403: AWS does not know the credentials, or there are none.
    Credentials,
    /// The clocks are too far apart for signatures.
    ClockSkew,
    /// AWS asks to slow down.
    Throttled,
    /// 409: just deleted and created again, or changed by somebody at the same moment.
    Busy,
    /// 5xx, or an answer that is not one of IAM. The call may have had its effect.
    Service,
    /// No answer: refused, cut off, timed out. The call may have had its effect.
    Unreachable,
}

impl AwsErrorKind {
    /// Whether AWS has said no: the call certainly had no effect.
    #[must_use]
    pub fn is_definite(self) -> bool {
        !matches!(self, Self::Service | Self::Unreachable)
    }

    fn of_code(code: &str, message: &str) -> Option<Self> {
        Some(match code {
            "NoSuchEntity" => Self::NoSuchEntity,
            "EntityAlreadyExists" => Self::EntityAlreadyExists,
            "DeleteConflict" => Self::DeleteConflict,
            "LimitExceeded" => Self::LimitExceeded,
            "MalformedPolicyDocument" => Self::MalformedPolicyDocument,
            "PolicyNotAttachable" => Self::PolicyNotAttachable,
            "InvalidInput" | "ValidationError" | "InvalidParameterValue" | "InvalidUserType" | "MalformedInput" => {
                Self::InvalidInput
            }
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => Self::AccessDenied,
            "RequestExpired" | "RequestTimeTooSkewed" => Self::ClockSkew,
            "SignatureDoesNotMatch" if message.contains("expired") || message.contains("not yet current") => {
                Self::ClockSkew
            }
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "OptInRequired" => Self::Credentials,
            "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                Self::Throttled
            }
            "EntityTemporarilyUnmodifiable" | "ConcurrentModification" => Self::Busy,
            "ServiceFailure" | "InternalFailure" | "InternalError" | "ServiceUnavailable" => Self::Service,
            _ => return None,
        })
    }
}

impl AwsError {
    /// AWS's code, or our name of a fault on the way, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.kind {
            AwsErrorKind::NoSuchEntity => "NoSuchEntity",
            AwsErrorKind::EntityAlreadyExists => "EntityAlreadyExists",
            AwsErrorKind::DeleteConflict => "DeleteConflict",
            AwsErrorKind::LimitExceeded => "LimitExceeded",
            AwsErrorKind::MalformedPolicyDocument => "MalformedPolicyDocument",
            AwsErrorKind::PolicyNotAttachable => "PolicyNotAttachable",
            AwsErrorKind::InvalidInput => "InvalidInput",
            AwsErrorKind::AccessDenied => "AccessDenied",
            AwsErrorKind::Credentials => "Credentials",
            AwsErrorKind::ClockSkew => "ClockSkew",
            AwsErrorKind::Throttled => "Throttled",
            AwsErrorKind::Busy => "Busy",
            AwsErrorKind::Service => "Service",
            AwsErrorKind::Unreachable => "Unreachable",
        }
    }

    /// Whether an answer with this code and HTTP status is a request to slow down.
    pub(super) fn is_throttling(code: &str, status: u16) -> bool {
        AwsErrorKind::of_code(code, "").unwrap_or_else(|| unknown_code(Some(status))) == AwsErrorKind::Throttled
    }

    pub(super) fn of<E>(operation: &'static str, error: &SdkError<E, Response>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let request_id =
            error.raw_response().and_then(|response| response.headers().get("x-amzn-requestid")).map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (kind, message) = match error {
            SdkError::ServiceError(answer) => {
                let (code, message) =
                    (answer.err().code().unwrap_or_default(), answer.err().message().unwrap_or_default());
                match AwsErrorKind::of_code(code, message) {
                    Some(kind) => (kind, said(code, message)),
                    None => (unknown_code(status), said(if code.is_empty() { "no code" } else { code }, message)),
                }
            }
            SdkError::TimeoutError(_) => (AwsErrorKind::Unreachable, "AWS did not answer in time".to_owned()),
            // Half an answer or one that is no answer of IAM: an HTML page of something in between, say.
            SdkError::ResponseError(_) => {
                let status = status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
                (AwsErrorKind::Service, format!("AWS gave an answer that cannot be read{status}"))
            }
            other => match credentials_fault(other) {
                Some(why) => (AwsErrorKind::Credentials, format!("the operator has no AWS credentials: {why}")),
                None => (AwsErrorKind::Unreachable, format!("AWS cannot be reached: {}", root_cause(other))),
            },
        };
        Self { operation, kind, message, request_id }
    }
}

fn said(code: &str, message: &str) -> String {
    if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") }
}

/// A code we do not know: below 500 AWS has said no to the request, above it may have done it.
fn unknown_code(status: Option<u16>) -> AwsErrorKind {
    match status {
        Some(403) => AwsErrorKind::AccessDenied,
        Some(429) => AwsErrorKind::Throttled,
        Some(400..500) => AwsErrorKind::InvalidInput,
        _ => AwsErrorKind::Service,
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn credentials_fault(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).any(<dyn std::error::Error + 'static>::is::<CredentialsError>).then(|| root_cause(error))
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
