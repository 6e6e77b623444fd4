//! Rotation schedules.

use std::{fmt, str::FromStr, sync::LazyLock};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{dates::saturating_add, memo::Memo};

/// When keys are rotated.
#[derive(Clone, Debug, PartialEq)]
pub enum RotationSchedule {
    /// A duration after the last publication.
    Every(SignedDuration),
    /// At the times of a cron expression.
    Cron(Box<CronSchedule>),
    /// On request only.
    Never,
}

/// Cron expression in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct CronSchedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

/// Error of an invalid schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error(
        "schedule {text:?} is not a cron expression with five fields (minute hour day-of-month month day-of-week), such as \"0 3 1 * *\": {why}"
    )]
    Cron {
        text: String,
        /// Error of the parser.
        why: String,
    },
    #[error("schedule {0:?} never matches a date, like the 30th of February")]
    Never(String),
    #[error("timeZone {0:?} is not an IANA time zone, such as UTC or Europe/Berlin")]
    Zone(String),
}

/// Start of the sample for gaps of schedules. Fixed, so that the validity of a spec does not depend on the date.
const SAMPLE_FROM: &str = "2026-01-01T00:00:00Z";

/// Number of occurrences in the sample for the smallest gap: two weeks of an hourly schedule, more than a year of a daily one.
pub(super) const SAMPLE_SIZE: usize = 400;

/// Range of the search for long gaps: the 29th of February recurs within nine years.
const MAX_GAP_RANGE: SignedDuration = SignedDuration::from_hours(9 * 366 * 24);
/// Bound of that search: a year of an hourly schedule.
const MAX_GAP_STEPS: usize = 9_000;

/// Number in 0..1000 that spreads the due times of many users. Derived from the UID, so that it is stable across restarts and
/// exact in tests.
#[must_use]
pub fn spread_permille(uid: &str) -> i32 {
    // FNV-1a is stable across versions. Collisions are harmless.
    let hash = uid
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i32::try_from((hash >> 32) % 1000).unwrap_or_default()
}

/// Offset of the due time: at most a twentieth of the interval and at most ten minutes.
fn spread(interval: SignedDuration, permille: i32) -> SignedDuration {
    // Whole seconds, because the status stores whole seconds.
    let spread = (interval / 20).min(SignedDuration::from_mins(10)) * permille / 1000;
    SignedDuration::from_secs(spread.as_secs())
}

impl RotationSchedule {
    /// When the key that was published at `last` is due for rotation.
    ///
    /// The offset makes `Every` due early, so that a key is never older than declared, and `Cron` late, so that a rotation
    /// never begins before its time. Several missed cron times result in one due time.
    #[must_use]
    pub fn due(&self, last: Timestamp, permille: i32) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::Every(interval) => Some(saturating_add(last, *interval - spread(*interval, permille))),
            Self::Cron(schedule) => {
                let tick = schedule.after(last)?;
                let gap = schedule.after(tick).map_or(SignedDuration::ZERO, |next| next.duration_since(tick));
                Some(saturating_add(tick, spread(gap, permille)))
            }
        }
    }

    /// Smallest time between two rotations. `None` without scheduled rotations.
    #[must_use]
    pub fn smallest_gap(&self) -> Option<SignedDuration> {
        match self {
            Self::Never => None,
            Self::Every(interval) => Some(*interval),
            Self::Cron(schedule) => schedule.smallest_gap(),
        }
    }
}

impl RotationSchedule {
    /// A time between two rotations that exceeds `limit`, if there is one within the search range.
    #[must_use]
    pub fn gap_longer_than(&self, limit: SignedDuration) -> Option<SignedDuration> {
        match self {
            Self::Never => None,
            Self::Every(interval) => Some(*interval).filter(|interval| *interval > limit),
            Self::Cron(schedule) => schedule.gap_longer_than(limit),
        }
    }
}

