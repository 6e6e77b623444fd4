//! For which namespace, and how urgently, calls are made.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::fair_queue::Priority;

/// The lane of one reconcile: waits for permits and calls are ordered by it. Clones share the priority.
#[derive(Clone)]
pub struct Lane {
    namespace: Arc<str>,
    priority: watch::Sender<Priority>,
}

impl Lane {
    /// A lane for a reconcile of this namespace.
    #[must_use]
    pub fn new(namespace: &str, priority: Priority) -> Self {
        Self { namespace: namespace.into(), priority: watch::Sender::new(priority) }
    }

    /// The lane of the operator itself.
    #[must_use]
    pub fn of_operator(priority: Priority) -> Self {
        Self::new("", priority)
    }

    /// The namespace that waits its turn.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The current priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        *self.priority.borrow()
    }

    /// Raises the priority of everything that waits in this lane; never lowers it.
    pub fn raise(&self, priority: Priority) {
        self.priority.send_if_modified(|current| {
            let is_raised = priority < *current;
            *current = priority.min(*current);
            is_raised
        });
    }

    /// Waits until the priority is higher than this one.
    pub async fn raised_above(&self, priority: Priority) {
        // The sender lives as long as `self`: the channel is not closed.
        let _ = self.priority.subscribe().wait_for(|current| *current < priority).await;
    }
}
