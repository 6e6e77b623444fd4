//! The Secret in the operator's namespace with the keys that sign published Secrets.

use std::collections::BTreeMap;

use kube::Client;

use super::{
    error::{ClusterError, ClusterErrorKind},
    secrets::{SecretSnapshot, Secrets},
};
use crate::{
    api::well_known,
    domain::secret::{CURRENT, MacKeys, SecretContent},
};

/// Reads the MAC keys, or creates them from these random bytes: an atomic create, so that replicas agree on one key.
///
/// # Errors
/// Also if the Secret exists and holds no usable key: the operator replaces none that an admin may restore.
pub async fn load_or_create_mac_keys(
    client: Client,
    namespace: &str,
    random: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<MacKeys, ClusterError> {
    let (secrets, name) = (Secrets::new(client, namespace), well_known::INTEGRITY_KEY_SECRET);
    let invalid = |message: &str| ClusterError {
        action: format!("load Secret {namespace}/{name}"),
        kind: ClusterErrorKind::Invalid,
        message: message.to_owned(),
    };
    let mut stored = secrets.get(name).await?;
    if stored.is_none() {
        let bytes = random().ok_or_else(|| invalid("the machine provides no random numbers"))?;
        let data = BTreeMap::from([(CURRENT.to_owned(), bytes)]);
        stored = match secrets.create(name, None, &SecretContent { data, ..SecretContent::default() }).await {
            Ok(created) => Some(created),
            Err(error) if error.kind == ClusterErrorKind::AlreadyExists => secrets.get(name).await?,
            Err(error) => return Err(error),
        };
    }
    stored.as_ref().map(SecretSnapshot::content).and_then(|content| MacKeys::from_data(&content.data)).ok_or_else(|| {
        invalid(
            "the entry `current` is not a key of 32 bytes; restore the Secret from a backup, or delete it, then AWS checks each published Secret once and it is signed again",
        )
    })
}