impl CronSchedule {
    /// Parses a cron expression of five fields and an IANA time zone.
    ///
    /// # Errors
    /// If one of them is invalid, or the expression never matches a date.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(text)
            .map_err(|error| ScheduleError::Cron { text: text.to_owned(), why: error.to_string() })?;
        let zone = zone
            .map_or(Ok(TimeZone::UTC), |name| TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned())))?;
        let schedule = Self { cron, zone, text: text.to_owned() };
        if schedule.after(sample_start()).is_none() {
            return Err(ScheduleError::Never(text.to_owned()));
        }
        Ok(schedule)
    }

    /// First occurrence after this time.
    pub(super) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false).ok().map(|zoned| zoned.timestamp())
    }

    /// Steps from each occurrence to the last one within the limit, so that a frequent schedule needs few steps too.
    fn gap_longer_than(&self, limit: SignedDuration) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        KNOWN.get_or_compute(format!("{} {limit}", self.key()), || self.search_gap(limit))
    }

    fn search_gap(&self, limit: SignedDuration) -> Option<SignedDuration> {
        let mut last = self.after(sample_start())?;
        let end = last.checked_add(MAX_GAP_RANGE).ok()?;
        for _ in 0..MAX_GAP_STEPS {
            let next = self.after(last).filter(|_| last < end)?;
            let gap = next.duration_since(last);
            if gap > limit {
                return Some(gap);
            }
            let reach = last.checked_add(limit).ok()?.to_zoned(self.zone.clone());
            let reached = self.cron.find_previous_occurrence(&reach, true).ok()?.timestamp();
            last = reached.max(next);
        }
        None
    }

    /// Last occurrence up to this time.
    pub(super) fn until(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&time.to_zoned(self.zone.clone()), true).ok().map(|zoned| zoned.timestamp())
    }

    /// Identifies the schedule in a [`Memo`].
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.text, self.zone.iana_name().unwrap_or_default())
    }

    fn smallest_gap(&self) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        KNOWN.get_or_compute(self.key(), || self.sample_gap())
    }

    fn sample_gap(&self) -> Option<SignedDuration> {
        let mut last = self.after(sample_start())?;
        let mut smallest = None::<SignedDuration>;
        for _ in 0..SAMPLE_SIZE {
            let Some(next) = self.after(last) else { break };
            let gap = next.duration_since(last);
            smallest = Some(smallest.map_or(gap, |known| known.min(gap)));
            last = next;
        }
        smallest
    }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

