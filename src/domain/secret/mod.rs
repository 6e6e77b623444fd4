//! Content of the published Secret: rendering, reading, and detection of edits.

mod formats;
mod ses;
pub mod template;

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
    owner::is_access_key_id,
    restart::{self, Restarts},
};
use crate::api::well_known;

/// Access key with its secret, which `Debug` redacts.
#[derive(Clone, Debug)]
pub struct KeyMaterial {
    pub id: String,
    pub secret: SecretString,
}

/// Labels, annotations and decoded data of a Secret. Has no `Debug`, because the data is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretContent {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub data: BTreeMap<String, Vec<u8>>,
}

/// Annotations of a published Secret about its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    pub published_at: Timestamp,
    /// Last rotate request that was carried out.
    pub rotate_honoured: Option<String>,
    /// Attempt that this Secret has fenced off.
    pub fence: Option<String>,
    /// Key ids of earlier target Secrets, by name.
    pub previous: BTreeMap<String, String>,
    /// Progress of the restarts for the key.
    pub restarts: Restarts,
}

impl Publication {
    /// Records the previous target Secret and the Secrets that it recorded itself, whose keys may not be retired yet.
    /// `publication` is that of the previous Secret, if it exists.
    pub fn record_previous_secret(&mut self, (name, key_id): &(String, String), publication: Option<Self>) {
        for (name, key_id) in publication.unwrap_or_default().previous {
            self.previous.entry(name).or_insert(key_id);
        }
        self.previous.insert(name.clone(), key_id.clone());
    }
}

/// State of a published Secret of this resource.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedFacts {
    pub key_id: String,
    pub published_at: Timestamp,
    /// Last rotate request that was carried out.
    pub rotate_honoured: Option<String>,
    /// The Secret holds an unchanged copy of id and secret. False: the secret is lost.
    pub intact: bool,
    /// Data, labels and annotations match the spec.
    pub matches_spec: bool,
    /// Attempt whose late publication this Secret has fenced off.
    pub fence: Option<String>,
    /// Key ids of earlier target Secrets whose keys are not retired yet, by name.
    pub previous: BTreeMap<String, String>,
    /// Progress of the restarts for the key.
    pub restarts: Restarts,
    /// The Secret is immutable and cannot be written.
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
    /// An unchanged Secret of the resource.
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

/// Renders the Secret on top of its existing content: entries of others are kept, entries of the operator that are no longer
/// declared are removed.
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

    let before = read_owned(existing);
    SecretContent {
        labels: merge_owned(&existing.labels, &before.labels, desired.labels.clone()),
        annotations: merge_owned(&existing.annotations, &before.annotations, annotations),
        data: merge_owned(&existing.data, &before.data, data),
    }
}

fn merge_owned<V: Clone>(
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

fn read_owned(content: &SecretContent) -> Owned {
    content
        .annotations
        .get(well_known::ANNOTATION_OWNED)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Access key in a published Secret: the first copy with the checksum that the operator wrote. `None` if every copy is unreadable
/// or was edited. An edit or an additional data key costs a new key only if it leaves no valid copy.
#[must_use]
pub fn read_key(content: &SecretContent) -> Option<KeyMaterial> {
    let annotation = |name: &str| content.annotations.get(name).map(String::as_str);
    let (id, written) = (annotation(well_known::ANNOTATION_KEY_ID)?, annotation(well_known::ANNOTATION_CHECKSUM)?);
    if !is_access_key_id(id) {
        return None;
    }
    formats::candidates(&content.data).find(|key| key.id == id && checksum(key) == written)
}

/// Reads the annotations about the key. An invalid time becomes the Unix epoch, so that it delays nothing.
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
            .and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(&text).ok())
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, key_id)| is_access_key_id(key_id))
            .collect(),
        restarts: annotation(well_known::ANNOTATION_RESTARTS).map(|text| restart::decode(&text)).unwrap_or_default(),
    }
}

/// Reads the state of a published Secret of this resource. Without `desired` (the resource is invalid) the Secret counts as
/// matching.
#[must_use]
pub fn read_facts(content: &SecretContent, immutable: bool, desired: Option<&DesiredSecret>) -> PublishedFacts {
    let publication = read_publication(content);
    let material = read_key(content);
    let matches_spec = match (&material, desired) {
        (Some(key), Some(desired)) => render(desired, key, &publication, content) == *content,
        _ => true,
    };
    PublishedFacts {
        key_id: content
            .annotations
            .get(well_known::ANNOTATION_KEY_ID)
            .filter(|id| is_access_key_id(id))
            .cloned()
            .unwrap_or_default(),
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

/// SHA-256 over id and secret. With 240 random bits the secret cannot be derived from it.
fn checksum(key: &KeyMaterial) -> String {
    let digest =
        Sha256::new().chain_update(&key.id).chain_update("\n").chain_update(key.secret.expose_secret()).finalize();
    hex(&digest)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
