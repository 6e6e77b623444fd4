//! The connection to one account: whose it is, how it is called, and what happens when AWS does not take the credentials.
//! What is asked and done by it stands in `reads` and `writes`.

use std::{
    error::Error as StdError,
    future::Future,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use aws_config::{Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::{
    AwsClock, AwsError, AwsErrorKind,
    api_caller::{ApiCaller, ThrottleInterceptor},
    clock::ClockInterceptor,
    known::Known,
    session::{Session, SessionCredentials},
    single_flight::SingleFlight,
};
use crate::domain::{console::PasswordPolicy, desired::Account, secret::KeyMaterial};

/// One attempt may take this long; IAM answers in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call with its retries may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts of calls that can be repeated without harm.
const ATTEMPTS: u32 = 3;
/// Region when the environment names none: IAM of the commercial partition lives there.
const DEFAULT_REGION: &str = "us-east-1";
const GET_CALLER_IDENTITY: &str = "GetCallerIdentity";

/// Whom AWS takes us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// ARN of the caller.
    pub arn: String,
    /// Its account.
    pub account: Account,
}

/// What STS says of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerification {
    /// AWS takes its bearer for this ARN.
    Accepted(String),
    /// AWS does not know the key (yet).
    NotYet,
}

/// IAM and STS of one account, with one set of credentials.
#[allow(clippy::struct_field_names, reason = "the two services have the names they have")]
pub struct IamClient {
    pub(super) iam: aws_sdk_iam::Client,
    sts: aws_sdk_sts::Client,
    line: Arc<ApiCaller>,
    clock: Arc<AwsClock>,
    /// `None` with the operator's own credentials.
    session: Option<Arc<Session>>,
    identity: SingleFlight<Arc<CallerIdentity>>,
    /// The account of the first identity.
    settled: Mutex<Option<String>>,
    pub(super) password_policy: OnceCell<PasswordPolicy>,
    pub(super) details: SingleFlight<Known>,
    /// Times in a row that the details were asked for in vain.
    pub(super) details_away: AtomicU32,
}

impl IamClient {
    /// With the credentials of the configuration.
    pub(super) fn of_config(config: &SdkConfig, line: ApiCaller, clock: Arc<AwsClock>) -> Self {
        Self::new(config, Arc::new(line), clock, None)
    }

