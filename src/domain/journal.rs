//! Journal of one key attempt: intent, lock, fence and durable copy of the next key in one object.
//!
//! Stored in `data.journal` of the Secret `awsdeploy-journal-<UID of the resource>` in the operator's namespace, which exists
//! only while an attempt is in progress. `docs/rotation.md` describes the protocol.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{dates, owner::is_access_key_id};

/// Version of the format.
pub const FORMAT: u32 = 1;

/// IAM's quota of access keys per user.
const MAX_KEYS: usize = 2;

/// Content of the journal, without the secret access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Start of the attempt on AWS's clock, rounded down to seconds like `CreateDate`.
    pub started_at: Timestamp,
    /// Rotate request that the attempt carries out.
    pub rotate_request: Option<String>,
    pub phase: AttemptPhase,
}

/// Phase of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptPhase {
    /// `CreateAccessKey` is about to be called, or was called and its response was lost.
    Intent {
        /// Keys that the user had before the attempt.
        known: Vec<String>,
    },
    /// The new key is stored in the journal Secret.
    Keyed {
        key_id: String,
        /// When the key was stored.
        keyed_at: Timestamp,
    },
    /// The attempt is abandoned. An operator that still executes it fails at its next conditional write.
    Abandoned {
        /// Keys to delete, except a published one.
        orphans: Vec<String>,
    },
}

/// Error of an unreadable journal. Contains none of its content, which may include a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error(
        "the journal has format {0}, but this version reads format {FORMAT}; run the newer operator until the attempt has ended, or delete the journal Secret after checking that the user has no orphaned access key"
    )]
    Format(u32),
    #[error(
        "the journal Secret names another resource in its annotations; check that the user has no orphaned access key and delete the Secret"
    )]
    OtherResource,
    #[error(
        "the journal Secret contains no readable journal; check that the user has no orphaned access key and delete the Secret, then the next reconcile starts over"
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
    /// Whether this key belongs to the attempt.
    #[must_use]
    pub fn references_key(&self, id: &str) -> bool {
        match &self.phase {
            AttemptPhase::Intent { .. } => false,
            AttemptPhase::Keyed { key_id, .. } => key_id == id,
            AttemptPhase::Abandoned { orphans } => orphans.iter().any(|orphan| orphan == id),
        }
    }

    /// Bounds the dates by the creation time of the journal Secret, see [`dates::bounded_journal_time`].
    #[must_use]
    pub fn with_bounded_dates(mut self, secret_created_at: Option<Timestamp>, now: Timestamp) -> Self {
        self.started_at = dates::bounded_journal_time(self.started_at, secret_created_at, now);
        if let AttemptPhase::Keyed { keyed_at, .. } = &mut self.phase {
            *keyed_at = dates::bounded_journal_time(*keyed_at, secret_created_at, now);
        }
        self
    }

    /// When the key was stored; `None` in the other phases.
    #[must_use]
    pub fn keyed_at(&self) -> Option<Timestamp> {
        match &self.phase {
            AttemptPhase::Keyed { keyed_at, .. } => Some(*keyed_at),
            AttemptPhase::Intent { .. } | AttemptPhase::Abandoned { .. } => None,
        }
    }

    /// Serializes the journal for the Secret.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut stored = Stored {
            format: FORMAT,
            mode: StoredMode::Intent,
            started_at: self.started_at,
            rotate_request: self.rotate_request.clone(),
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
        // Strings, numbers and times only: serialization cannot fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Deserializes the journal from the Secret.
    ///
    /// # Errors
    /// If the format is unknown or the content is not a journal: it names something that cannot be an access key, or more of
    /// them than a user can have.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let FormatOnly { format } = serde_json::from_slice(bytes).map_err(|_| JournalError::Unreadable)?;
        if format != FORMAT {
            return Err(JournalError::Format(format));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| JournalError::Unreadable)?;
        let mut key_ids = stored.known.iter().chain(&stored.key_id).chain(&stored.orphans);
        if stored.orphans.len() > MAX_KEYS || !key_ids.all(|id| is_access_key_id(id)) {
            return Err(JournalError::Unreadable);
        }
        let phase = match stored.mode {
            StoredMode::Intent => AttemptPhase::Intent { known: stored.known },
            StoredMode::Keyed => AttemptPhase::Keyed {
                key_id: stored.key_id.ok_or(JournalError::Unreadable)?,
                keyed_at: stored.keyed_at.ok_or(JournalError::Unreadable)?,
            },
            StoredMode::Abandoned => AttemptPhase::Abandoned { orphans: stored.orphans },
        };
        Ok(Self { started_at: stored.started_at, rotate_request: stored.rotate_request, phase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> String {
        format!("AKIA{number:016}")
    }

    fn journal(phase: AttemptPhase) -> Journal {
        Journal { started_at: "2026-11-21T10:00:00Z".parse().unwrap(), rotate_request: Some("now".into()), phase }
    }

    #[test]
    fn every_phase_round_trips_through_the_secret() {
        for phase in [
            AttemptPhase::Intent { known: vec![key(1)] },
            AttemptPhase::Keyed { key_id: key(2), keyed_at: "2026-11-21T10:00:01Z".parse().unwrap() },
            AttemptPhase::Abandoned { orphans: vec![key(2), key(3)] },
        ] {
            let journal = journal(phase);
            assert_eq!(Journal::decode(&journal.encode()), Ok(journal));
        }
    }

    #[test]
    fn journal_that_names_no_access_key_is_unreadable() {
        let keyed_at = "2026-11-21T10:00:01Z".parse().unwrap();
        let forged = || "awsdeploy.dev/uid".to_owned();
        for phase in [
            AttemptPhase::Intent { known: vec![forged()] },
            AttemptPhase::Keyed { key_id: forged(), keyed_at },
            AttemptPhase::Abandoned { orphans: vec![key(1), forged()] },
            AttemptPhase::Abandoned { orphans: (0..20_000).map(key).collect() },
        ] {
            assert_eq!(Journal::decode(&journal(phase).encode()), Err(JournalError::Unreadable));
        }
    }

    #[test]
    fn newer_format_is_distinguished_from_invalid_content() {
        assert_eq!(Journal::decode(br#"{"format":2,"mode":"Sharded"}"#), Err(JournalError::Format(2)));
        assert_eq!(Journal::decode(b"hello"), Err(JournalError::Unreadable));
        assert_eq!(
            Journal::decode(br#"{"format":1,"mode":"Keyed","startedAt":"2026-11-21T10:00:00Z"}"#),
            Err(JournalError::Unreadable),
            "a keyed journal needs a key id"
        );
    }
}
