//! Reconciles one `AwsDeployUser`: authorize, validate, observe, plan, act, update status.
//!
//! A reconcile may be cut off at any await. Nothing here relies on what an earlier one did, only on what this one observes.

mod account_health;
mod account_limiter;
mod act;
mod cache;
mod claim;
mod class;
mod class_claim;
mod class_decision;
mod context;
mod converge;
mod error;
mod first_keys;
mod observe;
mod priority;
mod requeue;
mod restrict;
mod revocation;
mod stale_journals;
mod status;
mod unreadable;
mod update_status;
mod validate;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use jiff::Timestamp;
use kube::{
    Resource as _,
    runtime::{controller::Action, reflector::ObjectRef},
};
use tracing::{Instrument, Span, field::Empty};

use act::Executor;
use cache::ReconcileCache;
pub use class::{ClassContext, class_error_policy, reconcile_class};
use class_decision::ClassDecision;
pub use context::{Context, Installation, ReconcileObserver, ReconcileSettings, Watched};
pub use error::ReconcileError;
use error::StepError;
pub use priority::ReconcileLanes;
use priority::{Interruption, LaneRegistration, RevocationCauses};
use revocation::path_violation;
pub use stale_journals::collect_stale_journals;

use crate::{
    api::{AwsDeployUser, well_known},
    aws::{IamClient, Lane},
    cluster::{ClusterError, DELETION_POLICY, DeployUsers, GuardedUser, PendingEvent},
    domain::{
        conditions::FailureScope,
        current_state::CurrentState,
        desired::Desired,
        fair_queue::Priority,
        plan::{Plan, RevocationPolicy},
        target::Target,
    },
    trace,
};

/// A reconcile is cut off after this long.
const RECONCILE_DEADLINE: Duration = Duration::from_mins(3);

/// A panic is a defect; trying again sooner would only fill the log.
const DELAY_AFTER_PANIC: Duration = Duration::from_mins(1);

/// Identifies a reconcile in the log; the name of the pod identifies the process.
static RECONCILES: AtomicU64 = AtomicU64::new(1);

/// Reconciles one resource and returns when to do so again. [`reconcile_user`] has the steps.
///
/// # Errors
/// The first failure. The status already reports it, and [`error_policy`] has the time of the next try.
pub async fn reconcile(object: Arc<GuardedUser>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let Some(user) = object.object() else { return Ok(Box::pin(unreadable::report(&object, &context)).await) };
    let span = tracing::info_span!(
        "reconcile",
        reconcile_id = RECONCILES.fetch_add(1, Ordering::Relaxed),
        namespace = user.metadata.namespace.as_deref().unwrap_or_default(),
        // Not `name`: in JSON that is the name of the span.
        resource = user.metadata.name.as_deref().unwrap_or_default(),
        result = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
    );
    // A panic must not end the controller for all other resources.
    let reconciled = AssertUnwindSafe(Box::pin(reconcile_user(object, &context)));
    let reconciled = reconciled.catch_unwind().instrument(span).await;
    reconciled.unwrap_or_else(|_| Ok(Action::requeue(DELAY_AFTER_PANIC)))
}

/// Maps a failure to the time of the next try. The status update computed it from the back-off of the resource and the plan.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "the signature that kube's Controller calls")]
pub fn error_policy(object: Arc<GuardedUser>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    Action::requeue(context.caches.remaining_idle(uid).unwrap_or_else(|| requeue::first_delay(error, uid, &context)))
}

