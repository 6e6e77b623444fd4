//! Keyed MAC of a published Secret: it distinguishes what the operator wrote from what a tenant may have written.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

use super::{KeyMaterial, hex};
use crate::api::well_known;

/// Length of a MAC key, which is that of its SHA-256.
pub const MAC_KEY_BYTES: usize = 32;

/// Entry of the Secret with the MAC keys that signs. All others only verify.
pub const CURRENT: &str = "current";

/// Version of the encoding that is signed.
const VERSION: &str = "v1";

/// The annotations that are believed if the MAC is valid. An annotation that is not listed here must not decide anything.
pub(super) const SIGNED_ANNOTATIONS: [&str; 5] = [
    well_known::ANNOTATION_KEY_ID,
    well_known::ANNOTATION_PUBLISHED_AT,
    well_known::ANNOTATION_ROTATE_HONOURED,
    well_known::ANNOTATION_FENCE,
    well_known::ANNOTATION_RESTARTS,
];

/// Keys for the MAC of published Secrets, the signing one first. No `Debug`: they are secret. Wiped on drop.
pub struct MacKeys(Vec<MacKey>);

struct MacKey {
    /// First 4 bytes of the SHA-256 of the key, as hex: names the key in the annotation.
    id: String,
    bytes: SecretSlice<u8>,
}

impl MacKeys {
    /// The keys in the data of a Secret. `None` without a key of [`MAC_KEY_BYTES`] bytes at [`CURRENT`]; other entries of
    /// another length are ignored.
    #[must_use]
    pub fn from_data(data: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let current = data.get(CURRENT).filter(|bytes| bytes.len() == MAC_KEY_BYTES)?;
        let others = data.iter().filter(|(name, bytes)| *name != CURRENT && bytes.len() == MAC_KEY_BYTES);
        let all = std::iter::once(current).chain(others.map(|(_, bytes)| bytes));
        Some(Self(all.map(|bytes| MacKey::new(bytes)).collect()))
    }
}

impl MacKey {
    fn new(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let id = digest.iter().take(4).copied().collect::<Vec<u8>>();
        Self { id: hex(&id), bytes: bytes.to_vec().into() }
    }
}

/// Signs and verifies the published Secret of one resource.
#[derive(Clone, Copy)]
pub struct Sealer<'a> {
    pub keys: &'a MacKeys,
    /// UID of the resource: a Secret of another one proves nothing.
    pub uid: &'a str,
}

