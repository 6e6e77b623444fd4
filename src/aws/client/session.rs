//! The session of an assumed role: requested when it is needed, shared by all calls, refreshed before it expires.

use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    api_caller::ApiCaller,
    clock::AwsClock,
    error::{ASSUME_ROLE, AwsError},
    lane::Lane,
    single_flight::SingleFlight,
};
use crate::domain::{account::Role, fair_queue::Priority};

/// A session that expires sooner is refreshed. The shortest session of STS lasts 15 minutes.
const MIN_LIFETIME_FRESH: SignedDuration = SignedDuration::from_mins(5);
/// A session that expires sooner is not used: a call may take 25 s, and clocks differ.
const MIN_LIFETIME_USABLE: SignedDuration = SignedDuration::from_mins(1);

/// Consecutive sessions of one role.
///
/// The identity cache of the SDK does not remember a failure, does not share a request between concurrent calls, and cannot
/// be invalidated when AWS has ended a session: every reconcile of an account that rejects the role would call STS.
pub(crate) struct RoleSession {
    role: Role,
    /// Role session name, which `CloudTrail` shows with each call of the session.
    name: String,
    /// With the operator's own credentials.
    sts: aws_sdk_sts::Client,
    caller: Arc<ApiCaller>,
    clock: Arc<AwsClock>,
    current: SingleFlight<SessionToken>,
}

#[derive(Clone)]
struct SessionToken {
    credentials: Credentials,
    expires_at: Timestamp,
}

impl SessionToken {
    fn outlives(&self, now: Timestamp, lifetime: SignedDuration) -> bool {
        self.expires_at.duration_since(now) > lifetime
    }
}

impl fmt::Debug for RoleSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RoleSession").field("role", &self.role.arn).finish_non_exhaustive()
    }
}

impl RoleSession {
    pub(crate) fn new(
        role: Role,
        name: String,
        sts: aws_sdk_sts::Client,
        caller: Arc<ApiCaller>,
        clock: Arc<AwsClock>,
    ) -> Self {
        Self { role, name, sts, caller, clock, current: SingleFlight::default() }
    }

    /// Assumes the role unless there is a usable session. Called before a request is signed, so that a refusal is reported
    /// as one of `AssumeRole` and does not use up the time-out of the request.
    pub(super) async fn ensure_valid(&self) -> Result<(), AwsError> {
        let usable = |token: &SessionToken| token.outlives(self.clock.now(), MIN_LIFETIME_USABLE);
        let Some(token) = self.current.peek().filter(usable) else {
            return self.current.get(usable, || self.assume()).await.map(drop);
        };
        let fresh = |token: &SessionToken| token.outlives(self.clock.now(), MIN_LIFETIME_FRESH);
        if !fresh(&token)
            && let Some(Err(error)) = self.current.refresh(fresh, || self.assume()).await
        {
            // The current session is still usable, and a later call tries again.
            tracing::warn!(role = self.role.arn, %error, "failed to refresh role session");
        }
        Ok(())
    }

    /// Key id of the session that requests are signed with.
    pub(super) fn key_id(&self) -> Option<String> {
        self.current.peek().map(|token| token.credentials.access_key_id().to_owned())
    }

    /// Drops the session with this key id, which AWS has rejected. A newer one is kept.
    pub(super) fn invalidate(&self, key_id: &str) {
        self.current.invalidate(|token| token.credentials.access_key_id() == key_id);
    }

    fn assume(&self) -> impl Future<Output = Result<SessionToken, AwsError>> + Send {
        let request = self
            .sts
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(&self.name)
            .set_external_id(self.role.external_id.clone());
        async {
            // All calls of the role wait for it.
            let lane = Lane::of_operator(Priority::Urgent);
            let answer = Box::pin(self.caller.call(&lane, ASSUME_ROLE, request.send())).await?;
            let received = answer.credentials.ok_or_else(|| AwsError::incomplete(ASSUME_ROLE, "credentials"))?;
            let expires_at = Timestamp::from_second(received.expiration.secs()).unwrap_or_default();
            tracing::info!(role = self.role.arn, %expires_at, "assumed role");
            let expiry = SystemTime::try_from(received.expiration).ok();
            let credentials = Credentials::new(
                received.access_key_id,
                received.secret_access_key,
                Some(received.session_token),
                expiry,
                "role session",
            );
            Ok(SessionToken { credentials, expires_at })
        }
    }
}

/// Signs requests with the current session. Does not request one: see [`RoleSession::ensure_valid`].
#[derive(Clone, Debug)]
pub(super) struct SessionCredentials(pub(super) Arc<RoleSession>);

impl ProvideCredentials for SessionCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = self.0.current.peek().map(|token| token.credentials);
        future::ProvideCredentials::ready(
            credentials.ok_or_else(|| CredentialsError::not_loaded("the role has no session")),
        )
    }
}
