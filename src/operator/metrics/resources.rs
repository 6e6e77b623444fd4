//! Metrics of resources, computed at each scrape from the watched objects, so that deleted resources leave no series.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kube::{Resource as _, runtime::reflector::Store};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::MetricType,
};
use strum::VariantNames;

use super::reference::{self, MetricDescription};
use crate::{
    api::{AwsDeployUser, ConditionType, Reason, user::AccessKeyState},
    cluster::GuardedUser,
};

/// Exports nothing while this replica is not the leader.
#[derive(Default)]
pub(super) struct ResourceCollector {
    stores: Mutex<Vec<Store<GuardedUser>>>,
    /// Quarantines observed by reconciles since this replica became the leader. They take precedence over the status, whose
    /// reasons may report another problem.
    quarantined: Mutex<BTreeMap<ResourceLabels, bool>>,
    per_resource: bool,
}

impl fmt::Debug for ResourceCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResourceCollector").finish_non_exhaustive()
    }
}

impl ResourceCollector {
    pub(super) fn new(per_resource: bool) -> Self {
        Self { per_resource, ..Self::default() }
    }

    pub(super) fn set_stores(&self, stores: Vec<Store<GuardedUser>>) {
        if stores.is_empty() {
            self.quarantined.lock().clear();
        }
        *self.stores.lock() = stores;
    }

    /// Drops the observations of deleted resources, whether or not metrics are scraped.
    pub(super) fn drop_deleted(&self) {
        let stores = self.stores.lock().clone();
        let existing: BTreeSet<_> = stores.iter().flat_map(Store::state).map(|user| labels(&user)).collect();
        self.quarantined.lock().retain(|labels, _| existing.contains(labels));
    }

    #[cfg(test)]
    pub(super) fn observation_count(&self) -> usize {
        self.quarantined.lock().len()
    }

    pub(super) fn set_quarantined(&self, namespace: &str, name: &str, is_quarantined: bool) {
        let labels = ResourceLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.quarantined.lock().insert(labels, is_quarantined);
    }
}

impl Collector for ResourceCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let stores = self.stores.lock().clone();
        if stores.is_empty() {
            return Ok(());
        }
        let mut summary = ResourceSummary::default();
        for user in stores.iter().flat_map(Store::state) {
            // Resources that cannot be read count too.
            summary.resources += 1;
            if let Some(user) = user.object() {
                summary.add(user);
            }
        }
        let quarantined = self.quarantined.lock();
        for (labels, is_quarantined) in &*quarantined {
            if let Some(series) = summary.series.get_mut(labels) {
                series.quarantined = *is_quarantined;
            }
        }
        drop(quarantined);
        summary.encode(encoder, self.per_resource)
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct ResourceSummary {
    resources: i64,
    conditions: BTreeMap<ConditionLabels, i64>,
    keys: BTreeMap<&'static str, i64>,
    series: BTreeMap<ResourceLabels, ResourceSeries>,
}

