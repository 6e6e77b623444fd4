//! Objects that tenants write, read one at a time: one that cannot be read affects no other and takes bounded memory.
//!
//! A list or watch response fails as a whole when one of its objects fails to deserialize, and an object can be made to:
//! `serde_json` stops at 128 levels, and `k8s-openapi` accepts no time after the year 9999. [`Guarded`] reads an object field
//! by field within limits, and drops a field that exceeds them.

mod fields;

use std::{borrow::Cow, collections::BTreeSet, fmt, marker::PhantomData, sync::LazyLock};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource,
    core::{ObjectMeta, PartialObjectMeta},
    runtime::watcher,
};
use schemars::{JsonSchema, Schema, schema_for};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Map, Value, json};

use self::fields::{ObjectVisitor, ReadObject};
use crate::api::{
    AwsDeployUser, AwsDeployUserClass, AwsDeployUserClassSpec, AwsDeployUserClassStatus, AwsDeployUserSpec,
    AwsDeployUserStatus,
};

/// Objects per page of a list. An object has at most 1.5 MiB in etcd, and a page is in memory twice while it is parsed.
pub const LIST_PAGE_SIZE: u32 = 10;
/// Levels of a field below `spec` or `status`. A policy document needs about eight, where IAM's grammar ends.
pub const MAX_FIELD_DEPTH: usize = 32;
/// Limit of each field of `metadata`, counted like [`WatchedKind::MAX_FIELD_BYTES`].
pub const MAX_METADATA_FIELD_BYTES: usize = 64 * 1024;
/// What each value counts besides its text: it is larger in memory than in JSON.
const VALUE_BYTES: usize = 64;

/// Fields of `metadata` that are read, besides annotations and finalizers. `managedFields`, which is not, is often larger than
/// the rest of an object.
const METADATA_FIELDS: &[&str] =
    &["creationTimestamp", "deletionTimestamp", "generation", "labels", "name", "namespace", "resourceVersion", "uid"];

/// A copy of the whole manifest, which `kubectl apply` adds.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The field that says what a deletion keeps.
pub const DELETION_POLICY: &str = "spec.deletionPolicy";

/// A kind that is read through [`Guarded`].
pub trait WatchedKind: Resource<DynamicType = ()> + DeserializeOwned {
    /// Limit of each field of `spec` and `status`: the length of its keys and texts, and 64 bytes for each value.
    const MAX_FIELD_BYTES: usize;
    /// Fields of the status without which the object is none: what the operator did for it is not guessed.
    const RECORDS: &[&str] = &[];

    /// Fields that this version knows, such as `spec.credentials`. Others are skipped: the name of one is text of a tenant.
    fn known_fields() -> &'static BTreeSet<String>;
}

/// Names of the fields of a kind, from the schemas of its spec and status.
fn fields_of<Spec: JsonSchema, Status: JsonSchema>() -> BTreeSet<String> {
    let sections = [("spec", schema_for!(Spec)), ("status", schema_for!(Status))];
    let fields = |(section, schema): &(&str, Schema)| -> Vec<String> {
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(Map::keys).map(|name| format!("{section}.{name}")).collect()
    };
    sections.iter().flat_map(fields).collect()
}

impl WatchedKind for AwsDeployUser {
    const MAX_FIELD_BYTES: usize = 128 * 1024;
    const RECORDS: &[&str] = &["status.class", "status.operatorNamespace", "status.revocation", "status.user"];

    fn known_fields() -> &'static BTreeSet<String> {
        static FIELDS: LazyLock<BTreeSet<String>> = LazyLock::new(fields_of::<AwsDeployUserSpec, AwsDeployUserStatus>);
        &FIELDS
    }
}

impl WatchedKind for AwsDeployUserClass {
    const MAX_FIELD_BYTES: usize = 1024 * 1024;

    fn known_fields() -> &'static BTreeSet<String> {
        static FIELDS: LazyLock<BTreeSet<String>> =
            LazyLock::new(fields_of::<AwsDeployUserClassSpec, AwsDeployUserClassStatus>);
        &FIELDS
    }
}

impl WatchedKind for PartialObjectMeta<Namespace> {
    const MAX_FIELD_BYTES: usize = 0;

    fn known_fields() -> &'static BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        &NONE
    }
}

