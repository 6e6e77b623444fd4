//! The published Secret. Created only, never taken over; every write is conditional.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
};

use super::error::{ClusterError, ClusterErrorKind};
use crate::{api::MANAGER, domain::secret::SecretContent};

/// A Secret as a pass has read it. No `Debug`: it is what it says.
#[derive(Clone)]
pub struct SecretSnapshot(Secret);

/// Secrets of one namespace.
pub struct Secrets {
    api: Api<Secret>,
    namespace: String,
}

impl SecretSnapshot {
    /// Labels, annotations and data.
    #[must_use]
    pub fn content(&self) -> SecretContent {
        SecretContent {
            labels: self.0.metadata.labels.clone().unwrap_or_default(),
            annotations: self.0.metadata.annotations.clone().unwrap_or_default(),
            data: self.0.data.iter().flatten().map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect(),
        }
    }

    /// UID of the Secret.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.0.metadata.uid.as_deref().unwrap_or_default()
    }

    /// When it was made, by the clock of the API server.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.0.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// Whether somebody made it immutable.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.0.immutable == Some(true)
    }

    /// `None` if the object with this UID owns the Secret, else whose it is, for the message.
    #[must_use]
    pub fn ownership_conflict(&self, owner_uid: &str) -> Option<String> {
        let owners = self.0.metadata.owner_references.as_deref().unwrap_or_default();
        if owners.iter().any(|owner| owner.uid == owner_uid) {
            // The type cannot be changed, and what is in it would be checked by the rules of that type.
            let other = self.0.type_.as_deref().filter(|kind| !matches!(*kind, "" | "Opaque"));
            return other.map(|kind| format!("its type is {kind}; a Secret of this operator is Opaque. Delete it"));
        }
        Some(match owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first()) {
            Some(owner) => format!("it belongs to {} {} (uid {})", owner.kind, owner.name, owner.uid),
            None => "it exists and was not made by this operator for this resource".to_owned(),
        })
    }
}

impl Secrets {
    /// Secrets of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// Reads a Secret live. `None` only when the API server says that there is none.
    pub async fn get(&self, name: &str) -> Result<Option<SecretSnapshot>, ClusterError> {
        self.api
            .get_opt(name)
            .await
            .map(|secret| secret.map(SecretSnapshot))
            .map_err(|error| self.error("get", name, &error))
    }

    /// Creates a Secret; `AlreadyExists` if anybody was faster.
    pub async fn create(
        &self,
        name: &str,
        owner: OwnerReference,
        content: &SecretContent,
    ) -> Result<SecretSnapshot, ClusterError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let secret = filled(secret, content);
        self.api
            .create(&params(), &secret)
            .await
            .map(SecretSnapshot)
            .map_err(|error| self.error("create", name, &error))
    }

    /// Replaces a Secret on condition that it is as it was read.
    pub async fn replace(
        &self,
        held: &SecretSnapshot,
        content: &SecretContent,
    ) -> Result<SecretSnapshot, ClusterError> {
        self.put(filled(held.0.clone(), content)).await
    }

    /// Takes the owner reference off, on condition that the Secret is as it was read.
    pub async fn release(&self, held: &SecretSnapshot, owner_uid: &str) -> Result<SecretSnapshot, ClusterError> {
        let mut secret = held.0.clone();
        if let Some(owners) = &mut secret.metadata.owner_references {
            owners.retain(|owner| owner.uid != owner_uid);
        }
        self.put(secret).await
    }

    /// Deletes a Secret on condition that it is as it was read. One that is gone counts as done.
    pub async fn delete(&self, held: &SecretSnapshot) -> Result<(), ClusterError> {
        let name = held.0.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: held.0.metadata.uid.clone(),
                resource_version: held.0.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match self.api.delete(name, &params).await.map_err(|error| self.error("delete", name, &error)) {
            Err(error) if error.kind != ClusterErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn put(&self, secret: Secret) -> Result<SecretSnapshot, ClusterError> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        self.api
            .replace(&name, &params(), &secret)
            .await
            .map(SecretSnapshot)
            .map_err(|error| self.error("update", &name, &error))
    }

    fn error(&self, verb: &str, name: &str, error: &kube::Error) -> ClusterError {
        ClusterError::of(format!("{verb} Secret {}/{name}", self.namespace), error)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn filled(mut secret: Secret, content: &SecretContent) -> Secret {
    secret.metadata.labels = some(&content.labels);
    secret.metadata.annotations = some(&content.annotations);
    secret.metadata.managed_fields = None;
    secret.data = some(&content.data.iter().map(|(name, bytes)| (name.clone(), ByteString(bytes.clone()))).collect());
    secret
}

fn some<V: Clone>(map: &BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then(|| map.clone())
}
