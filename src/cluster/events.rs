//! Events: few, at transitions only, in the past tense.

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::api::{AwsDeployUser, MANAGER, Reason};

/// Notes of Events end at one kilobyte.
const NOTE_LIMIT: usize = 1024;

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    /// What it is about.
    pub reason: Reason,
    /// The sentence.
    pub note: String,
    /// Somebody has to look at it.
    pub warning: bool,
}

/// Writes Events.
#[derive(Clone)]
pub struct Events {
    client: Client,
}

impl Events {
    /// Events of this operator.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Tells one piece of news. A failure is logged and forgotten: an Event is a courtesy, no record.
    pub async fn publish(&self, user: &AwsDeployUser, news: &PendingEvent) {
        let event = Event {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason.as_str().to_owned(),
            note: Some(clip(&news.note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // A recorder of its own for each piece: one that is kept counts repeats of a reason and drops
        // their notes, but which key was published is the very point of the second note.
        let recorder = Recorder::new(self.client.clone(), Reporter { controller: MANAGER.to_owned(), instance: None });
        if let Err(error) = recorder.publish(&event, &user.object_ref(&())).await {
            tracing::debug!(%error, reason = %news.reason, "an Event could not be written");
        }
    }
}

fn clip(note: &str) -> String {
    if note.len() <= NOTE_LIMIT {
        return note.to_owned();
    }
    let end = (0..=NOTE_LIMIT - 3).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    format!("{}...", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_end_at_a_kilobyte_and_never_inside_a_character() {
        let clipped = clip(&"ü".repeat(1000));
        assert!(clipped.len() <= NOTE_LIMIT && clipped.ends_with("ü..."));
        assert_eq!(clip("short"), "short");
    }
}
