//! The line to an account: its pace, and who is told of what goes over it.

use std::{
    error::Error as StdError,
    future::Future,
    sync::{Arc, OnceLock},
    time::Instant,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::AfterDeserializationInterceptorContextRef, dyn_dispatch_hint},
        orchestrator::HttpResponse,
        result::SdkError,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{config_bag::ConfigBag, error::metadata::ProvideErrorMetadata};

use tracing::{Instrument, Span};

use super::{AwsError, CallObserver, bucket::Bucket};
use crate::trace;

/// The account before AWS has told it.
const UNKNOWN: &str = "unknown";

/// What all calls with the same credentials share.
pub(super) struct ApiCaller {
    bucket: Arc<Bucket>,
    observer: Arc<dyn CallObserver>,
    account: OnceLock<String>,
}

impl ApiCaller {
    /// A line to an account, or to the one that AWS will tell.
    pub(super) fn new(bucket: Arc<Bucket>, observer: Arc<dyn CallObserver>, account: Option<&str>) -> Self {
        let known = account.map_or_else(OnceLock::new, |account| OnceLock::from(account.to_owned()));
        Self { bucket, observer, account: known }
    }

    /// The account id, once it is known.
    pub(super) fn account(&self) -> Option<&str> {
        self.account.get().map(String::as_str)
    }

    /// AWS has told the account.
    pub(super) fn set_account(&self, account: &str) {
        // The first answer stays: a series of metrics does not change its name.
        let _ = self.account.set(account.to_owned());
    }

    /// The pace, for another line to the same account.
    pub(super) fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket)
    }

    /// Makes a call when it is its turn, and tells how it ended.
    pub(super) async fn call<T, E>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let span = trace::aws_call_span(operation);
        self.make(operation, request, &span).instrument(span.clone()).await
    }

    async fn make<T, E>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        span: &Span,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let wait = self.bucket.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let called = Instant::now();
        let answer = request.await.map_err(|error| AwsError::of(operation, &error));
        let code = answer.as_ref().err().map_or("OK", AwsError::label);
        if code != THROTTLED {
            self.bucket.answered();
        }
        let account = self.account().unwrap_or(UNKNOWN);
        self.observer.record_call(account, operation, code, called.elapsed());
        span.record("cloud.account.id", account).record("code", code);
        if let Err(error) = &answer {
            trace::record_failure(span, code, error);
        }
        tracing::debug!(account, operation, code, waited = ?wait, took = ?called.elapsed(), "AWS call");
        answer
    }

    fn throttled(&self) {
        self.bucket.throttled(Instant::now());
        self.observer.record_throttle(self.account().unwrap_or(UNKNOWN));
    }
}

/// Our label of a request to slow down.
const THROTTLED: &str = "Throttled";

/// Hears every request to slow down, those too after which the SDK tries again by itself.
pub(super) struct ThrottleInterceptor(pub(super) Arc<ApiCaller>);

impl std::fmt::Debug for ThrottleInterceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ThrottleInterceptor").finish_non_exhaustive()
    }
}

#[dyn_dispatch_hint]
impl Intercept for ThrottleInterceptor {
    fn name(&self) -> &'static str {
        "ThrottleInterceptor"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let status = response.status().as_u16();
        if status >= 400 && asks_to_slow_down(status, response.body().bytes().unwrap_or_default()) {
            self.0.throttled();
        }
        Ok(())
    }
}

/// Errors of the query protocol are small documents with one `Code`; their types are lost here.
fn asks_to_slow_down(status: u16, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.trim());
    AwsError::is_throttling(code.unwrap_or_default(), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_slow_down_is_known_by_its_code() {
        let answer = |code: &str| {
            format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>")
        };
        for (status, body, slow) in [
            (400, answer("Throttling"), true),
            (400, answer("ThrottlingException"), true),
            (503, answer("RequestLimitExceeded"), true),
            (409, answer("LimitExceeded"), false),
            (403, answer("AccessDenied"), false),
            (429, "<html>".to_owned(), true),
            (500, String::new(), false),
        ] {
            assert_eq!(asks_to_slow_down(status, body.as_bytes()), slow, "{status} {body}");
        }
    }
}
