//! Back-off after failures: the one place that decides when a failed resource is tried again.
//!
//! A back-off is the time since which a resource fails, and what it fails with. The delay follows from how long it has failed
//! already, so that nothing is counted and a restarted process continues where the earlier one stopped.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    change_key::AttemptKey,
    conditions::{FailureScope, ReconcileFailure},
    dates::saturating_add,
};
use crate::api::Reason;

/// Retry class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Only a change of the resource, or of the object it conflicts with, resolves it. Retried at the slow resync.
    Terminal,
    /// Permissions are missing.
    Denied,
    /// A quota is exhausted.
    Limit,
    /// AWS throttles requests.
    Throttled,
    /// Another client wrote at the same time.
    Conflict,
    /// The error resolves without an action.
    Transient,
}

/// Delay before the next reconcile of a resource that has failed for this long, zero at the first failure.
///
/// | class | delay |
/// |---|---|
/// | Terminal | the slow resync |
/// | Denied | 5 min |
/// | Limit | 30 min |
/// | Throttled | 30 s doubling to 10 min |
/// | Conflict | 1 s to 3 s, doubling to a minute |
/// | Transient | 5 s doubling to 5 min |
///
/// `permille` (0..1000) adds up to a tenth, and up to two seconds for Conflict: those who write at the same time part. It is
/// derived from the UID, so that it is stable across restarts and exact in tests.
#[must_use]
pub fn delay(
    class: ErrorClass,
    failing_for: SignedDuration,
    permille: i32,
    slow_resync: SignedDuration,
) -> SignedDuration {
    // The first delay and as long again as it has failed: each delay is twice the one before.
    let doubling = |first: SignedDuration, max| {
        failing_for.max(SignedDuration::ZERO).checked_add(first).unwrap_or(SignedDuration::MAX).min(max)
    };
    let base = match class {
        ErrorClass::Terminal => slow_resync,
        ErrorClass::Denied => SignedDuration::from_mins(5),
        ErrorClass::Limit => SignedDuration::from_mins(30),
        ErrorClass::Throttled => doubling(SignedDuration::from_secs(30), SignedDuration::from_mins(10)),
        ErrorClass::Conflict => {
            let base = doubling(SignedDuration::from_secs(1), SignedDuration::from_mins(1));
            return base + SignedDuration::from_millis(2 * i64::from(permille));
        }
        ErrorClass::Transient => doubling(SignedDuration::from_secs(5), SignedDuration::from_mins(5)),
    };
    base + base / 10 * permille / 1000
}

/// What a delay depends on beside the failure.
#[derive(Clone, Copy, Debug)]
pub struct DelayInput {
    pub now: Timestamp,
    /// Spreads the resources, see [`delay`].
    pub permille: i32,
    pub slow_resync: SignedDuration,
}

/// The failures of a resource in a row. Empty while it does not fail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    /// What was tried. Another attempt starts without a back-off.
    attempt: AttemptKey,
    since: Option<Timestamp>,
    /// By what they affect: user and key fail independently of each other.
    retries: BTreeMap<FailureScope, Retry>,
}

/// A failure and the time of the next try.
#[derive(Clone, Debug, PartialEq)]
struct Retry {
    failure: ReconcileFailure,
    at: Timestamp,
}

impl Retry {
    /// `None` once it is due. A time beyond the longest delay is none that was computed: the clock was set back since.
    fn pending(&self, input: &DelayInput) -> Option<Timestamp> {
        let longest = delay(self.failure.class, SignedDuration::MAX, input.permille, input.slow_resync);
        (self.at > input.now && self.at <= saturating_add(input.now, longest)).then_some(self.at)
    }
}

impl Backoff {
    /// The back-off that the status of an unchanged resource reports: where an earlier process stopped.
    ///
    /// Only errors that load the called service count: an operator in a crash loop must not flood AWS or the API server.
    /// Errors that a person may have fixed with the restart, such as permissions or a flag, are retried at once.
    #[must_use]
    pub fn restore(
        attempt: AttemptKey,
        since: Option<Timestamp>,
        failures: impl IntoIterator<Item = ReconcileFailure>,
        input: &DelayInput,
    ) -> Self {
        // Ignore a timestamp in the future (the clock was set back): counting from it would extend the delay without limit.
        let Some(since) = since.map(|since| since.min(input.now)) else { return Self { attempt, ..Self::default() } };
        let restored = failures.into_iter().filter(|failure| waiting_class(failure.note.reason).is_some());
        let retries = restored.map(|failure| {
            let at = scheduled_retry(failure.class, since, input);
            (failure.scope, Retry { failure, at })
        });
        Self { attempt, since: Some(since), retries: retries.collect() }
    }

    /// The back-off of this attempt.
    #[must_use]
    pub fn for_attempt(self, attempt: AttemptKey) -> Self {
        if self.attempt == attempt { self } else { Self { attempt, ..Self::default() } }
    }

