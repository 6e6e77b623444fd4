//! Secrets of the operator. An existing Secret is never taken over; every write is conditional on what was read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
};

use super::error::{ClusterError, ClusterErrorKind};
use crate::{
    api::{MANAGER, well_known},
    domain::secret::SecretContent,
};

/// A Secret at the time it was read. No `Debug`: it would print the content.
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

    #[must_use]
    pub fn uid(&self) -> &str {
        self.0.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `resourceVersion`, which each write changes.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.0.metadata.resource_version.as_deref()
    }

    /// When it was created, by the clock of the API server.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.0.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.0.immutable == Some(true)
    }

    /// The field manager, other than the operator, that the API server records for a field. `path` is in the form of managed
    /// fields, such as `f:metadata`, `f:labels`, `f:team`.
    #[must_use]
    pub fn other_manager(&self, path: &[String]) -> Option<&str> {
        let entries = self.0.metadata.managed_fields.iter().flatten();
        let others = entries.filter_map(|entry| Some((entry.manager.as_deref()?, &entry.fields_v1.as_ref()?.0)));
        let mut others = others.filter(|(manager, _)| *manager != MANAGER);
        let owns = |fields: &serde_json::Value| path.iter().try_fold(fields, |fields, name| fields.get(name)).is_some();
        others.find(|(_, fields)| owns(fields)).map(|(manager, _)| manager)
    }

    /// Whether the garbage collector deletes it with an owner.
    #[must_use]
    pub fn has_owner(&self) -> bool {
        self.0.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
    }

    /// Why the operator must not write the Secret, for a message. `None` if the object with this UID owns it, or its annotation
    /// names that and it has no owner, and its type is Opaque.
    #[must_use]
    pub fn ownership_conflict(&self, owner_uid: &str) -> Option<String> {
        let owners = self.0.metadata.owner_references.as_deref().unwrap_or_default();
        let annotations = self.0.metadata.annotations.as_ref();
        let named = annotations.and_then(|all| all.get(well_known::ANNOTATION_RESOURCE_UID));
        if owners.iter().any(|owner| owner.uid == owner_uid)
            || (owners.is_empty() && named.is_some_and(|uid| uid == owner_uid))
        {
            // The type is immutable, and the API server validates the data by the rules of that type.
            let other_type = self.0.type_.as_deref().filter(|kind| !matches!(*kind, "" | "Opaque"));
            return other_type
                .map(|kind| format!("its type is {kind}; a Secret of this operator is Opaque. Delete it"));
        }
        Some(match owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first()) {
            Some(owner) => format!("it belongs to {} {} (uid {})", owner.kind, owner.name, owner.uid),
            None => "it exists and was not created by this operator for this resource".to_owned(),
        })
    }
}

impl Secrets {
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// Reads a Secret from the API server. `None` only when the API server responds 404.
    pub async fn get(&self, name: &str) -> Result<Option<SecretSnapshot>, ClusterError> {
        self.api
            .get_opt(name)
            .await
            .map(|secret| secret.map(SecretSnapshot))
            .map_err(|error| self.error("get", name, &error))
    }

    /// Creates a Secret; one in the operator's namespace has no owner. Not idempotent: `AlreadyExists` when there is one, also after
    /// a lost response.
    pub async fn create(
        &self,
        name: &str,
        owner: Option<OwnerReference>,
        content: &SecretContent,
    ) -> Result<SecretSnapshot, ClusterError> {
        self.post(&params(), name, owner, content).await
    }

    /// Asks admission whether a Secret may be created or replaced, without a write. Only a refusal and an invalid
    /// Secret are an answer: some webhooks cannot be asked.
    pub async fn check_admission(
        &self,
        name: &str,
        snapshot: Option<&SecretSnapshot>,
        owner: Option<OwnerReference>,
        content: &SecretContent,
    ) -> Result<(), ClusterError> {
        let dry = PostParams { dry_run: true, ..params() };
        let asked = match snapshot {
            Some(snapshot) => self.put(&dry, with_content(snapshot.0.clone(), content)).await,
            None => self.post(&dry, name, owner, content).await,
        };
        match asked {
            Err(error) if matches!(error.kind, ClusterErrorKind::Refused | ClusterErrorKind::Invalid) => Err(error),
            _ => Ok(()),
        }
    }

