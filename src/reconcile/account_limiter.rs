//! Bounds concurrent reconciles per AWS account, and shares them among namespaces.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    aws::Lane,
    domain::fair_queue::{FairQueue, Priority},
};

/// Urgent reconciles have permits of their own, this part of all others and at least [`MIN_RESERVED`].
const RESERVED_PART: usize = 8;
/// One namespace uses at most half of the reserved permits, so that one is always left to the others.
const MIN_RESERVED: usize = 2;

/// Permits for reconciles, a fixed number for each account, so that an account that does not respond delays only its own.
/// While several namespaces wait, none holds more than half of them.
pub(super) struct AccountLimiter(Arc<LimiterShared>);

struct LimiterShared {
    permits_per_account: usize,
    state: Mutex<LimiterState>,
}

#[derive(Default)]
struct LimiterState {
    accounts: HashMap<String, AccountPermits>,
    closed: bool,
}

/// The permits of one account.
#[derive(Default)]
struct AccountPermits {
    shared: PermitCount,
    /// For urgent reconciles that find no shared permit.
    reserved: PermitCount,
    queue: FairQueue<oneshot::Sender<Permit>>,
}

/// Permits in use.
#[derive(Default)]
struct PermitCount {
    total: usize,
    by_namespace: HashMap<String, usize>,
}

impl PermitCount {
    fn of(&self, namespace: &str) -> usize {
        self.by_namespace.get(namespace).copied().unwrap_or_default()
    }

    fn add(&mut self, namespace: &str) {
        self.total += 1;
        *self.by_namespace.entry(namespace.to_owned()).or_default() += 1;
    }

    fn remove(&mut self, namespace: &str) {
        self.total -= 1;
        if let Some(count) = self.by_namespace.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PermitKind {
    Shared,
    Reserved,
}

/// The right to reconcile one resource of an account; returned when dropped.
pub(super) struct Permit {
    limiter: Arc<LimiterShared>,
    account: String,
    namespace: String,
    kind: PermitKind,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let granted = {
            let mut state = self.limiter.state.lock();
            if let Some(permits) = state.accounts.get_mut(&self.account) {
                permits.count(self.kind).remove(&self.namespace);
            }
            self.limiter.grant(&mut state, &self.account)
        };
        send(granted);
    }
}

impl AccountPermits {
    fn count(&mut self, kind: PermitKind) -> &mut PermitCount {
        match kind {
            PermitKind::Shared => &mut self.shared,
            PermitKind::Reserved => &mut self.reserved,
        }
    }

    fn is_unused(&self) -> bool {
        self.shared.total + self.reserved.total == 0 && self.queue.is_empty()
    }

    /// The kind of permit that a reconcile may have now.
    fn available(&self, permits: usize, priority: Priority, namespace: &str, is_contended: bool) -> Option<PermitKind> {
        let reserved = (permits / RESERVED_PART).max(MIN_RESERVED);
        let is_within_share = !is_contended || self.shared.of(namespace) < permits.div_ceil(2);
        if self.shared.total < permits && is_within_share {
            Some(PermitKind::Shared)
        } else if priority == Priority::Urgent
            && self.reserved.total < reserved
            && self.reserved.of(namespace) < reserved / 2
        {
            Some(PermitKind::Reserved)
        } else {
            None
        }
    }

    /// The next waiter that may have a permit now.
    fn next(&mut self, permits: usize) -> Option<(oneshot::Sender<Permit>, String, PermitKind)> {
        let mut queue = std::mem::take(&mut self.queue);
        let (is_contended, mut kind) = (queue.is_contended(), None);
        let next = queue.pop(|priority, namespace| {
            kind = self.available(permits, priority, namespace, is_contended);
            kind.is_some()
        });
        self.queue = queue;
        let (_, namespace, waiter) = next?;
        Some((waiter, namespace, kind?))
    }
}

impl LimiterShared {
    /// Gives permits to the waiters that may have one now. To be sent without the lock: a permit whose waiter was cut off is
    /// returned, which takes the lock.
    fn grant(self: &Arc<Self>, state: &mut LimiterState, account: &str) -> Vec<(oneshot::Sender<Permit>, Permit)> {
        let mut granted = Vec::new();
        let Some(permits) = state.accounts.get_mut(account) else { return granted };
        while let Some((waiter, namespace, kind)) = permits.next(self.permits_per_account) {
            permits.count(kind).add(&namespace);
            let permit = Permit { limiter: Arc::clone(self), account: account.to_owned(), namespace, kind };
            granted.push((waiter, permit));
        }
        granted
    }
}

impl AccountLimiter {
    pub(super) fn new(permits_per_account: usize) -> Self {
        let shared = LimiterShared { permits_per_account: permits_per_account.max(1), state: Mutex::default() };
        Self(Arc::new(shared))
    }