/// An object that may be incomplete, because fields of it cannot be read.
#[derive(Clone)]
pub struct Guarded<K> {
    /// The object, or its metadata.
    object: Result<K, Box<ObjectMeta>>,
    error: Option<String>,
    /// Fields of `spec` and `status` that were dropped.
    dropped: Vec<String>,
}

impl<K> Guarded<K> {
    /// The object without the fields that cannot be read. `None` if one of them is a record of the operator: what it means is
    /// not guessed.
    #[must_use]
    pub fn object(&self) -> Option<&K> {
        self.object.as_ref().ok()
    }

    /// See [`Self::object`].
    #[must_use]
    pub fn into_object(self) -> Option<K> {
        self.object.ok()
    }

    /// Which field cannot be read and why; `None` if the object is complete. Quotes no value of the object.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether a field cannot be read, so that the object has its default.
    #[must_use]
    pub fn lacks(&self, field: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped == field)
    }

    /// The object if it is complete, else [`Self::error`].
    ///
    /// # Errors
    /// See [`Self::error`].
    pub fn complete(&self) -> Result<&K, &str> {
        match (&self.object, &self.error) {
            (Ok(object), None) => Ok(object),
            (_, error) => Err(error.as_deref().unwrap_or_default()),
        }
    }
}

impl<K> From<K> for Guarded<K> {
    fn from(object: K) -> Self {
        Self { object: Ok(object), error: None, dropped: Vec::new() }
    }
}

// Without the content: a Debug format must not write a tenant's documents to a log.
impl<K: WatchedKind> fmt::Debug for Guarded<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct(&K::kind(&()))
            .field("namespace", &self.meta().namespace)
            .field("name", &self.meta().name)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.as_ref().map_or_else(|metadata| &**metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.as_mut().map_or_else(|metadata| &mut **metadata, K::meta_mut)
    }
}

impl<'de, K: WatchedKind> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut read = deserializer.deserialize_map(ObjectVisitor::<K>(PhantomData))?;
        let mut object = deserialize_object(&read);
        let mut error = read.error.take();
        let is_record = |field: &String| K::RECORDS.contains(&field.as_str());
        if object.is_err() {
            let unknown = drop_unknown_values::<K>(&mut read);
            let field = unknown.iter().find(|field| is_record(field)).or(unknown.first());
            let field = field.map_or("the object", String::as_str);
            error =
                error.or_else(|| Some(format!("{field} has a value that this version of the operator does not know")));
            read.dropped.extend(unknown);
            object = deserialize_object(&read);
        }
        let object = match object {
            Ok(object) if !read.dropped.iter().any(is_record) => Ok(object),
            _ => Err(Box::new(ObjectMeta::deserialize(&Value::Object(read.metadata)).map_err(D::Error::custom)?)),
        };
        Ok(Self { object, error, dropped: read.dropped })
    }
}

/// Configuration of watches of objects that tenants write. Without `any_semantic`: lists from its cache are not paged by the
/// API server.
#[must_use]
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(LIST_PAGE_SIZE)
}

/// The error of serde is dropped: it would quote a value.
fn deserialize_object<K: WatchedKind>(read: &ReadObject) -> Result<K, ()> {
    let mut object = read.fields.clone();
    object.insert("apiVersion".to_owned(), Value::String(K::api_version(&()).into_owned()));
    object.insert("kind".to_owned(), Value::String(K::kind(&()).into_owned()));
    object.insert("metadata".to_owned(), Value::Object(read.metadata.clone()));
    K::deserialize(&Value::Object(object)).map_err(drop)
}

/// Drops the fields of `spec` and `status` with values that this version does not know, and returns their names. Each field is
/// read alone: all of them have defaults.
fn drop_unknown_values<K: WatchedKind>(read: &mut ReadObject) -> Vec<String> {
    let mut unknown = Vec::new();
    for section in ["spec", "status"] {
        let Some(Value::Object(members)) = read.fields.get_mut(section) else { continue };
        members.retain(|member, value| {
            let alone = ReadObject {
                fields: Map::from_iter([
                    ("spec".to_owned(), json!({})),
                    (section.to_owned(), json!({ member: &*value })),
                ]),
                ..ReadObject::default()
            };
            let is_known = deserialize_object::<K>(&alone).is_ok();
            if !is_known {
                unknown.push(format!("{section}.{member}"));
            }
            is_known
        });
    }
    unknown
}

#[cfg(test)]
mod tests;
