//! IAM: one file per subject, with its reads and writes. Each operation is one call unless it says otherwise, and is
//! idempotent unless it says otherwise. A write takes a `UserRef`: only a user that was observed can be changed.

mod access_keys;
pub(crate) mod account_details;
mod console;
mod convert;
mod deletion_blockers;
mod groups;
mod managed_policies;
mod policies;
mod policy_document;
mod tags;
mod users;

pub use managed_policies::ListedPolicy;

use std::{
    error::Error as StdError,
    future::Future,
    sync::{Arc, atomic::AtomicU32},
};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::future::BoxFuture;

use self::{account_details::CachedDetails, console::CachedPolicy};
use super::client::{
    AccountClient,
    clock::AwsClock,
    error::AwsError,
    identity::{CallerIdentity, KeyVerification},
    lane::Lane,
    single_flight::SingleFlight,
};
use crate::domain::{fair_queue::Priority, secret::KeyMaterial};

/// IAM of one account, with one set of credentials. Clones share everything but the lane of their calls.
#[derive(Clone)]
pub struct IamClient {
    account: Arc<AccountClient>,
    iam: aws_sdk_iam::Client,
    password_policy: Arc<SingleFlight<CachedPolicy>>,
    details: Arc<SingleFlight<CachedDetails>>,
    /// Consecutive failures to reach `GetAccountAuthorizationDetails`.
    details_unreachable: Arc<AtomicU32>,
    lane: Lane,
}

impl IamClient {
    pub(super) fn new(account: AccountClient) -> Self {
        let mut config = aws_sdk_iam::config::Builder::from(account.config());
        for interceptor in account.interceptors() {
            config.push_interceptor(interceptor);
        }
        Self {
            account: Arc::new(account),
            iam: aws_sdk_iam::Client::from_conf(config.build()),
            password_policy: Arc::default(),
            details: Arc::default(),
            details_unreachable: Arc::default(),
            lane: Lane::of_operator(Priority::Background),
        }
    }

    /// The client whose calls wait in this lane.
    #[must_use]
    pub fn for_reconcile(&self, lane: Lane) -> Self {
        Self { lane, ..self.clone() }
    }

    pub(super) fn account(&self) -> &AccountClient {
        &self.account
    }

    /// The clock of AWS.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        self.account.clock()
    }

    /// Caller identity of the credentials. Requested once, and again after AWS has rejected the credentials. No other
    /// call is made before it is known.
    ///
    /// # Errors
    /// Besides those of AWS: the credentials belong to another account than before. The next caller gets the new account,
    /// and has to verify it before it goes on.
    #[must_use]
    pub fn caller_identity(&self) -> BoxFuture<'_, Result<Arc<CallerIdentity>, AwsError>> {
        self.account.caller_identity()
    }

    /// Asks STS once, without retries, whether it accepts a key. Needs no permission and works under an explicit deny.
    /// Counts as a use of the key, so it must not be called for a key whose last use decides about its deletion.
    pub async fn verify_key(&self, key: &KeyMaterial) -> Result<KeyVerification, AwsError> {
        self.account.verify_key(&self.lane, key).await
    }

    fn call<'a, T, E>(
        &'a self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + 'a,
    ) -> impl Future<Output = Result<T, AwsError>> + 'a
    where
        T: 'a,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        self.account.call(&self.lane, operation, request)
    }
}
