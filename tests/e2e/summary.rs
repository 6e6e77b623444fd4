//! What was measured on the way.

use std::{fmt, time::Duration};

/// A table of facts, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    facts: Vec<(&'static str, String)>,
}

impl Summary {
    /// Writes a fact down.
    pub(crate) fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push((name, value.into()));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        self.facts.iter().try_for_each(|(name, value)| writeln!(formatter, "{name:width$}   {value}"))
    }
}

/// Seconds, as a person reads them.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The least and the most of some times.
pub(crate) fn range(times: &[Duration]) -> String {
    match (times.iter().min(), times.iter().max()) {
        (Some(least), Some(most)) => format!("{} to {}", seconds(*least), seconds(*most)),
        _ => "never".to_owned(),
    }
}

/// A size in MB (millions of bytes), as registries tell it.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
