//! Memoizes expensive schedule computations, whose results depend on their key only.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Bounds the memory: tenants can declare any number of schedules.
const MAX_ENTRIES: usize = 1_000;

/// Computed values by key. The value must depend on the key only.
pub(super) struct Memo<V>(Mutex<HashMap<String, V>>);

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Memo<V> {
    /// Returns the value of the key and computes it if it is missing.
    pub(super) fn get_or_compute(&self, key: String, compute: impl FnOnce() -> V) -> V {
        let lock = || self.0.lock();
        if let Some(value) = lock().get(&key) {
            return value.clone();
        }
        // Compute without the lock, so that other callers do not wait; computing a value twice is harmless.
        let value = compute();
        let mut values = lock();
        if values.len() >= MAX_ENTRIES {
            values.clear();
        }
        values.insert(key, value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_computed_once_and_their_number_is_bounded() {
        let memo = Memo::default();
        let mut computed = 0;
        for _ in 0..3 {
            assert_eq!(
                memo.get_or_compute("a".to_owned(), || {
                    computed += 1;
                    7
                }),
                7
            );
        }
        assert_eq!(computed, 1);
        for number in 0..3 * MAX_ENTRIES {
            assert_eq!(memo.get_or_compute(number.to_string(), || number), number);
            assert!(memo.0.lock().len() <= MAX_ENTRIES);
        }
    }
}
