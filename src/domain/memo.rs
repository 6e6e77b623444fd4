//! Answers that are dear to work out and the same for ever: what a schedule comes to does not depend on when it is asked.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Answers that are kept. Classes and resources of a cluster have few schedules; one that makes up more pays for it with
/// work, not with memory.
const MOST: usize = 1_000;

/// Answers by what was asked. The answer must follow from the key alone.
pub(super) struct Memo<V>(Mutex<HashMap<String, V>>);

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Memo<V> {
    /// The answer that is known, or that is worked out now.
    pub(super) fn get_or(&self, key: String, work_out: impl FnOnce() -> V) -> V {
        let lock = || self.0.lock();
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        // Not under the lock: others need not wait for it, and twice is no harm.
        let answer = work_out();
        let mut known = lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, answer.clone());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_worked_out_once_and_the_memory_has_an_end() {
        let memo = Memo::default();
        let mut worked = 0;
        for _ in 0..3 {
            assert_eq!(
                memo.get_or("a".to_owned(), || {
                    worked += 1;
                    7
                }),
                7
            );
        }
        assert_eq!(worked, 1);
        for number in 0..3 * MOST {
            assert_eq!(memo.get_or(number.to_string(), || number), number);
            assert!(memo.0.lock().len() <= MOST);
        }
    }
}
