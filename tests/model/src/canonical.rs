//! One canonical form of all states that differ only in ids.
//!
//! Ids of keys, attempts and rotate requests only count up, and the protocol depends only on which are equal and which is
//! later. So they are renumbered in their order after every step, and the controllers, which are interchangeable, are
//! sorted. This makes the number of states finite although runs are unbounded.

use crate::state::{At, AttemptPhase, Controller, Ids, Journal, Keys, NOW, Secret, State, each, has, only};

/// How ids were changed.
#[derive(Clone, Copy, Debug)]
pub struct Renamed {
    /// New id of each key.
    pub keys: [u8; 16],
    /// The controllers have changed places.
    pub swapped: bool,
}

/// The numbers in use.
#[derive(Default)]
struct Used {
    keys: Ids,
    attempts: Ids,
    requests: Ids,
}

/// Brings the state into its canonical form.
pub fn canonical(state: &mut State) -> Renamed {
    drop_unobservable(state);
    let mut used = Used::default();
    used.requests |= only(state.request);
    walk(state, &mut |name| match name {
        Name::Key(id) => used.keys |= only(*id),
        Name::Keys(ids) => used.keys |= *ids,
        Name::Attempt(attempt) => used.attempts |= only(*attempt),
        Name::Request(request) => used.requests |= only(*request),
        Name::Since(_) | Name::Fence(_) => {}
    });
    let (keys, attempts, requests) = (ranks(used.keys), ranks(used.attempts), ranks(used.requests));
    state.request = requests[usize::from(state.request)];
    walk(state, &mut |name| match name {
        Name::Key(id) => *id = keys[usize::from(*id)],
        Name::Keys(ids) => *ids = each(*ids).map(|id| only(keys[usize::from(id)])).sum(),
        Name::Attempt(attempt) => *attempt = attempts[usize::from(*attempt)],
        Name::Request(request) => *request = requests[usize::from(*request)],
        // Of the attempts that are still known, the last one that had started.
        Name::Since(since) => {
            *since = each(used.attempts).filter(|attempt| *attempt <= *since).fold(0, |count, _| count + 1);
        }
        Name::Fence(fence) => *fence = if has(used.attempts, *fence) { attempts[usize::from(*fence)] } else { 0 },
    });
    // A controller that does not exist is the smallest and stays the second one.
    let swapped = state.controllers[0] < state.controllers[1];
    if swapped {
        state.controllers.swap(0, 1);
    }
    Renamed { keys, swapped }
}

/// Drops what no controller will read.
fn drop_unobservable(state: &mut State) {
    let staged = state.journal.and_then(|journal| journal.staged());
    let mut known = state.keys.iter().map(|key| only(key.id)).fold(0, |ids, id| ids | id);
    let published = state.secret.map_or(0, |secret| only(secret.key));
    for controller in &mut state.controllers {
        let own = controller.view.journal.and_then(|(journal, _)| journal.staged());
        if Some(controller.sts.accepted) != staged && Some(controller.sts.accepted) != own {
            controller.sts.accepted = 0;
        }
        let cached = controller.cache.iter().flat_map(Keys::iter);
        // When IAM was read is compared with what was young then: an intent, a publication, the tag of a staged key.
        if controller.at == At::Ready {
            let intent = controller.view.journal.filter(|(journal, _)| journal.is_intent());
            let missing = |id: u8| controller.view.keys.get(id).is_none();
            let secret = controller.view.secret.filter(|(secret, _)| missing(secret.key));
            let tagged = own.and_then(|id| controller.view.keys.entry(id)).filter(|key| key.tagged.is_some());
            if intent.is_none() && secret.is_none() && tagged.is_none() {
                controller.view.read = controller.view.read.map(|_| NOW);
            }
        }
        known |= controller.view.keys.iter().chain(cached).fold(0, |ids, key| ids | only(key.id));
    }
    // The confirmation of a key that no controller can see is that of none.
    let visible = known | published;
    if !has(visible, state.confirmed) {
        state.confirmed = 0;
    }
    for controller in state.controllers.iter_mut().filter(|controller| !has(visible, controller.confirmed)) {
        controller.confirmed = 0;
    }
    // A key that existed before an attempt matters only as long as a controller may see it.
    let journals = state.controllers.iter_mut().filter_map(|controller| controller.view.journal.as_mut());
    for journal in journals.map(|(journal, _)| journal).chain(state.journal.as_mut()) {
        if let AttemptPhase::Intent { known: before } = &mut journal.phase {
            *before &= known;
        }
    }
}

