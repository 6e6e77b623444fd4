//! Errors of AWS, classified by what they mean for the operator.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::{client::result::SdkError, http::Response};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::origin::{self, NotFromAws};
use crate::domain::conditions::REQUEST_ID;

/// The operation of STS that assumes a role.
pub const ASSUME_ROLE: &str = "AssumeRole";

/// A failed AWS call. Holds the message and the request id of AWS, never a body, which may contain key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}{}", self.request_id.as_ref().map(|id| format!("{REQUEST_ID}{id})")).unwrap_or_default())]
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
    /// 5xx, or a response that AWS did not give: an error without a code of IAM or STS, a success without a request id, such as
    /// the page of a proxy. The call may have had its effect.
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

    /// The kind of an error code that IAM or STS documents for their operations, or AWS for all of them. `None` for any other:
    /// a proxy that answers with it may have passed the call on to IAM before.
    fn from_code(code: &str, message: &str) -> Option<Self> {
        Some(match code {
            "NoSuchEntity" => Self::NoSuchEntity,
            "EntityAlreadyExists" => Self::EntityAlreadyExists,
            "DeleteConflict" => Self::DeleteConflict,
            "LimitExceeded" => Self::LimitExceeded,
            "MalformedPolicyDocument" => Self::MalformedPolicyDocument,
            "PolicyNotAttachable" => Self::PolicyNotAttachable,
            "InvalidInput"
            | "InvalidUserType"
            | "PasswordPolicyViolation"
            | "UnmodifiableEntity"
            | "ValidationError"
            | "InvalidAction"
            | "InvalidParameterCombination"
            | "InvalidParameterValue"
            | "InvalidQueryParameter"
            | "MalformedQueryString"
            | "MissingAction"
            | "MissingParameter" => Self::InvalidInput,
            "AccessDenied" | "AccessDeniedException" | "NotAuthorized" => Self::AccessDenied,
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

    /// Whether a response with this code and HTTP status asks for fewer calls. A proxy may do so too.
    pub(super) fn is_throttling(code: &str, status: u16) -> bool {
        AwsErrorKind::from_code(code, "").map_or(status == 429, |kind| kind == AwsErrorKind::Throttled)
    }

    /// A response of AWS that lacks what it must have.
    pub(crate) fn incomplete(operation: &'static str, what: &str) -> Self {
        let message = format!("the response of AWS has no {what}");
        Self { operation, kind: AwsErrorKind::Service, message, request_id: None }
    }

    pub(super) fn from_sdk<E>(operation: &'static str, error: &SdkError<E, Response>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let request_id =
            error.raw_response().and_then(|response| origin::request_id(response.headers())).map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (kind, message) = match error {
            SdkError::ServiceError(response) => {
                let (code, message) =
                    (response.err().code().unwrap_or_default(), response.err().message().unwrap_or_default());
                if let Some(kind) = AwsErrorKind::from_code(code, message) {
                    (kind, with_code(code, message))
                } else {
                    let code = if code.is_empty() { "no error code" } else { code };
                    let explained = format!("{}, which is no answer of IAM", with_code(code, message));
                    (AwsErrorKind::Service, with_status(&explained, status))
                }
            }
            SdkError::TimeoutError(_) => (AwsErrorKind::Unreachable, "AWS did not answer in time".to_owned()),
            SdkError::ResponseError(_) if causes(error).any(<dyn StdError + 'static>::is::<NotFromAws>) => {
                (AwsErrorKind::Service, with_status("the response has no request id of AWS", status))
            }
            // A truncated response, or one that is not from AWS: the HTML page of a proxy, for example.
            SdkError::ResponseError(_) => {
                (AwsErrorKind::Service, with_status("the response of AWS cannot be parsed", status))
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

fn with_status(message: &str, status: Option<u16>) -> String {
    status.map_or_else(|| message.to_owned(), |status| format!("{message} (HTTP {status}); a proxy may have sent it"))
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

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_sdk_iam::{
        Client,
        config::{BehaviorVersion, Region, retry::RetryConfig},
    };
    use aws_smithy_runtime_api::{
        client::{
            http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn},
            orchestrator::{HttpRequest, HttpResponse},
        },
        http::StatusCode,
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// Answers every request alike: status, headers, body.
    #[derive(Clone, Copy, Debug)]
    struct Answer(u16, &'static [(&'static str, &'static str)], &'static str);

    impl HttpConnector for Answer {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(self.0).unwrap();
            let mut response = HttpResponse::new(status, SdkBody::from(self.2));
            for (name, value) in self.1 {
                response.headers_mut().insert(*name, *value);
            }
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    fn client(answer: Answer) -> Client {
        let config = aws_sdk_iam::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("AKIAIOSFODNN7EXAMPLE", "s", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .interceptor(origin::OriginInterceptor)
            .http_client(http_client_fn(move |_: &HttpConnectorSettings, _| SharedHttpConnector::new(answer)))
            .build();
        Client::from_conf(config)
    }

    /// How the operator reads an answer to `CreateAccessKey`.
    async fn read(status: u16, body: &'static str) -> AwsError {
        let answer = client(Answer(status, &[], body)).create_access_key().user_name("u").send().await;
        AwsError::from_sdk("CreateAccessKey", &answer.unwrap_err())
    }

    /// How the operator reads an answer to an operation without a result.
    async fn read_empty(answer: Answer) -> Result<(), AwsError> {
        let answer =
            client(answer).delete_access_key().user_name("u").access_key_id("AKIAIOSFODNN7EXAMPLE").send().await;
        answer.map(drop).map_err(|error| AwsError::from_sdk("DeleteAccessKey", &error))
    }

    #[tokio::test]
    async fn only_an_error_code_of_iam_is_a_definite_refusal() {
        const NOT_OF_IAM: [&str; 8] = [
            "<!doctype html><html><h1>403 Forbidden</h1></html>",
            "",
            "Forbidden",
            r#"{"__type": "AccessDeniedException", "Message": "User is not authorized"}"#,
            r#"{"error": {"code": "AccessDenied"}}"#,
            "<Error><Code>AccessDenied</Code><Message>of a bucket</Message></Error>",
            "<ErrorResponse><Error><Type>Sender</Type><Code>BlockedByPolicy</Code></Error></ErrorResponse>",
            "<ErrorResponse><Error><Type>Sender</Type></Error></ErrorResponse>",
        ];
        for status in [400, 401, 403, 404, 407, 409, 429, 451, 500, 502, 503] {
            for body in NOT_OF_IAM {
                let error = read(status, body).await;
                assert_eq!((error.kind, error.kind.is_definite()), (AwsErrorKind::Service, false), "{status} {body:?}");
                assert!(error.message.contains(&format!("HTTP {status}")), "{error}");
            }
        }
        let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>LimitExceeded</Code></Error><RequestId>r</RequestId></ErrorResponse>";
        let error = read(409, refusal).await;
        assert_eq!((error.kind, error.kind.is_definite()), (AwsErrorKind::LimitExceeded, true));
    }

    #[tokio::test]
    async fn success_that_cannot_be_parsed_is_no_definite_refusal() {
        for body in ["", "<html></html>", "{}"] {
            let error = read(200, body).await;
            assert!(!error.kind.is_definite(), "{body:?}: {error}");
        }
    }

    #[tokio::test]
    async fn success_without_a_request_id_of_aws_is_none() {
        const DONE: &str = "<DeleteAccessKeyResponse><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DeleteAccessKeyResponse>";
        for body in ["", "<html></html>", "{}"] {
            let error = read_empty(Answer(200, &[], body)).await.unwrap_err();
            assert_eq!((error.kind, error.kind.is_definite()), (AwsErrorKind::Service, false), "{body:?}");
            assert!(error.message.contains("no request id of AWS (HTTP 200)"), "{error}");
        }
        assert_eq!(read_empty(Answer(200, &[], DONE)).await, Ok(()), "a proxy removed the header");
        assert_eq!(read_empty(Answer(200, &[("x-amzn-requestid", "r")], "")).await, Ok(()));
    }
}
