//! The journal Secret: intent, lock, fence and durable next key of one attempt.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use secrecy::ExposeSecret;

use super::{
    error::ClusterError,
    secrets::{Held, Secrets},
};
use crate::{
    api::{MANAGER, mark},
    domain::{
        journal::{Journal, JournalError},
        owner::label_value,
        secret::{Content, KeyMaterial},
        target::Target,
    },
};

const JOURNAL: &str = "journal";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// A journal as a pass has read it.
pub struct Attempt {
    held: Held,
    /// What it says, or why it cannot be read.
    pub journal: Result<Journal, JournalError>,
}

/// The journal of one resource.
pub struct Journals<'a> {
    secrets: Secrets,
    target: &'a Target,
}

impl Attempt {
    fn of(held: Held) -> Self {
        let journal =
            held.content().data.get(JOURNAL).map_or(Err(JournalError::Unreadable), |bytes| Journal::decode(bytes));
        Self { held, journal }
    }

    /// When the journal Secret was made, by the clock of the API server.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        self.held.made_at()
    }

    /// UID of the journal Secret: the name of the attempt.
    #[must_use]
    pub fn id(&self) -> &str {
        self.held.uid()
    }

    /// `None` if it is ours, else whose it is.
    #[must_use]
    pub fn foreign_to(&self, owner_uid: &str) -> Option<String> {
        self.held.foreign_to(owner_uid)
    }

    /// The staged key with this id, if the journal holds it.
    #[must_use]
    pub fn staged(&self, key_id: &str) -> Option<KeyMaterial> {
        let secret =
            self.held.content().data.remove(SECRET_ACCESS_KEY).and_then(|bytes| String::from_utf8(bytes).ok())?;
        Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
    }
}

impl<'a> Journals<'a> {
    /// The journal of the resource with these names.
    #[must_use]
    pub fn new(client: Client, target: &'a Target) -> Self {
        Self { secrets: Secrets::new(client, &target.owner.namespace), target }
    }

    /// Reads the journal live.
    pub async fn get(&self) -> Result<Option<Attempt>, ClusterError> {
        Ok(self.secrets.get(&self.target.journal_name).await?.map(Attempt::of))
    }

    /// Begins an attempt. Atomic: whoever comes second gets `AlreadyExists` and starts over.
    pub async fn begin(&self, journal: &Journal, owner: OwnerReference) -> Result<Attempt, ClusterError> {
        self.secrets.create(&self.target.journal_name, owner, &self.content(journal, None)).await.map(Attempt::of)
    }

    /// Writes the next state, on condition that the journal is as it was read.
    pub async fn replace(
        &self,
        attempt: &Attempt,
        journal: &Journal,
        key: Option<&KeyMaterial>,
    ) -> Result<Attempt, ClusterError> {
        self.secrets.replace(&attempt.held, &self.content(journal, key)).await.map(Attempt::of)
    }

    /// Ends the attempt, on condition that the journal is as it was read.
    pub async fn close(&self, attempt: &Attempt) -> Result<(), ClusterError> {
        self.secrets.delete(&attempt.held).await
    }

    fn content(&self, journal: &Journal, key: Option<&KeyMaterial>) -> Content {
        let mut data = BTreeMap::from([(JOURNAL.to_owned(), journal.encode())]);
        if let Some(key) = key {
            data.insert(SECRET_ACCESS_KEY.to_owned(), key.secret.expose_secret().as_bytes().to_vec());
        }
        Content {
            labels: BTreeMap::from([
                (mark::LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned()),
                (mark::LABEL_ROLE.to_owned(), "journal".to_owned()),
                (mark::LABEL_USER.to_owned(), label_value(&self.target.owner.name)),
            ]),
            annotations: BTreeMap::new(),
            data,
        }
    }
}
