//! What the published Secret holds: rendering, and reading back whether it is still what we wrote.

mod formats;
mod ses;
mod template;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) use formats::csv_field;
pub use formats::violations;

use super::{
    desired::DesiredSecret,
    restart::{self, Restarts},
};
use crate::api::well_known;

/// An access key with its secret. Its `Debug` redacts the secret.
#[derive(Clone, Debug)]
pub struct KeyMaterial {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: SecretString,
}

/// Labels, annotations and data of a Secret. No `Debug`: the data is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretContent {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Data, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// What the annotations of a published Secret say about the key in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// When the key was published.
    pub published_at: Timestamp,
    /// The rotate request it honours.
    pub rotate_honoured: Option<String>,
    /// Attempt that this Secret has fenced off.
    pub fence: Option<String>,
    /// Earlier target Secrets: name -> key id.
    pub previous: BTreeMap<String, String>,
    /// How far the restarts are that the key asks for.
    pub restarts: Restarts,
}

impl Publication {
    /// Notes a Secret of another name that is left behind, and those that it has left behind itself: their keys may not be
    /// retired yet. `left` is what it says, if it is there.
    pub fn record_previous_secret(&mut self, (name, key_id): &(String, String), left: Option<Self>) {
        for (name, key_id) in left.unwrap_or_default().previous {
            self.previous.entry(name).or_insert(key_id);
        }
        self.previous.insert(name.clone(), key_id.clone());
    }
}

/// Facts of our own published Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedFacts {
    /// Id of the key it holds.
    pub key_id: String,
    /// When that key was published.
    pub published_at: Timestamp,
    /// The rotate request it honours.
    pub rotate_honoured: Option<String>,
    /// Id and secret are the ones we wrote. False: edited by hand, the value is lost.
    pub intact: bool,
    /// Files, labels and annotations are as declared.
    pub matches_spec: bool,
    /// Attempt whose late publication this Secret has fenced off.
    pub fence: Option<String>,
    /// Earlier target Secrets of ours that wait for their key to retire: name -> key id.
    pub previous: BTreeMap<String, String>,
    /// How far the restarts are that its key asks for.
    pub restarts: Restarts,
    /// It cannot be written: somebody made it immutable.
    pub immutable: bool,
}

#[derive(Default, Serialize, Deserialize, PartialEq, Eq)]
struct Owned {
    labels: BTreeSet<String>,
    annotations: BTreeSet<String>,
    data: BTreeSet<String>,
}

#[cfg(test)]
impl PublishedFacts {
    /// A Secret of ours that is as it was written, for tests to change something of.
    pub(crate) fn of(key_id: &str, published_at: Timestamp) -> Self {
        Self {
            key_id: key_id.to_owned(),
            published_at,
            rotate_honoured: None,
            intact: true,
            matches_spec: true,
            fence: None,
            previous: BTreeMap::new(),
            restarts: BTreeMap::new(),
            immutable: false,
        }
    }
}

/// The Secret as it should be, laid over what is there: what others put into it stays, what we
/// put there and no longer declare goes.
#[must_use]
pub fn render(
    desired: &DesiredSecret,
    key: &KeyMaterial,
    publication: &Publication,
    existing: &SecretContent,
) -> SecretContent {
    let mut annotations = desired.annotations.clone();
    annotations.insert(well_known::ANNOTATION_KEY_ID.to_owned(), key.id.clone());
    annotations.insert(well_known::ANNOTATION_PUBLISHED_AT.to_owned(), publication.published_at.to_string());
    annotations.insert(well_known::ANNOTATION_CHECKSUM.to_owned(), checksum(key));
    for (name, value) in [
        (well_known::ANNOTATION_ROTATE_HONOURED, publication.rotate_honoured.clone()),
        (well_known::ANNOTATION_FENCE, publication.fence.clone()),
        (
            well_known::ANNOTATION_PREVIOUS_SECRETS,
            (!publication.previous.is_empty())
                .then(|| serde_json::to_string(&publication.previous).unwrap_or_default()),
        ),
        (well_known::ANNOTATION_RESTARTS, restart::encode(&publication.restarts)),
    ] {
        if let Some(value) = value {
            annotations.insert(name.to_owned(), value);
        }
    }
    let data = formats::data(desired, key);
    let mut owned = Owned {
        labels: desired.labels.keys().cloned().collect(),
        annotations: annotations.keys().cloned().collect(),
        data: data.keys().cloned().collect(),
    };
    owned.annotations.insert(well_known::ANNOTATION_OWNED.to_owned());
    annotations.insert(well_known::ANNOTATION_OWNED.to_owned(), serde_json::to_string(&owned).unwrap_or_default());

    let before = owned_before(existing);
    SecretContent {
        labels: lay_over(&existing.labels, &before.labels, desired.labels.clone()),
        annotations: lay_over(&existing.annotations, &before.annotations, annotations),
        data: lay_over(&existing.data, &before.data, data),
    }
}