/// New numbers from 1 on, in the order of the old ones. 0 stays "none".
fn ranks(used: Ids) -> [u8; 16] {
    let mut ranks = [0; 16];
    for (rank, id) in (1..).zip(each(used)) {
        ranks[usize::from(id)] = rank;
    }
    ranks
}

enum Name<'a> {
    Key(&'a mut u8),
    Keys(&'a mut Ids),
    Attempt(&'a mut u8),
    Request(&'a mut u8),
    Since(&'a mut u8),
    Fence(&'a mut u8),
}

fn walk(state: &mut State, visit: &mut impl FnMut(Name<'_>)) {
    walk_keys(&mut state.keys, visit);
    visit(Name::Key(&mut state.confirmed));
    state.secret.iter_mut().for_each(|secret| walk_secret(secret, visit));
    state.journal.iter_mut().for_each(|journal| walk_journal(journal, visit));
    state.controllers.iter_mut().for_each(|controller| walk_controller(controller, visit));
}

fn walk_keys(keys: &mut Keys, visit: &mut impl FnMut(Name<'_>)) {
    for key in keys.0.iter_mut().filter(|key| key.id != 0) {
        visit(Name::Key(&mut key.id));
        visit(Name::Since(&mut key.since));
    }
}

fn walk_secret(secret: &mut Secret, visit: &mut impl FnMut(Name<'_>)) {
    visit(Name::Key(&mut secret.key));
    visit(Name::Key(&mut secret.value));
    visit(Name::Request(&mut secret.honours));
    visit(Name::Fence(&mut secret.fence));
}

fn walk_journal(journal: &mut Journal, visit: &mut impl FnMut(Name<'_>)) {
    visit(Name::Attempt(&mut journal.attempt));
    visit(Name::Request(&mut journal.honours));
    match &mut journal.phase {
        AttemptPhase::Intent { known } => visit(Name::Keys(known)),
        AttemptPhase::Keyed { key, .. } => visit(Name::Key(key)),
        AttemptPhase::Abandoned { orphans } => visit(Name::Keys(orphans)),
    }
}

fn walk_controller(controller: &mut Controller, visit: &mut impl FnMut(Name<'_>)) {
    match &mut controller.at {
        At::Create { attempt, .. } | At::CloseRefused(attempt) => visit(Name::Attempt(attempt)),
        At::Stage { attempt, key, .. } | At::Refused { attempt, key, .. } => {
            visit(Name::Attempt(attempt));
            visit(Name::Key(key));
        }
        At::ReadTag(key) | At::Undo(key) | At::SecondWrite(key) => visit(Name::Key(key)),
        At::Idle | At::ReadIam | At::ReadKeys | At::ReadSecret | At::ReadJournal | At::Ready => {}
    }
    visit(Name::Request(&mut controller.request));
    visit(Name::Key(&mut controller.confirmed));
    visit(Name::Key(&mut controller.sts.accepted));
    visit(Name::Key(&mut controller.sts.refused));
    walk_keys(&mut controller.view.keys, visit);
    visit(Name::Keys(&mut controller.view.deleted));
    visit(Name::Keys(&mut controller.view.tagged));
    controller.view.last_used.iter_mut().for_each(|key| visit(Name::Key(key)));
    controller.view.secret.iter_mut().for_each(|(secret, _)| walk_secret(secret, visit));
    controller.view.journal.iter_mut().for_each(|(journal, _)| walk_journal(journal, visit));
    controller.cache.iter_mut().for_each(|keys| walk_keys(keys, visit));
}

impl State {
    /// A number for a new key: later than all that are known.
    #[must_use]
    pub fn next_key(&mut self) -> u8 {
        let mut newest = 0;
        walk(self, &mut |name| match name {
            Name::Key(id) => newest = newest.max(*id),
            Name::Keys(ids) => newest = newest.max(each(*ids).last().unwrap_or(0)),
            _ => {}
        });
        newest + 1
    }

    /// The last known attempt.
    #[must_use]
    pub fn last_attempt(&mut self) -> u8 {
        let mut newest = 0;
        walk(self, &mut |name| {
            if let Name::Attempt(attempt) = name {
                newest = newest.max(*attempt);
            }
        });
        newest
    }

    /// The last known rotate request.
    #[must_use]
    pub fn last_request(&mut self) -> u8 {
        let mut newest = self.request;
        walk(self, &mut |name| {
            if let Name::Request(request) = name {
                newest = newest.max(*request);
            }
        });
        newest
    }
}
