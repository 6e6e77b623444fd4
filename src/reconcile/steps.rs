//! The steps of a pass, one after the other: from the account of the resource to the last effect.

use std::{sync::Arc, time::Duration};

use tracing::{Instrument, Span};

use super::{
    Context, ReconcileError, act,
    cache::{Fingerprint, IdleUntil},
    class_decision::{ClassDecision, Verdict},
    observe,
    pass::{DEADLINE, End, Pass, until_then},
};
use crate::{
    api::{AwsDeployUser, well_known},
    aws::CallerIdentity,
    domain::{
        account,
        conditions::FailureScope,
        current_state::UserAbsence,
        desired::{self, Desired},
        journal::Journal,
        plan::{self, Effect, Freshness, Plan},
        validate::validate,
    },
    trace,
};

/// Effects that one pass may do. A pass of the longest kind, a deletion with every limit used up,
/// needs about thirty; more than this would be a loop.
const MOST_EFFECTS: usize = 64;

/// A pass from its beginning to its end, and when to look again.
pub(super) async fn pass(user: &AwsDeployUser, class_decision: &ClassDecision, context: &Context) -> Duration {
    let target = &class_decision.target;
    let uid = target.owner.uid.clone();
    let started = std::time::Instant::now();
    let mut cache = context.caches.take(&uid);
    cache.enter(class_decision.route.account_key());
    let mut pass = Pass {
        context,
        iam: context.accounts.client(class_decision.route.role.as_ref()),
        target,
        class_decision,
        cache: &mut cache,
        errors: Vec::new(),
        desired: None,
        revoked: None,
    };
    let end = match tokio::time::timeout(DEADLINE, Box::pin(pass.run(user))).await {
        Ok(end) => end,
        Err(_) => pass.report_cut_off(user).await,
    };
    let result = pass.errors.first().map_or("ok", |(error, _)| error.reason().as_str());
    let span = Span::current();
    span.record("result", result);
    if let Some((error, _)) = pass.errors.first() {
        trace::record_failure(&span, result, error);
    }
    context.observer.passed(result, started.elapsed());
    let wait = until_then(end.next, context.accounts.clock().now());
    context.keep_room(target, class_decision.waits_for_room, end.left);
    if !end.left {
        // A time out of all range: looked at again when the resource changes.
        let until = std::time::Instant::now().checked_add(wait);
        cache.idle = until.map(|until| IdleUntil { seen: Fingerprint::of(&end.user, class_decision.digest), until });
        context.caches.put(&uid, cache);
    }
    wait
}

