//! Bounded task set; aborts the oldest task when full.

use std::{collections::VecDeque, future::Future};

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Runs at most `max_tasks` tasks. When full, a new task replaces the oldest one, so that clients that never finish do not
/// block new ones.
pub(super) struct BoundedTasks<T> {
    max_tasks: usize,
    tasks: JoinSet<T>,
    oldest_first: VecDeque<AbortHandle>,
}

impl<T: Send + 'static> BoundedTasks<T> {
    pub(super) fn new(max_tasks: usize) -> Self {
        Self { max_tasks, tasks: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= self.max_tasks
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(task));
    }

    /// The result of the next task that ends or is aborted; `None` without tasks.
    pub(super) async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.join_next().await
    }
}