/// The steps, from the watch event to the status.
async fn reconcile_user(object: Arc<GuardedUser>, context: &Context) -> Result<Action, ReconcileError> {
    // 1. Authorize (pure): what the classes allow, the AWS account of the resource, and how urgent the reconcile is.
    let resource = ObjectRef::from_obj(&*object);
    let (account, lane, registration) = {
        let (user, decision) = match authorize(&object, context).await {
            Ok(authorized) => authorized,
            Err(next) => return Ok(next),
        };
        let uid = &decision.target.owner.uid;
        let lane = Lane::new(&decision.target.owner.namespace, priority::priority(user, &decision, context));
        let causes = RevocationCauses::of(user, &decision).or(context.caches.served_causes(uid));
        let registration = context.lanes.register(uid, lane.clone(), causes);
        (decision.route.account_key().to_owned(), lane, registration)
    };
    // Thousands may wait: they hold nothing of their resources, and no room for what follows.
    drop(object);

    // 2. Acquire a permit of the account (waits). The resource may change meanwhile: authorize what it is by then.
    let Some(_permit) = context.limiter.acquire(&account, &lane).await else { return Ok(Action::await_change()) };
    Box::pin(reconcile_now(&resource, &account, lane, &registration, context)).await
}

/// The steps of a reconcile that has its permit.
async fn reconcile_now(
    resource: &ObjectRef<GuardedUser>,
    account: &str,
    lane: Lane,
    registration: &LaneRegistration<'_>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let interruption = registration.begin();
    let Some(object) = context.resources.get(resource) else { return Ok(Action::await_change()) };
    let (user, decision) = match authorize(&object, context).await {
        Ok(authorized) => authorized,
        Err(next) => return Ok(next),
    };
    if decision.route.account_key() != account {
        return Ok(Action::requeue(requeue::MIN_REQUEUE));
    }

    let started = Instant::now();
    let mut reconciliation = Reconciliation::start(context, user, &decision, (lane, interruption), &object);
    let run = Box::pin(reconciliation.run(user));
    let progress = match tokio::time::timeout(RECONCILE_DEADLINE, run).await {
        Ok(Ok(progress)) => progress,
        Ok(Err(failure)) => {
            reconciliation.failures.push(failure);
            Progress::unobserved(user)
        }
        Err(_) => {
            reconciliation.cache.iam = None;
            let error = ReconcileError::Deadline(RECONCILE_DEADLINE.as_secs());
            reconciliation.failures.push(StepError::new(error, FailureScope::Observation));
            Progress::unobserved(user)
        }
    };

    if progress.interrupted {
        return Ok(reconciliation.interrupted());
    }

    // 7. Update status and Events (IO), after a failure too, and compute the time of the next reconcile.
    let next = Box::pin(reconciliation.update_status(progress)).instrument(trace::step_span("update status")).await;
    reconciliation.finish(&next, started)
}

/// What the classes allow to a resource, or what follows if there is nothing to do for it now: it cannot be read, another
/// operator serves it, or its time has not come.
async fn authorize<'a>(
    object: &'a GuardedUser,
    context: &Context,
) -> Result<(&'a AwsDeployUser, ClassDecision), Action> {
    let Some(user) = object.object() else { return Err(Box::pin(unreadable::report(object, context)).await) };
    let target = Target::from_resource(user, &context.cluster_id).ok_or_else(Action::await_change)?;
    let decision = class_decision::decide(user, target, context);
    if let Some(other) = claim::other_operator(user, &context.namespace)
        && !claim::takes_away(user, RevocationCauses::of(user, &decision))
    {
        return Err(Box::pin(claim::skip(user, other, context)).await);
    }
    match requeue::idle_for(user, &decision, context) {
        Some(idle) => Err(Action::requeue(idle)),
        None => Ok((user, decision)),
    }
}

/// One reconcile under way.
struct Reconciliation<'a> {
    context: &'a Context,
    /// Client of the account of the resource.
    iam: Arc<IamClient>,
    /// The lane of its calls.
    lane: Lane,
    /// Whether the resource is to lose its credentials, which this reconcile does not know.
    interruption: Arc<Interruption>,
    target: &'a Target,
    decision: &'a ClassDecision,
    /// Which field of the resource cannot be read and why: it is revoked and deleted, and nothing else.
    incomplete: Option<String>,
    /// What a deletion keeps cannot be read: nothing is deleted.
    deletion_policy_is_unknown: bool,
    /// Namespace of another operator that serves the resource: this one only takes away.
    served_by: Option<&'a str>,
    cache: ReconcileCache,
    /// What failed so far, the first one first.
    failures: Vec<StepError>,
    /// Changes of the IAM user wait for the end of a back-off.
    user_waits: bool,
    /// The managed policies are read after the end of a back-off.
    policies_wait: bool,
}

