//! Traces by OTLP: protobuf over HTTP, as the environment variables of OpenTelemetry say.

use std::{path::PathBuf, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};

use super::{Error, collector::CollectorClient, queue};
use crate::{api::MANAGER, operator::metrics::Metrics};

/// How long a collector may take for a request unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take at the end of the process.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Where spans go, and which.
#[derive(Debug)]
pub(super) struct OtlpOptions {
    pub(super) url: String,
    timeout: Duration,
    /// File with the authorities that sign the collector's certificate. Absent: those of the system.
    pub(super) authorities: Option<PathBuf>,
    sampler: Sampler,
    service: Option<String>,
}

impl OtlpOptions {
    /// The settings, or `None` if there is no endpoint, and so no traces.
    pub(super) fn of(
        endpoint: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        // An empty variable is as good as none (OpenTelemetry's own rule).
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let of_traces = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            variable(&own).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
        let base = || endpoint.map(|endpoint| format!("{}/v1/traces", endpoint.trim_end_matches('/')));
        let Some(url) = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(base) else { return Ok(None) };
        let is_one = |url: http::Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
        if !url.parse().is_ok_and(is_one) {
            // Not quoted: there are URLs with passwords.
            return Err("the endpoint of OTLP must be a URL like http://collector:4318".to_owned());
        }
        if let Some(protocol) = of_traces("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL: traces are sent as http/protobuf, not as {protocol}"));
        }
        let timeout = of_traces("TIMEOUT").map(|value| {
            value
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| format!("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds, not {value:?}"))
        });
        Ok(Some(Self {
            url,
            timeout: timeout.transpose()?.unwrap_or(TIMEOUT),
            authorities: of_traces("CERTIFICATE").map(PathBuf::from),
            sampler: sampler(
                variable("OTEL_TRACES_SAMPLER").as_deref(),
                variable("OTEL_TRACES_SAMPLER_ARG").as_deref(),
            )?,
            service: variable("OTEL_SERVICE_NAME"),
        }))
    }
}

/// A pass is the root of its trace, so those with and without `parentbased_` are the same.
fn sampler(name: Option<&str>, argument: Option<&str>) -> Result<Sampler, String> {
    let root = match name.unwrap_or("parentbased_always_on") {
        "always_on" | "parentbased_always_on" => Sampler::AlwaysOn,
        "always_off" | "parentbased_always_off" => Sampler::AlwaysOff,
        "traceidratio" | "parentbased_traceidratio" => {
            let ratio = argument.unwrap_or("1").parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            Sampler::TraceIdRatioBased(
                ratio.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG must be between 0 and 1, not {argument:?}"))?,
            )
        }
        other => {
            return Err(format!(
                "OTEL_TRACES_SAMPLER may be always_on, always_off, traceidratio, or one of these with parentbased_ before it, not {other}"
            ));
        }
    };
    Ok(Sampler::ParentBased(Box::new(root)))
}

/// Sends spans to a collector.
pub(super) struct TracePipeline {
    provider: SdkTracerProvider,
    queue: Arc<queue::Queue>,
}

impl TracePipeline {
    /// Begins. Spans are sent by a thread of their own; what it asks of the network is done on this runtime.
    pub(super) fn start(options: OtlpOptions) -> Result<Self, Error> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::new(&options.url, options.authorities.as_deref(), options.timeout)?)
            .with_endpoint(&options.url)
            .with_timeout(options.timeout)
            .build()?;
        let queue = Arc::new(queue::Queue::default());
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue::bounded(exporter, &queue))
            .with_sampler(options.sampler)
            .with_resource(resource(options.service))
            .build();
        Ok(Self { provider, queue })
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer(MANAGER)
    }

    pub(super) fn count_in(&self, metrics: &Arc<Metrics>) {
        self.queue.count_in(metrics);
    }

    pub(super) async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(STOP_LIMIT));
        if !matches!(stopping.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// Who sends them. What the environment says wins over what the program knows.
fn resource(service: Option<String>) -> Resource {
    let known = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", MANAGER),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    let known = known.with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match service {
        Some(service) => known.with_service_name(service).build(),
        None => known.build(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn options(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<OtlpOptions>, String> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        OtlpOptions::of(endpoint, |name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        assert!(options(None, &[]).unwrap().is_none());
        assert!(options(Some(""), &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")]).unwrap().is_none());
        assert!(options(Some("http://a:4318"), &[("OTEL_SDK_DISABLED", "TRUE")]).unwrap().is_none());
    }

    #[test]
    fn the_variables_of_opentelemetry_mean_what_they_mean_elsewhere() {
        let url = |endpoint, variables: &[_]| options(endpoint, variables).unwrap().unwrap().url;
        assert_eq!(url(Some("http://a:4318"), &[]), "http://a:4318/v1/traces");
        assert_eq!(url(Some("https://a/otlp/"), &[]), "https://a/otlp/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4318/custom");
        assert_eq!(url(Some("http://a:4318"), &[own]), "http://b:4318/custom", "the one of traces is taken as it is");
        assert_eq!(url(None, &[own]), "http://b:4318/custom");
        let timeouts = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2")];
        assert_eq!(options(None, &[own, timeouts[0], timeouts[1]]).unwrap().unwrap().timeout, Duration::from_millis(2));
        let ratio = [own, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        let sampler = format!("{:?}", options(None, &ratio).unwrap().unwrap().sampler);
        assert!(sampler.contains("TraceIdRatioBased(0.25)"), "{sampler}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_can() {
        for (endpoint, variable, told) in [
            ("collector:4318", ("", ""), "http://collector:4318"),
            ("ftp://me:hidden@host", ("", ""), "http://collector:4318"),
            ("http://a", ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "http/protobuf"),
            ("http://a", ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"), "milliseconds"),
            ("http://a", ("OTEL_TRACES_SAMPLER", "xray"), "always_on"),
            ("http://a", ("OTEL_TRACES_SAMPLER_ARG", "2"), ""),
        ] {
            let variables = [variable, ("OTEL_TRACES_SAMPLER", "traceidratio")];
            let variables = if variable.0 == "OTEL_TRACES_SAMPLER_ARG" { &variables[..] } else { &variables[..1] };
            let error = options(Some(endpoint), variables).err().unwrap();
            assert!(error.contains(told) && !error.contains("hidden"), "{error}");
        }
    }
}
