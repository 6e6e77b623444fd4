//! Date arithmetic without overflow, and bounds for dates that tenants can write.

use jiff::{SignedDuration, Timestamp};

/// Largest difference between the publication of a key and its tag, which follows directly: rounding to seconds, and a clock
/// that was corrected in between.
const MAX_TAG_DELAY: SignedDuration = SignedDuration::from_mins(5);

/// Largest difference between the clocks of AWS and of the API server.
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(1);

/// Sum of both, or the end of the range of `Timestamp`. Tenants can write dates in Secrets, and an overflow must not panic.
#[must_use]
pub fn saturating_add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// Difference of both, or an end of the range of `Timestamp`.
#[must_use]
pub fn saturating_sub(at: Timestamp, by: SignedDuration) -> Timestamp {
    saturating_add(at, SignedDuration::ZERO.saturating_sub(by))
}

/// Whole seconds, the resolution of IAM, of the status and of the operator's annotations.
#[must_use]
pub fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The next whole second, where the time is not one: what is counted from it does not end early.
#[must_use]
pub fn ceil(time: Timestamp) -> Timestamp {
    let floor = floor(time);
    if floor < time { saturating_add(floor, SignedDuration::from_secs(1)) } else { floor }
}

/// When a key was published, from the annotation of its Secret, bounded by what IAM knows.
///
/// Tenants may be able to write Secrets: a later date would keep a key for an unlimited time, an earlier one would cause a
/// rotation at every reconcile. The key was not published before it was created, nor much later than its user was tagged with
/// it. `created_at` is `None` while IAM does not list the key, `tagged_at` while the tag is missing.
#[must_use]
pub fn publication_time(
    annotated: Timestamp,
    created_at: Option<Timestamp>,
    tagged_at: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    // Ignore a creation date in the future (the clock was set back).
    let earliest = created_at.unwrap_or(Timestamp::MIN).min(now);
    let latest = saturating_add(tagged_at.unwrap_or(now), MAX_TAG_DELAY);
    annotated.clamp(earliest, latest.max(earliest))
}

/// Whether the tag belongs to an earlier publication of the same key. That happens when the Secret is deleted before the
/// attempt ends: the key is then published again from the journal.
#[must_use]
pub fn is_earlier_publication(tagged_at: Timestamp, published_at: Timestamp) -> bool {
    saturating_add(tagged_at, MAX_TAG_DELAY) < published_at
}

/// Date of a journal entry (AWS's clock), bounded by the creation of the journal Secret (the API server's clock). A date in
/// the future would delay the recovery of the attempt without limit.
#[must_use]
pub fn bounded_journal_time(recorded: Timestamp, secret_created_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    if recorded <= saturating_add(now, MAX_CLOCK_DIFFERENCE) {
        recorded
    } else {
        secret_created_at.map_or(now, |created_at| saturating_add(created_at, MAX_CLOCK_DIFFERENCE)).min(recorded)
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
    fn sums_saturate_at_the_range_of_timestamps() {
        assert_eq!(saturating_add(at(0), HOUR), at(1));
        assert_eq!(saturating_add(Timestamp::MAX, HOUR), Timestamp::MAX);
        assert_eq!(saturating_add(Timestamp::MIN, -HOUR), Timestamp::MIN);
        assert_eq!(saturating_add(at(0), SignedDuration::MAX), Timestamp::MAX);
    }

    #[test]
    fn publication_time_is_between_creation_and_tag() {
        let out = |annotated, created, tagged| publication_time(annotated, created, tagged, at(100));
        let (created, tagged) = (Some(at(10)), Some(at(50)));
        assert_eq!(out(at(49), created, tagged), at(49), "the operator may have been down in between");
        assert_eq!(
            out(saturating_add(at(50), SignedDuration::from_secs(1)), created, tagged),
            at(50) + SignedDuration::from_secs(1)
        );
        assert_eq!(out(at(99), created, tagged), saturating_add(at(50), MAX_TAG_DELAY), "annotation is too late");
        assert_eq!(out(Timestamp::MAX, created, tagged), saturating_add(at(50), MAX_TAG_DELAY));
        assert_eq!(out(Timestamp::UNIX_EPOCH, created, tagged), at(10), "annotation precedes the creation");
        assert_eq!(out(at(99), created, None), at(99), "no tag yet");
        assert_eq!(out(Timestamp::MAX, created, None), saturating_add(at(100), MAX_TAG_DELAY));
        assert_eq!(out(at(100), Some(at(105)), Some(at(100))), at(100), "clock was set back");
        assert_eq!(out(at(99), None, None), at(99), "not listed yet");
    }

    #[test]
    fn journal_dates_in_the_future_are_bounded() {
        let bounded = |recorded, created| bounded_journal_time(recorded, created, at(10));
        assert_eq!(bounded(at(10), Some(at(3))), at(10), "not in the future");
        assert_eq!(bounded(at(11), Some(at(3))), at(11));
        assert_eq!(bounded(Timestamp::MAX, Some(at(3))), at(4));
        assert_eq!(bounded(at(12), Some(at(300))), at(12));
        assert_eq!(bounded(Timestamp::MAX, None), at(10));
    }
}
