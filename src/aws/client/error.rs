//! Errors of AWS, classified by what they mean for the operator.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::{client::result::SdkError, http::Response};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The operation of STS that assumes a role.
pub const ASSUME_ROLE: &str = "AssumeRole";

/// A failed AWS call. Holds the message and the request id of AWS, never a body, which may contain key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}{}", self.request_id.as_ref().map(|id| format!(" (AWS request id {id})")).unwrap_or_default())]
pub struct AwsError {
    /// Name of the operation, such as `CreateUser`.
    pub operation: &'static str,
    /// Classification.
    pub kind: AwsErrorKind,
    /// Message of AWS, or of the operator for a transport error.
    pub message: String,
    /// Request id of AWS, for its support and for `CloudTrail`.
    pub request_id: Option<String>,
}

/// Classification of a failed AWS call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwsErrorKind {
    /// 404: the entity does not exist. The only proof of absence.
    NoSuchEntity,
    /// 409: the name is taken.
    EntityAlreadyExists,
    /// 409: the entity to delete still has subordinate entities.
    DeleteConflict,
    /// 409: a quota is exhausted.
    LimitExceeded,
    /// 400: the policy document is invalid.
    MalformedPolicyDocument,
    /// 400: the managed policy cannot be attached to users.
    PolicyNotAttachable,
    /// 400: the request is invalid.
    InvalidInput,
    /// 403: the operator lacks a permission.
    AccessDenied,
    /// 403: AWS rejects the credentials, or the operator has none.
    Credentials,
    /// The clocks of AWS and of this machine are too far apart to sign requests.
    ClockSkew,
    /// AWS throttles.
    Throttled,
    /// 409: just deleted and created again, or changed concurrently.
    Busy,
    /// 5xx, or a response that is not from IAM. The call may have had its effect.
    Service,
    /// No response: connection refused or reset, time-out. The call may have had its effect.
    Unreachable,
}

impl AwsErrorKind {
    /// Whether AWS rejected the call, so that it certainly had no effect.
    #[must_use]
    pub fn is_definite(self) -> bool {
        !matches!(self, Self::Service | Self::Unreachable)
    }

    fn from_code(code: &str, message: &str) -> Option<Self> {
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
    /// Name of the kind, as metrics and spans show it.
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

    /// Whether a response with this code and HTTP status means throttling.
    pub(super) fn is_throttling(code: &str, status: u16) -> bool {
        AwsErrorKind::from_code(code, "").unwrap_or_else(|| kind_of_unknown_code(Some(status)))
            == AwsErrorKind::Throttled
    }

    pub(super) fn from_sdk<E>(operation: &'static str, error: &SdkError<E, Response>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let request_id =
            error.raw_response().and_then(|response| response.headers().get("x-amzn-requestid")).map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (kind, message) = match error {
            SdkError::ServiceError(response) => {
                let (code, message) =
                    (response.err().code().unwrap_or_default(), response.err().message().unwrap_or_default());
                match AwsErrorKind::from_code(code, message) {
                    Some(kind) => (kind, with_code(code, message)),
                    None => (
                        kind_of_unknown_code(status),
                        with_code(if code.is_empty() { "no code" } else { code }, message),
                    ),
                }
            }
            SdkError::TimeoutError(_) => (AwsErrorKind::Unreachable, "AWS did not answer in time".to_owned()),
            // A truncated response, or one that is not from AWS: the HTML page of a proxy, for example.
            SdkError::ResponseError(_) => {
                let status = status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
                (AwsErrorKind::Service, format!("the response of AWS cannot be parsed{status}"))
            }
            other => match credentials_error(other) {
                Some(cause) => (AwsErrorKind::Credentials, format!("the operator has no AWS credentials: {cause}")),
                None => (AwsErrorKind::Unreachable, format!("AWS cannot be reached: {}", root_cause(other))),
            },
        };
        Self { operation, kind, message, request_id }
    }
}

fn with_code(code: &str, message: &str) -> String {
    if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") }
}

/// An unknown code: below 500 AWS has rejected the request, from 500 on it may have executed it.
fn kind_of_unknown_code(status: Option<u16>) -> AwsErrorKind {
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

fn credentials_error(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).any(<dyn std::error::Error + 'static>::is::<CredentialsError>).then(|| root_cause(error))
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
