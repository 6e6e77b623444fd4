//! The caller identity: which principal and account the credentials belong to, and whether AWS accepts a new access key.

use std::sync::Arc;

use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use futures::future::BoxFuture;
use secrecy::ExposeSecret;

use super::{
    AccountClient,
    error::{AwsError, AwsErrorKind},
    lane::Lane,
};
use crate::domain::{desired::Account, fair_queue::Priority, secret::KeyMaterial};

const GET_CALLER_IDENTITY: &str = "GetCallerIdentity";

/// The answer of STS to `GetCallerIdentity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// ARN of the principal.
    pub arn: String,
    /// Account of the principal.
    pub account: Account,
}

/// Whether AWS accepts a new access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerification {
    /// The key is accepted and belongs to this ARN.
    Accepted(String),
    /// AWS does not know the key (yet): IAM is eventually consistent.
    NotYet,
}

impl AccountClient {
    /// Caller identity of the credentials. Requested once, and again after AWS has rejected the credentials. No other
    /// call is made before it is known.
    ///
    /// # Errors
    /// Besides those of AWS: the credentials belong to another account than before. The next caller gets the new account,
    /// and has to verify it before it goes on.
    pub(crate) fn caller_identity(&self) -> BoxFuture<'_, Result<Arc<CallerIdentity>, AwsError>> {
        // Every call awaits it, and nearly always it is cached: its state must not lie on the stack of each call.
        Box::pin(self.verified_identity())
    }

    async fn verified_identity(&self) -> Result<Arc<CallerIdentity>, AwsError> {
        if let Some(session) = &self.session {
            session.ensure_valid().await?;
        }
        let identity = self.identity.get(|_| true, || self.request_identity()).await?;
        match self.last_account.lock().replace(identity.account.id.clone()) {
            Some(before) if before != identity.account.id => Err(AwsError {
                operation: GET_CALLER_IDENTITY,
                kind: AwsErrorKind::Credentials,
                message: format!(
                    "the credentials belong to account {}, and belonged to account {before} before",
                    identity.account.id
                ),
                request_id: None,
            }),
            _ => Ok(identity),
        }
    }

    async fn request_identity(&self) -> Result<Arc<CallerIdentity>, AwsError> {
        let request = async {
            let answer = self.sts.get_caller_identity().send().await;
            // Set before the call is recorded, so that its own metrics carry the account.
            if let Some(account) = answer.as_ref().ok().and_then(|answer| answer.account()) {
                self.caller.set_account(account);
            }
            answer
        };
        let key_id = self.session_key_id();
        // All calls of the account wait for it.
        let lane = Lane::of_operator(Priority::Urgent);
        let result = Box::pin(self.caller.call(&lane, GET_CALLER_IDENTITY, request)).await;
        let answer = self.invalidate_if_rejected(key_id.as_deref(), result)?;
        let arn = answer.arn().unwrap_or_default().to_owned();
        let partition = arn.split(':').nth(1).filter(|part| !part.is_empty()).unwrap_or("aws").to_owned();
        let id = answer.account().unwrap_or_default().to_owned();
        tracing::info!(account = id, arn, "resolved caller identity");
        Ok(Arc::new(CallerIdentity { arn, account: Account { partition, id, users_may_change_passwords: false } }))
    }

    /// Asks STS once, without retries, whether it accepts a key. Needs no permission and works under an explicit deny.
    /// Counts as a use of the key, so it must not be called for a key whose last use decides about its deletion.
    pub(crate) async fn verify_key(&self, lane: &Lane, key: &KeyMaterial) -> Result<KeyVerification, AwsError> {
        let credentials = Credentials::new(key.id.clone(), key.secret.expose_secret(), None, None, "staged access key");
        let with_key =
            aws_sdk_sts::config::Builder::new().credentials_provider(credentials).retry_config(RetryConfig::disabled());
        let request = self.sts.get_caller_identity().customize().config_override(with_key);
        // Bypasses `Self::call`: a rejection concerns the key, and says nothing about the operator's own credentials.
        match Box::pin(self.caller.call(lane, GET_CALLER_IDENTITY, request.send())).await {
            Ok(answer) => Ok(KeyVerification::Accepted(answer.arn().unwrap_or_default().to_owned())),
            Err(error) if matches!(error.kind, AwsErrorKind::Credentials | AwsErrorKind::AccessDenied) => {
                Ok(KeyVerification::NotYet)
            }
            Err(error) => Err(error),
        }
    }
}
