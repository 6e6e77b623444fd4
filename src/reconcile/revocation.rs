//! Evaluates what a resource may keep that no class allows, or that is invalid.

use super::{Goal, ReconcileError, Reconciliation, class_decision::has_begun, error::StepError, observe::Observed};
use crate::{
    api::{AwsDeployUser, AwsDeployUserStatus, class::OnRevoked, user::ClassReference},
    cluster::DeployUsers,
    domain::{
        authorize::{self, ClassAbsence, Revocation},
        conditions::FailureScope,
        current_state::CurrentState,
        dates::floor,
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
        let absence = self.class_absence(user).await;
        let mut policy = self.revocation_policy(user, absence, &observed.current);
        if self.takes_something(user, &policy, &observed.current) && !Freshness::Live.is_met_by(&observed.current) {
            // Cached facts may show a violation that was corrected since.
            *observed = self.reobserve(user, None, observed, Freshness::Live).await.map_err(failed)?;
            policy = self.revocation_policy(user, absence, &observed.current);
        }
        match self.record_revocation(user, policy.revocation.action).await {
            // A tenant can make a resource too large for a status, or change it all the time. What needs no record is revoked all
            // the same.
            Err(ReconcileError::Cluster(error)) => {
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

    /// Whether the class that allowed the resource is missing, and when that revokes it. The status records since when, so that
    /// the grace does not start again with the operator; a process that cannot write it remembers.
    async fn class_absence(&mut self, user: &mut AwsDeployUser) -> Option<ClassAbsence> {
        let class = self.decision.missing_class(user).cloned()?;
        let now = self.now();
        let noticed = *self.cache.class_missing_since.get_or_insert(floor(now));
        let since = class.missing_since.map_or(noticed, |recorded| recorded.min(noticed)).min(now);
        let absence =
            ClassAbsence::new(class.on_revoked, since, now, self.context.settings.protocol.class_absence_grace);
        let waits = absence.revocation().until.is_some() && !has_begun(user);
        if waits && class.missing_since != Some(since) {
            let class = ClassReference { missing_since: Some(since), ..class };
            let status = AwsDeployUserStatus { class: Some(class), ..user.status.clone().unwrap_or_default() };
            let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
            match users.write_status(user, status).await {
                Ok(written) => *user = written,
                Err(error) => self.failures.push(StepError::new(error.into(), FailureScope::Observation)),
            }
        }
        Some(absence)
    }

    fn revocation_policy(
        &self,
        user: &AwsDeployUser,
        absence: Option<ClassAbsence>,
        current: &CurrentState,
    ) -> RevocationPolicy {
        let owned = current.owned_user(&self.target.owner);
        let revocation = match owned {
            // No class denies the resource, so that nothing but its keys is revoked.
            _ if self.only_ends_keys() => Revocation { action: OnRevoked::Freeze, reason: None, until: None },
            None => match absence {
                Some(absence) if !has_begun(user) => absence.revocation(),
                _ => Revocation { action: self.action_without_user(user), reason: None, until: None },
            },
            Some(found) => self.decision.revocation(user, absence, (found, &current.policies)),
        };
        RevocationPolicy {
            revocation,
            on_quarantine: self.decision.on_quarantine(user),
            credentials_revoked: user.spec.credentials_revoked(),
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

    /// A resource that no class denies has no revocation in its status.
    fn is_recorded(&self, user: &AwsDeployUser, action: OnRevoked) -> bool {
        self.only_ends_keys() || user.status.as_ref().and_then(|status| status.revocation) == recorded_action(action)
    }

    /// No class denies the resource: the first failure says why nothing is done for it but to end keys.
    fn only_ends_keys(&self) -> bool {
        let first = self.failures.first().map(|failure| &failure.error);
        !matches!(first, Some(ReconcileError::NotAllowed(_)))
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
