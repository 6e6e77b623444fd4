//! When the next rotation is due.

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
    /// This long after the last publication.
    Every(SignedDuration),
    /// At the times of a cron expression.
    Cron(Box<CronSchedule>),
    /// On request only.
    Never,
}

/// A cron expression in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct CronSchedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

/// Why a schedule is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a cron expression.
    #[error(
        "schedule {text:?} is not a cron expression with five fields (minute hour day-of-month month day-of-week), such as \"0 3 1 * *\": {why}"
    )]
    Cron {
        /// What was written.
        text: String,
        /// What the parser says.
        why: String,
    },
    /// Never happens.
    #[error("schedule {0:?} never comes to pass, such as the 30th of February")]
    Never(String),
    /// Not a time zone.
    #[error("timeZone {0:?} is not an IANA time zone, such as UTC or Europe/Berlin")]
    Zone(String),
}

/// A fixed point from which the gaps of a schedule are measured, so that the verdict on a spec
/// does not depend on the day it is read.
const SAMPLE_FROM: &str = "2026-01-01T00:00:00Z";

/// Occurrences that are looked at to find a schedule's smallest gap: enough to see a whole week
/// of an hourly schedule, and every gap of any schedule that repeats yearly or more often.
pub(super) const SAMPLE_SIZE: usize = 400;

/// How far a gap that is too long is looked for: the 29th of February comes within nine years.
const GAP_YEARS: SignedDuration = SignedDuration::from_hours(9 * 366 * 24);
/// Steps of that search at the most: a year at one step an hour.
const GAP_STEPS: usize = 9_000;

/// A stable number in 0..1000 that spreads the due times of many users; from the UID, so that it
/// is the same after a restart and exact in tests.
#[must_use]
pub fn spread_permille(uid: &str) -> i32 {
    // FNV-1a: small, stable over versions; nothing here needs to resist an attacker.
    let hash = uid
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i32::try_from((hash >> 32) % 1000).unwrap_or_default()
}

/// How far due times are spread at most: a twentieth of the interval, never more than ten minutes.
fn spread(interval: SignedDuration, permille: i32) -> SignedDuration {
    // Whole seconds: what people read in the status is exactly what happens.
    let spread = (interval / 20).min(SignedDuration::from_mins(10)) * permille / 1000;
    SignedDuration::from_secs(spread.as_secs())
}

impl RotationSchedule {
    /// When the key that was published at `last` is due to be replaced.
    ///
    /// `every` is due a little early, so that a key is never older than declared; a cron time is
    /// due a little late, so that a rotation never comes before its hour. However many cron times
    /// were missed, the answer is one time: they count as one.
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

    /// The smallest time between two rotations, if there are any.
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
    /// A time between two rotations that is longer than `limit`, if there is one in the years to come.
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
    /// Reads a cron expression of five fields in an IANA time zone.
    ///
    /// # Errors
    /// When one of the two is not what it should be, or the expression never comes to pass.
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

    /// The first time after this one.
    pub(super) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false).ok().map(|zoned| zoned.timestamp())
    }

    /// Goes from each occurrence to the last one within the limit, so that an hourly schedule that pauses for half a
    /// year is found out in as few steps as a yearly one.
    fn gap_longer_than(&self, limit: SignedDuration) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        KNOWN.get_or(format!("{} {limit}", self.key()), || self.look_for_gap(limit))
    }

    fn look_for_gap(&self, limit: SignedDuration) -> Option<SignedDuration> {
        let mut last = self.after(sample_start())?;
        let end = last.checked_add(GAP_YEARS).ok()?;
        for _ in 0..GAP_STEPS {
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

    /// The last time up to this one.
    pub(super) fn until(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&time.to_zoned(self.zone.clone()), true).ok().map(|zoned| zoned.timestamp())
    }

    /// What tells this schedule from every other one.
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.text, self.zone.iana_name().unwrap_or_default())
    }

    fn smallest_gap(&self) -> Option<SignedDuration> {
        static KNOWN: LazyLock<Memo<Option<SignedDuration>>> = LazyLock::new(Memo::default);
        KNOWN.get_or(self.key(), || self.sample_gap())
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

/// See [`SAMPLE_FROM`].
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
    fn every_is_due_at_most_a_twentieth_early_and_never_late() {
        let schedule = RotationSchedule::Every(SignedDuration::from_mins(100));
        let last = at("2026-03-01T00:00:00Z");
        assert_eq!(schedule.due(last, 0), Some(at("2026-03-01T01:40:00Z")));
        assert_eq!(schedule.due(last, 1000), Some(at("2026-03-01T01:35:00Z")));
        let long = RotationSchedule::Every(SignedDuration::from_hours(24 * 90));
        assert_eq!(long.due(last, 1000), Some(at("2026-05-29T23:50:00Z")), "ten minutes at most");
    }

    #[test]
    fn cron_is_due_at_its_hour_in_its_zone_or_a_little_later() {
        let last = at("2026-03-01T12:00:00Z");
        assert_eq!(cron("0 3 * * *", "Europe/Berlin").due(last, 0), Some(at("2026-03-02T02:00:00Z")));
        assert_eq!(cron("0 3 * * *", "Europe/Berlin").due(last, 1000), Some(at("2026-03-02T02:10:00Z")));
    }

    #[test]
    fn missed_cron_times_count_as_one() {
        let schedule = cron("* * * * *", "UTC");
        let last = at("2026-01-01T00:00:30Z");
        assert_eq!(schedule.due(last, 0), Some(at("2026-01-01T00:01:00Z")), "long ago, and only once");
        let published_late = at("2026-06-01T10:10:10Z");
        assert_eq!(schedule.due(published_late, 0), Some(at("2026-06-01T10:11:00Z")));
    }

    #[test]
    fn an_hour_that_daylight_saving_skips_still_rotates_once_and_a_doubled_hour_once() {
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
    fn a_pause_that_is_too_long_is_found_however_busy_the_schedule_is_otherwise() {
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
    fn the_smallest_gap_of_an_uneven_schedule_is_found() {
        assert_eq!(cron("0 3,5 * * *", "UTC").smallest_gap(), Some(SignedDuration::from_hours(2)));
        assert_eq!(cron("0 0 1 * *", "UTC").smallest_gap(), Some(SignedDuration::from_hours(28 * 24)));
        assert_eq!(RotationSchedule::Never.smallest_gap(), None);
    }

    #[test]
    fn bad_schedules_say_what_is_allowed() {
        for (text, zone, told) in [
            ("every day", None, "five fields"),
            ("0 0 3 1 * *", None, "five fields"),
            ("61 * * * *", None, "five fields"),
            ("0 0 30 2 *", None, "never"),
            ("0 3 * * *", Some("Mars/Olympus"), "IANA"),
        ] {
            let error = CronSchedule::parse(text, zone).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    /// 5,000 UIDs as Kubernetes makes them: random but for version and variant.
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
    fn five_thousand_users_due_in_the_same_minute_do_not_start_together() {
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
            // Ten minutes are 600 seconds, 5,000 users are eight a second.
            let most = starts.values().max().unwrap();
            assert!(starts.len() > 570 && *most <= 25, "{} seconds, {most} users in the fullest", starts.len());
        }
    }

    #[test]
    fn the_spread_of_a_user_stays_the_same_after_a_restart() {
        assert_eq!(spread_permille("6f1e0001-aaaa-4bbb-8ccc-0123456789ab"), 429);
    }
}
