//! Objects that tenants write, read one at a time: one that cannot be read affects no other and takes bounded memory.
//!
//! A list or watch response fails as a whole when one of its objects fails to deserialize, and an object can be made to:
//! `serde_json` stops at 128 levels, and `k8s-openapi` accepts no time after the year 9999. [`Guarded`] reads an object field
//! by field within limits, and drops a field that exceeds them.

use std::{borrow::Cow, fmt, marker::PhantomData};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource,
    core::{ObjectMeta, PartialObjectMeta},
    runtime::watcher,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::api::{AwsDeployUser, AwsDeployUserClass, well_known};

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

/// A kind that is read through [`Guarded`].
pub trait WatchedKind: Resource<DynamicType = ()> + DeserializeOwned {
    /// Limit of each field of `spec` and `status`: the length of its keys and texts, and 64 bytes for each value.
    const MAX_FIELD_BYTES: usize;
}

impl WatchedKind for AwsDeployUser {
    const MAX_FIELD_BYTES: usize = 128 * 1024;
}

impl WatchedKind for AwsDeployUserClass {
    const MAX_FIELD_BYTES: usize = 1024 * 1024;
}

impl WatchedKind for PartialObjectMeta<Namespace> {
    const MAX_FIELD_BYTES: usize = 0;
}

/// An object that may be incomplete, because fields of it cannot be read.
#[derive(Clone)]
pub struct Guarded<K> {
    /// The object, or its metadata.
    object: Result<K, Box<ObjectMeta>>,
    error: Option<String>,
}

impl<K> Guarded<K> {
    /// The object without the fields that cannot be read. `None` if the remaining fields have values that this version does
    /// not know: what they mean is not guessed.
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
        Self { object: Ok(object), error: None }
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
        let ReadObject { metadata, fields, error } = deserializer.deserialize_map(ObjectVisitor::<K>(PhantomData))?;
        let mut object = fields;
        object.insert("apiVersion".to_owned(), Value::String(K::api_version(&()).into_owned()));
        object.insert("kind".to_owned(), Value::String(K::kind(&()).into_owned()));
        object.insert("metadata".to_owned(), Value::Object(metadata));
        let object = Value::Object(object);
        if let Ok(object) = K::deserialize(&object) {
            return Ok(Self { object: Ok(object), error });
        }
        let metadata = ObjectMeta::deserialize(&object["metadata"]).map_err(D::Error::custom)?;
        let error = error.unwrap_or_else(|| unknown_value::<K>(&object));
        Ok(Self { object: Err(Box::new(metadata)), error: Some(error) })
    }
}

/// Configuration of watches of objects that tenants write. Without `any_semantic`: lists from its cache are not paged by the
/// API server.
#[must_use]
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(LIST_PAGE_SIZE)
}

/// Names the field without which the object deserializes. The error of serde would quote its value.
fn unknown_value<K: WatchedKind>(object: &Value) -> String {
    let mut paths = ["spec", "status"].into_iter().flat_map(|section| {
        let members = object[section].as_object();
        members.into_iter().flat_map(Map::keys).map(move |member| (section, member))
    });
    let is_cause = |(section, member): &(&str, &String)| {
        let mut object = object.clone();
        if let Some(members) = object[*section].as_object_mut() {
            members.remove(*member);
        }
        K::deserialize(&object).is_ok()
    };
    let field =
        paths.find(is_cause).map_or_else(|| "the object".to_owned(), |(section, member)| format!("{section}.{member}"));
    format!("{field} has a value that this version of the operator does not know")
}

/// What was read of an object.
#[derive(Default)]
struct ReadObject {
    metadata: Map<String, Value>,
    /// `spec` and `status`.
    fields: Map<String, Value>,
    /// The first field that was dropped, and why.
    error: Option<String>,
}

/// Why a field is dropped.
#[derive(Clone, Copy)]
enum Excess {
    Depth,
    Size,
}

struct FieldBudget {
    left: usize,
    excess: Option<Excess>,
}

impl FieldBudget {
    fn new(bytes: usize) -> Self {
        Self { left: bytes, excess: None }
    }

    fn charge(&mut self, bytes: usize) {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.excess = self.excess.or(Some(Excess::Size)),
        }
    }

    /// Why the field is dropped, for messages.
    fn error(&self, field: &str, max_bytes: usize) -> Option<String> {
        Some(match self.excess? {
            Excess::Depth => format!("{field} is nested deeper than {MAX_FIELD_DEPTH} levels"),
            Excess::Size => format!("{field} is larger than {} KiB", max_bytes / 1024),
        })
    }
}

