//! Measurements of the run.

use std::{fmt, time::Duration};

/// A table of measurements, in order of insertion.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    rows: Vec<(&'static str, String)>,
}

impl Summary {
    /// Adds a row.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.rows.push((name, value.into()));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        self.rows.iter().try_for_each(|(name, value)| writeln!(formatter, "{name:width$}   {value}"))
    }
}

/// Formats seconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Formats the minimum and maximum.
pub(crate) fn range(times: &[Duration]) -> String {
    match (times.iter().min(), times.iter().max()) {
        (Some(min), Some(max)) => format!("{} to {}", seconds(*min), seconds(*max)),
        _ => "never".to_owned(),
    }
}

/// Formats a size in MB (millions of bytes), like registries.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
