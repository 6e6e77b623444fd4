//! How many passes run at the same time: each account has a share of its own, so that one that does not answer keeps
//! nobody else waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Passes of one account at the same time, however many accounts there are. One that waits for a slow answer must not
/// stop its own account either.
const LEAST: usize = 2;

/// AccountLimiter of accounts, in each of which so many passes fit.
pub(super) struct AccountLimiter {
    /// Passes at the same time while one account is busy.
    all: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limiter: HashMap<String, Room>,
    closed: bool,
}

#[derive(Default)]
struct Room {
    inside: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// A place in a room; left when it is dropped.
pub(super) struct Permit {
    limiter: Arc<AccountLimiter>,
    room: String,
}

impl AccountLimiter {
    /// For so many passes; they are shared by the accounts that are busy.
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, state: Mutex::default() })
    }

    /// A place, at once or when one is left, and whether it was waited for. `None` when no pass may begin any more.
    pub(super) async fn enter(self: &Arc<Self>, room: &str) -> Option<(Permit, bool)> {
        let waits = {
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            let share = state.share(self.all, room);
            let found = state.limiter.entry(room.to_owned()).or_default();
            if found.inside < share && found.waiting.is_empty() {
                found.inside += 1;
                return Some((self.place(room), false));
            }
            let (sender, receiver) = oneshot::channel();
            found.waiting.push_back(sender);
            receiver
        };
        waits.await.ok().map(|place| (place, true))
    }

    /// From now on nobody enters, and nobody waits. Who is inside stays to the end.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.limiter.values_mut().for_each(|room| room.waiting.clear());
    }

    fn place(self: &Arc<Self>, room: &str) -> Permit {
        Permit { limiter: Arc::clone(self), room: room.to_owned() }
    }

    /// Lets in who waits, as many as fit.
    fn leave(self: &Arc<Self>, room: &str) {
        let mut refused = Vec::new();
        let mut state = self.lock();
        if let Some(found) = state.limiter.get_mut(room) {
            found.inside = found.inside.saturating_sub(1);
        }
        let share = state.share(self.all, room);
        if let Some(found) = state.limiter.get_mut(room) {
            while found.inside < share
                && let Some(next) = found.waiting.pop_front()
            {
                found.inside += 1;
                // Somebody who waits no more gives the place back, below, when nothing is locked.
                match next.send(self.place(room)) {
                    Ok(()) => {}
                    Err(place) => refused.push(place),
                }
            }
            if found.inside == 0 {
                state.limiter.remove(room);
            }
        }
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers and senders: a panic elsewhere cannot have left them half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many passes a room may hold, beside the others that are busy.
    fn share(&self, all: usize, room: &str) -> usize {
        let busy = self.limiter.len() + usize::from(!self.limiter.contains_key(room));
        (all / busy.max(1)).max(LEAST.min(all))
    }
}

impl Permit {
    /// Whether it is in this room.
    pub(super) fn is_in(&self, room: &str) -> bool {
        self.room == room
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.leave(&self.room);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn fill(limiter: &Arc<AccountLimiter>, room: &str) -> Vec<Permit> {
        let mut inside = Vec::new();
        while let Some(entered) = limiter.enter(room).now_or_never() {
            inside.push(entered.unwrap().0);
        }
        inside
    }

    #[test]
    fn an_account_that_does_not_answer_keeps_no_other_waiting() {
        let limiter = AccountLimiter::new(16);
        let silent = fill(&limiter, "silent");
        assert_eq!(silent.len(), 16, "alone it has all");
        let other = fill(&limiter, "other");
        assert_eq!(other.len(), 8, "a second one has its half at once");
        assert_eq!(fill(&limiter, "third").len(), 5);
        let mut many = Vec::new();
        for n in 0..50 {
            many.push(fill(&limiter, &n.to_string()));
        }
        assert!(many.iter().all(|inside| inside.len() >= 2), "everybody gets in");
    }

    #[tokio::test]
    async fn who_waits_enters_in_turn_and_finds_that_it_has_waited() {
        let limiter = AccountLimiter::new(2);
        let mut inside = fill(&limiter, "a");
        let (mut first, mut second) = (Box::pin(limiter.enter("a")), Box::pin(limiter.enter("a")));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        inside.pop();
        assert!((&mut second).now_or_never().is_none());
        let (place, waited) = first.await.unwrap();
        assert!(waited && place.is_in("a"));
        drop(place);
        assert!(second.await.unwrap().1);
        inside.clear();
        assert!(limiter.lock().limiter.is_empty(), "nothing stays of a room that is empty");
    }

    #[tokio::test]
    async fn who_has_gone_away_meanwhile_takes_no_place() {
        let limiter = AccountLimiter::new(1);
        let (inside, _) = limiter.enter("a").await.unwrap();
        let mut gone = Box::pin(limiter.enter("a"));
        assert!((&mut gone).now_or_never().is_none());
        let next = limiter.enter("a");
        drop(gone);
        drop(inside);
        assert!(next.await.is_some());
        assert!(limiter.lock().limiter.is_empty());
    }

    #[tokio::test]
    async fn a_closed_house_sends_away_who_waits_and_lets_who_is_inside_finish() {
        let limiter = AccountLimiter::new(1);
        let (inside, _) = limiter.enter("a").await.unwrap();
        let mut waits = Box::pin(limiter.enter("a"));
        assert!((&mut waits).now_or_never().is_none());
        limiter.close();
        assert!(waits.await.is_none());
        drop(inside);
        assert!(limiter.enter("b").await.is_none());
    }
}
