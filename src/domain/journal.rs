//! The journal of one key attempt: intent, lock, fence and durable next key in one object.
//!
//! It is the `data.journal` of a Secret `<name>.awsdeploy-journal` that exists only while an
//! attempt is under way. The protocol that it carries is in `docs/rotation.md`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dates;

/// The format this version writes and reads.
pub const FORMAT: u32 = 1;

/// What the journal says, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// When the attempt began, on AWS's clock, floored to the second because `CreateDate` is.
    pub started_at: Timestamp,
    /// The rotate request that the attempt honours.
    pub rotate_request: Option<String>,
    /// Earlier target Secret that the attempt leaves behind, and the key in it.
    pub previous_secret: Option<(String, String)>,
    /// How far the attempt has come.
    pub phase: AttemptPhase,
}

/// How far an attempt has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptPhase {
    /// `CreateAccessKey` is about to be called, or was called and its answer is lost.
    Intent {
        /// Keys that the user had before; they are not of this attempt.
        known: Vec<String>,
    },
    /// The new key is in the journal.
    Keyed {
        /// Its id. The secret is in the journal Secret and stays there.
        key_id: String,
        /// When it was written down.
        keyed_at: Timestamp,
    },
    /// The attempt is given up. Whoever still acts on it finds its next conditional write refused.
    Abandoned {
        /// Keys to delete, unless one of them is published.
        orphans: Vec<String>,
    },
}

/// Why a journal cannot be read. Carries no content: the journal may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Written by a newer version.
    #[error(
        "the journal has format {0}; this version knows format {FORMAT}. Run the newer operator until the attempt has ended, or delete the journal Secret after making sure that no access key of this user is orphaned"
    )]
    Format(u32),
    /// Not a journal at all.
    #[error(
        "the journal Secret holds no readable journal. If nobody needs it, delete it; the next pass then starts over"
    )]
    Unreadable,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    format: u32,
    mode: StoredMode,
    started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotate_request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous_secret: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    known: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    orphans: Vec<String>,
}

#[derive(Serialize, Deserialize)]
enum StoredMode {
    Intent,
    Keyed,
    Abandoned,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Journal {
    /// Whether the journal speaks of this key as one of its attempt.
    #[must_use]
    pub fn references_key(&self, id: &str) -> bool {
        match &self.phase {
            AttemptPhase::Intent { .. } => false,
            AttemptPhase::Keyed { key_id, .. } => key_id == id,
            AttemptPhase::Abandoned { orphans } => orphans.iter().any(|orphan| orphan == id),
        }
    }

    /// The same, as far as its dates can be believed of a Secret that was made at this time.
    #[must_use]
    pub fn with_bounded_dates(mut self, secret_made_at: Option<Timestamp>, now: Timestamp) -> Self {
        self.started_at = dates::bounded_journal_time(self.started_at, secret_made_at, now);
        if let AttemptPhase::Keyed { keyed_at, .. } = &mut self.phase {
            *keyed_at = dates::bounded_journal_time(*keyed_at, secret_made_at, now);
        }
        self
    }

    /// When its key was made, if it holds one.
    #[must_use]
    pub fn keyed_at(&self) -> Option<Timestamp> {
        match &self.phase {
            AttemptPhase::Keyed { keyed_at, .. } => Some(*keyed_at),
            AttemptPhase::Intent { .. } | AttemptPhase::Abandoned { .. } => None,
        }
    }

    /// The form in the Secret.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut stored = Stored {
            format: FORMAT,
            mode: StoredMode::Intent,
            started_at: self.started_at,
            rotate_request: self.rotate_request.clone(),
            previous_secret: self.previous_secret.clone(),
            known: Vec::new(),
            key_id: None,
            keyed_at: None,
            orphans: Vec::new(),
        };
        match &self.phase {
            AttemptPhase::Intent { known } => stored.known.clone_from(known),
            AttemptPhase::Keyed { key_id, keyed_at } => {
                stored.mode = StoredMode::Keyed;
                stored.key_id = Some(key_id.clone());
                stored.keyed_at = Some(*keyed_at);
            }
            AttemptPhase::Abandoned { orphans } => {
                stored.mode = StoredMode::Abandoned;
                stored.orphans.clone_from(orphans);
            }
        }
        // Strings, numbers and times only: serialisation has no way to fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads the form in the Secret.
    ///
    /// # Errors
    /// When the format is another, or the content is no journal. The error holds none of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let FormatOnly { format } = serde_json::from_slice(bytes).map_err(|_| JournalError::Unreadable)?;
        if format != FORMAT {
            return Err(JournalError::Format(format));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| JournalError::Unreadable)?;
        let phase = match stored.mode {
            StoredMode::Intent => AttemptPhase::Intent { known: stored.known },
            StoredMode::Keyed => AttemptPhase::Keyed {
                key_id: stored.key_id.ok_or(JournalError::Unreadable)?,
                keyed_at: stored.keyed_at.ok_or(JournalError::Unreadable)?,
            },
            StoredMode::Abandoned => AttemptPhase::Abandoned { orphans: stored.orphans },
        };
        Ok(Self {
            started_at: stored.started_at,
            rotate_request: stored.rotate_request,
            previous_secret: stored.previous_secret,
            phase,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(phase: AttemptPhase) -> Journal {
        Journal {
            started_at: "2026-11-21T10:00:00Z".parse().unwrap(),
            rotate_request: Some("now".into()),
            previous_secret: Some(("old".into(), "AKIAOLD".into())),
            phase,
        }
    }

    #[test]
    fn every_mode_survives_the_way_through_the_secret() {
        for phase in [
            AttemptPhase::Intent { known: vec!["AKIA1".into()] },
            AttemptPhase::Keyed { key_id: "AKIA2".into(), keyed_at: "2026-11-21T10:00:01Z".parse().unwrap() },
            AttemptPhase::Abandoned { orphans: vec!["AKIA2".into(), "AKIA3".into()] },
        ] {
            let journal = journal(phase);
            assert_eq!(Journal::decode(&journal.encode()), Ok(journal));
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_rubbish() {
        assert_eq!(Journal::decode(br#"{"format":2,"mode":"Sharded"}"#), Err(JournalError::Format(2)));
        assert_eq!(Journal::decode(b"hello"), Err(JournalError::Unreadable));
        assert_eq!(
            Journal::decode(br#"{"format":1,"mode":"Keyed","startedAt":"2026-11-21T10:00:00Z"}"#),
            Err(JournalError::Unreadable),
            "a keyed journal without a key id is no journal"
        );
    }
}