fn lay_over<V: Clone>(
    existing: &BTreeMap<String, V>,
    ours: &BTreeSet<String>,
    new: BTreeMap<String, V>,
) -> BTreeMap<String, V> {
    let mut all: BTreeMap<String, V> = existing
        .iter()
        .filter(|(name, _)| !ours.contains(*name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.extend(new);
    all
}

fn owned_before(content: &SecretContent) -> Owned {
    content
        .annotations
        .get(well_known::ANNOTATION_OWNED)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The key material in a published Secret, if it is readable and is what we wrote.
#[must_use]
pub fn read_key(content: &SecretContent) -> Option<KeyMaterial> {
    let owned = owned_before(content).data;
    // Without the annotation all data counts: an edit of it must not cost a key.
    let key = formats::read(&content.data, |name| owned.is_empty() || owned.contains(name))?;
    let annotation = |name: &str| content.annotations.get(name).map(String::as_str);
    (annotation(well_known::ANNOTATION_KEY_ID) == Some(&key.id)
        && annotation(well_known::ANNOTATION_CHECKSUM) == Some(&checksum(&key)))
    .then_some(key)
}

/// What the annotations say about the publication. An unreadable time is the epoch: old, so that
/// nothing is held back by it.
#[must_use]
pub fn read_publication(content: &SecretContent) -> Publication {
    let annotation = |name: &str| content.annotations.get(name).cloned();
    Publication {
        published_at: annotation(well_known::ANNOTATION_PUBLISHED_AT)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        rotate_honoured: annotation(well_known::ANNOTATION_ROTATE_HONOURED),
        fence: annotation(well_known::ANNOTATION_FENCE),
        previous: annotation(well_known::ANNOTATION_PREVIOUS_SECRETS)
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default(),
        restarts: annotation(well_known::ANNOTATION_RESTARTS).map(|text| restart::decode(&text)).unwrap_or_default(),
    }
}

/// Reads back our own published Secret. `desired` is absent when the resource is invalid; then
/// nothing is held against the Secret's form.
#[must_use]
pub fn read_facts(content: &SecretContent, immutable: bool, desired: Option<&DesiredSecret>) -> PublishedFacts {
    let publication = read_publication(content);
    let material = read_key(content);
    let matches_spec = match (&material, desired) {
        (Some(key), Some(desired)) => render(desired, key, &publication, content) == *content,
        _ => true,
    };
    PublishedFacts {
        key_id: content.annotations.get(well_known::ANNOTATION_KEY_ID).cloned().unwrap_or_default(),
        published_at: publication.published_at,
        rotate_honoured: publication.rotate_honoured,
        intact: material.is_some(),
        matches_spec,
        fence: publication.fence,
        previous: publication.previous,
        restarts: publication.restarts,
        immutable,
    }
}

/// SHA-256 over id and secret. The secret has 240 random bits, so the sum gives nothing away.
fn checksum(key: &KeyMaterial) -> String {
    let digest =
        Sha256::new().chain_update(&key.id).chain_update("\n").chain_update(key.secret.expose_secret()).finalize();
    hex(&digest)
}

/// Bytes as people write them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