/// Values without members, where an object or array is expected: they count as absent.
macro_rules! ignore_scalars {
    () => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

struct ObjectVisitor<K>(PhantomData<K>);

impl<'de, K: WatchedKind> Visitor<'de> for ObjectVisitor<K> {
    type Value = ReadObject;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadObject, A::Error> {
        let mut read = ReadObject::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => read.metadata = map.next_value_seed(Metadata { error: &mut read.error })?,
                "spec" | "status" if K::MAX_FIELD_BYTES > 0 => {
                    let max_bytes = K::MAX_FIELD_BYTES;
                    let section = Section { name: &key, max_bytes, error: &mut read.error };
                    if let Some(members) = map.next_value_seed(section)? {
                        read.fields.insert(key, Value::Object(members));
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(read)
    }
}

/// Reads [`METADATA_FIELDS`], annotations and finalizers. A field that does not deserialize is dropped.
struct Metadata<'a> {
    error: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("metadata")
    }

    ignore_scalars!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut metadata = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let mut budget = FieldBudget::new(MAX_METADATA_FIELD_BYTES);
            let value = match key.as_str() {
                "finalizers" => map.next_value_seed(Finalizers { budget: &mut budget })?,
                "annotations" => {
                    map.next_value_seed(Bounded { skip: Some(LAST_APPLIED), ..Bounded::new(&mut budget) })?
                }
                field if METADATA_FIELDS.contains(&field) => map.next_value_seed(Bounded::new(&mut budget))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let excess = budget.error(&format!("metadata.{key}"), MAX_METADATA_FIELD_BYTES);
            let is_kept = excess.is_none() || key == "finalizers";
            *self.error = self.error.take().or(excess);
            if is_kept && ObjectMeta::deserialize(&json!({ &key: &value })).is_ok() {
                metadata.insert(key, value);
            }
        }
        Ok(metadata)
    }
}

/// Reads finalizers within the budget, and the operator's own in any case: without it, nothing would be revoked.
struct Finalizers<'a> {
    budget: &'a mut FieldBudget,
}

impl<'de> DeserializeSeed<'de> for Finalizers<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finalizers<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("finalizers")
    }

    ignore_scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut finalizers = Vec::new();
        while let Some(finalizer) = seq.next_element::<String>()? {
            self.budget.charge(VALUE_BYTES + finalizer.len());
            if self.budget.excess.is_none() || finalizer == well_known::FINALIZER {
                finalizers.push(Value::String(finalizer));
            }
        }
        Ok(Value::Array(finalizers))
    }
}

/// Reads the fields of `spec` or `status`, and drops those that exceed a limit. `None`: not an object.
struct Section<'a> {
    name: &'a str,
    max_bytes: usize,
    error: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = Option<Map<String, Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = Option<Map<String, Value>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("fields of an object")
    }

    ignore_scalars!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let mut budget = FieldBudget::new(self.max_bytes);
            let value = map.next_value_seed(Bounded::new(&mut budget))?;
            match budget.error(&format!("{}.{key}", self.name), self.max_bytes) {
                None => drop(members.insert(key, value)),
                error => *self.error = self.error.take().or(error),
            }
        }
        Ok(Some(members))
    }
}

/// Reads a value within a budget. Once that is exceeded, the rest is skipped: the result is to be dropped.
struct Bounded<'a> {
    budget: &'a mut FieldBudget,
    levels: usize,
    /// A member that is skipped.
    skip: Option<&'static str>,
}

impl<'a> Bounded<'a> {
    fn new(budget: &'a mut FieldBudget) -> Self {
        Self { budget, levels: MAX_FIELD_DEPTH, skip: None }
    }

    fn member(&mut self) -> Bounded<'_> {
        Bounded { budget: self.budget, levels: self.levels - 1, skip: None }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.budget.charge(VALUE_BYTES);
        if self.levels == 0 {
            self.budget.excess = self.budget.excess.or(Some(Excess::Depth));
        }
        if self.budget.excess.is_some() {
            // serde_json skips an ignored value without recursion, so that its limit of levels does not apply.
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.budget.charge(value.len());
        Ok(if self.budget.excess.is_some() { Value::Null } else { value.into() })
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.member())? {
            if self.budget.excess.is_none() {
                values.push(value);
            }
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.skip == Some(key.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.budget.charge(key.len());
            let value = map.next_value_seed(self.member())?;
            if self.budget.excess.is_none() {
                members.insert(key, value);
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