    /// With the session of a role.
    pub(super) fn of_session(config: &SdkConfig, line: Arc<ApiCaller>, clock: Arc<AwsClock>, session: Session) -> Self {
        let session = Arc::new(session);
        let config = config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(SessionCredentials(Arc::clone(&session))))
            // The session is the cache.
            .identity_cache(IdentityCache::no_cache())
            .build();
        Self::new(&config, line, clock, Some(session))
    }

    fn new(config: &SdkConfig, line: Arc<ApiCaller>, clock: Arc<AwsClock>, session: Option<Arc<Session>>) -> Self {
        // Set in code, not by environment: how often a call is made is part of the protocol.
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let region = config.region().cloned().unwrap_or(Region::from_static(DEFAULT_REGION));
        let iam = aws_sdk_iam::config::Builder::from(config)
            .region(region.clone())
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone())
            .interceptor(ClockInterceptor(Arc::clone(&clock)))
            .interceptor(ThrottleInterceptor(Arc::clone(&line)))
            .build();
        let sts = aws_sdk_sts::config::Builder::from(config)
            .region(region)
            .retry_config(retries)
            .timeout_config(timeouts)
            .interceptor(ClockInterceptor(Arc::clone(&clock)))
            .interceptor(ThrottleInterceptor(Arc::clone(&line)))
            .build();
        Self {
            iam: aws_sdk_iam::Client::from_conf(iam),
            sts: aws_sdk_sts::Client::from_conf(sts),
            line,
            clock,
            session,
            identity: SingleFlight::default(),
            settled: Mutex::default(),
            password_policy: OnceCell::new(),
            details: SingleFlight::default(),
            details_away: AtomicU32::new(0),
        }
    }

    pub(super) fn sts(&self) -> &aws_sdk_sts::Client {
        &self.sts
    }

    pub(super) fn line(&self) -> &ApiCaller {
        &self.line
    }

    /// AWS's clock.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// Whom AWS takes the operator for; asked once, and again after AWS has refused the credentials. No other call is
    /// made before it is known.
    ///
    /// # Errors
    /// Besides those of AWS: when the credentials are of another account than at first. The next one to ask is told the
    /// new account, and has to compare it before it goes on.
    pub fn caller_identity(&self) -> BoxFuture<'_, Result<Arc<CallerIdentity>, AwsError>> {
        // Every call waits for it, nearly always in vain: what it holds must not lie on the stack of each.
        Box::pin(self.settled_identity())
    }

    async fn settled_identity(&self) -> Result<Arc<CallerIdentity>, AwsError> {
        if let Some(session) = &self.session {
            session.ready().await?;
        }
        let identity = self.identity.get(|_| true, || self.ask_identity()).await?;
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        match settled.replace(identity.account.id.clone()) {
            Some(before) if before != identity.account.id => Err(AwsError {
                operation: GET_CALLER_IDENTITY,
                kind: AwsErrorKind::Credentials,
                message: format!(
                    "the credentials are of account {} now, and were of account {before}",
                    identity.account.id
                ),
                request_id: None,
            }),
            _ => Ok(identity),
        }
    }

    async fn ask_identity(&self) -> Result<Arc<CallerIdentity>, AwsError> {
        let request = async {
            let answer = self.sts.get_caller_identity().send().await;
            // Before the call is told of: from now on its account is known.
            if let Some(account) = answer.as_ref().ok().and_then(|answer| answer.account()) {
                self.line.set_account(account);
            }
            answer
        };
        let key_id = self.session.as_ref().and_then(|session| session.key_id());
        let answer = self.watch(key_id.as_deref(), Box::pin(self.line.call(GET_CALLER_IDENTITY, request)).await)?;
        let arn = answer.arn().unwrap_or_default().to_owned();
        let partition = arn.split(':').nth(1).filter(|part| !part.is_empty()).unwrap_or("aws").to_owned();
        let id = answer.account().unwrap_or_default().to_owned();
        tracing::info!(account = id, arn, "whom AWS takes the operator for");
        Ok(Arc::new(CallerIdentity { arn, account: Account { partition, id, users_may_change_passwords: false } }))
    }

    /// Asks STS once whether it accepts a key. Needs no permission, works under an explicit deny.
    /// Never ask with a key that is on its way out: the question counts as a use of it.
    pub async fn verify_key(&self, key: &KeyMaterial) -> Result<KeyVerification, AwsError> {
        let credentials = Credentials::new(key.id.clone(), key.secret.expose_secret(), None, None, "staged access key");
        let with_key =
            aws_sdk_sts::config::Builder::new().credentials_provider(credentials).retry_config(RetryConfig::disabled());
        let request = self.sts.get_caller_identity().customize().config_override(with_key);
        // Not our credentials: whatever AWS says of them, ours are as good as before.
        match Box::pin(self.line.call(GET_CALLER_IDENTITY, request.send())).await {
            Ok(answer) => Ok(KeyVerification::Accepted(answer.arn().unwrap_or_default().to_owned())),
            Err(error) if matches!(error.kind, AwsErrorKind::Credentials | AwsErrorKind::AccessDenied) => {
                Ok(KeyVerification::NotYet)
            }
            Err(error) => Err(error),
        }
    }

    /// A call with the credentials of the account.
    pub(super) fn call<'a, T, E>(
        &'a self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + 'a,
    ) -> impl Future<Output = Result<T, AwsError>> + 'a
    where
        T: 'a,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        // Futures of the SDK take kilobytes, and each layer that they pass through as they are doubles that on the stack.
        let call = Box::pin(self.line.call(operation, request));
        async move {
            self.caller_identity().await?;
            let key_id = self.session.as_ref().and_then(|session| session.key_id());
            self.watch(key_id.as_deref(), call.await)
        }
    }

    /// Credentials that AWS did not take are not taken for granted any more: neither the session nor whose they are.
    fn watch<T>(&self, key_id: Option<&str>, answer: Result<T, AwsError>) -> Result<T, AwsError> {
        if answer.as_ref().is_err_and(|error| error.kind == AwsErrorKind::Credentials) {
            self.identity.invalidate(|_| true);
            if let (Some(session), Some(key_id)) = (&self.session, key_id) {
                session.refused(key_id);
            }
        }
        answer
    }
}
