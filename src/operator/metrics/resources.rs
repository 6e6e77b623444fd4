//! What is told of resources: made anew for each scrape out of what the watch holds, so that nothing has to be kept
//! up to date, and nothing stays of a resource that is gone.

use std::{collections::BTreeMap, fmt};

use kube::{core::DeserializeGuard, runtime::reflector::Store};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::MetricType,
};
use strum::VariantNames;

use super::reference::{self, MetricDescription};
use crate::api::{AwsDeployUser, ConditionType, Reason, user::AccessKeyState};

/// What the watch of the leader holds; nothing while this replica stands by.
#[derive(Default)]
pub(super) struct ResourceCollector {
    stores: Mutex<Vec<Store<DeserializeGuard<AwsDeployUser>>>>,
    /// Whether the user of a resource was quarantined when a pass of this term last looked. A pass knows better than the
    /// status, which may have more to say; of what no pass has looked at yet, the status is what is known.
    quarantined: Mutex<BTreeMap<ResourceLabels, bool>>,
    /// A series for each resource.
    each: bool,
}

impl fmt::Debug for ResourceCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResourceCollector").finish_non_exhaustive()
    }
}

impl ResourceCollector {
    /// Nothing yet.
    pub(super) fn new(each: bool) -> Self {
        Self { each, ..Self::default() }
    }

    /// From now on these are told of.
    pub(super) fn set(&self, stores: Vec<Store<DeserializeGuard<AwsDeployUser>>>) {
        if stores.is_empty() {
            self.quarantined.lock().clear();
        }
        *self.stores.lock() = stores;
    }

    /// AWS quarantines the user of this resource, or no longer does.
    pub(super) fn quarantined(&self, namespace: &str, name: &str, is: bool) {
        let labels = ResourceLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.quarantined.lock().insert(labels, is);
    }
}

impl Collector for ResourceCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let stores = self.stores.lock().clone();
        if stores.is_empty() {
            return Ok(());
        }
        let mut summary = Summary::default();
        for user in stores.iter().flat_map(Store::state) {
            // One that cannot be read is looked after as well as it can be: it is counted.
            summary.resources += 1;
            if let Ok(user) = &user.0 {
                summary.add(user);
            }
        }
        let mut quarantined = self.quarantined.lock();
        quarantined.retain(|labels, _| summary.each.contains_key(labels));
        for (labels, is) in &*quarantined {
            if let Some(each) = summary.each.get_mut(labels) {
                each.quarantined = *is;
            }
        }
        drop(quarantined);
        summary.encode(encoder, self.each)
    }
}

/// What is told of all resources.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary {
    resources: i64,
    conditions: BTreeMap<ConditionLabels, i64>,
    keys: BTreeMap<&'static str, i64>,
    each: BTreeMap<ResourceLabels, ResourceSeries>,
}

/// What is told of one resource.
#[derive(Debug, Default, PartialEq)]
struct ResourceSeries {
    ready: bool,
    suspended: bool,
    quarantined: bool,
    key_created: Option<i64>,
    next_rotation: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ConditionLabels {
    r#type: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ResourceLabels {
    namespace: String,
    name: String,
}

#[derive(Debug, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Summary {
    fn add(&mut self, user: &AwsDeployUser) {
        let mut each = ResourceSeries { suspended: user.spec.suspend, ..ResourceSeries::default() };
        if let Some(status) = &user.status {
            for condition in &status.conditions {
                let labels = ConditionLabels {
                    r#type: condition.type_.clone(),
                    status: condition.status.clone(),
                    reason: condition.reason.clone(),
                };
                *self.conditions.entry(labels).or_default() += 1;
                each.ready |= condition.type_ == ConditionType::Ready.as_str() && condition.status == "True";
                each.quarantined |= condition.reason == Reason::Quarantined.as_str();
            }
            for key in &status.access_keys {
                *self.keys.entry(key.state.as_str()).or_default() += 1;
                if key.state == AccessKeyState::Published {
                    each.key_created = key.created_at.map(jiff::Timestamp::as_second);
                }
            }
            each.next_rotation = status.next_rotation_time.map(jiff::Timestamp::as_second);
        }
        let labels = ResourceLabels {
            namespace: user.metadata.namespace.clone().unwrap_or_default(),
            name: user.metadata.name.clone().unwrap_or_default(),
        };
        self.each.insert(labels, each);
    }

