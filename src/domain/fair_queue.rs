//! The order in which work of many namespaces is served: by priority, and within one priority by namespace in turn.

use std::collections::{BTreeMap, VecDeque};

/// Every such turn serves the lowest priority first, so that it proceeds under any load.
const BACKGROUND_TURN: u64 = 16;

/// How urgent the work of a resource is. The first one is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Takes credentials away: revocation, quarantine, deletion.
    Urgent,
    /// Something changed, or is due.
    Due,
    /// Compares what is expected to be in order.
    Background,
}

const PRIORITIES: [Priority; 3] = [Priority::Urgent, Priority::Due, Priority::Background];

/// What waits. First come, first served within a namespace.
pub struct FairQueue<T> {
    waiting: [InTurn<T>; PRIORITIES.len()],
    turns: u64,
    last_id: u64,
}

/// Namespaces of one priority, in the order of their turns. None is without an entry.
struct InTurn<T> {
    namespaces: VecDeque<String>,
    entries: BTreeMap<String, VecDeque<(u64, T)>>,
}

impl<T> Default for InTurn<T> {
    fn default() -> Self {
        Self { namespaces: VecDeque::new(), entries: BTreeMap::new() }
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiting: Default::default(), turns: 0, last_id: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Adds an entry, and returns the id that removes it.
    pub fn push(&mut self, priority: Priority, namespace: &str, entry: T) -> u64 {
        self.last_id += 1;
        let waiting = &mut self.waiting[priority as usize];
        if let Some(entries) = waiting.entries.get_mut(namespace) {
            entries.push_back((self.last_id, entry));
        } else {
            waiting.namespaces.push_back(namespace.to_owned());
            waiting.entries.insert(namespace.to_owned(), VecDeque::from([(self.last_id, entry)]));
        }
        self.last_id
    }

    /// Removes an entry that is no longer wanted, or wanted with another priority.
    pub fn remove(&mut self, priority: Priority, namespace: &str, id: u64) -> Option<T> {
        let waiting = &mut self.waiting[priority as usize];
        let entries = waiting.entries.get_mut(namespace)?;
        let index = entries.iter().position(|(other, _)| *other == id)?;
        let (_, entry) = entries.remove(index)?;
        if entries.is_empty() {
            waiting.entries.remove(namespace);
            waiting.namespaces.retain(|other| other != namespace);
        }
        Some(entry)
    }

    /// The next entry whose priority and namespace are accepted.
    pub fn pop(&mut self, mut accepts: impl FnMut(Priority, &str) -> bool) -> Option<(Priority, String, T)> {
        let mut order = PRIORITIES;
        if (self.turns + 1).is_multiple_of(BACKGROUND_TURN) {
            // Urgent work needs no turn of another: it stays the first.
            order.swap(Priority::Due as usize, Priority::Background as usize);
        }
        let found = order.into_iter().find_map(|priority| {
            let (namespace, entry) = self.waiting[priority as usize].pop(|namespace| accepts(priority, namespace))?;
            Some((priority, namespace, entry))
        })?;
        if found.0 != Priority::Urgent {
            self.turns += 1;
        }
        Some(found)
    }

    /// Whether more than one namespace waits.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        let mut namespaces = self.waiting.iter().flat_map(|waiting| &waiting.namespaces);
        namespaces.next().is_some_and(|first| namespaces.any(|other| other != first))
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.namespaces.is_empty())
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.waiting = Default::default();
    }
}

impl<T> InTurn<T> {
    fn pop(&mut self, accepts: impl FnMut(&str) -> bool) -> Option<(String, T)> {
        let index = self.namespaces.iter().map(String::as_str).position(accepts)?;
        let namespace = self.namespaces.remove(index)?;
        let mut entries = self.entries.remove(&namespace)?;
        let (_, entry) = entries.pop_front()?;
        if !entries.is_empty() {
            self.namespaces.push_back(namespace.clone());
            self.entries.insert(namespace.clone(), entries);
        }
        Some((namespace, entry))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pop_all(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(|_, _| true).map(|(_, _, entry)| entry)).collect()
    }

    #[test]
    fn namespaces_take_turns_however_many_entries_one_has() {
        let mut queue = FairQueue::default();
        for entry in 0..5 {
            queue.push(Priority::Due, "a", entry);
        }
        queue.push(Priority::Due, "b", 10);
        queue.push(Priority::Due, "c", 20);
        queue.push(Priority::Due, "b", 11);
        assert_eq!(pop_all(&mut queue), [0, 10, 20, 1, 11, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn urgent_entries_are_served_before_all_others() {
        let mut queue = FairQueue::default();
        for entry in 0..100 {
            queue.push(Priority::Due, "a", entry);
            queue.push(Priority::Background, "a", entry);
        }
        for round in 0..40 {
            queue.push(Priority::Urgent, "b", 1000 + round);
            assert_eq!(queue.pop(|_, _| true), Some((Priority::Urgent, "b".to_owned(), 1000 + round)));
            queue.pop(|_, _| true);
        }
    }

    #[test]
    fn background_proceeds_while_other_work_is_due() {
        let mut queue = FairQueue::default();
        for entry in 0..64 {
            queue.push(Priority::Due, "a", entry);
        }
        queue.push(Priority::Background, "b", 1000);
        queue.push(Priority::Background, "b", 1001);
        let order = pop_all(&mut queue);
        let place = |wanted| order.iter().position(|entry| *entry == wanted);
        assert_eq!((place(1000), place(1001)), (Some(15), Some(31)));
    }

    #[test]
    fn removed_entry_is_not_served_and_keeps_no_turn() {
        let mut queue = FairQueue::default();
        let first = queue.push(Priority::Due, "a", 1);
        queue.push(Priority::Due, "b", 2);
        assert_eq!(queue.remove(Priority::Due, "a", first), Some(1));
        assert_eq!(queue.remove(Priority::Due, "a", first), None);
        assert!(!queue.is_contended());
        assert_eq!(pop_all(&mut queue), [2]);
    }

    proptest! {
        #[test]
        fn namespace_waits_for_one_entry_of_each_other(entries in prop::collection::vec(0..6_usize, 1..80)) {
            let mut queue = FairQueue::default();
            for namespace in &entries {
                queue.push(Priority::Due, &namespace.to_string(), *namespace);
            }
            let mut last_turn = [0_usize; 6];
            let mut served = 0;
            while let Some((_, _, namespace)) = queue.pop(|_, _| true) {
                served += 1;
                prop_assert!(served - last_turn[namespace] <= 6, "{namespace} waited beyond a round");
                last_turn[namespace] = served;
            }
            prop_assert_eq!(served, entries.len());
        }
    }
}
