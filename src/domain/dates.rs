//! Dates: arithmetic that stays in the calendar, and what is believed of dates that others can write.

use jiff::{SignedDuration, Timestamp};

/// A key is handed out this much later than its verification may take, at the longest: passes are cut off earlier.
const PASS: SignedDuration = SignedDuration::from_mins(15);

/// So much may the clocks of AWS and of the API server differ.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);

/// So much later than `at`, or the end of the calendar. Dates come from Secrets, tags and status: whoever may write one could
/// choose it so that a sum has no date, which must not end a pass.
#[must_use]
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// When a key was handed out. Its Secret tells it, and whoever may write Secrets could move the date: ahead, to keep a key for
/// ever, or back, to have one made at every look. A key is handed out soon after it is made or never, and when it was made
/// IAM says; `made_at` is none while its list does not show the key.
#[must_use]
pub fn handed_out_at(
    told: Timestamp,
    made_at: Option<Timestamp>,
    now: Timestamp,
    verify_timeout: SignedDuration,
) -> Timestamp {
    match made_at {
        // A key of the future was made before the clock was set back; that is no time to count from.
        Some(made_at) => told.clamp(made_at.min(now), later(later(made_at, verify_timeout), PASS)),
        None => told.min(later(now, PASS)),
    }
}

/// When an attempt was begun, or went on. Its journal tells it, by AWS's clock; that it was not there before its Secret was made
/// the API server says, by another clock.
#[must_use]
pub fn written_at(told: Timestamp, secret_made_at: Option<Timestamp>) -> Timestamp {
    secret_made_at.map_or(told, |made_at| told.min(later(made_at, CLOCKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3_600).unwrap()
    }

    #[test]
    fn a_sum_without_a_date_is_the_end_of_the_calendar() {
        assert_eq!(later(at(0), HOUR), at(1));
        assert_eq!(later(Timestamp::MAX, HOUR), Timestamp::MAX);
        assert_eq!(later(Timestamp::MIN, -HOUR), Timestamp::MIN);
        assert_eq!(later(at(0), SignedDuration::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_key_is_handed_out_between_its_making_and_the_end_of_its_verification() {
        let out = |told, made| handed_out_at(told, made, at(100), HOUR);
        assert_eq!(out(at(11), Some(at(10))), at(11), "as it was");
        let latest = later(at(11), PASS);
        assert_eq!(out(at(99), Some(at(10))), latest, "not as late as the Secret says");
        assert_eq!(out(Timestamp::MAX, Some(at(10))), latest);
        assert_eq!(out(Timestamp::UNIX_EPOCH, Some(at(10))), at(10), "not before it was made");
        assert_eq!(out(at(100), Some(at(105))), at(100), "the clock was set back since");
        assert_eq!(out(Timestamp::MAX, None), later(at(100), PASS), "not in the list yet");
        assert_eq!(out(at(99), None), at(99));
    }

    #[test]
    fn an_attempt_is_not_younger_than_its_journal() {
        assert_eq!(written_at(at(5), Some(at(5))), at(5));
        assert_eq!(written_at(Timestamp::MAX, Some(at(5))), at(6));
        assert_eq!(written_at(at(5), None), at(5));
    }
}
