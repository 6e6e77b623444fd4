//! Metrics, prefix `awsdeploy_`, `OpenMetrics` text. No key ids in labels.

pub mod reference;
mod resources;

use std::{sync::Arc, time::Duration};

use kube::{core::DeserializeGuard, runtime::reflector::Store};
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text::encode},
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
use crate::{
    api::{AwsDeployUser, Reason},
    aws::CallObserver,
    domain::plan::EffectVerb,
    reconcile::ReconcileObserver,
};

/// Everything that is counted.
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
    watched: Arc<ResourceCollector>,
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

/// How an attempt at a new key may end.
const ROTATIONS: [&str; 4] = ["published", "not_accepted", "cut_off", "refused"];

/// What may become of a span.
const SPANS: [&str; 3] = ["exported", "failed", "dropped"];

impl Metrics {
    /// Metrics that begin at zero; with a series for each resource if `per_resource`.
    #[must_use]
    pub fn new(per_resource: bool) -> Self {
        let watched = Arc::new(ResourceCollector::new(per_resource));
        Self::with(Arc::clone(&watched), Box::new(watched))
    }

    fn with(watched: Arc<ResourceCollector>, resources: Box<dyn Collector>) -> Self {
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
            watched,
        };
        // An increase from nothing is none to Prometheus; from zero it is one.
        for result in ROTATIONS {
            drop(metrics.rotations.get_or_create(&ResultLabel { result }));
        }
        for result in SPANS {
            drop(metrics.trace_spans.get_or_create(&ResultLabel { result }));
        }
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
        metrics.registry.register_collector(resources);
        metrics
    }

    fn register(&mut self, described: &MetricDescription, metric: impl Metric) {
        self.registry.register(described.name, described.help, metric);
    }

    /// This replica leads, and these are the resources that it watches.
    pub(super) fn leads(&self, stores: Vec<Store<DeserializeGuard<AwsDeployUser>>>) {
        self.watched.set(stores);
        self.leader.set(1);
    }

    /// This replica stands by: what it knew of resources is for the next leader to tell.
    pub(super) fn stands_by(&self) {
        self.leader.set(0);
        self.watched.set(Vec::new());
    }

    /// So many spans were sent, or not.
    pub(super) fn spans(&self, result: &'static str, count: usize) {
        self.trace_spans.get_or_create(&ResultLabel { result }).inc_by(count as u64);
    }

    /// A new certificate was found, and can be used or not.
    pub(super) fn certificate(&self, usable: bool) {
        self.certificate_refused.set((!usable).into());
    }

    /// The metrics as `OpenMetrics` text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String has no way to fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn attempt_ended(&self, result: &'static str) {
        self.rotations.get_or_create(&ResultLabel { result }).inc();
    }
}

impl CallObserver for Metrics {
    fn record_call(&self, account: &str, operation: &'static str, code: &str, took: Duration) {
        let label = AccountLabel { account: account.to_owned() };
        // An increase from nothing is none to Prometheus; from zero it is one.
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
            (EffectVerb::AbandonAttempt, Some(Reason::KeyNotAccepted)) => self.attempt_ended("not_accepted"),
            (EffectVerb::AbandonAttempt, None) => self.attempt_ended("cut_off"),
            (EffectVerb::CreateKey, Some(_)) => self.attempt_ended("refused"),
            _ => {}
        }
    }

    fn rotated(&self) {
        self.attempt_ended("published");
    }

    fn verified(&self, took: Duration) {
        self.verification_seconds.observe(took.as_secs_f64());
    }

    fn quarantined(&self, namespace: &str, name: &str, is: bool) {
        self.watched.quarantined(namespace, name, is);
    }
}

#[cfg(test)]
mod tests;
