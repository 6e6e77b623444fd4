//! Kubernetes Events: at transitions only, in the past tense.

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::error::ClusterError;
use crate::api::{AwsDeployUser, MANAGER, Reason};

/// Limit of `note` in the Events API.
const MAX_NOTE_BYTES: usize = 1024;

/// An Event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    pub reason: Reason,
    /// One sentence in the past tense.
    pub note: String,
    /// Type `Warning`: needs attention.
    pub warning: bool,
}

/// Publishes Events.
#[derive(Clone)]
pub struct Events {
    client: Client,
}

impl Events {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Publishes an Event. Best effort; failures are logged.
    pub async fn publish(&self, user: &AwsDeployUser, pending: &PendingEvent) {
        let event = Event {
            type_: if pending.warning { EventType::Warning } else { EventType::Normal },
            reason: pending.reason.as_str().to_owned(),
            note: Some(truncate(&pending.note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // A shared recorder would aggregate Events of the same reason and drop their notes, which differ: they name the key.
        let recorder = Recorder::new(self.client.clone(), Reporter { controller: MANAGER.to_owned(), instance: None });
        if let Err(error) = recorder.publish(&event, &user.object_ref(&())).await {
            let error = ClusterError::new("create Event".to_owned(), &error);
            tracing::debug!(%error, reason = %pending.reason, "failed to publish Event");
        }
    }
}

fn truncate(note: &str) -> String {
    if note.len() <= MAX_NOTE_BYTES {
        return note.to_owned();
    }
    let end = (0..=MAX_NOTE_BYTES - 3).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    format!("{}...", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_note_is_truncated_at_a_character_boundary() {
        let truncated = truncate(&"ü".repeat(1000));
        assert!(truncated.len() <= MAX_NOTE_BYTES && truncated.ends_with("ü..."));
        assert_eq!(truncate("short"), "short");
    }
}
