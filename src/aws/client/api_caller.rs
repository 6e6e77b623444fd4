//! Makes calls to one account: rate limit, metrics, spans.

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

use super::{CallObserver, error::AwsError, lane::Lane, pacer::Pacer};
use crate::trace;

/// Account id in metrics and spans before the caller identity is known.
const UNKNOWN_ACCOUNT: &str = "unknown";
/// Label of [`super::error::AwsErrorKind::Throttled`].
const THROTTLED: &str = "Throttled";

/// What all calls with the same credentials share.
pub(crate) struct ApiCaller {
    pacer: Arc<Pacer>,
    observer: Arc<dyn CallObserver>,
    account: OnceLock<String>,
}

impl ApiCaller {
    /// `account` is `None` until the caller identity is known.
    pub(crate) fn new(pacer: Arc<Pacer>, observer: Arc<dyn CallObserver>, account: Option<&str>) -> Self {
        let known = account.map_or_else(OnceLock::new, |account| OnceLock::from(account.to_owned()));
        Self { pacer, observer, account: known }
    }

    /// The account id, once it is known.
    pub(crate) fn account(&self) -> Option<&str> {
        self.account.get().map(String::as_str)
    }

    /// Sets the account id. Only the first one has an effect: a metric series must not change its labels.
    pub(super) fn set_account(&self, account: &str) {
        let _ = self.account.set(account.to_owned());
    }

    /// The rate limit, to be shared with another caller of the same account.
    pub(crate) fn pacer(&self) -> Arc<Pacer> {
        Arc::clone(&self.pacer)
    }

    /// Waits for the rate limit in the lane, makes the call in a span of its own, and records how it ended.
    pub(super) async fn call<T, E>(
        &self,
        lane: &Lane,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let span = trace::aws_call_span(operation);
        self.call_in_span(lane, operation, request, &span).instrument(span.clone()).await
    }

    async fn call_in_span<T, E>(
        &self,
        lane: &Lane,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        span: &Span,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let waits_since = Instant::now();
        self.pacer.wait(lane).await;
        let started_at = Instant::now();
        let result = request.await.map_err(|error| AwsError::from_sdk(operation, &error));
        let code = result.as_ref().err().map_or("OK", AwsError::label);
        // An answer of AWS that is no throttling.
        if result.as_ref().err().is_none_or(|error| error.kind.is_definite() && code != THROTTLED) {
            self.pacer.recover();
        }
        let account = self.account().unwrap_or(UNKNOWN_ACCOUNT);
        self.observer.record_call(account, operation, code, started_at.elapsed());
        span.record("cloud.account.id", account).record("code", code);
        if let Err(error) = &result {
            trace::record_failure(span, code, error);
        }
        tracing::debug!(account, operation, code, waited = ?started_at.duration_since(waits_since), priority = ?lane.priority(), took = ?started_at.elapsed(), "called AWS");
        result
    }

    fn slow_down(&self) {
        self.pacer.slow_down(Instant::now());
        self.observer.record_throttle(self.account().unwrap_or(UNKNOWN_ACCOUNT));
    }
}

/// Observes throttling of every attempt, including attempts that the SDK retries by itself.
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
        if status >= 400 && is_throttling(status, response.body().bytes().unwrap_or_default()) {
            self.0.slow_down();
        }
        Ok(())
    }
}

/// Reads the `Code` of an error of the query protocol: the typed error of the operation is not available to an interceptor.
fn is_throttling(status: u16, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.trim());
    AwsError::is_throttling(code.unwrap_or_default(), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_recognized_by_code_or_status() {
        let body = |code: &str| {
            format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>")
        };
        for (status, body, throttling) in [
            (400, body("Throttling"), true),
            (400, body("ThrottlingException"), true),
            (503, body("RequestLimitExceeded"), true),
            (409, body("LimitExceeded"), false),
            (403, body("AccessDenied"), false),
            (429, "<html>".to_owned(), true),
            (500, String::new(), false),
        ] {
            assert_eq!(is_throttling(status, body.as_bytes()), throttling, "{status} {body}");
        }
    }
}
