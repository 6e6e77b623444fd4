use std::time::{Duration, Instant};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use super::*;
use crate::{
    api::AwsDeployUser,
    domain::{plan::Note, reconcile_rate::ReconcileRate},
};

const SLOW: SignedDuration = SignedDuration::from_mins(10);
const SCOPES: [FailureScope; 5] = [
    FailureScope::Authorization,
    FailureScope::Observation,
    FailureScope::User,
    FailureScope::Key,
    FailureScope::Status,
];

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn start() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> DelayInput {
    DelayInput { now: start() + secs(seconds), permille: 0, slow_resync: SLOW }
}

fn failure(scope: FailureScope, class: ErrorClass, reason: Reason) -> ReconcileFailure {
    ReconcileFailure { scope, note: Note::new(reason, "failed"), class, transient: false }
}

fn attempt(generation: i64) -> AttemptKey {
    let mut user = AwsDeployUser::default();
    user.metadata.generation = Some(generation);
    AttemptKey::new(&user)
}

/// Seconds between the tries of a resource that always fails with this class.
fn pauses(class: ErrorClass, tries: usize) -> Vec<i64> {
    let (mut backoff, mut now, mut pauses) = (Backoff::default(), 0, Vec::new());
    for _ in 0..tries {
        backoff = backoff.after(&[failure(FailureScope::User, class, Reason::Conflict)], &[], &at(now));
        let next = backoff.next_retry(&at(now)).unwrap();
        pauses.push(next.duration_since(at(now).now).as_secs());
        now = next.duration_since(start()).as_secs();
    }
    pauses
}

