//! Steps 5 and 6 of a reconcile: plan and act, one effect at a time, until nothing is left to do.

use tracing::Instrument;

use super::{Goal, ReconcileError, Reconciliation, act::Executor, error::StepError, requeue};
use crate::{
    domain::{
        conditions::FailureScope,
        fair_queue::Priority,
        journal::Journal,
        plan::{self, Effect, Freshness, Plan},
    },
    trace,
};

/// The longest reconcile, one with every IAM limit used up whose managed policies all lose their versions, needs about eighty
/// effects; more would be a loop.
const MAX_EFFECTS_PER_RECONCILE: usize = 128;

impl Reconciliation<'_> {
    /// Returns the last plan: what waits, and what is reported.
    pub(super) async fn plan_and_act(&mut self, goal: &Goal, executor: &mut Executor<'_>) -> Plan {
        for _ in 0..MAX_EFFECTS_PER_RECONCILE {
            let plan = self.plan(goal, executor);
            let Some(effect) = plan.effects.first().filter(|_| !self.interruption.is_requested()) else { return plan };
            if let Some(freshness) = self.missing_freshness(effect, executor) {
                match self.refresh(executor, freshness).await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.failures.push(StepError::new(error, FailureScope::Observation));
                        return plan;
                    }
                }
            }
            let result = self.execute(effect, executor).await;
            if executor.finalized {
                return plan;
            }
            if let Err(error) = result
                && !self.continues_after(effect, error, executor)
            {
                return plan;
            }
        }
        let plan = self.plan(goal, executor);
        let effect = plan.effects.first().map(ToString::to_string).unwrap_or_default();
        let error = ReconcileError::NotConverged(effect);
        tracing::error!(%error, "reconcile did not converge");
        self.failures.push(StepError::new(error, FailureScope::Key));
        plan
    }

    fn plan(&self, goal: &Goal, executor: &Executor<'_>) -> Plan {
        let _span = trace::step_span("plan").entered();
        let (current, now, settings) = (&executor.observed.current, self.now(), &self.context.settings.protocol);
        match goal {
            Goal::Sync(desired) => plan::plan(desired, current, now, settings),
            Goal::Revoke(Some(policy)) => plan::plan_revocation(self.target, policy, current, now, settings),
            Goal::Revoke(None) | Goal::Delete => {
                plan::plan_cleanup(self.target, executor.user.spec.deletion_policy, current, now, settings)
            }
        }
    }

    /// What has to be read again before the effect: what comes out of a listing only triggers.
    fn missing_freshness(&self, effect: &Effect, executor: &Executor<'_>) -> Option<Freshness> {
        let observed = &executor.observed;
        if observed.from_listing {
            return Some(Freshness::Live);
        }
        let can_run = effect.can_run_on(&observed.current, &self.context.settings.protocol);
        (!can_run).then(|| effect.required_freshness())
    }

    /// Observes again, with fresher facts, before an effect that needs them.
    async fn refresh(&mut self, executor: &mut Executor<'_>, freshness: Freshness) -> Result<(), ReconcileError> {
        executor.observed = self.reobserve(&executor.user, executor.desired, &executor.observed, freshness).await?;
        Ok(())
    }

    async fn execute(&mut self, effect: &Effect, executor: &mut Executor<'_>) -> Result<(), ReconcileError> {
        tracing::debug!(%effect, "executing effect");
        if effect.is_revocation() {
            self.lane.raise(Priority::Urgent);
        }
        let keyed_at = executor.observed.current.journal().and_then(Journal::keyed_at);
        let span = trace::effect_span(effect.verb().as_str(), effect);
        let result = executor.execute(effect, &mut self.cache).instrument(span.clone()).await;
        if let Err(error) = &result {
            trace::record_failure(&span, error.reason().as_str(), error);
            tracing::warn!(%effect, reason = %error.reason(), %error, "effect failed");
        }
        let reason = result.as_ref().err().map(ReconcileError::reason).or_else(|| executor.failed_restart(effect));
        self.context.observer.acted(effect.verb(), reason);
        if let (Effect::Publish(_), Ok(()), Some(keyed_at)) = (effect, &result, keyed_at) {
            self.context.observer.verified(requeue::duration_until(self.now(), keyed_at));
        }
        result
    }

    /// Records the failure of an effect; true when the rest of the plan does not depend on it.
    fn continues_after(&mut self, effect: &Effect, error: ReconcileError, executor: &mut Executor<'_>) -> bool {
        let current = &mut executor.observed.current;
        let (scope, continues) = if effect.is_user_sync() && executor.desired.is_some() {
            current.user_sync_failed = true;
            (FailureScope::User, true)
        } else if matches!(effect, Effect::ReadLastUsed(_)) {
            current.last_used_failed = true;
            (FailureScope::Key, true)
        } else if effect.is_user_sync()
            || matches!(effect, Effect::RecordUser | Effect::CreateUser | Effect::AdoptUser(_) | Effect::DeleteUser)
        {
            (FailureScope::User, false)
        } else {
            (FailureScope::Key, false)
        };
        self.failures.push(StepError::new(error, scope));
        continues
    }
}
