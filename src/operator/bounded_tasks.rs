//! Work for strangers, of which there is only so much at a time.

use std::{collections::VecDeque, future::Future};

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Tasks, at most so many at the same time: for one more the oldest has to go. Who waits and never ends keeps nobody out.
pub(super) struct BoundedTasks<T> {
    most: usize,
    tasks: JoinSet<T>,
    oldest_first: VecDeque<AbortHandle>,
}

impl<T: Send + 'static> BoundedTasks<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    pub(super) fn admit(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= self.most
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(task));
    }

    /// The next one that has ended, or was sent away; `None` if there is nobody.
    pub(super) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.join_next().await
    }
}
