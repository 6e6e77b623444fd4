//! Metrics with the prefix `awsdeploy_`, in the `OpenMetrics` text format. Labels contain no key ids, ARNs or user names.

pub mod reference;
mod resources;

use std::{sync::Arc, time::Duration};

use kube::runtime::reflector::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry},
};

use self::{reference::MetricDescription, resources::ResourceCollector};
use super::telemetry::SpanCounters;
use crate::{
    api::Reason, aws::CallObserver, cluster::GuardedUser, domain::plan::EffectVerb, reconcile::ReconcileObserver,
};

pub struct Metrics {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    effects: Family<EffectLabels, Counter>,
    rotations: Family<ResultLabel, Counter>,
    verification_seconds: Histogram,
    aws_requests: Family<CallLabels, Counter>,
    aws_request_seconds: Family<AccountLabel, Histogram>,
    aws_throttled: Family<AccountLabel, Counter>,
    leader: Gauge,
    certificate_refused: Gauge,
    trace_spans: Family<ResultLabel, Counter>,
    resources: Arc<ResourceCollector>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    account: String,
    operation: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AccountLabel {
    account: String,
}

const ROTATION_RESULTS: [&str; 4] = ["published", "not_accepted", "cut_off", "refused"];

impl Metrics {
    /// `per_resource` adds one series per resource to some metrics.
    #[must_use]
    pub fn new(per_resource: bool) -> Self {
        let resources = Arc::new(ResourceCollector::new(per_resource));
        Self::with_collector(Arc::clone(&resources), Box::new(resources))
    }

    fn with_collector(resources: Arc<ResourceCollector>, collector: Box<dyn Collector>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("awsdeploy"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            effects: Family::default(),
            rotations: Family::default(),
            verification_seconds: Histogram::new(exponential_buckets(0.5, 2.0, 11)),
            aws_requests: Family::default(),
            aws_request_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 12))),
            aws_throttled: Family::default(),
            leader: Gauge::default(),
            certificate_refused: Gauge::default(),
            trace_spans: Family::default(),
            resources,
        };
        // Prometheus sees no increase when a series appears with its first value, so series start at zero.
        for result in ROTATION_RESULTS {
            drop(metrics.rotations.get_or_create(&ResultLabel { result }));
        }
        drop(metrics.span_counters());
        metrics.register(&reference::RECONCILES, metrics.reconciles.clone());
        metrics.register(&reference::RECONCILE_SECONDS, metrics.reconcile_seconds.clone());
        metrics.register(&reference::EFFECTS, metrics.effects.clone());
        metrics.register(&reference::ROTATIONS, metrics.rotations.clone());
        metrics.register(&reference::VERIFICATION_SECONDS, metrics.verification_seconds.clone());
        metrics.register(&reference::AWS_REQUESTS, metrics.aws_requests.clone());
        metrics.register(&reference::AWS_REQUEST_SECONDS, metrics.aws_request_seconds.clone());
        metrics.register(&reference::AWS_THROTTLED, metrics.aws_throttled.clone());
        metrics.register(&reference::LEADER, metrics.leader.clone());
        metrics.register(&reference::BUILD, Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        metrics.register(&reference::CERTIFICATE_REFUSED, metrics.certificate_refused.clone());
        metrics.register(&reference::TRACE_SPANS, metrics.trace_spans.clone());
        metrics.registry.register_collector(collector);
        metrics
    }

    fn register(&mut self, description: &MetricDescription, metric: impl Metric) {
        self.registry.register(description.name, description.help, metric);
    }

    /// Drops what was observed of resources that do not exist any more.
    pub(super) fn drop_deleted_resources(&self) {
        self.resources.drop_deleted();
    }

    /// This replica is the leader and watches these resources.
    pub(super) fn set_leader(&self, stores: Vec<Store<GuardedUser>>) {
        self.resources.set_stores(stores);
        self.leader.set(1);
    }

    /// This replica is not the leader. Drops the metrics of resources: the next leader exports them.
    pub(super) fn set_standby(&self) {
        self.leader.set(0);
        self.resources.set_stores(Vec::new());
    }

    pub(super) fn span_counters(&self) -> SpanCounters {
        let counter = |result| self.trace_spans.get_or_create(&ResultLabel { result }).clone();
        SpanCounters { exported: counter("exported"), failed: counter("failed"), dropped: counter("dropped") }
    }

    /// Whether the files of the serving certificate hold a usable pair.
    pub(super) fn set_certificate_usable(&self, usable: bool) {
        self.certificate_refused.set((!usable).into());
    }

    /// The metrics in the `OpenMetrics` text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }

    fn count_rotation(&self, result: &'static str) {
        self.rotations.get_or_create(&ResultLabel { result }).inc();
    }
}

impl CallObserver for Metrics {
    fn record_call(&self, account: &str, operation: &'static str, code: &str, took: Duration) {
        let label = AccountLabel { account: account.to_owned() };
        // Starts the series at zero.
        drop(self.aws_throttled.get_or_create(&label));
        self.aws_request_seconds.get_or_create(&label).observe(took.as_secs_f64());
        let labels = CallLabels { account: label.account, operation, code: code.to_owned() };
        self.aws_requests.get_or_create(&labels).inc();
    }

    fn record_throttle(&self, account: &str) {
        self.aws_throttled.get_or_create(&AccountLabel { account: account.to_owned() }).inc();
    }
}

impl ReconcileObserver for Metrics {
    fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    fn acted(&self, effect: EffectVerb, failure: Option<Reason>) {
        self.effects
            .get_or_create(&EffectLabels { effect: effect.as_str(), result: failure.map_or("ok", Reason::as_str) })
            .inc();
        match (effect, failure) {
            (EffectVerb::AbandonAttempt, Some(Reason::KeyNotAccepted)) => self.count_rotation("not_accepted"),
            (EffectVerb::AbandonAttempt, None) => self.count_rotation("cut_off"),
            (EffectVerb::CreateKey, Some(_)) => self.count_rotation("refused"),
            _ => {}
        }
    }

    fn rotated(&self) {
        self.count_rotation("published");
    }

    fn verified(&self, took: Duration) {
        self.verification_seconds.observe(took.as_secs_f64());
    }

    fn quarantined(&self, namespace: &str, name: &str, is: bool) {
        self.resources.set_quarantined(namespace, name, is);
    }
}

#[cfg(test)]
mod tests;