/// What a reconcile works towards.
enum Goal {
    /// What the resource declares.
    Sync(Box<Desired>),
    /// What a resource may keep that no class allows, or that is invalid. `None` until it was observed.
    Revoke(Option<RevocationPolicy>),
    /// No trace of the resource in AWS.
    Delete,
}

impl Goal {
    fn desired(&self) -> Option<&Desired> {
        if let Self::Sync(desired) = self { Some(desired) } else { None }
    }
}

/// How far a reconcile came.
struct Progress {
    user: AwsDeployUser,
    goal: Option<Goal>,
    plan: Option<Plan>,
    current: Option<CurrentState>,
    events: Vec<PendingEvent>,
    /// The finalizer was removed: there is no resource to report on.
    finalized: bool,
    /// It ended before its first effect, because a later reconcile has to take credentials away.
    interrupted: bool,
}

impl Progress {
    fn unobserved(user: &AwsDeployUser) -> Self {
        Self {
            user: user.clone(),
            goal: None,
            plan: None,
            current: None,
            events: Vec::new(),
            finalized: false,
            interrupted: false,
        }
    }
}

/// What follows a reconcile.
struct Next {
    /// The resource as the last write returned it.
    user: AwsDeployUser,
    /// When there is something to do even if nothing changes. `None`: the resource is gone.
    requeue_at: Option<Timestamp>,
    /// How urgent it is then.
    priority: Priority,
}

impl<'a> Reconciliation<'a> {
    fn start(
        context: &'a Context,
        user: &'a AwsDeployUser,
        decision: &'a ClassDecision,
        (lane, interruption): (Lane, Arc<Interruption>),
        object: &GuardedUser,
    ) -> Self {
        let target = &decision.target;
        let mut cache = context.caches.take(&target.owner.uid);
        cache.reset_for_account(decision.route.account_key());
        cache.count_change(user, decision);
        cache.causes = RevocationCauses::of(user, decision);
        cache.class_missing_since.take_if(|_| decision.missing_class(user).is_none());
        let iam = context.accounts.client(decision.route.role.as_ref()).for_reconcile(lane.clone());
        let iam = Arc::new(iam);
        let mut new = Self {
            context,
            iam,
            lane,
            interruption,
            target,
            decision,
            incomplete: object.error().map(str::to_owned),
            deletion_policy_is_unknown: object.lacks(DELETION_POLICY),
            served_by: claim::other_operator(user, &context.namespace),
            cache,
            failures: Vec::new(),
            user_waits: false,
            policies_wait: false,
        };
        new.continue_backoff(user);
        new
    }

