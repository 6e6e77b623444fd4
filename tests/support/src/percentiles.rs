//! Percentiles of what a test measured.

use std::fmt;

/// Percentiles of times or counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles<T> {
    /// At most this in half of all cases.
    pub p50: T,
    /// At most this in 99 of 100 cases.
    pub p99: T,
    /// The largest one.
    pub max: T,
}

impl<T: Ord + Copy + Default> Percentiles<T> {
    /// Of these values; all are the default if there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = T>) -> Self {
        let mut values: Vec<T> = values.into_iter().collect();
        values.sort();
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1);
            values.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

impl<T: fmt::Debug> fmt::Display for Percentiles<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "p50 {:.1?}, p99 {:.1?}, max {:.1?}", self.p50, self.p99, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_a_value_that_its_share_does_not_exceed() {
        assert_eq!(Percentiles::of(1..=200), Percentiles { p50: 100, p99: 198, max: 200 });
        assert_eq!(Percentiles::of([3, 1, 2]), Percentiles { p50: 2, p99: 3, max: 3 });
        assert_eq!(Percentiles::<u32>::of([]), Percentiles { p50: 0, p99: 0, max: 0 });
    }
}
