//! Rotation windows.

use std::{fmt::Write as _, sync::LazyLock};

use jiff::{SignedDuration, Timestamp};

use super::{
    dates::saturating_add,
    memo::Memo,
    schedule::{CronSchedule, RotationSchedule, SAMPLE_SIZE, sample_start},
};

/// Tolerance for the daylight saving change, which delays a start by an hour once a year.
const CLOCK_CHANGE: SignedDuration = SignedDuration::from_hours(1);

/// Recurring window.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Start times.
    pub opens: CronSchedule,
    pub duration: SignedDuration,
}

/// All windows of a resource. Empty: rotations may begin at any time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Windows(pub Vec<Window>);

impl Windows {
    /// When a rotation that is due at `due` and has not begun by `now` begins.
    ///
    /// A rotation that is due inside a window begins at once, another one in the first half of the next window, spread by
    /// `permille` so that rotations that waited for the same window do not begin at once. After a missed window the next one
    /// applies. The result is stable until its time has passed.
    #[must_use]
    pub fn begin(&self, due: Timestamp, now: Timestamp, permille: i32) -> Timestamp {
        if self.0.is_empty() {
            return due;
        }
        self.0.iter().filter_map(|window| window.begin(due, now, permille)).min().unwrap_or(Timestamp::MAX)
    }

    /// Time between two consecutive starts that exceeds `interval`, if there is one.
    #[must_use]
    pub fn wait_longer_than(&self, interval: SignedDuration) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        if self.0.is_empty() {
            return None;
        }
        KNOWN.get_or_compute(self.key(&interval.to_string()), || self.search_wait(interval))
    }

    fn search_wait(&self, interval: SignedDuration) -> Option<SignedDuration> {
        let mut opened = self.next_opening(sample_start())?;
        for _ in 0..SAMPLE_SIZE {
            let reach = opened.checked_add(interval + CLOCK_CHANGE).ok()?;
            let last = self.0.iter().filter_map(|window| window.opens.until(reach)).max()?;
            if last <= opened {
                return Some(self.next_opening(opened).map_or(SignedDuration::MAX, |next| next.duration_since(opened)));
            }
            opened = last;
        }
        None
    }

    /// Smallest time between two rotations of this schedule in these windows. `None` without scheduled rotations.
    #[must_use]
    pub fn smallest_gap(&self, schedule: &RotationSchedule) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        match schedule {
            RotationSchedule::Cron(cron) if !self.0.is_empty() => {
                KNOWN.get_or_compute(self.key(&cron.key()), || self.sample_gap(schedule))
            }
            // Windows lengthen a time that counts from the last publication, but never shorten it.
            _ => schedule.smallest_gap(),
        }
    }

    /// Identifies a computation with these windows in a [`Memo`].
    fn key(&self, parameter: &str) -> String {
        self.0.iter().fold(parameter.to_owned(), |mut key, window| {
            let _ = write!(key, " | {} {}", window.opens.key(), window.duration);
            key
        })
    }

    fn sample_gap(&self, schedule: &RotationSchedule) -> Option<SignedDuration> {
        // A rotation that waited for a window is closer to the next time of the schedule.
        let begin = |last| schedule.due(last, 0).map(|due| self.begin(due, due, 0)).filter(|at| *at < Timestamp::MAX);
        let mut last = begin(sample_start())?;
        let mut smallest = None::<SignedDuration>;
        for _ in 0..SAMPLE_SIZE / 2 {
            let Some(next) = begin(last) else { break };
            let gap = next.duration_since(last);
            smallest = Some(smallest.map_or(gap, |known| known.min(gap)));
            last = next;
        }
        smallest
    }

    fn next_opening(&self, after: Timestamp) -> Option<Timestamp> {
        self.0.iter().filter_map(|window| window.opens.after(after)).min()
    }
}

