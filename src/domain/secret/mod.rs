//! Content of the published Secret: rendering, reading, and detection of edits.

mod formats;
mod mac;
mod ses;
pub mod template;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub(super) use formats::csv_field;
pub use formats::violations;
pub use mac::{CURRENT, MAC_KEY_BYTES, MacKeys, Sealer};

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
    /// Progress of the restarts for the key.
    pub restarts: Restarts,
}

/// Whether the operator wrote what a published Secret says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// A copy of the key and the annotations about it have a valid MAC.
    Verified,
    /// The Secret holds a key without a valid MAC: it was edited, or signed with a key that is lost. Nothing of it is believed
    /// before AWS has accepted the key.
    Unverified,
    /// The Secret holds no readable key.
    Lost,
}

/// State of a published Secret of this resource. Unless it is [`Integrity::Verified`], it names a key and says nothing about
/// it. Its fence is taken as it is: it only saves a write to this Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedFacts {
    pub key_id: String,
    pub published_at: Timestamp,
    /// Last rotate request that was carried out.
    pub rotate_honoured: Option<String>,
    pub integrity: Integrity,
    /// Data, labels and annotations match the spec.
    pub matches_spec: bool,
    /// Attempt whose late publication this Secret has fenced off. Read without a valid MAC too: tenants cannot read the UID of an
    /// attempt, and the write that named it made a paused publisher fail.
    pub fence: Option<String>,
    /// Progress of the restarts for the key.
    pub restarts: Restarts,
    /// The Secret is immutable and cannot be written.
    pub immutable: bool,
}

impl PublishedFacts {
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.integrity == Integrity::Verified
    }
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
            integrity: Integrity::Verified,
            matches_spec: true,
            fence: None,
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
    sealer: Sealer<'_>,
) -> SecretContent {
    let mut annotations = desired.annotations.clone();
    annotations.insert(well_known::ANNOTATION_KEY_ID.to_owned(), key.id.clone());
    annotations.insert(well_known::ANNOTATION_PUBLISHED_AT.to_owned(), publication.published_at.to_string());
    for (name, value) in [
        (well_known::ANNOTATION_ROTATE_HONOURED, publication.rotate_honoured.clone()),
        (well_known::ANNOTATION_FENCE, publication.fence.clone()),
        (well_known::ANNOTATION_RESTARTS, restart::encode(&publication.restarts)),
    ] {
        if let Some(value) = value {
            annotations.insert(name.to_owned(), value);
        }
    }
    annotations.insert(well_known::ANNOTATION_MAC.to_owned(), sealer.sign(key, &annotations));
    let data = formats::data(desired, key);
    let mut owned = Owned {
        labels: desired.labels.keys().cloned().collect(),
        annotations: annotations.keys().cloned().collect(),
        data: data.keys().cloned().collect(),
    };
    owned.annotations.insert(well_known::ANNOTATION_OWNED.to_owned());
    annotations.insert(well_known::ANNOTATION_OWNED.to_owned(), serde_json::to_string(&owned).unwrap_or_default());

    let mut before = read_owned(existing);
    // Never kept from an earlier content: the MAC covers exactly the annotations of these names that are written here.
    before.annotations.extend(mac::SIGNED_ANNOTATIONS.map(str::to_owned));
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

/// Access key in a published Secret: the first copy that the MAC is valid for. An edit or an additional data key costs a new key
/// only if it leaves no valid copy.
#[must_use]
pub fn read_key(content: &SecretContent, sealer: Sealer<'_>) -> Option<KeyMaterial> {
    let id = content.annotations.get(well_known::ANNOTATION_KEY_ID).filter(|id| is_access_key_id(id))?;
    formats::candidates(&content.data).find(|key| key.id == *id && sealer.verifies(key, &content.annotations))
}

/// Access key in a published Secret without a valid MAC: a copy of the key that the annotation names, or else the first one.
#[must_use]
pub fn read_unverified_key(content: &SecretContent) -> Option<KeyMaterial> {
    let named = content.annotations.get(well_known::ANNOTATION_KEY_ID);
    let mut keys: Vec<KeyMaterial> =
        formats::candidates(&content.data).filter(|key| is_access_key_id(&key.id)).collect();
    let first = keys.iter().position(|key| Some(&key.id) == named).unwrap_or_default();
    (first < keys.len()).then(|| keys.swap_remove(first))
}

/// Records the abandoned attempt in the published Secret, which keeps a valid MAC if it has one.
#[must_use]
pub fn with_fence(mut content: SecretContent, attempt: &str, sealer: Sealer<'_>) -> SecretContent {
    let key = read_key(&content, sealer);
    content.annotations.insert(well_known::ANNOTATION_FENCE.to_owned(), attempt.to_owned());
    if let Some(key) = key {
        let mac = sealer.sign(&key, &content.annotations);
        content.annotations.insert(well_known::ANNOTATION_MAC.to_owned(), mac);
    }
    content
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
        restarts: annotation(well_known::ANNOTATION_RESTARTS).map(|text| restart::decode(&text)).unwrap_or_default(),
    }
}

