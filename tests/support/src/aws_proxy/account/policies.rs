//! Attributes of customer managed policies that the emulator does not keep.

use std::time::Instant;

use tokio::sync::OwnedMutexGuard;

use super::Account;
use crate::aws_proxy::caller::AccountRef;

/// Attributes of a customer managed policy.
#[derive(Clone, Debug)]
pub(in crate::aws_proxy) struct ManagedPolicy {
    created: Instant,
    /// The date of the most recent version; `None` for the version that the policy was created with.
    updated: Option<String>,
}

impl Account {
    pub(in crate::aws_proxy) fn record_policy(&self, account_ref: &AccountRef, arn: &str, created: Instant) {
        let policy = ManagedPolicy { created, updated: None };
        self.state().policies.insert((account_ref.clone(), arn.to_owned()), policy);
    }

    pub(in crate::aws_proxy) fn record_policy_update(&self, account_ref: &AccountRef, arn: &str, at: Option<String>) {
        if let Some(policy) = self.state().policies.get_mut(&(account_ref.clone(), arn.to_owned())) {
            policy.updated = at;
        }
    }

    pub(in crate::aws_proxy) fn forget_policy(&self, account_ref: &AccountRef, arn: &str) {
        self.state().policies.remove(&(account_ref.clone(), arn.to_owned()));
    }

    /// The date of the most recent version.
    pub(in crate::aws_proxy) fn policy_update(&self, account_ref: &AccountRef, arn: &str) -> Option<String> {
        self.state().policies.get(&(account_ref.clone(), arn.to_owned()))?.updated.clone()
    }

    /// Whether the policy is too new to be visible.
    pub(in crate::aws_proxy) fn is_policy_hidden(&self, account_ref: &AccountRef, arn: &str) -> bool {
        let lag = self.settings().policy_visibility_lag;
        let state = self.state();
        let known = state.policies.get(&(account_ref.clone(), arn.to_owned()));
        known.is_some_and(|policy| policy.created.elapsed() < lag)
    }

    /// Serializes check-then-act calls on the customer managed policies of an account: their names are unique in it.
    pub(in crate::aws_proxy) async fn lock_policies(&self, account_ref: &AccountRef) -> OwnedMutexGuard<()> {
        // No user has a name with a slash.
        self.lock_user(account_ref, "/policies").await
    }
}