impl Pass<'_> {
    async fn run(&mut self, user: &AwsDeployUser) -> End {
        let deleting = user.metadata.deletion_timestamp.is_some();
        // IO once per account: which one and which partition this is.
        let span = trace::step_span("validate");
        let validated =
            async { if deleting { self.arrive(user).await.map(|_| None) } else { self.validate(user).await } };
        let validated = validated.instrument(span.clone()).await;
        if let Err((error, _)) = &validated {
            trace::record_failure(&span, error.reason().as_str(), error);
        }
        match validated {
            Ok(desired) => self.desired = desired,
            Err((error, about)) => {
                let revokes = match &error {
                    ReconcileError::NotAllowed(_) => true,
                    // Nothing is done by a spec that is not valid, but for this one word of it.
                    ReconcileError::Invalid(_) => user.spec.suspend,
                    _ => false,
                };
                self.errors.push((error, about));
                if revokes && has_finalizer(user) {
                    return Box::pin(self.revoke(user)).await;
                }
                return self.report(user.clone(), None, None, Vec::new(), false).await;
            }
        }
        let desired = self.desired.clone();
        // IO, reads only.
        let mut actor = match self.observe(user, desired.as_ref(), deleting).await {
            Ok(actor) => actor,
            Err(error) => {
                self.errors.push((error, FailureScope::Observation));
                return self.report(user.clone(), None, None, Vec::new(), false).await;
            }
        };
        if let Some(why) = self.out_of_path(&actor.observed.current) {
            self.desired = None;
            self.errors.push((ReconcileError::NotAllowed(why), FailureScope::Authorization));
            return Box::pin(self.revoke(user)).await;
        }
        self.keep_waiting_out(&mut actor);
        let plan = self.act(user, &mut actor).await;
        let act::Actor { user, observed, news, left, .. } = actor;
        self.report(user, Some(&plan), Some(&observed.current), news, left).await
    }

    /// Pure but for the account, which is asked once per process: resource + class -> desired state, or all that is wrong with it.
    async fn validate(&self, user: &AwsDeployUser) -> Result<Option<Desired>, (ReconcileError, FailureScope)> {
        let authorization = match &self.class_decision.verdict {
            Verdict::Allowed(authorization) => authorization,
            Verdict::Refused(violations) => {
                return Err((
                    ReconcileError::NotAllowed(desired::describe_violations(violations)),
                    FailureScope::Authorization,
                ));
            }
            Verdict::Unreadable(why) => {
                return Err((ReconcileError::UnreadableClass(why.clone()), FailureScope::Observation));
            }
        };
        if let Some(elsewhere) = &self.class_decision.elsewhere {
            return Err((ReconcileError::NotAllowed(elsewhere.clone()), FailureScope::Authorization));
        }
        let mut account = self.arrive(user).await?.account.clone();
        if user.spec.console.is_some() {
            let policy =
                self.iam.get_password_policy().await.map_err(|error| (error.into(), FailureScope::Observation))?;
            account.users_may_change_passwords = policy.users_may_change;
        }
        validate(&authorization.user, self.target, &authorization.grant, &account, &self.context.settings.protocol)
            .map(Some)
            .map_err(|violations| (ReconcileError::Invalid(violations), FailureScope::Authorization))
    }

    /// Asks whom AWS takes us for. Before it has named the account of the resource nothing is read there, and nothing
    /// written.
    pub(super) async fn arrive(
        &self,
        user: &AwsDeployUser,
    ) -> Result<Arc<CallerIdentity>, (ReconcileError, FailureScope)> {
        let identity = self.context.identity(&self.iam, self.class_decision.route.role.as_ref()).await;
        let identity = identity.map_err(|mut error| {
            if let Some(recovery_hint) = self.class_decision.route.recovery_hint() {
                error.message = format!("{}; {recovery_hint}", error.message);
            }
            (error.into(), FailureScope::Observation)
        })?;
        let (route, found) = (&self.class_decision.route, &identity.account.id);
        if route.account.as_ref().is_some_and(|wanted| wanted != found) {
            let told = account::wrong_account_message(route, user, found);
            return Err((ReconcileError::WrongAccount(told), FailureScope::Observation));
        }
        Ok(identity)
    }

    pub(super) async fn observe<'b>(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&'b Desired>,
        deleting: bool,
    ) -> Result<act::Actor<'b>, ReconcileError>
    where
        Self: 'b,
    {
        // A deletion is all about what cannot be undone.
        let wanted = if deleting { Freshness::Live } else { Freshness::Cached };
        let observed = self.look(user, desired, wanted).await?;
        Ok(act::Actor {
            context: self.context,
            iam: Arc::clone(&self.iam),
            target: self.target,
            desired,
            user: user.clone(),
            observed,
            news: Vec::new(),
            left: false,
        })
    }

    pub(super) async fn look(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&Desired>,
        wanted: Freshness,
    ) -> Result<observe::Observed, ReconcileError> {
        let span = trace::step_span("observe");
        let observed = observe::observe(self.context, &self.iam, user, self.target, desired, self.cache, wanted)
            .instrument(span.clone())
            .await;
        if let Err(error) = &observed {
            trace::record_failure(&span, error.reason().as_str(), error);
        }
        observed
    }

    /// Plans, does the first effect, learns, and plans again, until there is nothing to do now.
    pub(super) async fn act(&mut self, user: &AwsDeployUser, actor: &mut act::Actor<'_>) -> Plan {
        for _ in 0..MOST_EFFECTS {
            let plan = self.plan(user, actor);
            let Some(effect) = plan.effects.first() else { return plan };
            let from_listing = actor.observed.from_listing;
            if from_listing || !effect.can_run_on(&actor.observed.current, &self.context.settings.protocol) {
                let wanted = if from_listing { Freshness::Live } else { effect.required_freshness() };
                match self.look_again(user, actor, wanted).await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.errors.push((error, FailureScope::Observation));
                        return plan;
                    }
                }
            }
            tracing::debug!(%effect, "acting");
            let made_at = actor.observed.current.journal().and_then(Journal::keyed_at);
            let span = trace::effect_span(effect.verb(), effect);
            let result = actor.act(effect, self.cache).instrument(span.clone()).await;
            if let Err(error) = &result {
                trace::record_failure(&span, error.reason().as_str(), error);
            }
            let failure = result.as_ref().err().map(ReconcileError::reason).or_else(|| actor.not_restarted(effect));
            self.context.observer.acted(effect.verb(), failure);
            if let (plan::Effect::Publish { .. }, Ok(()), Some(made_at)) = (effect, &result, made_at) {
                self.context.observer.verified(until_then(self.now(), made_at));
            }
            if actor.left {
                return plan;
            }
            if let Err(error) = result {
                tracing::warn!(%effect, reason = %error.reason(), %error, "an effect failed");
                if effect.is_user_sync() && actor.desired.is_some() {
                    // Keys are looked after all the same.
                    actor.observed.current.user_sync_failed = true;
                    let retry_at = self.now() + self.delay(&error, user);
                    self.cache.user_failure = Some((error.clone(), retry_at));
                    self.errors.push((error, FailureScope::User));
                    continue;
                }
                if matches!(effect, Effect::ReadLastUsed(_)) {
                    // Told, and waited for; the rest is looked after all the same.
                    actor.observed.current.last_used_failed = true;
                    self.errors.push((error, FailureScope::Key));
                    continue;
                }
                let about = if matches!(effect, Effect::CreateUser | Effect::AdoptUser(_) | Effect::DeleteUser) {
                    FailureScope::User
                } else {
                    FailureScope::Key
                };
                self.errors.push((error, about));
                return plan;
            }
        }
        tracing::error!(most = MOST_EFFECTS, "a pass did not come to rest; this is a defect of the operator");
        self.plan(user, actor)
    }

    fn plan(&self, user: &AwsDeployUser, actor: &act::Actor<'_>) -> Plan {
        let _span = trace::step_span("plan").entered();
        let (current, now, settings) = (&actor.observed.current, self.now(), &self.context.settings.protocol);
        match (actor.desired, &self.revoked) {
            (Some(desired), _) => plan::plan(desired, current, now, settings),
            (None, Some(revoked)) => plan::plan_revocation(self.target, revoked, current, now, settings),
            (None, None) => plan::plan_cleanup(self.target, user.spec.deletion_policy, current, now, settings),
        }
    }

    /// Reads what is wanted anew, in order, before something is done that cannot be undone.
    pub(super) async fn look_again(
        &mut self,
        user: &AwsDeployUser,
        actor: &mut act::Actor<'_>,
        wanted: Freshness,
    ) -> Result<(), ReconcileError> {
        let (failed, silent) = (actor.observed.current.user_sync_failed, actor.observed.current.last_used_failed);
        let workloads = std::mem::take(&mut actor.observed.current.workloads);
        // The resource may have been written in this pass (its finalizer); its status has not.
        let finalizer = actor.observed.current.finalizer;
        let mut observed = self.look(user, actor.desired, wanted).await?;
        if actor.observed.current.user_absence == Some(UserAbsence::Removed) {
            observed.current.user_absence = Some(UserAbsence::Removed);
        }
        observed.current.user_sync_failed = failed;
        observed.current.last_used_failed = silent;
        observed.current.workloads = workloads;
        observed.current.finalizer = finalizer;
        actor.observed = observed;
        Ok(())
    }

    /// A change of the user that failed a moment ago is not tried again before its time, even if
    /// something else wakes the pass.
    fn keep_waiting_out(&mut self, actor: &mut act::Actor<'_>) {
        let now = self.now();
        let same = actor.observed.current.hints.failed_attempts > 0;
        match self.cache.user_failure.take() {
            Some((error, retry_at)) if same && now < retry_at => {
                actor.observed.current.user_sync_failed = true;
                self.cache.user_failure = Some((error, retry_at));
            }
            _ => {}
        }
    }
}

fn has_finalizer(user: &AwsDeployUser) -> bool {
    user.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == well_known::FINALIZER)
}