    fn encode(&self, mut encoder: DescriptorEncoder, each: bool) -> fmt::Result {
        gauge(&mut encoder, &reference::RESOURCES, Some(self.resources))?;
        gauges(
            &mut encoder,
            &reference::CONDITIONS,
            self.conditions.iter().map(|(labels, count)| (labels.clone(), *count)),
        )?;
        // States without a key too: an alert on one that has never been is an alert on nothing.
        let states = AccessKeyState::VARIANTS.iter().copied();
        let keys = states.map(|state| (StateLabel { state }, self.keys.get(state).copied().unwrap_or_default()));
        gauges(&mut encoder, &reference::KEYS, keys)?;
        let first = |of: fn(&ResourceSeries) -> Option<i64>| self.each.values().filter_map(of).min();
        gauge(&mut encoder, &reference::OLDEST_KEY, first(|each| each.key_created))?;
        gauge(&mut encoder, &reference::EARLIEST_ROTATION, first(|each| each.next_rotation))?;
        let of_each = |of: fn(&ResourceSeries) -> Option<i64>| {
            self.each.iter().filter_map(move |(labels, each)| Some((labels.clone(), of(each)?))).collect::<Vec<_>>()
        };
        gauges(&mut encoder, &reference::QUARANTINED, of_each(|each| each.quarantined.then_some(1)))?;
        if !each {
            return Ok(());
        }
        gauges(&mut encoder, &reference::READY, of_each(|each| Some(each.ready.into())))?;
        gauges(&mut encoder, &reference::SUSPENDED, of_each(|each| each.suspended.then_some(1)))?;
        gauges(&mut encoder, &reference::KEY_CREATED, of_each(|each| each.key_created))?;
        gauges(&mut encoder, &reference::NEXT_ROTATION, of_each(|each| each.next_rotation))
    }
}

fn gauge(encoder: &mut DescriptorEncoder, described: &MetricDescription, value: Option<i64>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(described.name, described.help, None, MetricType::Gauge)?;
    value.map_or(Ok(()), |value| metric.encode_gauge(&value))
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    described: &MetricDescription,
    values: impl IntoIterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(described.name, described.help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Summaries for tests.
#[cfg(test)]
pub(super) mod sample {
    use serde_json::json;

    use super::{AwsDeployUser, Collector, DescriptorEncoder, Summary, fmt};

    /// One that is well, one that is suspended and was never written a status for its key.
    #[derive(Debug)]
    pub(in crate::operator::metrics) struct Two {
        pub(in crate::operator::metrics) each: bool,
    }

    impl Collector for Two {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            let mut summary = Summary { resources: 3, ..Summary::default() };
            for user in users() {
                summary.add(&user);
            }
            if self.each
                && let Some(each) = summary.each.values_mut().next()
            {
                each.quarantined = true;
            }
            summary.encode(encoder, self.each)
        }
    }

    pub(in crate::operator::metrics) fn users() -> [AwsDeployUser; 2] {
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-11-01T00:00:00Z"});
        [
            json!({
                "metadata": {"namespace": "deploy", "name": "well"}, "spec": {},
                "status": {
                    "conditions": [condition("Ready", "True", "Reconciled"), condition("Authorized", "True", "Allowed")],
                    "accessKeys": [
                        {"id": "AKIA1", "state": "Superseded", "createdAt": "2026-10-01T00:00:00Z"},
                        {"id": "AKIA2", "state": "Published", "createdAt": "2026-11-01T00:00:00Z"},
                    ],
                    "nextRotationTime": "2026-12-01T00:00:00Z",
                },
            }),
            json!({
                "metadata": {"namespace": "deploy", "name": "put-off"}, "spec": {"suspend": true},
                "status": {"conditions": [condition("Ready", "False", "Suspended")]},
            }),
        ]
        .map(|mut user| {
            user["apiVersion"] = json!("awsdeploy.dev/v1alpha1");
            user["kind"] = json!("AwsDeployUser");
            serde_json::from_value(user).expect("a resource")
        })
    }
}
