//! The journal Secret: intent, lock, fence and durable storage of the next key of one rotation attempt.

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
    api::well_known,
    domain::{
        journal::{Journal, JournalError},
        owner::label_value,
        secret::{KeyMaterial, SecretContent},
        target::Target,
    },
};

const JOURNAL: &str = "journal";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// The journal Secret at the time it was read.
pub struct JournalSnapshot {
    snapshot: SecretSnapshot,
    /// The decoded journal.
    pub journal: Result<Journal, JournalError>,
}

/// Reads and writes the journal of one resource.
pub struct JournalStore<'a> {
    secrets: Secrets,
    target: &'a Target,
}

impl JournalSnapshot {
    fn from_secret(snapshot: SecretSnapshot) -> Self {
        let journal =
            snapshot.content().data.get(JOURNAL).map_or(Err(JournalError::Unreadable), |bytes| Journal::decode(bytes));
        Self { snapshot, journal }
    }

    /// When the Secret was created, by the clock of the API server.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.snapshot.created_at()
    }

    /// UID of the Secret, which identifies the attempt.
    #[must_use]
    pub fn id(&self) -> &str {
        self.snapshot.uid()
    }

    /// See [`SecretSnapshot::ownership_conflict`].
    #[must_use]
    pub fn ownership_conflict(&self, owner_uid: &str) -> Option<String> {
        self.snapshot.ownership_conflict(owner_uid)
    }

    /// The staged key with this id, if the journal stores its secret.
    #[must_use]
    pub fn staged_key(&self, key_id: &str) -> Option<KeyMaterial> {
        let secret =
            self.snapshot.content().data.remove(SECRET_ACCESS_KEY).and_then(|bytes| String::from_utf8(bytes).ok())?;
        Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
    }
}

impl<'a> JournalStore<'a> {
    #[must_use]
    pub fn new(client: Client, target: &'a Target) -> Self {
        Self { secrets: Secrets::new(client, &target.owner.namespace), target }
    }

    /// Reads the journal from the API server.
    pub async fn get(&self) -> Result<Option<JournalSnapshot>, ClusterError> {
        Ok(self.secrets.get(&self.target.journal_name).await?.map(JournalSnapshot::from_secret))
    }

    /// Starts an attempt. Not idempotent, which makes it the lock: a concurrent second start gets `AlreadyExists`.
    pub async fn begin(&self, journal: &Journal, owner: OwnerReference) -> Result<JournalSnapshot, ClusterError> {
        self.secrets
            .create(&self.target.journal_name, owner, &self.content(journal, None))
            .await
            .map(JournalSnapshot::from_secret)
    }

    /// Writes the next state. `Conflict` if the journal changed since it was read.
    pub async fn replace(
        &self,
        attempt: &JournalSnapshot,
        journal: &Journal,
        key: Option<&KeyMaterial>,
    ) -> Result<JournalSnapshot, ClusterError> {
        self.secrets.replace(&attempt.snapshot, &self.content(journal, key)).await.map(JournalSnapshot::from_secret)
    }

    /// Ends the attempt by deleting the journal. `Conflict` if it changed since it was read; one that does not exist is no
    /// error.
    pub async fn close(&self, attempt: &JournalSnapshot) -> Result<(), ClusterError> {
        self.secrets.delete(&attempt.snapshot).await
    }

    fn content(&self, journal: &Journal, key: Option<&KeyMaterial>) -> SecretContent {
        let mut data = BTreeMap::from([(JOURNAL.to_owned(), journal.encode())]);
        if let Some(key) = key {
            data.insert(SECRET_ACCESS_KEY.to_owned(), key.secret.expose_secret().as_bytes().to_vec());
        }
        SecretContent {
            labels: BTreeMap::from([
                (well_known::LABEL_ROLE.to_owned(), "journal".to_owned()),
                (well_known::LABEL_USER.to_owned(), label_value(&self.target.owner.name)),
            ]),
            annotations: BTreeMap::new(),
            data,
        }
    }
}
