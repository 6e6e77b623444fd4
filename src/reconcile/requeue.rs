//! When a resource is reconciled next. [`backoff::requeue_at`] computes the time; here its input is collected.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{
    Context, Progress, ReconcileError, ReconcileSettings, Reconciliation,
    cache::{CachedIam, IdleUntil, ReconcileCache},
    class_decision::ClassDecision,
    priority, status,
};
use crate::{
    api::AwsDeployUser,
    domain::{
        backoff::{self, Backoff, DelayInput, RequeueInput},
        change_key::{AttemptKey, ChangeKey},
        conditions::FailureScope,
        current_state::{CurrentState, KeyBackoff},
        fair_queue::Priority,
        plan::Plan,
        schedule::spread_permille,
    },
};

/// The shortest time until a reconcile that continues this one.
pub(super) const MIN_REQUEUE: Duration = Duration::from_millis(10);

/// The shortest time between two reconciles that nothing but time causes, unless a setting asks for less.
const MIN_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// The fraction of an interval by which checks are early, so that those of many resources part.
pub(super) const CHECK_SPREAD: f64 = 0.25;

/// How long nothing has to be done for a resource, whatever caused the reconcile. `None`: now.
pub(super) fn idle_for(user: &AwsDeployUser, decision: &ClassDecision, context: &Context) -> Option<Duration> {
    let uid = &decision.target.owner.uid;
    let key = ChangeKey::new(user, decision.digest);
    if let Some(remaining) = context.caches.idle_for(uid, &key) {
        return Some(remaining);
    }
    // A resource that changes all the time: what takes credentials away does not wait.
    if !context.caches.is_unchanged(uid, &key)
        && priority::priority(user, decision, context) != Priority::Urgent
        && let Some(wait) = context.caches.change_wait(uid)
    {
        return Some(wait);
    }
    if !context.caches.is_new(uid) || !decision.is_as_recorded(user) {
        return None;
    }
    // Another process may have left the resource in the middle of a back-off.
    let input = delay_input(uid, context);
    let wait = duration_until(status::recorded_backoff(user, &input).next_retry(&input)?, input.now);
    let idle = IdleUntil { key, until: Instant::now() + wait, priority: Priority::Due };
    context.caches.put(uid, ReconcileCache { idle: Some(idle), ..ReconcileCache::default() });
    Some(wait)
}

/// The back-off of an error by its class alone, as after a first failure.
pub(super) fn first_delay(error: &ReconcileError, uid: &str, context: &Context) -> Duration {
    let input = delay_input(uid, context);
    let delay = backoff::delay(error.class(), SignedDuration::ZERO, input.permille, input.slow_resync);
    Duration::try_from(delay).unwrap_or(MIN_REQUEUE).max(MIN_REQUEUE)
}

/// The time between two moments, at least [`MIN_REQUEUE`].
pub(super) fn duration_until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(MIN_REQUEUE).max(MIN_REQUEUE)
}

fn delay_input(uid: &str, context: &Context) -> DelayInput {
    DelayInput {
        now: context.accounts.clock().now(),
        permille: spread_permille(uid),
        slow_resync: signed(context.settings.resync),
    }
}

impl ReconcileSettings {
    /// The shortest time between two reconciles of a resource that does not change.
    fn min_interval(&self) -> SignedDuration {
        let shortest = self.protocol.verify_interval.min(self.protocol.restart_check_interval);
        MIN_INTERVAL.min(shortest).max(signed(MIN_REQUEUE))
    }

    /// Times left until the checks of a resource that does not fail: of its Secret, of IAM, and of the list of its keys. Nothing
    /// is done for a user of another owner before the resync.
    fn checks(&self, uid: &str, is_owned: bool, is_published: bool, cached: Option<&CachedIam>) -> Vec<SignedDuration> {
        let secret = Self::spread(self.secret_check, spread_permille(uid));
        let secret = (is_owned || is_published).then_some(secret);
        let iam = cached.map(|cached| self.expires_in(cached, uid));
        let keys =
            cached.filter(|_| is_owned).map(|cached| self.key_check.saturating_sub(cached.keys_read_at.elapsed()));
        [secret, iam, keys].into_iter().flatten().map(signed).collect()
    }

    /// An interval of checks, a little shorter for some resources.
    pub(super) fn spread(interval: Duration, permille: i32) -> Duration {
        interval.mul_f64(1.0 - CHECK_SPREAD * f64::from(permille) / 1000.0)
    }
}