    /// Steps 3 to 6.
    async fn run(&mut self, user: &AwsDeployUser) -> Result<Progress, StepError> {
        if user.metadata.deletion_timestamp.is_some() && self.was_never_allowed(user) {
            return self.release(user).await;
        }
        // 3. Validate (pure, after one IO call per account): the desired state, or why there is none.
        let goal = self.validate(user).await?;
        let mut goal = self.restrict(goal, user)?;

        // 4. Observe (IO, reads only): IAM, then the published Secret, then the journal.
        let interruption = Arc::clone(&self.interruption);
        let mut observed = tokio::select! {
            biased;
            () = interruption.requested() => return Ok(Progress { interrupted: true, ..Progress::unobserved(user) }),
            observed = self.observe(user, &goal) => observed?,
        };
        if let Some(violation) = path_violation(&goal, self.target, &observed.current) {
            self.failures.push(StepError::new(ReconcileError::NotAllowed(violation), FailureScope::Authorization));
            goal = Goal::Revoke(None);
            observed = self.observe(user, &goal).await?;
        }
        let mut user = user.clone();
        if let Goal::Revoke(policy) = &mut goal {
            *policy = Some(self.evaluate_revocation(&mut user, &mut observed).await?);
        }
        if goal.desired().is_some() {
            self.apply_backoff(&mut observed.current);
        }

        // 5. Plan (pure) and 6. act (IO): the first effect, then a plan on what it changed, until nothing is left to do.
        let mut executor = Executor::new(self, goal.desired(), user, observed);
        let plan = self.plan_and_act(&goal, &mut executor).await;
        let Executor { user, observed, events, finalized, .. } = executor;
        if let Some(error) = observed.policies_unread {
            self.failures.push(StepError::new(error, FailureScope::Policies));
        }
        if let Some(error) = observed.unread {
            self.failures.push(StepError::new(error, FailureScope::Observation));
        }
        let (goal, plan, current) = (Some(goal), Some(plan), Some(observed.current));
        Ok(Progress { user, goal, plan, current, events, finalized, interrupted: false })
    }

    /// Ends the deletion of a resource that has nothing in AWS, without a call to AWS.
    async fn release(&self, user: &AwsDeployUser) -> Result<Progress, StepError> {
        let failed = |error: ClusterError| StepError::new(error.into(), FailureScope::User);
        if has_finalizer(user) {
            let journals = self.context.journals(self.target);
            if let Some(left) = journals.get().await.map_err(failed)? {
                journals.close(&left).await.map_err(failed)?;
            }
            let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
            users.remove_finalizer(user).await.map_err(failed)?;
        }
        Ok(Progress { finalized: true, ..Progress::unobserved(user) })
    }

    /// Ends without a trace: the change that interrupted the reconcile causes another one.
    fn interrupted(self) -> Action {
        Span::current().record("result", "interrupted");
        self.context.caches.put(&self.target.owner.uid, ReconcileCache { idle: None, ..self.cache });
        Action::requeue(requeue::MIN_REQUEUE)
    }

    /// Records the result and returns it: to the cache, the span, the metrics, and the controller.
    fn finish(self, next: &Next, started: Instant) -> Result<Action, ReconcileError> {
        let (context, target, decision) = (self.context, self.target, self.decision);
        let error = self.failures.into_iter().next().map(|failure| failure.error);
        let result = error.as_ref().map_or("ok", |error| error.reason().as_str());
        Span::current().record("result", result);
        if let Some(error) = &error {
            trace::record_failure(&Span::current(), result, error);
        }
        context.observer.reconciled(result, started.elapsed());
        context.record_quota_wait(target, decision.over_quota, next.requeue_at.is_none());
        let Some(requeue_at) = next.requeue_at else {
            context.first_keys.count_deletion(&next.user);
            return Ok(Action::await_change());
        };
        let wait = requeue::duration_until(requeue_at, context.accounts.clock().now());
        context.caches.put(&target.owner.uid, self.cache.idle_after(&next.user, decision, wait, next.priority));
        tracing::debug!(result, ?wait, "reconciled resource");
        error.map_or(Ok(Action::requeue(wait)), Err)
    }

    fn now(&self) -> Timestamp {
        self.context.accounts.clock().now()
    }
}

fn has_finalizer(user: &AwsDeployUser) -> bool {
    user.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == well_known::FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a future. Thousands of reconciles wait for a permit, each in one of these.
    fn future_size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn waiting_reconcile_takes_less_than_two_kilobytes() {
        let waiting = future_size(reconcile_user as fn(Arc<GuardedUser>, &'static Context) -> _);
        let outer = future_size(reconcile as fn(Arc<GuardedUser>, Arc<Context>) -> _);
        assert!(waiting + outer < 2048, "{waiting} + {outer} bytes");
    }
}