impl Sealer<'_> {
    /// Value of the annotation for a key and the annotations about it.
    #[must_use]
    pub(super) fn sign(&self, key: &KeyMaterial, annotations: &BTreeMap<String, String>) -> String {
        let signed = self.keys.0.first().and_then(|signing| {
            let mac = self.mac(signing, key, annotations)?;
            Some(format!("{VERSION}:{}:{}", signing.id, hex(&mac.finalize().into_bytes())))
        });
        // HMAC accepts keys of any length, and there is always a first key.
        signed.unwrap_or_default()
    }

    /// Whether the annotation is the MAC of this key and these annotations under one of the keys. In constant time.
    #[must_use]
    pub(super) fn verifies(&self, key: &KeyMaterial, annotations: &BTreeMap<String, String>) -> bool {
        let Some(written) = annotations.get(well_known::ANNOTATION_MAC) else { return false };
        let mut parts = written.split(':');
        let (Some(VERSION), Some(id), Some(tag), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let Some(tag) = unhex(tag) else { return false };
        let known = self.keys.0.iter().filter(|known| known.id == id);
        known.filter_map(|known| self.mac(known, key, annotations)).any(|mac| mac.verify_slice(&tag).is_ok())
    }

    /// Each field is preceded by its length, an absent one is a single byte: no two contents have the same encoding.
    fn mac(&self, mac_key: &MacKey, key: &KeyMaterial, annotations: &BTreeMap<String, String>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(mac_key.bytes.expose_secret()).ok()?;
        let annotated = SIGNED_ANNOTATIONS.map(|name| annotations.get(name).map(String::as_str));
        let fields = [Some(VERSION), Some(self.uid), Some(&key.id), Some(key.secret.expose_secret())];
        for field in fields.into_iter().chain(annotated) {
            mac.update(&[u8::from(field.is_some())]);
            if let Some(field) = field {
                mac.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
                mac.update(field.as_bytes());
            }
        }
        Some(mac)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * MAC_KEY_BYTES)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[(&str, u8)]) -> MacKeys {
        let data = entries.iter().map(|(name, byte)| ((*name).to_owned(), vec![*byte; MAC_KEY_BYTES])).collect();
        MacKeys::from_data(&data).unwrap()
    }

    fn key(secret: &str) -> KeyMaterial {
        KeyMaterial { id: "AKIAIOSFODNN7EXAMPLE".into(), secret: secret.to_owned().into() }
    }

    fn signed(keys: &MacKeys, uid: &str) -> BTreeMap<String, String> {
        let text = |text: &str| text.to_owned();
        let mut annotations = BTreeMap::from([
            (text(well_known::ANNOTATION_KEY_ID), text("AKIAIOSFODNN7EXAMPLE")),
            (text(well_known::ANNOTATION_PUBLISHED_AT), text("2026-11-21T10:00:00Z")),
            (text(well_known::ANNOTATION_ROTATE_HONOURED), text("a")),
        ]);
        let mac = Sealer { keys, uid }.sign(&key("s"), &annotations);
        annotations.insert(text(well_known::ANNOTATION_MAC), mac);
        annotations
    }

    #[test]
    fn mac_covers_resource_key_and_every_believed_annotation() {
        let keys = keys(&[(CURRENT, 1)]);
        let annotations = signed(&keys, "u1");
        let of = |uid| Sealer { keys: &keys, uid };
        assert!(of("u1").verifies(&key("s"), &annotations));
        assert!(!of("u2").verifies(&key("s"), &annotations), "another resource");
        assert!(!of("u1").verifies(&key("t"), &annotations), "another secret");
        let other = KeyMaterial { id: "AKIAIOSFODNN7EXAMPL2".into(), ..key("s") };
        assert!(!of("u1").verifies(&other, &annotations), "another key");
        for name in SIGNED_ANNOTATIONS {
            let mut edited = annotations.clone();
            edited.insert(name.to_owned(), "edited".to_owned());
            assert!(!of("u1").verifies(&key("s"), &edited), "{name}");
            if edited.insert(name.to_owned(), String::new()).is_some() && annotations.contains_key(name) {
                edited.remove(name);
                assert!(!of("u1").verifies(&key("s"), &edited), "{name} is removed");
            }
        }
        let mut moved = annotations.clone();
        let honoured = moved.remove(well_known::ANNOTATION_ROTATE_HONOURED).unwrap();
        moved.insert(well_known::ANNOTATION_FENCE.to_owned(), honoured);
        assert!(!of("u1").verifies(&key("s"), &moved), "the value of another annotation");
        let mut more = annotations.clone();
        more.insert("example.com/theirs".to_owned(), "x".to_owned());
        assert!(of("u1").verifies(&key("s"), &more), "annotations of others");
    }

    #[test]
    fn malformed_mac_is_refused() {
        let keys = keys(&[(CURRENT, 1)]);
        let annotations = signed(&keys, "u1");
        let mac = &annotations[well_known::ANNOTATION_MAC];
        for malformed in [
            String::new(),
            mac.replace("v1:", "v2:"),
            mac[..mac.len() - 2].to_owned(),
            format!("{mac}:"),
            format!("{mac}00"),
            mac.replace(|digit: char| digit.is_ascii_digit(), "g"),
        ] {
            let mut edited = annotations.clone();
            edited.insert(well_known::ANNOTATION_MAC.to_owned(), malformed.clone());
            assert!(!Sealer { keys: &keys, uid: "u1" }.verifies(&key("s"), &edited), "{malformed}");
        }
    }

    #[test]
    fn earlier_key_verifies_and_only_the_current_one_signs() {
        let (old, rotated) = (keys(&[(CURRENT, 1)]), keys(&[(CURRENT, 2), ("previous", 1)]));
        let annotations = signed(&old, "u1");
        assert!(Sealer { keys: &rotated, uid: "u1" }.verifies(&key("s"), &annotations));
        assert!(!Sealer { keys: &old, uid: "u1" }.verifies(&key("s"), &signed(&rotated, "u1")));
        let another = keys(&[(CURRENT, 3)]);
        assert!(!Sealer { keys: &another, uid: "u1" }.verifies(&key("s"), &annotations), "a lost key");
    }

    #[test]
    fn key_of_another_length_is_no_mac_key() {
        let data = |bytes: usize| BTreeMap::from([(CURRENT.to_owned(), vec![1; bytes])]);
        assert!(MacKeys::from_data(&data(32)).is_some());
        assert!([0, 31, 33].into_iter().all(|bytes| MacKeys::from_data(&data(bytes)).is_none()));
        assert!(MacKeys::from_data(&BTreeMap::new()).is_none());
    }
}
