//! Durations in manifests and flags.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Span, SpanRelativeTo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format;

/// Duration greater than zero and at most ten years (`3650d`), with the units `w`, `d`, `h`, `m` and `s`: `30d`, `12h`,
/// `90m`, `1h30m`, or Go's format `720h0m0s`. A day is 24 hours.
// The schema checks the format, `HumanDuration::parse` the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HumanDuration(#[schemars(length(min = 2, max = 32), regex(pattern = format::DURATION))] pub String);

/// Dates that are computed with it stay in the range of `jiff::Timestamp`.
const MAX_DURATION: SignedDuration = SignedDuration::from_hours(3_650 * 24);

/// Error of a text that is not a valid duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration above zero and of at most 3650d; use a format such as 30d, 12h, 90m or 1h30m")]
pub struct DurationError {
    text: String,
}

impl HumanDuration {
    /// Parses the text.
    ///
    /// # Errors
    /// If the text is not a duration, or it is zero, negative or longer than ten years.
    pub fn parse(&self) -> Result<SignedDuration, DurationError> {
        parse_span(&self.0)
    }
}

fn parse_span(text: &str) -> Result<SignedDuration, DurationError> {
    match parse_span_or_zero(text) {
        Ok(value) if value > SignedDuration::ZERO => Ok(value),
        _ => Err(DurationError { text: text.to_owned() }),
    }
}

fn parse_span_or_zero(text: &str) -> Result<SignedDuration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let span = Span::from_str(text).map_err(|_| error())?;
    let value = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| error())?;
    if (SignedDuration::ZERO..=MAX_DURATION).contains(&value) { Ok(value) } else { Err(error()) }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<&str> for HumanDuration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Parses a command-line flag: the format of manifests, and `0s`, which disables what the flag controls.
///
/// # Errors
/// If the text is not a duration, or it is negative or longer than ten years.
pub fn parse_flag(text: &str) -> Result<Duration, DurationError> {
    let value = parse_span_or_zero(text)?;
    Duration::try_from(value).map_err(|_| DurationError { text: text.to_owned() })
}

/// Formats a duration with its two largest units: `41d 3h`, `12m 5s`.
#[must_use]
pub fn humanize(value: SignedDuration) -> String {
    let seconds = value.as_secs().unsigned_abs();
    let parts = [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let Some(first) = parts.iter().position(|(_, amount)| *amount > 0) else {
        return "0s".to_owned();
    };
    parts[first..]
        .iter()
        .take(2)
        .filter(|(_, amount)| *amount > 0)
        .map(|(unit, amount)| format!("{amount}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_in_every_supported_format() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("90m", 5_400),
            ("1h30m", 5_400),
            ("720h0m0s", 2_592_000),
            ("2w", 1_209_600),
            ("1.5h", 5_400),
        ] {
            assert_eq!(HumanDuration::from(text).parse().map(|d| d.as_secs()), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn invalid_zero_and_negative_durations_are_rejected() {
        assert!(HumanDuration::from("3650d").parse().is_ok());
        for text in ["", "30", "d", "0s", "-3h", "1mo", "soon", "3651d", "3000000d"] {
            let refused = HumanDuration::from(text).parse();
            if text == "1mo" {
                assert!(refused.is_err(), "a month has no fixed length");
            }
            assert!(refused.unwrap_err().to_string().contains("30d"), "{text}");
        }
    }

    #[test]
    fn humanize_prints_the_two_largest_units() {
        assert_eq!(humanize(SignedDuration::from_secs(0)), "0s");
        assert_eq!(humanize(SignedDuration::from_secs(65)), "1m 5s");
        assert_eq!(humanize(SignedDuration::from_secs(2 * 86_400 + 59)), "2d");
        assert_eq!(humanize(SignedDuration::from_hours(49)), "2d 1h");
    }
}
