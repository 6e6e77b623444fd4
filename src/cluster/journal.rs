//! The journal Secret: intent, lock, fence and durable next key of one attempt.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use secrecy::ExposeSecret;

use super::{
    error::ClusterError,
    secrets::{SecretSnapshot, Secrets},
};
use crate::{
    api::{MANAGER, well_known},
    domain::{
        journal::{Journal, JournalError},
        owner::label_value,
        secret::{KeyMaterial, SecretContent},
        target::Target,
    },
};

const JOURNAL: &str = "journal";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// A journal as a pass has read it.
pub struct JournalSnapshot {
    held: SecretSnapshot,
    /// What it says, or why it cannot be read.
    pub journal: Result<Journal, JournalError>,
}

/// The journal of one resource.
pub struct JournalStore<'a> {
    secrets: Secrets,
    target: &'a Target,
}

impl JournalSnapshot {
    fn of(held: SecretSnapshot) -> Self {
        let journal =
            held.content().data.get(JOURNAL).map_or(Err(JournalError::Unreadable), |bytes| Journal::decode(bytes));
        Self { held, journal }
    }

    /// When the journal Secret was made, by the clock of the API server.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.held.created_at()
    }

    /// UID of the journal Secret: the name of the attempt.
    #[must_use]
    pub fn id(&self) -> &str {
        self.held.uid()
    }

    /// `None` if it is ours, else whose it is.
    #[must_use]
    pub fn ownership_conflict(&self, owner_uid: &str) -> Option<String> {
        self.held.ownership_conflict(owner_uid)
    }

    /// The staged key with this id, if the journal holds it.
    #[must_use]
    pub fn staged_key(&self, key_id: &str) -> Option<KeyMaterial> {
        let secret =
            self.held.content().data.remove(SECRET_ACCESS_KEY).and_then(|bytes| String::from_utf8(bytes).ok())?;
        Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
    }
}

impl<'a> JournalStore<'a> {
    /// The journal of the resource with these names.
    #[must_use]
    pub fn new(client: Client, target: &'a Target) -> Self {
        Self { secrets: Secrets::new(client, &target.owner.namespace), target }
    }

    /// Reads the journal live.
    pub async fn get(&self) -> Result<Option<JournalSnapshot>, ClusterError> {
        Ok(self.secrets.get(&self.target.journal_name).await?.map(JournalSnapshot::of))
    }

    /// Begins an attempt. Atomic: whoever comes second gets `AlreadyExists` and starts over.
    pub async fn begin(&self, journal: &Journal, owner: OwnerReference) -> Result<JournalSnapshot, ClusterError> {
        self.secrets
            .create(&self.target.journal_name, owner, &self.content(journal, None))
            .await
            .map(JournalSnapshot::of)
    }

    /// Writes the next state, on condition that the journal is as it was read.
    pub async fn replace(
        &self,
        attempt: &JournalSnapshot,
        journal: &Journal,
        key: Option<&KeyMaterial>,
    ) -> Result<JournalSnapshot, ClusterError> {
        self.secrets.replace(&attempt.held, &self.content(journal, key)).await.map(JournalSnapshot::of)
    }

    /// Ends the attempt, on condition that the journal is as it was read.
    pub async fn close(&self, attempt: &JournalSnapshot) -> Result<(), ClusterError> {
        self.secrets.delete(&attempt.held).await
    }

    fn content(&self, journal: &Journal, key: Option<&KeyMaterial>) -> SecretContent {
        let mut data = BTreeMap::from([(JOURNAL.to_owned(), journal.encode())]);
        if let Some(key) = key {
            data.insert(SECRET_ACCESS_KEY.to_owned(), key.secret.expose_secret().as_bytes().to_vec());
        }
        SecretContent {
            labels: BTreeMap::from([
                (well_known::LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned()),
                (well_known::LABEL_ROLE.to_owned(), "journal".to_owned()),
                (well_known::LABEL_USER.to_owned(), label_value(&self.target.owner.name)),
            ]),
            annotations: BTreeMap::new(),
            data,
        }
    }
}
