//! When a resource is reconciled next: the one place where that time is computed.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{
    Context, ReconcileError, Reconciliation,
    cache::{Fingerprint, IdleUntil, ReconcileCache},
    class_decision::ClassDecision,
    priority, status,
};
use crate::{
    api::AwsDeployUser,
    domain::{
        backoff, current_state::CurrentState, dates::saturating_add, fair_queue::Priority, plan::Plan,
        schedule::spread_permille,
    },
};

/// The shortest time between two reconciles of a resource.
pub(super) const MIN_REQUEUE: Duration = Duration::from_millis(10);

/// How long nothing has to be done for a resource, whatever caused the reconcile. `None`: now.
pub(super) fn idle_for(user: &AwsDeployUser, decision: &ClassDecision, context: &Context) -> Option<Duration> {
    let uid = &decision.target.owner.uid;
    let fingerprint = Fingerprint::of(user, decision.digest);
    if let Some(remaining) = context.caches.idle_for(uid, &fingerprint) {
        return Some(remaining);
    }
    // A resource that changes all the time: what takes credentials away does not wait.
    if !context.caches.is_unchanged(uid, &fingerprint)
        && priority::priority(user, decision, context) != Priority::Urgent
        && let Some(wait) = context.caches.change_wait(uid)
    {
        return Some(wait);
    }
    if !context.caches.is_new(uid) || !decision.is_as_recorded(user) {
        return None;
    }
    // Another process may have left the resource in the middle of a back-off.
    let now = context.accounts.clock().now();
    let wait = duration_until(status::backoff_until(user, spread_permille(uid), now)?, now);
    let idle = IdleUntil { fingerprint, until: Instant::now() + wait, priority: Priority::Due };
    context.caches.put(uid, ReconcileCache { idle: Some(idle), ..ReconcileCache::default() });
    Some(wait)
}

/// The back-off of an error by its class alone, as after a first failure.
pub(super) fn first_delay(error: &ReconcileError, uid: &str, context: &Context) -> Duration {
    let delay = backoff::delay(error.class(), 1, spread_permille(uid), signed(context.settings.resync));
    Duration::try_from(delay).unwrap_or(MIN_REQUEUE).max(MIN_REQUEUE)
}

/// The time between two moments, at least [`MIN_REQUEUE`].
pub(super) fn duration_until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(MIN_REQUEUE).max(MIN_REQUEUE)
}

impl Reconciliation<'_> {
    /// When there is something to do even if nothing changes, after `failures` failed reconciles in a row.
    pub(super) fn requeue_at(
        &self,
        plan: Option<&Plan>,
        current: Option<&CurrentState>,
        failures: u32,
        now: Timestamp,
    ) -> Timestamp {
        let settings = &self.context.settings;
        let after = |duration: Duration| saturating_add(now, signed(duration));
        let mut times = vec![after(settings.resync)];
        times.extend(plan.and_then(|plan| plan.requeue_at));
        times.extend(self.failures.iter().map(|failure| now + self.delay_after(&failure.error, failures)));
        times.extend(self.cache.user_failure.as_ref().map(|(_, retry_at)| *retry_at));
        if self.failures.is_empty()
            && current.is_some_and(|current| current.published().is_some() || current.user().is_some())
        {
            times.push(after(settings.secret_check));
        }
        if let Some(cached) = self.cache.iam.as_ref().filter(|_| self.failures.is_empty()) {
            times.push(after(settings.expires_in(cached, &self.target.owner.uid)));
            times.push(after(settings.key_check.saturating_sub(cached.keys_read_at.elapsed())));
        }
        times.into_iter().min().unwrap_or(now)
    }

    /// How urgent the next reconcile is if nothing changes: it tries again, or does what is due, or compares.
    pub(super) fn next_priority(&self, plan: Option<&Plan>, failed: bool, requeue_at: Timestamp) -> Priority {
        let is_due = plan.and_then(|plan| plan.requeue_at).is_some_and(|due| due <= requeue_at);
        match failed {
            true if self.cache.causes.any() => Priority::Urgent,
            true => Priority::Due,
            false if is_due => Priority::Due,
            false => Priority::Background,
        }
    }

    /// The back-off of an error of this reconcile.
    pub(super) fn delay_of(&self, error: &ReconcileError, user: &AwsDeployUser) -> SignedDuration {
        let reported = user.status.as_ref().and_then(|status| u32::try_from(status.failed_attempts).ok()).unwrap_or(0);
        let failures = reported.max(self.cache.failures.at(user.metadata.generation).count);
        self.delay_after(error, failures.saturating_add(1))
    }

    /// The back-off of an error after `failures` failures in a row.
    pub(super) fn delay_after(&self, error: &ReconcileError, failures: u32) -> SignedDuration {
        let permille = spread_permille(&self.target.owner.uid);
        backoff::delay(error.class(), failures.max(1), permille, signed(self.context.settings.resync))
    }

    /// Whether a failed change of the user is still to be waited out, even if something else caused this reconcile.
    pub(super) fn is_user_failure_pending(&mut self, current: &CurrentState) -> bool {
        let now = self.now();
        let is_reported = current.hints.failed_attempts > 0;
        self.cache.user_failure.take_if(|(_, retry_at)| !is_reported || now >= *retry_at);
        self.cache.user_failure.is_some()
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
