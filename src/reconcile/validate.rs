//! The validate step: class decision + spec + account -> what the reconcile works towards. Pure but for the identity and
//! the password policy of the account, which are read once and cached.

use std::sync::Arc;

use tracing::Instrument;

use super::{Goal, ReconcileError, Reconciliation, class_decision::Decision, error::StepError};
use crate::{
    api::{AwsDeployUser, class::OnRevoked},
    aws::CallerIdentity,
    domain::{
        account,
        conditions::FailureScope,
        desired::{self, Desired},
        validate::validate,
    },
    trace,
};

impl Reconciliation<'_> {
    /// A denied resource that has something in AWS is revoked, and of an invalid one superseded keys end all the same; the reason
    /// is the first failure of the reconcile. Without a recorded user it has nothing there, whatever finalizers a tenant gave it,
    /// and AWS is not called.
    pub(super) async fn validate(&mut self, user: &AwsDeployUser) -> Result<Goal, StepError> {
        let span = trace::step_span("validate");
        let goal = self.validated_goal(user).instrument(span.clone()).await;
        if let Err(failure) = &goal {
            trace::record_failure(&span, failure.error.reason().as_str(), &failure.error);
        }
        let failure = match goal {
            Ok(goal) => return Ok(goal),
            Err(failure) => failure,
        };
        // To take keys away needs neither a valid spec nor a class that can be read, only the account.
        let is_of_aws = matches!(failure.error, ReconcileError::Aws { .. } | ReconcileError::WrongAccount(_));
        if (is_of_aws && !user.spec.credentials_revoked()) || account::recorded_user(user).is_none() {
            return Err(describe_revocation(user, failure));
        }
        self.failures.push(failure);
        self.verify_account(user).await?;
        Ok(Goal::Revoke(None))
    }

    async fn validated_goal(&self, user: &AwsDeployUser) -> Result<Goal, StepError> {
        if user.metadata.deletion_timestamp.is_some() {
            self.verify_account(user).await?;
            return Ok(Goal::Delete);
        }
        self.desired(user).await.map(|desired| Goal::Sync(Box::new(desired)))
    }

    /// No class allows the resource, and none did before: then the status would record a user.
    pub(super) fn was_never_allowed(&self, user: &AwsDeployUser) -> bool {
        matches!(self.decision.decision, Decision::Denied(_)) && account::recorded_user(user).is_none()
    }

    async fn desired(&self, user: &AwsDeployUser) -> Result<Desired, StepError> {
        let denied = |message| StepError::new(ReconcileError::NotAllowed(message), FailureScope::Authorization);
        let authorization = match &self.decision.decision {
            Decision::Allowed(authorization) => authorization,
            Decision::Denied(violations) => return Err(denied(desired::describe_violations(violations))),
            Decision::Unreadable(reason) => {
                let error = ReconcileError::UnreadableClass(reason.clone());
                return Err(StepError::new(error, FailureScope::Observation));
            }
        };
        if let Some(mismatch) = &self.decision.account_mismatch {
            return Err(denied(mismatch.clone()));
        }
        if let Some(error) = &self.incomplete {
            tracing::warn!(%error, "AwsDeployUser cannot be read completely, nothing is granted");
            return Err(StepError::new(ReconcileError::Unreadable(error.clone()), FailureScope::Authorization));
        }
        let mut account = self.verify_account(user).await?.account.clone();
        if user.spec.console.is_some() {
            let policy = self.iam.get_password_policy().await;
            let policy = policy.map_err(|error| StepError::new(error.into(), FailureScope::Observation))?;
            account.users_may_change_passwords = policy.users_may_change;
        }
        validate(&authorization.user, self.target, &authorization.grant, &account, &self.context.settings.protocol)
            .map_err(|violations| StepError::new(ReconcileError::Invalid(violations), FailureScope::Authorization))
    }

    /// Resolves the caller identity. Nothing is read or written in an account before AWS has named it as the one of the
    /// resource.
    async fn verify_account(&self, user: &AwsDeployUser) -> Result<Arc<CallerIdentity>, StepError> {
        let route = &self.decision.route;
        let identity = self.context.identity(&self.iam, route.role.as_ref()).await.map_err(|mut error| {
            if let Some(hint) = route.recovery_hint() {
                error.message = format!("{}; {hint}", error.message);
            }
            StepError::new(error.into(), FailureScope::Observation)
        })?;
        let found = &identity.account.id;
        if route.account.as_ref().is_some_and(|expected| expected != found) {
            let message = account::wrong_account_message(route, user, found);
            return Err(StepError::new(ReconcileError::WrongAccount(message), FailureScope::Observation));
        }
        Ok(identity)
    }
}

/// Adds how a revocation ended that left no user.
fn describe_revocation(user: &AwsDeployUser, mut failure: StepError) -> StepError {
    let is_revoked = user.status.as_ref().is_some_and(|status| status.revocation == Some(OnRevoked::Delete));
    if let (ReconcileError::NotAllowed(message), true) = (&mut failure.error, is_revoked) {
        message.push_str(". The resource was revoked (onRevoked: Delete): its IAM user was deleted");
    }
    failure
}
