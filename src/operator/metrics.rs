//! Metrics, prefix `awsdeploy_`, `OpenMetrics` text. No key ids in labels.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use crate::{aws::CallObserver, reconcile::PassObserver};

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    aws_requests: Family<CallLabels, Counter>,
    aws_request_seconds: Histogram,
    effects: Family<EffectLabels, Counter>,
    rotations: Counter,
    quarantined: Family<ObjectLabels, Gauge>,
    /// Those that `quarantined` has a series of: one that is gone must not be alarmed about for ever.
    in_quarantine: Mutex<HashSet<ObjectLabels>>,
    /// Resources that the operator looks after.
    pub resources: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("awsdeploy");
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            aws_requests: Family::default(),
            aws_request_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            effects: Family::default(),
            rotations: Counter::default(),
            quarantined: Family::default(),
            in_quarantine: Mutex::default(),
            resources: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "reconciles",
            "Passes by result: ok, or the reason of the first failure",
            metrics.reconciles.clone(),
        );
        registry.register("reconcile_duration_seconds", "Duration of passes", metrics.reconcile_seconds.clone());
        registry.register("aws_requests", "Calls to AWS by operation and code", metrics.aws_requests.clone());
        registry.register(
            "aws_request_duration_seconds",
            "Duration of calls to AWS",
            metrics.aws_request_seconds.clone(),
        );
        registry.register("effects", "Effects of passes by verb and result", metrics.effects.clone());
        registry.register("rotations", "Access keys published", metrics.rotations.clone());
        registry.register(
            "quarantined",
            "1 for each AwsDeployUser whose IAM user AWS has quarantined, because it found a key of it in public",
            metrics.quarantined.clone(),
        );
        registry.register("resources", "AwsDeployUser resources that are looked after", metrics.resources.clone());
        registry.register("build", "Version of the operator", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// The metrics as `OpenMetrics` text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String has no way to fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Drops the series of resources other than these (namespace, name): they are gone, or another replica's now.
    pub fn keep_only(&self, objects: &HashSet<(String, String)>) {
        let mut seen = self.in_quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|labels| {
            let stays = objects.contains(&(labels.namespace.clone(), labels.name.clone()));
            if !stays {
                self.quarantined.remove(labels);
            }
            stays
        });
    }
}

impl CallObserver for Metrics {
    fn called(&self, operation: &'static str, code: &str, took: Duration) {
        self.aws_requests.get_or_create(&CallLabels { operation, code: code.to_owned() }).inc();
        self.aws_request_seconds.observe(took.as_secs_f64());
    }
}

impl PassObserver for Metrics {
    fn passed(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    fn acted(&self, effect: &'static str, ok: bool) {
        self.effects.get_or_create(&EffectLabels { effect, result: if ok { "ok" } else { "error" } }).inc();
    }

    fn rotated(&self) {
        self.rotations.inc();
    }

    fn quarantined(&self, namespace: &str, name: &str, is: bool) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        let mut seen = self.in_quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        if is {
            self.quarantined.get_or_create(&labels).set(1);
            seen.insert(labels);
        } else if seen.remove(&labels) {
            self.quarantined.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_rotations_are_counted_under_our_prefix() {
        let metrics = Metrics::default();
        metrics.called("CreateAccessKey", "OK", Duration::from_millis(20));
        metrics.rotated();
        let text = metrics.text();
        assert!(text.contains(r#"awsdeploy_aws_requests_total{operation="CreateAccessKey",code="OK"} 1"#), "{text}");
        assert!(text.contains("awsdeploy_rotations_total 1"), "{text}");
        assert!(text.contains("awsdeploy_build_info{version="), "{text}");
    }

    #[test]
    fn a_quarantine_is_shown_while_it_lasts_and_its_resource_is_there() {
        let metrics = Metrics::default();
        let shown = || metrics.text().lines().filter(|line| line.starts_with("awsdeploy_quarantined{")).count();
        metrics.quarantined("deploy", "a", true);
        metrics.quarantined("deploy", "b", true);
        metrics.quarantined("deploy", "c", false);
        assert!(
            metrics.text().contains(r#"awsdeploy_quarantined{namespace="deploy",name="a"} 1"#),
            "{}",
            metrics.text()
        );
        assert_eq!(shown(), 2);
        metrics.quarantined("deploy", "a", false);
        assert_eq!(shown(), 1, "detached");
        metrics.keep_only(&HashSet::from([("other".to_owned(), "b".to_owned())]));
        assert_eq!(shown(), 0, "gone");
    }
}