#[test]
fn delays_follow_the_table() {
    assert_eq!(pauses(ErrorClass::Terminal, 3), [600; 3]);
    assert_eq!(pauses(ErrorClass::Denied, 3), [300; 3]);
    assert_eq!(pauses(ErrorClass::Limit, 3), [1800; 3]);
    assert_eq!(pauses(ErrorClass::Throttled, 7), [30, 60, 120, 240, 480, 600, 600]);
    assert_eq!(pauses(ErrorClass::Transient, 8), [5, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(pauses(ErrorClass::Conflict, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn jitter_adds_at_most_a_tenth() {
    assert_eq!(delay(ErrorClass::Denied, SignedDuration::ZERO, 1000, SLOW).as_secs(), 330);
    assert_eq!(delay(ErrorClass::Conflict, SignedDuration::ZERO, 1000, SLOW).as_secs(), 3);
    assert_eq!(delay(ErrorClass::Conflict, SignedDuration::ZERO, 0, SLOW).as_secs(), 1);
}

#[test]
fn restart_keeps_a_running_back_off() {
    let left = |reason, class, ago: i64| {
        let failures = [failure(FailureScope::Key, class, reason)];
        let backoff = Backoff::restore(attempt(1), Some(start() - secs(ago)), failures, &at(0));
        backoff.next_retry(&at(0)).map(|until| until.duration_since(start()).as_secs())
    };
    // Tries at 0, 5, 15, 35, 75 seconds.
    assert_eq!(left(Reason::AwsUnavailable, ErrorClass::Transient, 40), Some(35));
    assert_eq!(left(Reason::AwsUnavailable, ErrorClass::Transient, 14), Some(1));
    assert_eq!(left(Reason::LimitExceeded, ErrorClass::Limit, 60), Some(29 * 60));
    assert_eq!(left(Reason::LimitExceeded, ErrorClass::Limit, 86_400 * 365), Some(30 * 60));
    assert_eq!(left(Reason::Throttled, ErrorClass::Throttled, -3600), Some(30), "clock was an hour ahead");
    for fixable in [Reason::AccessDenied, Reason::InvalidSpec, Reason::BoundaryNotFound, Reason::OperatorCredentials] {
        assert_eq!(left(fixable, ErrorClass::Denied, 1), None, "{fixable}");
    }
}

#[test]
fn failure_that_is_not_tried_any_more_leaves_nothing_behind() {
    let attach = failure(FailureScope::User, ErrorClass::Transient, Reason::PolicyNotFound);
    let invalid = failure(FailureScope::Authorization, ErrorClass::Terminal, Reason::InvalidSpec);
    let failed = Backoff::default().after(std::slice::from_ref(&attach), &[], &at(0));
    let replaced = failed.clone().after(&[invalid], &[], &at(5));
    assert_eq!(replaced.next_retry(&at(5)), Some(start() + secs(5) + SLOW), "no retry of the policy");
    assert_eq!(failed.clone().after(&[], &[], &at(5)), Backoff::default(), "it succeeded");
    let waited = failed.clone().after(&[], &[FailureScope::User], &at(2));
    assert_eq!(waited, failed, "a reconcile that only waited is no success");
    assert_eq!(failed.clone().for_attempt(attempt(2)).since(), None, "another spec is tried at once");
    assert_eq!(failed.pending(FailureScope::User, &at(-3600)), None, "the clock was set back");
}

#[test]
fn failed_status_write_does_not_shorten_another_delay() {
    let denied = failure(FailureScope::Observation, ErrorClass::Denied, Reason::AccessDenied);
    let next = |backoff: Backoff, class| {
        let write = failure(FailureScope::Status, class, Reason::KubernetesUnavailable);
        backoff.after_status_write(write, &at(0)).next_retry(&at(0)).map(|next| next.duration_since(start()).as_secs())
    };
    let failed = Backoff::default().after(&[denied], &[], &at(0));
    assert_eq!(next(failed.clone(), ErrorClass::Transient), Some(300));
    assert_eq!(next(failed, ErrorClass::Conflict), Some(1), "the next read ends it");
    assert_eq!(next(Backoff::default(), ErrorClass::Transient), Some(5));
}

#[test]
fn failed_status_writes_back_off_until_one_succeeds() {
    let write = failure(FailureScope::Status, ErrorClass::Transient, Reason::KubernetesUnavailable);
    let (mut backoff, mut now, mut pauses) = (Backoff::default(), 0, Vec::new());
    for _ in 0..4 {
        backoff = backoff.after(&[], &[FailureScope::Status], &at(now)).after_status_write(write.clone(), &at(now));
        assert_eq!(backoff.since(), None, "the resource itself does not fail");
        let next = backoff.next_retry(&at(now)).unwrap().duration_since(start()).as_secs();
        pauses.push(next - now);
        now = next;
    }
    assert_eq!(pauses, [5, 10, 20, 40]);
    assert_eq!(backoff.without_status(), Backoff::default());
}

/// What one reconcile meets, and what follows.
#[derive(Clone, Debug)]
struct Round {
    failures: Vec<(FailureScope, ErrorClass)>,
    /// Failures of before that it waits for.
    waits: bool,
    /// When the plan wants the next reconcile, in seconds from now.
    planned: Option<i64>,
    /// After this many seconds the tenant changes the spec.
    change_after: Option<u64>,
}

fn steps(planned: std::ops::Range<i64>, changes: bool) -> impl Strategy<Value = Vec<Round>> {
    let classes = prop::sample::select(vec![
        ErrorClass::Terminal,
        ErrorClass::Denied,
        ErrorClass::Limit,
        ErrorClass::Throttled,
        ErrorClass::Conflict,
        ErrorClass::Transient,
    ]);
    let failures = prop::collection::vec((prop::sample::select(SCOPES.to_vec()), classes), 0..3);
    let change_after = if changes { prop::option::of(0_u64..20).boxed() } else { Just(None).boxed() };
    let step = (failures, any::<bool>(), prop::option::of(planned), change_after);
    let step =
        step.prop_map(|(failures, waits, planned, change_after)| Round { failures, waits, planned, change_after });
    prop::collection::vec(step, 1..12)
}

/// Repeats the steps for two hours. Returns the times of the reconciles in milliseconds.
fn reconcile_times(steps: &[Round]) -> Vec<i64> {
    let (monotonic, mut rate, mut generation) = (Instant::now(), ReconcileRate::default(), 1);
    let (mut backoff, mut now, mut times) = (Backoff::default(), start(), Vec::new());
    let elapsed = |now: Timestamp| Duration::try_from(now.duration_since(start())).unwrap();
    for step in steps.iter().cycle() {
        if elapsed(now) > Duration::from_hours(2) {
            break;
        }
        times.push(i64::try_from(elapsed(now).as_millis()).unwrap());
        let input = DelayInput { now, ..at(0) };
        let failures: Vec<_> =
            step.failures.iter().map(|(scope, class)| failure(*scope, *class, Reason::Conflict)).collect();
        backoff = backoff.for_attempt(attempt(generation));
        let waited = SCOPES.into_iter().filter(|scope| step.waits && backoff.pending(*scope, &input).is_some());
        let waited: Vec<_> = waited.collect();
        backoff = backoff.after(&failures, &waited, &input);
        let next = requeue_at(&RequeueInput {
            backoff: &backoff,
            planned: step.planned.map(|seconds| now + secs(seconds)),
            checks: &[secs(60), secs(300)],
            resync: SLOW,
            floor: secs(1),
            delay: input,
        });
        now = next;
        if let Some(seconds) = step.change_after {
            let mut changed = input.now + secs(i64::try_from(seconds).unwrap());
            if let Some(wait) = rate.wait(monotonic + elapsed(changed)) {
                changed += SignedDuration::try_from(wait).unwrap();
            }
            if changed < next {
                rate.count(monotonic + elapsed(changed));
                (now, generation) = (changed, generation + 1);
            }
        }
    }
    times
}

/// The most reconciles in a minute.
fn most_in_a_minute(times: &[i64]) -> usize {
    let in_minute = |from: i64| times.iter().filter(|at| (from..from + 60_000).contains(*at)).count();
    times.iter().map(|from| in_minute(*from)).max().unwrap_or_default()
}

fn check(strategy: impl Strategy<Value = Vec<Round>>, most: usize) {
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(2026), ..Config::default() };
    let checked = TestRunner::new(config).run(&strategy, |steps| {
        let times = reconcile_times(&steps);
        let found = most_in_a_minute(&times);
        prop_assert!(found <= most, "{found} reconciles in a minute");
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_failures_cause_few_reconciles_a_minute() {
    check(steps(30..600, false), 12);
}

#[test]
fn any_failures_and_changes_cause_bounded_reconciles() {
    check(steps(30..600, true), 40);
}

#[test]
fn overdue_plan_is_reconciled_at_most_once_a_second() {
    check(steps(-600..1, false), 60);
}
