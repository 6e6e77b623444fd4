//! Evaluates what a resource may keep that no class allows, or that is suspended and invalid.

use jiff::SignedDuration;

use super::{Goal, ReconcileError, Reconciliation, error::StepError, observe::Observed};
use crate::{
    api::{AwsDeployUser, AwsDeployUserStatus, HumanDuration, class::OnRevoked},
    cluster::{ClusterErrorKind, DeployUsers},
    domain::{
        authorize::{self, Revocation},
        conditions::FailureScope,
        current_state::CurrentState,
        desired,
        plan::{self, Freshness, RevocationPolicy},
        target::Target,
    },
};

impl Reconciliation<'_> {
    /// Decides how far the revocation goes. Records that in the status before the first thing is taken: what is left of the
    /// user may look allowed afterwards.
    pub(super) async fn evaluate_revocation(
        &mut self,
        user: &mut AwsDeployUser,
        observed: &mut Observed,
    ) -> Result<RevocationPolicy, StepError> {
        let failed = |error| StepError::new(error, FailureScope::Observation);
        let mut policy = self.revocation_policy(user, &observed.current);
        if self.takes_something(user, &policy, &observed.current) && !Freshness::Live.is_met_by(&observed.current) {
            // Cached facts may show a violation that was corrected since.
            *observed = self.reobserve(user, None, observed, Freshness::Live).await.map_err(failed)?;
            policy = self.revocation_policy(user, &observed.current);
        }
        match self.record_revocation(user, policy.revocation.action).await {
            // A tenant can make a resource too large for a status. What needs no record is revoked all the same.
            Err(ReconcileError::Cluster(error)) if error.kind != ClusterErrorKind::Conflict => {
                if policy.revocation.action == OnRevoked::Delete {
                    policy.revocation.action = OnRevoked::Deactivate;
                }
                self.failures.push(failed(error.into()));
            }
            result => result.map_err(failed)?,
        }
        if let Some(ReconcileError::NotAllowed(message)) = self.failures.first_mut().map(|failure| &mut failure.error) {
            *message = format!("{message}. {}", policy.note().message);
        }
        Ok(policy)
    }

    fn revocation_policy(&self, user: &AwsDeployUser, current: &CurrentState) -> RevocationPolicy {
        let owned = current.owned_user(&self.target.owner);
        let access_key = user.spec.effective_access_key();
        let overlap = access_key.and_then(|key| key.rotation.overlap.as_ref()).map(HumanDuration::parse);
        let revocation = match owned {
            // A class allows the resource, so that nothing but its keys is revoked.
            _ if self.is_invalid() => Revocation { action: OnRevoked::Freeze, reason: None },
            None => Revocation { action: self.action_without_user(user), reason: None },
            Some(found) => self.decision.revocation(user, found),
        };
        RevocationPolicy {
            revocation,
            on_quarantine: self.decision.on_quarantine(user),
            suspend: user.spec.suspend,
            overlap: overlap.and_then(Result::ok).unwrap_or(desired::DEFAULT_OVERLAP).max(SignedDuration::ZERO),
        }
    }

    /// Whether the policy takes something from the user that was not taken and recorded before.
    fn takes_something(&self, user: &AwsDeployUser, policy: &RevocationPolicy, current: &CurrentState) -> bool {
        let freezes = policy.revocation.action == OnRevoked::Freeze
            && !current.user().is_some_and(|found| policy.is_compromised(found));
        let settings = &self.context.settings.protocol;
        !freezes
            && (!self.is_recorded(user, policy.revocation.action)
                || !plan::plan_revocation(self.target, policy, current, self.now(), settings).effects.is_empty())
    }

    async fn record_revocation(&self, user: &mut AwsDeployUser, action: OnRevoked) -> Result<(), ReconcileError> {
        if !self.is_recorded(user, action) {
            let status =
                AwsDeployUserStatus { revocation: recorded_action(action), ..user.status.clone().unwrap_or_default() };
            let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
            *user = users.write_status(user, status).await?;
        }
        Ok(())
    }

    /// A resource that is allowed, and only invalid, has no revocation in its status.
    fn is_recorded(&self, user: &AwsDeployUser, action: OnRevoked) -> bool {
        self.is_invalid() || user.status.as_ref().and_then(|status| status.revocation) == recorded_action(action)
    }

    fn is_invalid(&self) -> bool {
        matches!(
            self.failures.first().map(|failure| &failure.error),
            Some(ReconcileError::Invalid(_) | ReconcileError::Unreadable(_))
        )
    }

    fn action_without_user(&self, user: &AwsDeployUser) -> OnRevoked {
        let recorded = user.status.as_ref().and_then(|status| status.class.as_ref());
        self.decision.on_revoked().or(recorded.map(|class| class.on_revoked)).unwrap_or_default()
    }
}

/// The status records no `Freeze`, which takes nothing.
fn recorded_action(action: OnRevoked) -> Option<OnRevoked> {
    (action != OnRevoked::Freeze).then_some(action)
}

/// Why a user that exists is outside of the path of its class.
pub(super) fn path_violation(goal: &Goal, target: &Target, current: &CurrentState) -> Option<String> {
    let path = &goal.desired()?.path;
    let found = current.owned_user(&target.owner)?;
    let violation = authorize::check_path(path, found).err()?;
    Some(format!("spec.className: {violation}"))
}
