//! The journal Secret: intent, lock, fence and durable storage of the next key of one rotation attempt. It is in the operator's
//! namespace, where tenants can neither read nor write it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{
    Client,
    api::{ListParams, ObjectMeta},
};
use secrecy::ExposeSecret;

use super::{
    error::{ClusterError, ClusterErrorKind},
    secrets::{SecretSnapshot, Secrets},
};
use crate::{
    api::{MANAGER, well_known},
    domain::{
        journal::{Journal, JournalError},
        secret::{KeyMaterial, SecretContent},
        stale_journal::JournalRecord,
        target::Target,
    },
};

const JOURNAL: &str = "journal";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";
/// Journals per page of a list; only their metadata is read.
const PAGE_SIZE: u32 = 100;

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

/// Journals of all resources, by their metadata.
pub struct Journals(Secrets);

/// One page of journals.
pub struct JournalPage {
    /// In the order of the API server.
    pub records: Vec<JournalRecord>,
    /// Token of the next page; `None` after the last one.
    pub next: Option<String>,
}

impl JournalSnapshot {
    fn from_secret(snapshot: SecretSnapshot, target: &Target) -> Self {
        let content = snapshot.content();
        let is_of_resource = content.annotations.get(well_known::ANNOTATION_RESOURCE_UID) == Some(&target.owner.uid);
        let journal = if is_of_resource {
            content.data.get(JOURNAL).map_or(Err(JournalError::Unreadable), |bytes| Journal::decode(bytes))
        } else {
            Err(JournalError::OtherResource)
        };
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

    /// The staged key with this id, if the journal stores its secret.
    #[must_use]
    pub fn staged_key(&self, key_id: &str) -> Option<KeyMaterial> {
        let secret =
            self.snapshot.content().data.remove(SECRET_ACCESS_KEY).and_then(|bytes| String::from_utf8(bytes).ok())?;
        Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
    }
}

impl<'a> JournalStore<'a> {
    /// `namespace`: that of the operator.
    #[must_use]
    pub fn new(client: Client, namespace: &str, target: &'a Target) -> Self {
        Self { secrets: Secrets::new(client, namespace), target }
    }

    /// Reads the journal from the API server.
    pub async fn get(&self) -> Result<Option<JournalSnapshot>, ClusterError> {
        let found = self.secrets.get(&self.target.journal_name).await.map_err(with_remedy)?;
        Ok(found.map(|secret| JournalSnapshot::from_secret(secret, self.target)))
    }

    /// Starts an attempt for the user in this account. Not idempotent, which makes it the lock: a concurrent second start gets
    /// `AlreadyExists`.
    pub async fn begin(&self, journal: &Journal, account: &str) -> Result<JournalSnapshot, ClusterError> {
        let content = SecretContent {
            labels: BTreeMap::from([
                (well_known::LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned()),
                (well_known::LABEL_ROLE.to_owned(), well_known::ROLE_JOURNAL.to_owned()),
            ]),
            annotations: self.annotations(journal, account),
            data: data(journal, None),
        };
        let created = self.secrets.create(&self.target.journal_name, None, &content).await;
        created.map(|secret| JournalSnapshot::from_secret(secret, self.target)).map_err(with_remedy)
    }

    /// Writes the next state. `Conflict` if the journal changed since it was read.
    pub async fn replace(
        &self,
        attempt: &JournalSnapshot,
        journal: &Journal,
        key: Option<&KeyMaterial>,
    ) -> Result<JournalSnapshot, ClusterError> {
        let content = SecretContent { data: data(journal, key), ..attempt.snapshot.content() };
        let written = self.secrets.replace(&attempt.snapshot, &content).await;
        written.map(|secret| JournalSnapshot::from_secret(secret, self.target)).map_err(with_remedy)
    }

    /// Ends the attempt by deleting the journal. `Conflict` if it changed since it was read; one that does not exist is no
    /// error.
    pub async fn close(&self, attempt: &JournalSnapshot) -> Result<(), ClusterError> {
        self.secrets.delete(&attempt.snapshot).await.map_err(with_remedy)
    }

    /// What people and the collector of stale journals read.
    fn annotations(&self, journal: &Journal, account: &str) -> BTreeMap<String, String> {
        let owner = &self.target.owner;
        let started_at = journal.started_at.to_string();
        [
            (well_known::ANNOTATION_RESOURCE_NAMESPACE, owner.namespace.as_str()),
            (well_known::ANNOTATION_RESOURCE_NAME, &owner.name),
            (well_known::ANNOTATION_RESOURCE_UID, &owner.uid),
            (well_known::ANNOTATION_ACCOUNT, account),
            (well_known::ANNOTATION_USER_NAME, &self.target.user_name),
            (well_known::ANNOTATION_STARTED_AT, &started_at),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}

impl Journals {
    /// `namespace`: that of the operator.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self(Secrets::new(client, namespace))
    }

    /// Lists one page; `after` is the token of the page before.
    pub async fn list(&self, after: Option<String>) -> Result<JournalPage, ClusterError> {
        let selector = format!(
            "{}={MANAGER},{}={}",
            well_known::LABEL_MANAGED_BY,
            well_known::LABEL_ROLE,
            well_known::ROLE_JOURNAL
        );
        let params = ListParams { continue_token: after, ..ListParams::default().labels(&selector).limit(PAGE_SIZE) };
        let (found, next) = self.0.list_metadata(&params).await.map_err(with_remedy)?;
        Ok(JournalPage { records: found.into_iter().map(record).collect(), next })
    }

    /// Deletes the journal. `Conflict` if it changed since it was listed; one that does not exist is no error.
    pub async fn delete(&self, record: &JournalRecord) -> Result<(), ClusterError> {
        let listed = ObjectMeta {
            name: Some(record.name.clone()),
            uid: Some(record.uid.clone()),
            resource_version: Some(record.resource_version.clone()),
            ..ObjectMeta::default()
        };
        self.0.delete_version(&listed).await.map_err(with_remedy)
    }
}

fn record(metadata: ObjectMeta) -> JournalRecord {
    let mut annotations = metadata.annotations.unwrap_or_default();
    let mut take = |name: &str| annotations.remove(name).unwrap_or_default();
    let started_at = take(well_known::ANNOTATION_STARTED_AT).parse().ok();
    JournalRecord {
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        started_at: started_at.or(metadata.creation_timestamp.map(|time| time.0)),
        resource_namespace: take(well_known::ANNOTATION_RESOURCE_NAMESPACE),
        resource_name: take(well_known::ANNOTATION_RESOURCE_NAME),
        resource_uid: take(well_known::ANNOTATION_RESOURCE_UID),
        account: take(well_known::ANNOTATION_ACCOUNT),
        user_name: take(well_known::ANNOTATION_USER_NAME),
    }
}

fn data(journal: &Journal, key: Option<&KeyMaterial>) -> BTreeMap<String, Vec<u8>> {
    let mut data = BTreeMap::from([(JOURNAL.to_owned(), journal.encode())]);
    if let Some(key) = key {
        data.insert(SECRET_ACCESS_KEY.to_owned(), key.secret.expose_secret().as_bytes().to_vec());
    }
    data
}

/// Adds what to do about a refused call. The message for Secrets of tenant namespaces would name the wrong one.
fn with_remedy(error: ClusterError) -> ClusterError {
    if error.kind != ClusterErrorKind::Forbidden {
        return error;
    }
    let message = format!(
        "{}; the operator stores journals in its own namespace (--namespace), where the Role of the chart has to be bound",
        error.message
    );
    ClusterError { message, ..error }
}
