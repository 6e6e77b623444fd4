//! How long to wait after an error: one table, with jitter from the UID so that tests are exact.

use jiff::{SignedDuration, Timestamp};

use super::dates::saturating_add;
use crate::api::Reason;

/// How an error is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Only a change of the resource, or of what it collides with, helps: looked at again at every slow resync.
    Terminal,
    /// Somebody has to grant something.
    Denied,
    /// A quota is used up.
    Limit,
    /// AWS asks to slow down.
    Throttled,
    /// Somebody else wrote at the same time.
    Conflict,
    /// A fault that goes away.
    Transient,
}

/// The delay before the next pass after `failures` failed passes in a row (at least 1).
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
/// Up to a tenth is added by `permille` (0..1000), except for Conflict, where it spreads over the whole range.
#[must_use]
pub fn delay(class: ErrorClass, failures: u32, permille: i32, slow_resync: SignedDuration) -> SignedDuration {
    let doubling = |first: i64, most: i64| {
        let factor = 1_i64 << failures.saturating_sub(1).min(20);
        SignedDuration::from_secs(first.saturating_mul(factor).min(most))
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

/// Until when a resource rests after a restart, because its last passes failed: `since` is when the last one did,
/// `reasons` are those of its bad conditions.
///
/// Only where waiting is about the one that is called: AWS and the API server must not be stormed by an operator that
/// starts again and again, and a quota is not asked anew by it. What a person may have mended together with the
/// restart, such as rights or a flag, is looked at right away.
#[must_use]
pub fn backoff_until(
    reasons: impl IntoIterator<Item = Reason>,
    failures: u32,
    since: Timestamp,
    permille: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    let class = |reason| match reason {
        Reason::LimitExceeded => Some(ErrorClass::Limit),
        Reason::Throttled => Some(ErrorClass::Throttled),
        Reason::AwsUnavailable
        | Reason::KubernetesUnavailable
        | Reason::KeyNotAccepted
        | Reason::NoRandomness
        | Reason::BackingOff => Some(ErrorClass::Transient),
        _ => None,
    };
    if failures == 0 {
        return None;
    }
    let wait = reasons
        .into_iter()
        .filter_map(class)
        .map(|class| delay(class, failures, permille, SignedDuration::ZERO))
        .max()?;
    // A failure of the future was noted before the clock was set back. To count from it, or from now, could be to wait
    // for ever.
    Some(since)
        .filter(|since| *since < saturating_add(now, wait))
        .map(|since| saturating_add(since, wait))
        .filter(|until| *until > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: SignedDuration = SignedDuration::from_mins(10);

    #[test]
    fn the_table_holds() {
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
    fn jitter_adds_a_tenth_at_most() {
        assert_eq!(delay(ErrorClass::Denied, 1, 1000, SLOW).as_secs(), 330);
        assert_eq!(delay(ErrorClass::Conflict, 1, 1000, SLOW).as_secs(), 3);
        assert_eq!(delay(ErrorClass::Conflict, 1, 0, SLOW).as_secs(), 1);
    }

    #[test]
    fn a_restart_in_the_middle_of_a_back_off_keeps_it() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let left = |reasons: &[Reason], failures, ago| {
            let until = backoff_until(reasons.iter().copied(), failures, now - SignedDuration::from_secs(ago), 0, now);
            until.map(|until| until.duration_since(now).as_secs())
        };
        assert_eq!(left(&[Reason::AwsUnavailable], 4, 10), Some(30));
        assert_eq!(left(&[Reason::AwsUnavailable], 4, 40), None);
        assert_eq!(left(&[Reason::Pending, Reason::LimitExceeded], 1, 60), Some(29 * 60));
        assert_eq!(left(&[Reason::KeyNotAccepted], 0, 1), None);
        assert_eq!(left(&[Reason::Throttled], 1, -3600), None, "a clock that was ahead by far");
        assert_eq!(left(&[Reason::Throttled], 1, -5), Some(35), "a clock that was ahead by a little");
        for mended in [Reason::AccessDenied, Reason::InvalidSpec, Reason::BoundaryNotFound, Reason::OperatorCredentials]
        {
            assert_eq!(left(&[mended], 3, 1), None, "{mended}");
        }
    }
}