    async fn post(
        &self,
        params: &PostParams,
        name: &str,
        owner: Option<OwnerReference>,
        content: &SecretContent,
    ) -> Result<SecretSnapshot, ClusterError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let secret = with_content(secret, content);
        self.api.create(params, &secret).await.map(SecretSnapshot).map_err(|error| self.error("create", name, &error))
    }

    /// Replaces the content. `Conflict` if the Secret changed since it was read.
    pub async fn replace(
        &self,
        snapshot: &SecretSnapshot,
        content: &SecretContent,
    ) -> Result<SecretSnapshot, ClusterError> {
        self.put(&params(), with_content(snapshot.0.clone(), content)).await
    }

    /// Removes the owner reference, so that the Secret outlives its owner. `Conflict` if it changed since it was read.
    pub async fn release(&self, snapshot: &SecretSnapshot, owner_uid: &str) -> Result<SecretSnapshot, ClusterError> {
        let mut secret = labelled(snapshot.0.clone());
        if let Some(owners) = &mut secret.metadata.owner_references {
            owners.retain(|owner| owner.uid != owner_uid);
        }
        self.put(&params(), secret).await
    }

    /// Deletes a Secret; one that does not exist is no error. `Conflict` if it changed since it was read.
    pub async fn delete(&self, snapshot: &SecretSnapshot) -> Result<(), ClusterError> {
        self.delete_version(&snapshot.0.metadata).await
    }

    /// As [`Self::delete`], by the metadata of the Secret when it was read.
    pub(super) async fn delete_version(&self, metadata: &ObjectMeta) -> Result<(), ClusterError> {
        let name = metadata.name.as_deref().unwrap_or_default();
        let preconditions =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.api.delete(name, &params).await;
        ClusterError::ignore_not_found(deleted.map_err(|error| self.error("delete", name, &error)))
    }

    /// Lists the metadata of one page of Secrets, and the token of the next page. Only in the operator's own namespace: it may
    /// list no Secrets of others.
    pub(super) async fn list_metadata(
        &self,
        params: &ListParams,
    ) -> Result<(Vec<ObjectMeta>, Option<String>), ClusterError> {
        let page = self.api.list_metadata(params).await;
        let page =
            page.map_err(|error| ClusterError::new(format!("list Secrets of namespace {}", self.namespace), &error))?;
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((page.items.into_iter().map(|item| item.metadata).collect(), next))
    }

    async fn put(&self, params: &PostParams, secret: Secret) -> Result<SecretSnapshot, ClusterError> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        self.api
            .replace(&name, params, &secret)
            .await
            .map(SecretSnapshot)
            .map_err(|error| self.error("update", &name, &error))
    }

    fn error(&self, verb: &str, name: &str, error: &kube::Error) -> ClusterError {
        ClusterError::new(format!("{verb} Secret {}/{name}", self.namespace), error)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Admission refuses a write without this label, which a tenant may have removed.
fn labelled(mut secret: Secret) -> Secret {
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert(well_known::LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned());
    secret
}

fn with_content(mut secret: Secret, content: &SecretContent) -> Secret {
    secret.metadata.labels = Some(content.labels.clone());
    secret.metadata.annotations = non_empty(&content.annotations);
    secret.metadata.managed_fields = None;
    secret.data =
        non_empty(&content.data.iter().map(|(name, bytes)| (name.clone(), ByteString(bytes.clone()))).collect());
    labelled(secret)
}

fn non_empty<V: Clone>(map: &BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then(|| map.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(metadata: &Value) -> SecretSnapshot {
        SecretSnapshot(serde_json::from_value(json!({"metadata": metadata, "type": "Opaque"})).unwrap())
    }

    #[test]
    fn secret_is_owned_by_reference_or_by_annotation_alone() {
        let named = json!({"awsdeploy.dev/resource-uid": "u1"});
        let owner = |uid: &str| json!([{"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "name": "x", "uid": uid}]);
        for (metadata, is_ours) in [
            (json!({"ownerReferences": owner("u1")}), true),
            (json!({"annotations": named}), true),
            (json!({"annotations": named, "ownerReferences": owner("u1")}), true),
            (json!({"annotations": named, "ownerReferences": owner("u2")}), false),
            (json!({"annotations": {"awsdeploy.dev/resource-uid": "u2"}}), false),
            (json!({}), false),
        ] {
            assert_eq!(secret(&metadata).ownership_conflict("u1").is_none(), is_ours, "{metadata}");
        }
        assert!(secret(&json!({"ownerReferences": owner("u1")})).has_owner());
        assert!(!secret(&json!({"annotations": named, "ownerReferences": []})).has_owner());
    }
}