impl Window {
    fn begin(&self, due: Timestamp, now: Timestamp, permille: i32) -> Option<Timestamp> {
        // First window that has not ended by then.
        let closed_before = due.max(now).checked_sub(self.duration).unwrap_or(Timestamp::MIN);
        let opens = self.opens.after(closed_before)?;
        if opens <= due {
            return Some(due);
        }
        let spread = SignedDuration::from_secs((self.duration / 2 * permille / 1000).as_secs());
        Some(saturating_add(opens, spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    fn window(opens: &str, zone: &str, duration: SignedDuration) -> Window {
        Window { opens: CronSchedule::parse(opens, Some(zone)).unwrap(), duration }
    }

    fn nightly() -> Windows {
        Windows(vec![window("0 2 * * *", "Europe/Berlin", hours(2))])
    }

    fn cron(text: &str) -> RotationSchedule {
        RotationSchedule::Cron(Box::new(CronSchedule::parse(text, None).unwrap()))
    }

    /// When a rotation begins, computed when it is due.
    fn begins(windows: &Windows, due: &str) -> Timestamp {
        windows.begin(at(due), at(due), 0)
    }

    #[test]
    fn without_windows_rotations_begin_when_due() {
        assert_eq!(begins(&Windows::default(), "2026-06-01T12:00:00Z"), at("2026-06-01T12:00:00Z"));
    }

    #[test]
    fn rotations_begin_at_once_in_a_window_else_in_the_next() {
        // Berlin is two hours ahead in June.
        assert_eq!(begins(&nightly(), "2026-06-01T00:00:00Z"), at("2026-06-01T00:00:00Z"), "as it opens");
        assert_eq!(begins(&nightly(), "2026-06-01T01:59:59Z"), at("2026-06-01T01:59:59Z"), "just before it closes");
        assert_eq!(begins(&nightly(), "2026-06-01T02:00:00Z"), at("2026-06-02T00:00:00Z"), "as it closes");
        assert_eq!(begins(&nightly(), "2026-06-01T12:00:00Z"), at("2026-06-02T00:00:00Z"));
    }

    #[test]
    fn next_of_several_windows_applies_in_its_time_zone() {
        let both = Windows(vec![
            window("0 2 * * 6", "UTC", hours(4)),
            window("0 22 * * 3", "America/New_York", SignedDuration::from_mins(30)),
        ]);
        assert_eq!(begins(&both, "2026-06-01T12:00:00Z"), at("2026-06-04T02:00:00Z"), "Wednesday in New York");
        assert_eq!(begins(&both, "2026-06-04T02:30:00Z"), at("2026-06-06T02:00:00Z"), "Saturday");
    }

    #[test]
    fn next_window_applies_after_a_missed_one() {
        let begin = |now| nightly().begin(at("2026-06-01T12:00:00Z"), at(now), 0);
        assert_eq!(begin("2026-06-02T01:59:00Z"), at("2026-06-02T00:00:00Z"), "begun late, still inside");
        assert_eq!(begin("2026-06-02T02:00:00Z"), at("2026-06-03T00:00:00Z"), "the operator was down all night");
        assert_eq!(begin("2026-09-01T12:00:00Z"), at("2026-09-02T00:00:00Z"), "for months: one time, not many");
    }

    #[test]
    fn begin_is_stable_until_its_time_has_passed() {
        let (due, begin) = (at("2026-06-01T12:00:00Z"), at("2026-06-02T00:30:00Z"));
        let seen = |now| nightly().begin(due, at(now), 500);
        for now in ["2026-06-01T12:00:00Z", "2026-06-01T23:59:59Z", "2026-06-02T00:00:00Z", "2026-06-02T01:59:59Z"] {
            assert_eq!(seen(now), begin, "{now}");
        }
        // A clock that jumps past the window and is corrected.
        assert_eq!(seen("2026-06-05T12:00:00Z"), at("2026-06-06T00:30:00Z"));
        assert_eq!(seen("2026-06-01T20:00:00Z"), begin);
        // A clock that is behind: not before the rotation is due.
        assert_eq!(seen("2026-05-20T00:10:00Z"), begin);
    }

    #[test]
    fn waiting_rotations_begin_in_the_first_half_of_the_window() {
        let begin = |permille| nightly().begin(at("2026-06-01T12:00:00Z"), at("2026-06-01T12:00:00Z"), permille);
        assert_eq!(begin(0), at("2026-06-02T00:00:00Z"));
        assert_eq!(begin(500), at("2026-06-02T00:30:00Z"));
        assert_eq!(begin(999), at("2026-06-02T00:59:56Z"));
        let begins: std::collections::BTreeSet<Timestamp> = (0..1000).map(begin).collect();
        assert_eq!(begins.len(), 1000, "no two of them together");
    }

    #[test]
    fn window_in_a_skipped_hour_opens_for_its_full_length() {
        // Berlin 2026: 29 March 02:00 -> 03:00, which is 01:00 UTC.
        assert_eq!(begins(&nightly(), "2026-03-28T12:00:00Z"), at("2026-03-29T01:00:00Z"));
        assert_eq!(begins(&nightly(), "2026-03-29T02:59:59Z"), at("2026-03-29T02:59:59Z"), "two hours later");
        assert_eq!(begins(&nightly(), "2026-03-29T03:00:00Z"), at("2026-03-30T00:00:00Z"));
    }

    #[test]
    fn window_in_a_repeated_hour_opens_once() {
        // Berlin 2026: 25 October 03:00 -> 02:00; 02:00 is at 00:00 and again at 01:00 UTC.
        assert_eq!(begins(&nightly(), "2026-10-24T12:00:00Z"), at("2026-10-25T00:00:00Z"));
        assert_eq!(begins(&nightly(), "2026-10-25T01:59:59Z"), at("2026-10-25T01:59:59Z"));
        assert_eq!(begins(&nightly(), "2026-10-25T02:00:00Z"), at("2026-10-26T01:00:00Z"));
    }

    #[test]
    fn cron_schedule_and_windows_both_apply() {
        let (schedule, saturdays) = (cron("0 12 1 * *"), Windows(vec![window("0 2 * * 6", "UTC", hours(4))]));
        let due = schedule.due(at("2026-06-15T00:00:00Z"), 0).unwrap();
        assert_eq!(due, at("2026-07-01T12:00:00Z"), "a Wednesday");
        assert_eq!(saturdays.begin(due, due, 0), at("2026-07-04T02:00:00Z"));
        // The next rotation counts from the schedule, not from the delayed one.
        assert_eq!(schedule.due(at("2026-07-04T02:00:00Z"), 0), Some(at("2026-08-01T12:00:00Z")));
    }

    #[test]
    fn longest_wait_for_a_window_is_found() {
        let weekends = || Windows(vec![window("0 2 * * 6,0", "UTC", hours(1))]);
        assert_eq!(weekends().wait_longer_than(hours(7 * 24)), None);
        assert_eq!(weekends().wait_longer_than(hours(2 * 24)), Some(hours(6 * 24)), "Sunday to Saturday");
        assert_eq!(nightly().wait_longer_than(hours(24)), None, "25 hours once a year");
        assert_eq!(nightly().wait_longer_than(hours(12)), Some(hours(24)));
        // Many starts on one day and none on the others.
        let first = Windows(vec![window("* * 1 * *", "UTC", SignedDuration::from_mins(1))]);
        let wait = first.wait_longer_than(hours(7 * 24)).unwrap();
        assert_eq!(wait, hours(30 * 24) + SignedDuration::from_mins(1), "from the end of 1 January");
        assert_eq!(first.wait_longer_than(hours(31 * 24)), None);
    }

    #[test]
    fn windows_can_shorten_the_time_between_rotations() {
        let monthly = cron("0 12 1 * *");
        assert_eq!(Windows::default().smallest_gap(&monthly), Some(hours(28 * 24)));
        // In January the rotation waits for the 14th, in February it begins on the 1st.
        let uneven = Windows(vec![window("0 2 14,25 * *", "UTC", hours(4)), window("0 11 1 2-12 *", "UTC", hours(4))]);
        assert_eq!(uneven.smallest_gap(&monthly), Some(hours(18 * 24 + 10)));
        assert_eq!(nightly().smallest_gap(&RotationSchedule::Every(hours(48))), Some(hours(48)));
        assert_eq!(nightly().smallest_gap(&RotationSchedule::Never), None);
    }
}
