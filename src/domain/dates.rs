//! Dates: arithmetic that stays in the calendar, and what is believed of dates that others can write.

use jiff::{SignedDuration, Timestamp};

/// A key is tagged right behind its publication; by so much may the two times differ: a rounded second, and a clock that was
/// corrected in between.
const TOGETHER: SignedDuration = SignedDuration::from_mins(5);

/// By so much may the clocks of AWS and of the API server differ.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);

/// So much later than `at`, or the end of the calendar. Dates come from Secrets, tags and status: whoever may write one could
/// choose it so that a sum has no date, which must not end a pass.
#[must_use]
pub fn saturating_add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// When a key was handed out. Its Secret tells it, and whoever may write Secrets could move the date: ahead, to keep a key for
/// ever, or back, to have one made at every look. IAM knows better when that was not: before the key was made, and later than
/// its user was tagged with it, which comes right behind. `made_at` is none while IAM's list does not show the key,
/// `tagged_at` while there is no tag.
#[must_use]
pub fn publication_time(
    told: Timestamp,
    made_at: Option<Timestamp>,
    tagged_at: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    // A key of the future was made before the clock was set back; that is no time to count from.
    let earliest = made_at.unwrap_or(Timestamp::MIN).min(now);
    let latest = saturating_add(tagged_at.unwrap_or(now), TOGETHER);
    told.clamp(earliest, latest.max(earliest))
}

/// Whether a tag is that of an earlier publication of the same key: its Secret was deleted before the attempt was over, and the
/// key was published again out of the journal.
#[must_use]
pub fn is_earlier_publication(tagged_at: Timestamp, published_at: Timestamp) -> bool {
    saturating_add(tagged_at, TOGETHER) < published_at
}

/// When an attempt was begun, or went on. Its journal tells it, by AWS's clock. A date of the future, which holds the attempt up,
/// is none: what was not there before its Secret was made the API server says, by another clock.
#[must_use]
pub fn bounded_journal_time(told: Timestamp, secret_made_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    if told <= saturating_add(now, CLOCKS) {
        told
    } else {
        secret_made_at.map_or(now, |made_at| saturating_add(made_at, CLOCKS)).min(told)
    }
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
        assert_eq!(saturating_add(at(0), HOUR), at(1));
        assert_eq!(saturating_add(Timestamp::MAX, HOUR), Timestamp::MAX);
        assert_eq!(saturating_add(Timestamp::MIN, -HOUR), Timestamp::MIN);
        assert_eq!(saturating_add(at(0), SignedDuration::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_key_is_handed_out_between_its_making_and_its_tag() {
        let out = |told, made, tagged| publication_time(told, made, tagged, at(100));
        let (made, tagged) = (Some(at(10)), Some(at(50)));
        assert_eq!(out(at(49), made, tagged), at(49), "as late as it was: the operator may have been away in between");
        assert_eq!(
            out(saturating_add(at(50), SignedDuration::from_secs(1)), made, tagged),
            at(50) + SignedDuration::from_secs(1)
        );
        assert_eq!(out(at(99), made, tagged), saturating_add(at(50), TOGETHER), "not as late as the Secret says");
        assert_eq!(out(Timestamp::MAX, made, tagged), saturating_add(at(50), TOGETHER));
        assert_eq!(out(Timestamp::UNIX_EPOCH, made, tagged), at(10), "not before it was made");
        assert_eq!(out(at(99), made, None), at(99), "no tag yet");
        assert_eq!(out(Timestamp::MAX, made, None), saturating_add(at(100), TOGETHER));
        assert_eq!(out(at(100), Some(at(105)), Some(at(100))), at(100), "the clock was set back since");
        assert_eq!(out(at(99), None, None), at(99), "not in the list yet");
    }

    #[test]
    fn an_attempt_of_the_future_is_not_younger_than_its_journal() {
        let written = |told, made| bounded_journal_time(told, made, at(10));
        assert_eq!(written(at(10), Some(at(3))), at(10), "whatever the API server's clock says");
        assert_eq!(written(at(11), Some(at(3))), at(11));
        assert_eq!(written(Timestamp::MAX, Some(at(3))), at(4));
        assert_eq!(written(at(12), Some(at(300))), at(12));
        assert_eq!(written(Timestamp::MAX, None), at(10));
    }
}