    /// The back-off after a reconcile that failed with `failures` and waited for the retries of `waited`. Without either the
    /// resource does not fail any more; nothing of an earlier failure is left behind.
    #[must_use]
    pub fn after(self, failures: &[ReconcileFailure], waited: &[FailureScope], input: &DelayInput) -> Self {
        let Self { attempt, since, retries } = self;
        let mut retries: BTreeMap<_, _> = retries.into_iter().filter(|(scope, _)| waited.contains(scope)).collect();
        if failures.is_empty() && retries.is_empty() {
            return Self { attempt, ..Self::default() };
        }
        let since = since.map_or(input.now, |since| since.min(input.now));
        // The first failure is the cause of others.
        for failure in failures.iter().rev() {
            let failing_for = input.now.duration_since(since);
            let delay = delay(failure.class, failing_for, input.permille, input.slow_resync);
            retries.insert(failure.scope, Retry { failure: failure.clone(), at: saturating_add(input.now, delay) });
        }
        Self { attempt, since: Some(since), retries }
    }

    /// Adds a failed write of the status, which must not cut short the delay of another failure: its retry repeats the whole
    /// reconcile. A conflict ends with the next read.
    #[must_use]
    pub fn after_status_write(self, failure: ReconcileFailure, input: &DelayInput) -> Self {
        let is_conflict = failure.class == ErrorClass::Conflict;
        let waited: Vec<_> = self.retries.keys().copied().collect();
        let other = self.retries.iter().filter(|(scope, _)| **scope != failure.scope);
        let other = other.filter_map(|(_, retry)| retry.pending(input)).min();
        let scope = failure.scope;
        let mut after = self.after(&[failure], &waited, input);
        if let (Some(retry), Some(other), false) = (after.retries.get_mut(&scope), other, is_conflict) {
            retry.at = retry.at.max(other);
        }
        after
    }

    /// The back-off once the status is written.
    #[must_use]
    pub fn without_status(mut self) -> Self {
        self.retries.remove(&FailureScope::Status);
        self.since = self.since.filter(|_| !self.retries.is_empty());
        self
    }

    /// Since when the resource fails. A status that is not written says nothing about the resource.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.since.filter(|_| self.retries.keys().any(|scope| *scope != FailureScope::Status))
    }

    /// Until when what failed in this scope is not tried. `None`: it may be tried.
    #[must_use]
    pub fn pending(&self, scope: FailureScope, input: &DelayInput) -> Option<Timestamp> {
        self.retries.get(&scope)?.pending(input)
    }

    /// What failed last in this scope.
    #[must_use]
    pub fn failure(&self, scope: FailureScope) -> Option<&ReconcileFailure> {
        self.retries.get(&scope).map(|retry| &retry.failure)
    }

    /// The next retry. One that is due was not tried by the last reconcile and never will be.
    #[must_use]
    pub fn next_retry(&self, input: &DelayInput) -> Option<Timestamp> {
        self.retries.values().filter_map(|retry| retry.pending(input)).min()
    }
}

/// The first retry after now of a resource that fails since then, if all earlier ones were in time.
fn scheduled_retry(class: ErrorClass, since: Timestamp, input: &DelayInput) -> Timestamp {
    let delay = |failing_for| delay(class, failing_for, input.permille, input.slow_resync);
    let longest = delay(SignedDuration::MAX);
    let mut at = since;
    while at <= input.now {
        let step = delay(at.duration_since(since));
        if step <= SignedDuration::ZERO {
            return input.now;
        }
        // From here on all delays are the same.
        let steps = if step == longest { input.now.duration_since(at).as_secs() / step.as_secs().max(1) } else { 0 };
        let many = i32::try_from(steps).unwrap_or_default();
        at = saturating_add(at, step.saturating_mul(many.max(1)));
    }
    at
}

/// The class of a reason that only waiting resolves, whatever else triggers a reconcile: AWS and the API server must not be
/// called more often, and a quota is not freed by asking. `None` for reasons that a person may have resolved since.
#[must_use]
pub fn waiting_class(reason: Reason) -> Option<ErrorClass> {
    match reason {
        Reason::LimitExceeded => Some(ErrorClass::Limit),
        Reason::Throttled => Some(ErrorClass::Throttled),
        Reason::AwsUnavailable | Reason::KubernetesUnavailable | Reason::KeyNotAccepted | Reason::NoRandomness => {
            Some(ErrorClass::Transient)
        }
        _ => None,
    }
}

/// What the next reconcile of a resource depends on.
#[derive(Clone, Copy, Debug)]
pub struct RequeueInput<'a> {
    pub backoff: &'a Backoff,
    /// When the plan has something to do.
    pub planned: Option<Timestamp>,
    /// Times left until the comparisons that are repeated while nothing fails.
    pub checks: &'a [SignedDuration],
    /// Time left until everything is compared, also of a resource that fails.
    pub resync: SignedDuration,
    /// The shortest time between two reconciles.
    pub floor: SignedDuration,
    pub delay: DelayInput,
}

/// When a resource is reconciled next if it does not change. Never before the floor: a time in the past says that this reconcile
/// has not done what was due, and doing so again at once would not help.
#[must_use]
pub fn requeue_at(input: &RequeueInput<'_>) -> Timestamp {
    let now = input.delay.now;
    let retry = input.backoff.next_retry(&input.delay);
    let checks = if input.backoff.since().is_some() { &[] } else { input.checks };
    let after = |left: &SignedDuration| saturating_add(now, *left);
    let times = input.planned.into_iter().chain(retry).chain(checks.iter().map(after));
    times.fold(after(&input.resync), Timestamp::min).max(after(&input.floor))
}

#[cfg(test)]
mod tests;