    /// Waits for a permit in the lane. `None` once the limiter is closed. A caller that is cut off keeps no permit and no
    /// place in the queue.
    pub(super) async fn acquire(&self, account: &str, lane: &Lane) -> Option<Permit> {
        let mut priority = lane.priority();
        let mut waiter = PermitWaiter::enqueue(&self.0, account, lane, priority)?;
        loop {
            tokio::select! {
                biased;
                permit = &mut waiter.permit => return permit.ok(),
                () = lane.raised_above(priority) => {
                    priority = lane.priority();
                    waiter.requeue(priority);
                }
            }
        }
    }

    /// Issues no further permits and wakes all callers that wait for one. Reconciles that hold one finish.
    pub(super) fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.accounts.values_mut().for_each(|permits| permits.queue.clear());
    }
}

/// A caller that waits for a permit. Holds nothing of its resource.
struct PermitWaiter<'a> {
    limiter: &'a Arc<LimiterShared>,
    account: &'a str,
    lane: &'a Lane,
    priority: Priority,
    id: u64,
    permit: oneshot::Receiver<Permit>,
}

impl<'a> PermitWaiter<'a> {
    fn enqueue(limiter: &'a Arc<LimiterShared>, account: &'a str, lane: &'a Lane, priority: Priority) -> Option<Self> {
        let (sender, permit) = oneshot::channel();
        let (id, granted) = {
            let mut state = limiter.state.lock();
            if state.closed {
                return None;
            }
            if !state.accounts.contains_key(account) {
                // Accounts come and go with classes: an unused one is dropped when another appears.
                state.accounts.retain(|_, permits| !permits.is_unused());
            }
            let permits = state.accounts.entry(account.to_owned()).or_default();
            let id = permits.queue.push(priority, lane.namespace(), sender);
            (id, limiter.grant(&mut state, account))
        };
        send(granted);
        Some(Self { limiter, account, lane, priority, id, permit })
    }

    fn requeue(&mut self, priority: Priority) {
        let granted = {
            let mut state = self.limiter.state.lock();
            let Some(permits) = state.accounts.get_mut(self.account) else { return };
            if let Some(sender) = permits.queue.remove(self.priority, self.lane.namespace(), self.id) {
                self.id = permits.queue.push(priority, self.lane.namespace(), sender);
            }
            self.limiter.grant(&mut state, self.account)
        };
        send(granted);
        self.priority = priority;
    }
}

impl Drop for PermitWaiter<'_> {
    fn drop(&mut self) {
        let granted = {
            let mut state = self.limiter.state.lock();
            let Some(permits) = state.accounts.get_mut(self.account) else { return };
            permits.queue.remove(self.priority, self.lane.namespace(), self.id);
            // One namespace less that waits may permit more to another.
            self.limiter.grant(&mut state, self.account)
        };
        send(granted);
    }
}

