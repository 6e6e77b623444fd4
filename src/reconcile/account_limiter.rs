//! Bounds concurrent reconciles per AWS account.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits for reconciles, a fixed number for each account, so that an account that does not respond delays only its own.
pub(super) struct AccountLimiter {
    permits_per_account: usize,
    state: Mutex<LimiterState>,
}

#[derive(Default)]
struct LimiterState {
    accounts: HashMap<String, Arc<Semaphore>>,
    closed: bool,
}

/// The right to reconcile one resource of an account; returned when dropped.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
    /// The resource and its class may have changed since the permit was asked for.
    pub(super) waited: bool,
}

impl AccountLimiter {
    pub(super) fn new(permits_per_account: usize) -> Self {
        Self { permits_per_account: permits_per_account.max(1), state: Mutex::default() }
    }

    /// Waits for a permit; first come, first served. `None` once the limiter is closed.
    pub(super) async fn acquire(&self, account: &str) -> Option<Permit> {
        let semaphore = self.semaphore(account)?;
        if let Ok(permit) = Arc::clone(&semaphore).try_acquire_owned() {
            return Some(Permit { _permit: permit, waited: false });
        }
        semaphore.acquire_owned().await.ok().map(|permit| Permit { _permit: permit, waited: true })
    }

    /// Issues no further permits and wakes all callers that wait for one. Reconciles that hold one finish.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.accounts.values().for_each(|semaphore| semaphore.close());
    }

    fn semaphore(&self, account: &str) -> Option<Arc<Semaphore>> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        if let Some(semaphore) = state.accounts.get(account) {
            return Some(Arc::clone(semaphore));
        }
        // Accounts come and go with classes: an idle one is dropped when another appears.
        let permits = self.permits_per_account;
        state
            .accounts
            .retain(|_, semaphore| Arc::strong_count(semaphore) > 1 || semaphore.available_permits() < permits);
        let semaphore = Arc::new(Semaphore::new(permits));
        state.accounts.insert(account.to_owned(), Arc::clone(&semaphore));
        Some(semaphore)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn acquire_all(limiter: &AccountLimiter, account: &str) -> Vec<Permit> {
        std::iter::from_fn(|| limiter.acquire(account).now_or_never()?).collect()
    }

    #[test]
    fn unresponsive_account_takes_no_permits_of_others() {
        let limiter = AccountLimiter::new(16);
        let unresponsive = acquire_all(&limiter, "unresponsive");
        assert_eq!(unresponsive.len(), 16);
        for other in 0..50 {
            assert_eq!(acquire_all(&limiter, &other.to_string()).len(), 16, "every account has its full share");
        }
        assert!(limiter.acquire("unresponsive").now_or_never().is_none(), "no account has more than its share");
    }

    #[tokio::test]
    async fn callers_are_served_in_order_and_learn_that_they_waited() {
        let limiter = AccountLimiter::new(1);
        let held = limiter.acquire("a").await.unwrap();
        assert!(!held.waited);
        let (mut first, mut second) = (Box::pin(limiter.acquire("a")), Box::pin(limiter.acquire("a")));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        assert!((&mut second).now_or_never().is_none());
        let permit = first.await.unwrap();
        assert!(permit.waited);
        drop(permit);
        assert!(second.await.unwrap().waited);
    }

    #[tokio::test]
    async fn cancelled_caller_leaves_its_permit_to_the_next() {
        let limiter = AccountLimiter::new(1);
        let held = limiter.acquire("a").await.unwrap();
        let mut cancelled = Box::pin(limiter.acquire("a"));
        assert!((&mut cancelled).now_or_never().is_none());
        let next = limiter.acquire("a");
        drop(cancelled);
        drop(held);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn idle_accounts_are_dropped() {
        let limiter = AccountLimiter::new(2);
        let held = limiter.acquire("busy").await.unwrap();
        drop(limiter.acquire("idle").await.unwrap());
        drop(limiter.acquire("new").await.unwrap());
        let mut accounts: Vec<_> = limiter.state.lock().accounts.keys().cloned().collect();
        accounts.sort();
        assert_eq!(accounts, ["busy", "new"]);
        drop(held);
    }

    #[tokio::test]
    async fn closed_limiter_refuses_callers_and_lets_holders_finish() {
        let limiter = AccountLimiter::new(1);
        let held = limiter.acquire("a").await.unwrap();
        let mut waiting = Box::pin(limiter.acquire("a"));
        assert!((&mut waiting).now_or_never().is_none());
        limiter.close();
        assert!(waiting.await.is_none());
        drop(held);
        assert!(limiter.acquire("a").await.is_none() && limiter.acquire("b").await.is_none());
    }
}
