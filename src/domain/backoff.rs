//! Back-off after errors. The jitter is derived from the UID, so that it is stable across restarts and exact in tests.

use jiff::{SignedDuration, Timestamp};

use super::dates::saturating_add;
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

/// Delay before the next reconcile after `failures` consecutive failures (at least 1).
///
/// | class | delay |
/// |---|---|
/// | Terminal | the slow resync |
/// | Denied | 5 min |
/// | Limit | 30 min |
/// | Throttled | 30 s doubling to 10 min |
/// | Conflict | 1 s to 3 s |
/// | Transient | 5 s doubling to 5 min |
///
/// `permille` (0..1000) adds up to a tenth; for Conflict it selects a delay of the range.
#[must_use]
pub fn delay(class: ErrorClass, failures: u32, permille: i32, slow_resync: SignedDuration) -> SignedDuration {
    let doubling = |first: i64, max: i64| {
        let factor = 1_i64 << failures.saturating_sub(1).min(20);
        SignedDuration::from_secs(first.saturating_mul(factor).min(max))
    };
    let base = match class {
        ErrorClass::Terminal => slow_resync,
        ErrorClass::Denied => SignedDuration::from_mins(5),
        ErrorClass::Limit => SignedDuration::from_mins(30),
        ErrorClass::Throttled => doubling(30, 600),
        ErrorClass::Conflict => return SignedDuration::from_millis(1000 + 2 * i64::from(permille)),
        ErrorClass::Transient => doubling(5, 300),
    };
    base + base / 10 * permille / 1000
}

/// End of the back-off that a restarted operator has to respect. `since` is the time of the last failed reconcile,
/// `reasons` are those of the unhealthy conditions.
///
/// Only errors that load the called service count: an operator in a crash loop must not flood AWS or the API server.
/// Errors that a person may have fixed with the restart, such as permissions or a flag, are retried at once.
#[must_use]
pub fn backoff_until(
    reasons: impl IntoIterator<Item = Reason>,
    failures: u32,
    since: Timestamp,
    permille: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    if failures == 0 {
        return None;
    }
    let wait = reasons
        .into_iter()
        .filter_map(waiting_class)
        .map(|class| delay(class, failures, permille, SignedDuration::ZERO))
        .max()?;
    // Ignore timestamps in the future (the clock was set back): counting from them could extend the wait without limit.
    Some(since)
        .filter(|since| *since < saturating_add(now, wait))
        .map(|since| saturating_add(since, wait))
        .filter(|until| *until > now)
}

/// The class of a reason that only waiting resolves, whatever else triggers a reconcile: AWS and the API server must not be
/// called more often, and a quota is not freed by asking. `None` for reasons that a person may have resolved since.
#[must_use]
pub fn waiting_class(reason: Reason) -> Option<ErrorClass> {
    match reason {
        Reason::LimitExceeded => Some(ErrorClass::Limit),
        Reason::Throttled => Some(ErrorClass::Throttled),
        Reason::AwsUnavailable
        | Reason::KubernetesUnavailable
        | Reason::KeyNotAccepted
        | Reason::NoRandomness
        | Reason::BackingOff => Some(ErrorClass::Transient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: SignedDuration = SignedDuration::from_mins(10);

    #[test]
    fn delays_follow_the_table() {
        let seconds = |class, failures| delay(class, failures, 0, SLOW).as_secs();
        assert_eq!(seconds(ErrorClass::Terminal, 9), 600);
        assert_eq!(seconds(ErrorClass::Denied, 9), 300);
        assert_eq!(seconds(ErrorClass::Limit, 9), 1800);
        assert_eq!((1..7).map(|n| seconds(ErrorClass::Throttled, n)).collect::<Vec<_>>(), [30, 60, 120, 240, 480, 600]);
        assert_eq!(
            (1..9).map(|n| seconds(ErrorClass::Transient, n)).collect::<Vec<_>>(),
            [5, 10, 20, 40, 80, 160, 300, 300]
        );
        assert_eq!(seconds(ErrorClass::Transient, u32::MAX), 300);
    }

    #[test]
    fn jitter_adds_at_most_a_tenth() {
        assert_eq!(delay(ErrorClass::Denied, 1, 1000, SLOW).as_secs(), 330);
        assert_eq!(delay(ErrorClass::Conflict, 1, 1000, SLOW).as_secs(), 3);
        assert_eq!(delay(ErrorClass::Conflict, 1, 0, SLOW).as_secs(), 1);
    }

    #[test]
    fn restart_keeps_a_running_back_off() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let left = |reasons: &[Reason], failures, ago| {
            let until = backoff_until(reasons.iter().copied(), failures, now - SignedDuration::from_secs(ago), 0, now);
            until.map(|until| until.duration_since(now).as_secs())
        };
        assert_eq!(left(&[Reason::AwsUnavailable], 4, 10), Some(30));
        assert_eq!(left(&[Reason::AwsUnavailable], 4, 40), None);
        assert_eq!(left(&[Reason::Pending, Reason::LimitExceeded], 1, 60), Some(29 * 60));
        assert_eq!(left(&[Reason::KeyNotAccepted], 0, 1), None);
        assert_eq!(left(&[Reason::Throttled], 1, -3600), None, "clock was an hour ahead");
        assert_eq!(left(&[Reason::Throttled], 1, -5), Some(35), "clock was a few seconds ahead");
        for fixable in
            [Reason::AccessDenied, Reason::InvalidSpec, Reason::BoundaryNotFound, Reason::OperatorCredentials]
        {
            assert_eq!(left(&[fixable], 3, 1), None, "{fixable}");
        }
    }
}