pub(super) fn sample_start() -> Timestamp {
    Timestamp::from_str(SAMPLE_FROM).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(text: &str, zone: &str) -> RotationSchedule {
        RotationSchedule::Cron(Box::new(CronSchedule::parse(text, Some(zone)).unwrap()))
    }

    #[test]
    fn every_is_due_at_most_a_twentieth_early() {
        let schedule = RotationSchedule::Every(SignedDuration::from_mins(100));
        let last = at("2026-03-01T00:00:00Z");
        assert_eq!(schedule.due(last, 0), Some(at("2026-03-01T01:40:00Z")));
        assert_eq!(schedule.due(last, 1000), Some(at("2026-03-01T01:35:00Z")));
        let long = RotationSchedule::Every(SignedDuration::from_hours(24 * 90));
        assert_eq!(long.due(last, 1000), Some(at("2026-05-29T23:50:00Z")), "ten minutes at most");
    }

    #[test]
    fn cron_is_due_at_or_shortly_after_its_time() {
        let last = at("2026-03-01T12:00:00Z");
        assert_eq!(cron("0 3 * * *", "Europe/Berlin").due(last, 0), Some(at("2026-03-02T02:00:00Z")));
        assert_eq!(cron("0 3 * * *", "Europe/Berlin").due(last, 1000), Some(at("2026-03-02T02:10:00Z")));
    }

    #[test]
    fn missed_cron_times_cause_one_rotation() {
        let schedule = cron("* * * * *", "UTC");
        let last = at("2026-01-01T00:00:30Z");
        assert_eq!(schedule.due(last, 0), Some(at("2026-01-01T00:01:00Z")), "long ago, and only once");
        let published_late = at("2026-06-01T10:10:10Z");
        assert_eq!(schedule.due(published_late, 0), Some(at("2026-06-01T10:11:00Z")));
    }

    #[test]
    fn daylight_saving_changes_cause_exactly_one_rotation() {
        // Berlin 2026: 29 March 02:00 -> 03:00, 25 October 03:00 -> 02:00.
        let schedule = cron("30 2 * * *", "Europe/Berlin");
        let spring = schedule.due(at("2026-03-28T12:00:00Z"), 0).unwrap();
        assert!(spring >= at("2026-03-29T00:59:00Z") && spring <= at("2026-03-29T02:00:00Z"), "{spring}");
        let next = schedule.due(spring, 0).unwrap();
        assert_eq!(next, at("2026-03-30T00:30:00Z"));
        let autumn = schedule.due(at("2026-10-24T12:00:00Z"), 0).unwrap();
        assert!(autumn == at("2026-10-25T00:30:00Z") || autumn == at("2026-10-25T01:30:00Z"), "{autumn}");
        assert_eq!(schedule.due(autumn, 0), Some(at("2026-10-26T01:30:00Z")), "not a second time that night");
    }

    #[test]
    fn long_gap_of_a_frequent_schedule_is_found() {
        let day = SignedDuration::from_hours(24);
        for (text, limit, found) in [
            ("0 3 1 * *", day * 31, false),
            ("0 3 1 * *", day * 30, true),
            ("0 * 1-31 1 *", day * 90, true),
            ("0 * * 1-6 *", day * 90, true),
            ("0 * * * *", SignedDuration::from_hours(1), false),
            ("0 * * 1,2 *", SignedDuration::from_hours(1), true),
            ("0 0 29 2 *", day * 1000, true),
        ] {
            assert_eq!(cron(text, "UTC").gap_longer_than(limit).is_some(), found, "{text} {limit}");
        }
        assert!(RotationSchedule::Every(day).gap_longer_than(day).is_none());
    }

    #[test]
    fn smallest_gap_of_an_irregular_schedule_is_found() {
        assert_eq!(cron("0 3,5 * * *", "UTC").smallest_gap(), Some(SignedDuration::from_hours(2)));
        assert_eq!(cron("0 0 1 * *", "UTC").smallest_gap(), Some(SignedDuration::from_hours(28 * 24)));
        assert_eq!(RotationSchedule::Never.smallest_gap(), None);
    }

    #[test]
    fn errors_of_invalid_schedules_name_the_format() {
        for (text, zone, expected) in [
            ("every day", None, "five fields"),
            ("0 0 3 1 * *", None, "five fields"),
            ("61 * * * *", None, "five fields"),
            ("0 0 30 2 *", None, "never"),
            ("0 3 * * *", Some("Mars/Olympus"), "IANA"),
        ] {
            let error = CronSchedule::parse(text, zone).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// 5,000 UIDs like those of Kubernetes: random except for version and variant.
    fn uids() -> impl Iterator<Item = String> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        (0..5000).map(move |_| {
            let (high, low) = (next(), next());
            let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xfff);
            format!("{a:08x}-{b:04x}-4{c:03x}-a{:03x}-{:012x}", low >> 48 & 0xfff, low & 0xffff_ffff_ffff)
        })
    }

    #[test]
    fn rotations_due_in_the_same_minute_are_spread() {
        let last = at("2026-03-01T12:00:00Z");
        for (schedule, first, last_start) in [
            (cron("0 3 * * *", "UTC"), at("2026-03-02T03:00:00Z"), at("2026-03-02T03:10:00Z")),
            (
                RotationSchedule::Every(SignedDuration::from_hours(24 * 30)),
                at("2026-03-31T11:50:00Z"),
                at("2026-03-31T12:00:00Z"),
            ),
        ] {
            let mut starts = std::collections::BTreeMap::<Timestamp, usize>::new();
            for uid in uids() {
                *starts.entry(schedule.due(last, spread_permille(&uid)).unwrap()).or_default() += 1;
            }
            let (earliest, latest) = (*starts.keys().next().unwrap(), *starts.keys().next_back().unwrap());
            assert!(earliest >= first && latest <= last_start, "{earliest} to {latest}");
            // 5,000 users in 600 seconds are eight per second.
            let most = starts.values().max().unwrap();
            assert!(starts.len() > 570 && *most <= 25, "{} seconds, {most} users in the fullest", starts.len());
        }
    }

    #[test]
    fn spread_is_stable_across_restarts() {
        assert_eq!(spread_permille("6f1e0001-aaaa-4bbb-8ccc-0123456789ab"), 429);
    }
}