impl Reconciliation<'_> {
    pub(super) fn delay_input(&self) -> DelayInput {
        delay_input(&self.target.owner.uid, self.context)
    }

    /// Continues the back-off of the resource, which an earlier process may have begun.
    pub(super) fn continue_backoff(&mut self, user: &AwsDeployUser) {
        let backoff = if self.cache.observed_before || self.cache.backoff != Backoff::default() {
            std::mem::take(&mut self.cache.backoff)
        } else {
            status::recorded_backoff(user, &self.delay_input())
        };
        self.cache.backoff = backoff.for_attempt(AttemptKey::new(user));
    }

    /// Keeps effects that failed from being planned again before their time.
    pub(super) fn apply_backoff(&mut self, current: &mut CurrentState) {
        let input = self.delay_input();
        let backoff = &self.cache.backoff;
        self.user_waits = backoff.pending(FailureScope::User, &input).is_some();
        current.user_sync_failed |= self.user_waits;
        let (until, failure) = (backoff.pending(FailureScope::Key, &input), backoff.failure(FailureScope::Key));
        current.key_backoff =
            until.zip(failure).map(|(until, failure)| KeyBackoff { until, reason: failure.note.reason });
    }

    /// Records what failed in this reconcile, and what it waited for.
    pub(super) fn update_backoff(&mut self, progress: &Progress) {
        let key_backoff = progress.current.as_ref().and_then(|current| current.key_backoff);
        let key_waits = progress.plan.as_ref().zip(key_backoff).is_some_and(|(plan, backoff)| plan.waits_for(backoff));
        let policies_wait =
            self.policies_wait && progress.current.as_ref().is_some_and(|current| current.policies.are_unread);
        let is_unwritten = self.cache.backoff.failure(FailureScope::Status).is_some();
        let waited = [
            (FailureScope::User, self.user_waits),
            (FailureScope::Policies, policies_wait),
            (FailureScope::Key, key_waits),
            (FailureScope::Status, is_unwritten),
        ];
        let waited: Vec<_> = waited.into_iter().filter(|(_, waits)| *waits).map(|(scope, _)| scope).collect();
        let failures = self.failures.iter().filter(|failure| !failure.error.is_decision());
        let failures: Vec<_> = failures.map(super::error::StepError::for_conditions).collect();
        let input = self.delay_input();
        self.cache.backoff = std::mem::take(&mut self.cache.backoff).after(&failures, &waited, &input);
    }

    /// When there is something to do even if nothing changes.
    pub(super) fn requeue_at(&self, progress: &Progress) -> Timestamp {
        let (settings, delay) = (&self.context.settings, self.delay_input());
        let current = progress.current.as_ref().filter(|_| self.failures.is_empty());
        let checks = current.map(|current| {
            let is_owned = current.owned_user(&self.target.owner).is_some();
            let cached = self.cache.iam.as_ref();
            settings.checks(&self.target.owner.uid, is_owned, current.published().is_some(), cached)
        });
        backoff::requeue_at(&RequeueInput {
            backoff: &self.cache.backoff,
            planned: progress.plan.as_ref().and_then(|plan| plan.requeue_at),
            checks: &checks.unwrap_or_default(),
            resync: signed(ReconcileSettings::spread(settings.resync, delay.permille)),
            floor: settings.min_interval(),
            delay,
        })
    }

    /// How urgent the next reconcile is if nothing changes: it tries again, or does what is due, or compares.
    pub(super) fn next_priority(&self, plan: Option<&Plan>, requeue_at: Timestamp) -> Priority {
        let is_due = plan.and_then(|plan| plan.requeue_at).is_some_and(|due| due <= requeue_at);
        match self.cache.backoff.since().is_some() {
            true if self.cache.causes.any() => Priority::Urgent,
            true => Priority::Due,
            false if is_due => Priority::Due,
            false => Priority::Background,
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Many Secrets are written within a moment, by a rotation at midnight or the start of the operator.
    #[test]
    fn secret_checks_of_many_resources_part() {
        let settings = ReconcileSettings::every(Duration::from_secs(100));
        let of = |uid: u32| settings.checks(&uid.to_string(), true, true, None);
        let times: BTreeSet<_> = (0..50).flat_map(of).collect();
        assert!(times.len() > 40, "{times:?}");
        let range = SignedDuration::from_secs(75)..=SignedDuration::from_secs(100);
        assert!(times.iter().all(|time| range.contains(time)), "{times:?}");
        assert!(settings.checks("u1", false, false, None).is_empty(), "no Secret of ours");
    }
}