#[derive(Debug, Default, PartialEq)]
struct ResourceSeries {
    ready: bool,
    credentials_revoked: bool,
    quarantined: bool,
    key_created: Option<i64>,
    next_rotation: Option<i64>,
    previous_key_expiry: Option<i64>,
    /// Of `RotationHealthy`.
    rotation_reason: String,
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
struct ReasonLabel {
    reason: String,
}

#[derive(Debug, EncodeLabelSet)]
struct ExpiryLabels {
    namespace: String,
    name: String,
    reason: String,
}

fn labels(user: &GuardedUser) -> ResourceLabels {
    let meta = user.meta();
    ResourceLabels {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

#[derive(Debug, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl ResourceSummary {
    fn add(&mut self, user: &AwsDeployUser) {
        let mut series =
            ResourceSeries { credentials_revoked: user.spec.credentials_revoked(), ..ResourceSeries::default() };
        if let Some(status) = &user.status {
            for condition in &status.conditions {
                let labels = ConditionLabels {
                    r#type: condition.type_.clone(),
                    status: condition.status.clone(),
                    reason: condition.reason.clone(),
                };
                *self.conditions.entry(labels).or_default() += 1;
                if condition.type_ == ConditionType::RotationHealthy.as_str() {
                    series.rotation_reason.clone_from(&condition.reason);
                }
                series.ready |= condition.type_ == ConditionType::Ready.as_str() && condition.status == "True";
                series.quarantined |= condition.reason == Reason::Quarantined.as_str();
            }
            for key in &status.access_keys {
                *self.keys.entry(key.state.as_str()).or_default() += 1;
                if key.state == AccessKeyState::Published {
                    series.key_created = key.created_at.map(jiff::Timestamp::as_second);
                }
                if key.state == AccessKeyState::Superseded {
                    series.previous_key_expiry = key.retires_at.map(jiff::Timestamp::as_second);
                }
            }
            series.next_rotation = status.next_rotation_time.map(jiff::Timestamp::as_second);
        }
        let labels = ResourceLabels {
            namespace: user.metadata.namespace.clone().unwrap_or_default(),
            name: user.metadata.name.clone().unwrap_or_default(),
        };
        self.series.insert(labels, series);
    }

    fn encode(&self, mut encoder: DescriptorEncoder, per_resource: bool) -> fmt::Result {
        gauge(&mut encoder, &reference::RESOURCES, Some(self.resources))?;
        gauges(
            &mut encoder,
            &reference::CONDITIONS,
            self.conditions.iter().map(|(labels, count)| (labels.clone(), *count)),
        )?;
        // States without a key too: an alert needs the series to exist.
        let states = AccessKeyState::VARIANTS.iter().copied();
        let keys = states.map(|state| (StateLabel { state }, self.keys.get(state).copied().unwrap_or_default()));
        gauges(&mut encoder, &reference::KEYS, keys)?;
        let earliest = |of: fn(&ResourceSeries) -> Option<i64>| self.series.values().filter_map(of).min();
        gauge(&mut encoder, &reference::OLDEST_KEY, earliest(|series| series.key_created))?;
        gauge(&mut encoder, &reference::EARLIEST_ROTATION, earliest(|series| series.next_rotation))?;
        let mut expiries: BTreeMap<&str, i64> = BTreeMap::new();
        for series in self.series.values() {
            let Some(expiry) = series.previous_key_expiry else { continue };
            let earliest = expiries.entry(&series.rotation_reason).or_insert(expiry);
            *earliest = expiry.min(*earliest);
        }
        let expiries = expiries.into_iter().map(|(reason, expiry)| (ReasonLabel { reason: reason.to_owned() }, expiry));
        gauges(&mut encoder, &reference::EARLIEST_EXPIRY, expiries)?;
        let values = |of: fn(&ResourceSeries) -> Option<i64>| {
            self.series
                .iter()
                .filter_map(move |(labels, series)| Some((labels.clone(), of(series)?)))
                .collect::<Vec<_>>()
        };
        gauges(&mut encoder, &reference::QUARANTINED, values(|series| series.quarantined.then_some(1)))?;
        if !per_resource {
            return Ok(());
        }
        gauges(&mut encoder, &reference::READY, values(|series| Some(series.ready.into())))?;
        gauges(
            &mut encoder,
            &reference::CREDENTIALS_REVOKED,
            values(|series| series.credentials_revoked.then_some(1)),
        )?;
        gauges(&mut encoder, &reference::KEY_CREATED, values(|series| series.key_created))?;
        gauges(&mut encoder, &reference::NEXT_ROTATION, values(|series| series.next_rotation))?;
        let expiries = self.series.iter().filter_map(|(labels, series)| {
            let (ResourceLabels { namespace, name }, reason) = (labels.clone(), series.rotation_reason.clone());
            Some((ExpiryLabels { namespace, name, reason }, series.previous_key_expiry?))
        });
        gauges(&mut encoder, &reference::PREVIOUS_KEY_EXPIRY, expiries)
    }
}

fn gauge(encoder: &mut DescriptorEncoder, description: &MetricDescription, value: Option<i64>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(description.name, description.help, None, MetricType::Gauge)?;
    value.map_or(Ok(()), |value| metric.encode_gauge(&value))
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    description: &MetricDescription,
    values: impl IntoIterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(description.name, description.help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod sample {
    use serde_json::json;

    use super::{AwsDeployUser, Collector, DescriptorEncoder, ResourceSummary, fmt};

    /// Three resources: one Ready, one with revoked credentials and without keys, one that cannot be read.
    #[derive(Debug)]
    pub(in crate::operator::metrics) struct SampleCollector {
        pub(in crate::operator::metrics) per_resource: bool,
    }

    impl Collector for SampleCollector {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            let mut summary = ResourceSummary { resources: 3, ..ResourceSummary::default() };
            for user in users() {
                summary.add(&user);
            }
            if self.per_resource
                && let Some(series) = summary.series.values_mut().next()
            {
                series.quarantined = true;
            }
            summary.encode(encoder, self.per_resource)
        }
    }

    pub(in crate::operator::metrics) fn users() -> [AwsDeployUser; 2] {
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-11-01T00:00:00Z"});
        [
            json!({
                "metadata": {"namespace": "deploy", "name": "healthy"}, "spec": {},
                "status": {
                    "conditions": [condition("Ready", "True", "Reconciled"), condition("Authorized", "True", "Allowed"), condition("RotationHealthy", "True", "StillUsed")],
                    "accessKeys": [
                        {"id": "AKIA1", "state": "Superseded", "createdAt": "2026-10-01T00:00:00Z", "retiresAt": "2026-11-08T00:00:00Z"},
                        {"id": "AKIA2", "state": "Published", "createdAt": "2026-11-01T00:00:00Z"},
                    ],
                    "nextRotationTime": "2026-12-01T00:00:00Z",
                },
            }),
            json!({
                "metadata": {"namespace": "deploy", "name": "revoked"}, "spec": {"credentials": "Revoked"},
                "status": {"conditions": [condition("Ready", "False", "CredentialsRevoked")]},
            }),
        ]
        .map(|mut user| {
            user["apiVersion"] = json!("awsdeploy.dev/v1alpha1");
            user["kind"] = json!("AwsDeployUser");
            serde_json::from_value(user).expect("a resource")
        })
    }
}
