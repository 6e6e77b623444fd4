//! The connection to one AWS account, on which the client of each AWS service is built.

pub(crate) mod api_caller;
pub(crate) mod clock;
pub(crate) mod error;
pub(crate) mod identity;
pub(crate) mod lane;
mod origin;
pub(crate) mod pacer;
pub(crate) mod session;
pub(crate) mod single_flight;
pub(crate) mod token_bucket;

use std::{error::Error as StdError, future::Future, sync::Arc, time::Duration};

use aws_config::{Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::{interceptors::SharedInterceptor, orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use parking_lot::Mutex;

use self::{
    api_caller::{ApiCaller, ThrottleInterceptor},
    clock::{AwsClock, ClockInterceptor},
    error::{AwsError, AwsErrorKind},
    identity::CallerIdentity,
    lane::Lane,
    origin::OriginInterceptor,
    session::{RoleSession, SessionCredentials},
    single_flight::SingleFlight,
};

/// Limit of one attempt; IAM answers in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of a call with its retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts of an idempotent call.
const MAX_ATTEMPTS: u32 = 3;
/// Region when the environment names none: the endpoint of IAM in the commercial partition is there.
const DEFAULT_REGION: &str = "us-east-1";

/// Observes AWS calls. `account` is an account id, or `unknown` before the first caller identity.
pub trait CallObserver: Send + Sync {
    /// Records a finished call. `code` is `OK`, the error code of AWS, or the operator's name of a transport error.
    fn record_call(&self, account: &str, operation: &'static str, code: &str, took: Duration);
    /// Records that AWS throttled an attempt. The call may still succeed.
    fn record_throttle(&self, account: &str);
}

/// Discards everything.
impl CallObserver for () {
    fn record_call(&self, _: &str, _: &'static str, _: &str, _: Duration) {}
    fn record_throttle(&self, _: &str) {}
}

/// One AWS account with one set of credentials.
pub(crate) struct AccountClient {
    config: SdkConfig,
    sts: aws_sdk_sts::Client,
    caller: Arc<ApiCaller>,
    clock: Arc<AwsClock>,
    /// `None` with the operator's own credentials.
    session: Option<Arc<RoleSession>>,
    identity: SingleFlight<Arc<CallerIdentity>>,
    /// Account id of the last caller identity that was returned.
    last_account: Mutex<Option<String>>,
}

impl AccountClient {
    pub(crate) fn with_own_credentials(config: &SdkConfig, caller: Arc<ApiCaller>, clock: Arc<AwsClock>) -> Self {
        Self::new(config, caller, clock, None)
    }

    pub(crate) fn with_session(
        config: &SdkConfig,
        caller: Arc<ApiCaller>,
        clock: Arc<AwsClock>,
        session: RoleSession,
    ) -> Self {
        let session = Arc::new(session);
        let config = config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(SessionCredentials(Arc::clone(&session))))
            // `RoleSession` is the cache.
            .identity_cache(IdentityCache::no_cache())
            .build();
        Self::new(&config, caller, clock, Some(session))
    }

    fn new(
        config: &SdkConfig,
        caller: Arc<ApiCaller>,
        clock: Arc<AwsClock>,
        session: Option<Arc<RoleSession>>,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = config
            .clone()
            .into_builder()
            .region(config.region().cloned().unwrap_or(Region::from_static(DEFAULT_REGION)))
            // Set in code and not by environment: the number of attempts is part of the rotation protocol.
            .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
            .timeout_config(timeouts)
            .build();
        let mut sts = aws_sdk_sts::config::Builder::from(&config);
        for interceptor in interceptors(&caller, &clock) {
            sts.push_interceptor(interceptor);
        }
        Self {
            config,
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            caller,
            clock,
            session,
            identity: SingleFlight::default(),
            last_account: Mutex::default(),
        }
    }

    /// Configuration for the client of an AWS service, to be completed with [`AccountClient::interceptors`].
    pub(crate) fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// Interceptors that every service client needs: they set the clock, slow down when AWS throttles, and refuse successes that
    /// are not from AWS.
    pub(crate) fn interceptors(&self) -> [SharedInterceptor; 3] {
        interceptors(&self.caller, &self.clock)
    }

    pub(crate) fn sts(&self) -> &aws_sdk_sts::Client {
        &self.sts
    }

    pub(crate) fn caller(&self) -> &ApiCaller {
        &self.caller
    }

    pub(crate) fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// Makes a call with the credentials of the account, once the caller identity is known.
    pub(crate) fn call<'a, T, E>(
        &'a self,
        lane: &'a Lane,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + 'a,
    ) -> impl Future<Output = Result<T, AwsError>> + 'a
    where
        T: 'a,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        // Futures of the SDK take kilobytes, and each layer that they pass through unboxed doubles that on the stack.
        let call = Box::pin(self.caller.call(lane, operation, request));
        async move {
            self.caller_identity().await?;
            let key_id = self.session_key_id();
            self.invalidate_if_rejected(key_id.as_deref(), call.await)
        }
    }

    fn session_key_id(&self) -> Option<String> {
        self.session.as_ref().and_then(|session| session.key_id())
    }

    /// Drops the caller identity and the session when AWS rejects the credentials, so that the next call renews both.
    fn invalidate_if_rejected<T>(&self, key_id: Option<&str>, result: Result<T, AwsError>) -> Result<T, AwsError> {
        if result.as_ref().is_err_and(|error| error.kind == AwsErrorKind::Credentials) {
            self.identity.invalidate(|_| true);
            if let (Some(session), Some(key_id)) = (&self.session, key_id) {
                session.invalidate(key_id);
            }
        }
        result
    }
}

fn interceptors(caller: &Arc<ApiCaller>, clock: &Arc<AwsClock>) -> [SharedInterceptor; 3] {
    [
        SharedInterceptor::new(ClockInterceptor(Arc::clone(clock))),
        SharedInterceptor::new(ThrottleInterceptor(Arc::clone(caller))),
        SharedInterceptor::new(OriginInterceptor),
    ]
}
