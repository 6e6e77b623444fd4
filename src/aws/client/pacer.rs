//! The order and pace of the calls to one account.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{lane::Lane, token_bucket::TokenBucket};
use crate::domain::fair_queue::{FairQueue, Priority};

/// Makes calls wait for the rate limit, and serves them by priority and namespace.
pub(crate) struct Pacer(Mutex<PacerState>);

struct PacerState {
    bucket: TokenBucket,
    queue: FairQueue<oneshot::Sender<()>>,
    /// A task serves the queue.
    is_driven: bool,
}

impl Pacer {
    pub(crate) fn new(bucket: TokenBucket) -> Self {
        Self(Mutex::new(PacerState { bucket, queue: FairQueue::default(), is_driven: false }))
    }

    /// Waits until a call may be made. A caller that is cut off leaves its turn to the next.
    pub(super) async fn wait(self: &Arc<Self>, lane: &Lane) {
        let mut priority = lane.priority();
        let Some(mut waiter) = CallWaiter::enqueue(self, lane, priority) else { return };
        loop {
            tokio::select! {
                biased;
                _ = &mut waiter.served => return,
                () = lane.raised_above(priority) => {
                    priority = lane.priority();
                    waiter.requeue(priority);
                }
            }
        }
    }

    pub(super) fn slow_down(&self, now: Instant) {
        self.0.lock().bucket.slow_down(now);
    }

    pub(super) fn recover(&self) {
        self.0.lock().bucket.recover();
    }

    /// Serves what the rate permits. Returns the time until the next token, or `None` if nothing waits any more.
    fn serve(&self, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock();
        loop {
            if state.queue.is_empty() {
                state.is_driven = false;
                return None;
            }
            let wait = state.bucket.wait(now);
            if !wait.is_zero() {
                return Some(wait);
            }
            // A caller that was cut off takes no token.
            if let Some((_, _, waiter)) = state.queue.pop(|_, _| true)
                && waiter.send(()).is_ok()
            {
                state.bucket.take(now);
            }
        }
    }

    async fn drive(self: Arc<Self>) {
        while let Some(wait) = self.serve(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }
}

struct CallWaiter<'a> {
    pacer: &'a Pacer,
    lane: &'a Lane,
    priority: Priority,
    id: u64,
    served: oneshot::Receiver<()>,
}

impl<'a> CallWaiter<'a> {
    /// `None`: the call needs not wait.
    fn enqueue(pacer: &'a Arc<Pacer>, lane: &'a Lane, priority: Priority) -> Option<Self> {
        let now = Instant::now();
        let (sender, served) = oneshot::channel();
        let mut state = pacer.0.lock();
        if state.queue.is_empty() && state.bucket.wait(now).is_zero() {
            state.bucket.take(now);
            return None;
        }
        let id = state.queue.push(priority, lane.namespace(), sender);
        if !std::mem::replace(&mut state.is_driven, true) {
            tokio::spawn(Arc::clone(pacer).drive());
        }
        Some(Self { pacer, lane, priority, id, served })
    }

    fn requeue(&mut self, priority: Priority) {
        let mut state = self.pacer.0.lock();
        if let Some(sender) = state.queue.remove(self.priority, self.lane.namespace(), self.id) {
            self.id = state.queue.push(priority, self.lane.namespace(), sender);
        }
        self.priority = priority;
    }
}

impl Drop for CallWaiter<'_> {
    fn drop(&mut self) {
        self.pacer.0.lock().queue.remove(self.priority, self.lane.namespace(), self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

    use super::*;

    /// A pacer without burst.
    fn pacer(calls_per_second: f64) -> Arc<Pacer> {
        let mut bucket = TokenBucket::new(calls_per_second, Instant::now());
        while bucket.wait(Instant::now()).is_zero() {
            bucket.take(Instant::now());
        }
        Arc::new(Pacer::new(bucket))
    }

    #[tokio::test]
    async fn urgent_call_is_made_before_all_that_wait() {
        let pacer = pacer(200.0);
        let (other, urgent) = (Lane::new("a", Priority::Due), Lane::new("b", Priority::Urgent));
        let waits = FuturesUnordered::new();
        let wait = |number, lane| {
            let pacer = Arc::clone(&pacer);
            async move {
                pacer.wait(&lane).await;
                number
            }
        };
        (0..10).for_each(|number| waits.push(wait(number, other.clone())));
        waits.push(wait(10, Lane::new("c", Priority::Due)));
        waits.push(wait(11, urgent));
        let order: Vec<i32> = waits.collect().await;
        assert_eq!(order[..3], [11, 0, 10], "urgent first, then the namespaces in turn: {order:?}");
    }

    #[tokio::test]
    async fn raised_priority_moves_a_waiting_call_ahead() {
        let pacer = pacer(50.0);
        let (other, raised) = (Lane::new("a", Priority::Due), Lane::new("b", Priority::Background));
        let others: Vec<_> = (0..5).map(|_| Box::pin(pacer.wait(&other))).collect();
        let mut others = futures::future::select_all(others);
        let mut waiting = Box::pin(pacer.wait(&raised));
        assert!((&mut others).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
        raised.raise(Priority::Urgent);
        tokio::select! {
            biased;
            _ = others => panic!("another call was made first"),
            () = waiting => {}
        }
    }

    #[tokio::test]
    async fn cancelled_call_takes_no_token() {
        let pacer = pacer(50.0);
        let lane = Lane::new("a", Priority::Due);
        let mut cancelled = Box::pin(pacer.wait(&lane));
        assert!((&mut cancelled).now_or_never().is_none());
        drop(cancelled);
        assert!(pacer.0.lock().queue.is_empty());
        pacer.wait(&lane).await;
    }
}
