//! The session of a role: taken when it is needed, shared by all calls, renewed before it ends.

use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use jiff::{SignedDuration, Timestamp};

use super::{ASSUME_ROLE, AwsClock, AwsError, AwsErrorKind, api_caller::ApiCaller, single_flight::SingleFlight};
use crate::domain::account::Role;

/// A session with less time than this left is renewed. STS makes none shorter than 15 minutes.
const RENEWED: SignedDuration = SignedDuration::from_mins(5);
/// A session with less time than this left is not used any more: a call may take 25 s, and clocks differ.
const OVER: SignedDuration = SignedDuration::from_mins(1);

/// Sessions of one role, one after the other.
///
/// The SDK's own cache of identities remembers no refusal, shares none between calls, and cannot be told that AWS
/// has ended a session: with it, every pass over an account that refuses us would be a call to STS.
pub(super) struct Session {
    role: Role,
    /// Shown by `CloudTrail` in whatever is done in the session.
    name: String,
    /// With the operator's own credentials.
    sts: aws_sdk_sts::Client,
    line: Arc<ApiCaller>,
    clock: Arc<AwsClock>,
    held: SingleFlight<Held>,
}

/// A session that was taken.
#[derive(Clone)]
struct Held {
    credentials: Credentials,
    until: Timestamp,
}

impl Held {
    fn has_left(&self, now: Timestamp, at_least: SignedDuration) -> bool {
        self.until.duration_since(now) > at_least
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("role", &self.role.arn).finish_non_exhaustive()
    }
}

impl Session {
    /// No session yet.
    pub(super) fn new(
        role: Role,
        name: String,
        sts: aws_sdk_sts::Client,
        line: Arc<ApiCaller>,
        clock: Arc<AwsClock>,
    ) -> Self {
        Self { role, name, sts, line, clock, held: SingleFlight::default() }
    }

    /// Makes sure that there is a session, before a call is signed: a refusal has to be told as what it is, and its time
    /// is not the call's.
    pub(super) async fn ready(&self) -> Result<(), AwsError> {
        let good = |held: &Held| held.has_left(self.clock.now(), OVER);
        let Some(held) = self.held.peek().filter(good) else {
            return self.held.get(good, || self.assume()).await.map(drop);
        };
        let fresh = |held: &Held| held.has_left(self.clock.now(), RENEWED);
        if !fresh(&held)
            && let Some(Err(error)) = self.held.refresh(fresh, || self.assume()).await
        {
            // It is still good: another call tries again in a moment.
            tracing::warn!(role = self.role.arn, %error, "the session of a role could not be renewed");
        }
        Ok(())
    }

    /// The key id of the session that calls are signed with.
    pub(super) fn key_id(&self) -> Option<String> {
        self.held.peek().map(|held| held.credentials.access_key_id().to_owned())
    }

    /// AWS did not take the session any more.
    pub(super) fn refused(&self, key_id: &str) {
        self.held.invalidate(|held| held.credentials.access_key_id() == key_id);
    }

    fn assume(&self) -> impl Future<Output = Result<Held, AwsError>> + Send {
        let request = self
            .sts
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(&self.name)
            .set_external_id(self.role.external_id.clone());
        async {
            let answer = Box::pin(self.line.call(ASSUME_ROLE, request.send())).await?;
            let given = answer.credentials.ok_or_else(|| AwsError {
                operation: ASSUME_ROLE,
                kind: AwsErrorKind::Service,
                message: "AWS answered without credentials".to_owned(),
                request_id: None,
            })?;
            let until = Timestamp::from_second(given.expiration.secs()).unwrap_or_default();
            tracing::info!(role = self.role.arn, %until, "the role is assumed");
            let expiry = SystemTime::try_from(given.expiration).ok();
            let credentials = Credentials::new(
                given.access_key_id,
                given.secret_access_key,
                Some(given.session_token),
                expiry,
                "session of a role",
            );
            Ok(Held { credentials, until })
        }
    }
}

/// Signs calls with the session that is there. It asks for none: see [`Session::ready`].
#[derive(Clone, Debug)]
pub(super) struct SessionCredentials(pub(super) Arc<Session>);

impl ProvideCredentials for SessionCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let held = self.0.held.peek().map(|held| held.credentials);
        future::ProvideCredentials::ready(held.ok_or_else(|| CredentialsError::not_loaded("no session of the role")))
    }
}
