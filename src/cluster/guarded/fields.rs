//! Reads the fields of an object within limits. A field that exceeds one is dropped.

use std::{collections::BTreeSet, fmt, marker::PhantomData};

use kube::core::ObjectMeta;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};

use super::{LAST_APPLIED, MAX_FIELD_DEPTH, MAX_METADATA_FIELD_BYTES, METADATA_FIELDS, VALUE_BYTES, WatchedKind};
use crate::api::well_known;

/// What was read of an object.
#[derive(Default)]
pub(super) struct ReadObject {
    pub(super) metadata: Map<String, Value>,
    /// `spec` and `status`.
    pub(super) fields: Map<String, Value>,
    /// The first field that was dropped, and why.
    pub(super) error: Option<String>,
    /// Fields of `spec` and `status` that were dropped.
    pub(super) dropped: Vec<String>,
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

/// Reads an object of kind `K`.
pub(super) struct ObjectVisitor<K>(pub(super) PhantomData<K>);

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
                    let (error, dropped) = (&mut read.error, &mut read.dropped);
                    let section = Section { name: &key, known: K::known_fields(), max_bytes, error, dropped };
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

/// Reads the known fields of `spec` or `status`, and drops those that exceed a limit. `None`: not an object.
struct Section<'a> {
    name: &'a str,
    known: &'static BTreeSet<String>,
    max_bytes: usize,
    error: &'a mut Option<String>,
    dropped: &'a mut Vec<String>,
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
            let field = format!("{}.{key}", self.name);
            if !self.known.contains(&field) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let mut budget = FieldBudget::new(self.max_bytes);
            let value = map.next_value_seed(Bounded::new(&mut budget))?;
            match budget.error(&field, self.max_bytes) {
                None => drop(members.insert(key, value)),
                error => {
                    *self.error = self.error.take().or(error);
                    self.dropped.push(field);
                }
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
