//! A pass over a resource that is not allowed: what its user may keep depends on what it has. And over one that is suspended
//! and not valid: it keeps all but its keys.

use jiff::SignedDuration;

use super::{
    ReconcileError,
    act::Actor,
    pass::{End, Pass},
};
use crate::{
    api::{AwsDeployUser, AwsDeployUserStatus, HumanDuration, class::OnRevoked},
    cluster::DeployUsers,
    domain::{
        authorize::{self, Revocation},
        conditions::FailureScope,
        current_state::CurrentState,
        desired,
        owner::Ownership,
        plan::{self, Freshness, RevocationPolicy},
    },
};

impl Pass<'_> {
    /// Observes, decides how far the revocation goes, acts and reports. The refusal is the first of the errors.
    pub(super) async fn revoke(&mut self, user: &AwsDeployUser) -> End {
        if let Err((error, about)) = self.arrive(user).await {
            self.errors.push((error, about));
            return self.report(user.clone(), None, None, Vec::new(), false).await;
        }
        let (mut actor, revoked) = match Box::pin(self.judge(user)).await {
            Ok(judged) => judged,
            Err(error) => {
                self.errors.push((error, FailureScope::Observation));
                return self.report(user.clone(), None, None, Vec::new(), false).await;
            }
        };
        if let Some((ReconcileError::NotAllowed(told), _)) = self.errors.first_mut() {
            *told = format!("{told}. {}", revoked.note().message);
        }
        self.revoked = Some(revoked);
        let plan = self.act(user, &mut actor).await;
        let Actor { user, observed, news, left, .. } = actor;
        self.report(user, Some(&plan), Some(&observed.current), news, left).await
    }

    /// Looks at what the user has, and how far the revocation goes for it.
    async fn judge<'b>(&mut self, user: &AwsDeployUser) -> Result<(Actor<'b>, RevocationPolicy), ReconcileError>
    where
        Self: 'b,
    {
        let mut actor = self.observe(user, None, false).await?;
        let mut revoked = self.revoked(user, &actor.observed.current);
        let takes = |revoked: &RevocationPolicy, current: &CurrentState| {
            revoked.revocation.action != OnRevoked::Freeze
                || current.user().is_some_and(|found| revoked.is_compromised(found))
        };
        let current = &actor.observed.current;
        if takes(&revoked, current) && self.is_news(user, &revoked, current) && !Freshness::Live.is_met_by(current) {
            // Nothing is taken away for what somebody has mended meanwhile.
            self.look_again(user, &mut actor, Freshness::Live).await?;
            revoked = self.revoked(user, &actor.observed.current);
        }
        self.note_revocation(&mut actor.user, revoked.revocation.action).await?;
        Ok((actor, revoked))
    }

    /// Whether the status has how far it goes. Of a resource that is allowed, and only not valid, it has nothing to say.
    fn is_noted(&self, user: &AwsDeployUser, how: OnRevoked) -> bool {
        self.is_invalid() || user.status.as_ref().and_then(|status| status.revocation) == noted(how)
    }

    fn is_invalid(&self) -> bool {
        matches!(self.errors.first(), Some((ReconcileError::Invalid(_), _)))
    }

    /// Whether there is something to take, or to write down, that was not done before.
    fn is_news(&self, user: &AwsDeployUser, revoked: &RevocationPolicy, current: &CurrentState) -> bool {
        let settings = &self.context.settings.protocol;
        !self.is_noted(user, revoked.revocation.action)
            || !plan::plan_revocation(self.target, revoked, current, self.now(), settings).effects.is_empty()
    }

    fn revoked(&self, user: &AwsDeployUser, current: &CurrentState) -> RevocationPolicy {
        let ours = current.user().filter(|found| self.target.owner.classify(&found.tags) == Ownership::Ours);
        let overlap =
            user.spec.effective_access_key().and_then(|key| key.rotation.overlap.as_ref()).map(HumanDuration::parse);
        let revocation = match ours {
            // A class allows it.
            _ if self.is_invalid() => Revocation { action: OnRevoked::Freeze, reason: None },
            // What was removed before stays removed; of what never was there is nothing to take.
            None => Revocation { action: self.without_user(user), reason: None },
            Some(found) => self.class_decision.revocation(user, found),
        };
        RevocationPolicy {
            revocation,
            on_quarantine: self.class_decision.on_quarantine(user),
            suspend: user.spec.suspend,
            overlap: overlap.and_then(Result::ok).unwrap_or(desired::DEFAULT_OVERLAP).max(SignedDuration::ZERO),
        }
    }

    /// Writes down how far it goes, before the first thing is taken: what is left of the user may look as if it were allowed.
    async fn note_revocation(&self, user: &mut AwsDeployUser, how: OnRevoked) -> Result<(), ReconcileError> {
        if !self.is_noted(user, how) {
            let status = AwsDeployUserStatus { revocation: noted(how), ..user.status.clone().unwrap_or_default() };
            let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
            *user = users.write_status(user, status).await?;
        }
        Ok(())
    }

    fn without_user(&self, user: &AwsDeployUser) -> OnRevoked {
        let recorded = user.status.as_ref().and_then(|status| status.class.as_ref());
        self.class_decision.on_revoked().or(recorded.map(|class| class.on_revoked)).unwrap_or_default()
    }

    /// A user that exists and is not where its class has its users.
    pub(super) fn out_of_path(&self, current: &CurrentState) -> Option<String> {
        let path = &self.desired.as_ref()?.path;
        let found = current.user().filter(|found| self.target.owner.classify(&found.tags) == Ownership::Ours)?;
        let why = authorize::check_path(path, found).err()?;
        Some(format!("spec.className: {why}"))
    }
}

/// How far it goes, as the status has it: a freeze takes nothing.
fn noted(how: OnRevoked) -> Option<OnRevoked> {
    (how != OnRevoked::Freeze).then_some(how)
}