fn send(granted: Vec<(oneshot::Sender<Permit>, Permit)>) {
    for (waiter, permit) in granted {
        drop(waiter.send(permit));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn due(namespace: &str) -> Lane {
        Lane::new(namespace, Priority::Due)
    }

    fn urgent(namespace: &str) -> Lane {
        Lane::new(namespace, Priority::Urgent)
    }

    fn acquire_all(limiter: &AccountLimiter, account: &str, lane: &Lane) -> Vec<Permit> {
        std::iter::from_fn(|| limiter.acquire(account, lane).now_or_never()?).collect()
    }

    #[test]
    fn unresponsive_account_takes_no_permits_of_others() {
        let limiter = AccountLimiter::new(16);
        let unresponsive = acquire_all(&limiter, "unresponsive", &due("a"));
        assert_eq!(unresponsive.len(), 16);
        for other in 0..50 {
            let permits = acquire_all(&limiter, &other.to_string(), &due("a"));
            assert_eq!(permits.len(), 16, "every account has its full share");
        }
        let waiting = limiter.acquire("unresponsive", &due("a")).now_or_never();
        assert!(waiting.is_none(), "no account has more than its share");
    }

    #[tokio::test]
    async fn permits_are_shared_by_namespace() {
        let limiter = AccountLimiter::new(4);
        let mut held = acquire_all(&limiter, "a", &due("hostile"));
        let (hostile, other) = (due("hostile"), due("other"));
        let mut flood: Vec<_> = (0..120).map(|_| Box::pin(limiter.acquire("a", &hostile))).collect();
        for waiting in &mut flood {
            assert!(waiting.now_or_never().is_none());
        }
        let mut others: Vec<_> = (0..3).map(|_| Box::pin(limiter.acquire("a", &other))).collect();
        for waiting in &mut others {
            assert!(waiting.now_or_never().is_none());
        }
        held.truncate(2);
        let served: Vec<_> = others.iter_mut().filter_map(|waiting| waiting.now_or_never()?).collect();
        assert_eq!(served.len(), 2, "the first permits are of the other namespace");
        assert!(flood.iter_mut().all(|waiting| waiting.now_or_never().is_none()), "half of the permits is the limit");
    }

    #[tokio::test]
    async fn urgent_reconcile_waits_for_none_that_runs() {
        let limiter = AccountLimiter::new(4);
        let _held = acquire_all(&limiter, "a", &due("hostile"));
        let held_urgent = acquire_all(&limiter, "a", &urgent("hostile"));
        assert_eq!(held_urgent.len(), 1, "a reserved permit is left to others");
        assert!(limiter.acquire("a", &urgent("other")).now_or_never().flatten().is_some());
        assert!(limiter.acquire("a", &due("other")).now_or_never().is_none());
    }

    #[tokio::test]
    async fn waiting_reconcile_that_becomes_urgent_is_served() {
        let limiter = AccountLimiter::new(2);
        let _held = acquire_all(&limiter, "a", &due("hostile"));
        let lane = due("other");
        let mut waiting = Box::pin(limiter.acquire("a", &lane));
        assert!((&mut waiting).now_or_never().is_none());
        lane.raise(Priority::Urgent);
        assert!(waiting.now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn callers_of_a_namespace_are_served_in_order() {
        let limiter = AccountLimiter::new(1);
        let lane = due("n");
        let held = limiter.acquire("a", &lane).await.unwrap();
        let (mut first, mut second) = (Box::pin(limiter.acquire("a", &lane)), Box::pin(limiter.acquire("a", &lane)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        assert!((&mut second).now_or_never().is_none());
        drop(first.await.unwrap());
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn cancelled_caller_leaves_its_permit_to_the_next() {
        let limiter = AccountLimiter::new(1);
        let lane = due("n");
        let held = limiter.acquire("a", &lane).await.unwrap();
        let (mut before, mut after) = (Box::pin(limiter.acquire("a", &lane)), Box::pin(limiter.acquire("a", &lane)));
        assert!((&mut before).now_or_never().is_none() && (&mut after).now_or_never().is_none());
        drop(after);
        let mut next = Box::pin(limiter.acquire("a", &lane));
        assert!((&mut next).now_or_never().is_none());
        drop(held);
        // It has a permit and has not received it.
        drop(before);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn unused_accounts_are_dropped() {
        let limiter = AccountLimiter::new(2);
        let held = limiter.acquire("busy", &due("n")).await.unwrap();
        drop(limiter.acquire("unused", &due("n")).await.unwrap());
        drop(limiter.acquire("new", &due("n")).await.unwrap());
        let mut accounts: Vec<_> = limiter.0.state.lock().accounts.keys().cloned().collect();
        accounts.sort();
        assert_eq!(accounts, ["busy", "new"]);
        drop(held);
    }

    #[tokio::test]
    async fn closed_limiter_refuses_callers_and_lets_holders_finish() {
        let limiter = AccountLimiter::new(1);
        let lane = due("n");
        let held = limiter.acquire("a", &lane).await.unwrap();
        let mut waiting = Box::pin(limiter.acquire("a", &lane));
        assert!((&mut waiting).now_or_never().is_none());
        limiter.close();
        assert!(waiting.await.is_none());
        drop(held);
        assert!(limiter.acquire("a", &lane).await.is_none() && limiter.acquire("b", &lane).await.is_none());
    }
}