/// Reads the state of a published Secret of this resource. Without `desired` (the resource is invalid) the Secret counts as
/// matching.
#[must_use]
pub fn read_facts(
    content: &SecretContent,
    immutable: bool,
    desired: Option<&DesiredSecret>,
    sealer: Sealer<'_>,
) -> PublishedFacts {
    let publication = read_publication(content);
    if let Some(key) = read_key(content, sealer) {
        return PublishedFacts {
            matches_spec: desired
                .is_none_or(|desired| render(desired, &key, &publication, content, sealer) == *content),
            key_id: key.id,
            published_at: publication.published_at,
            rotate_honoured: publication.rotate_honoured,
            integrity: Integrity::Verified,
            fence: publication.fence,
            restarts: publication.restarts,
            immutable,
        };
    }
    let key = read_unverified_key(content);
    let integrity = if key.is_some() { Integrity::Unverified } else { Integrity::Lost };
    let named = content.annotations.get(well_known::ANNOTATION_KEY_ID).filter(|id| is_access_key_id(id)).cloned();
    PublishedFacts {
        key_id: key.map(|key| key.id).or(named).unwrap_or_default(),
        published_at: Timestamp::UNIX_EPOCH,
        rotate_honoured: None,
        integrity,
        matches_spec: true,
        fence: publication.fence,
        restarts: Restarts::new(),
        immutable,
    }
}

/// The rotate request that a published Secret named as carried out; `None`: no request was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HonouredRequest(pub Option<String>);

/// An entry of a Secret that is stored otherwise than it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDifference {
    /// Path of the entry in the managed fields of Kubernetes.
    pub path: Vec<String>,
    /// Names the entry and quotes no data.
    pub description: String,
}

/// The first entry that the API server did not store as it was written. Entries that were added are of others.
#[must_use]
pub fn first_difference(written: &SecretContent, stored: &SecretContent) -> Option<EntryDifference> {
    let path =
        |fields: &[&str], name: &str| fields.iter().copied().chain([name]).map(|name| format!("f:{name}")).collect();
    let labels = written.labels.iter().filter_map(|(name, value)| {
        let description = match stored.labels.get(name) {
            Some(found) if found == value => return None,
            Some(found) => format!("label {name} is {found:?} instead of {value:?}"),
            None => format!("label {name} is missing"),
        };
        Some(EntryDifference { path: path(&["metadata", "labels"], name), description })
    });
    let annotations = written.annotations.iter().filter(|(name, value)| stored.annotations.get(*name) != Some(*value));
    let annotations = annotations.map(|(name, _)| EntryDifference {
        path: path(&["metadata", "annotations"], name),
        description: format!("annotation {name} is missing or has another value"),
    });
    let data = written.data.iter().filter(|(name, value)| stored.data.get(*name) != Some(*value));
    let data = data.map(|(name, _)| EntryDifference {
        path: path(&["data"], name),
        description: format!("data key {name} is missing or has another value"),
    });
    labels.chain(annotations).chain(data).next()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
