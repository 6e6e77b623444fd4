//! Exports traces by OTLP (protobuf over HTTP), configured by the OpenTelemetry environment variables.

use std::{path::PathBuf, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};

use super::{
    Error,
    collector::CollectorClient,
    span_counts::{SpanCounters, counting_processor},
};
use crate::api::MANAGER;

/// OpenTelemetry's default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds the export of queued spans at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct OtlpOptions {
    pub(super) url: String,
    timeout: Duration,
    /// PEM file with the certificate authorities of the collector; `None` means those of the system.
    pub(super) ca_file: Option<PathBuf>,
    sampler: Sampler,
    service: Option<String>,
}

impl OtlpOptions {
    /// `None` without an endpoint: tracing is off.
    pub(super) fn from_env(
        endpoint: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        // OpenTelemetry treats an empty variable as unset.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let traces_variable = |name: &str| {
            let specific = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            variable(&specific).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
        let base = || endpoint.map(|endpoint| format!("{}/v1/traces", endpoint.trim_end_matches('/')));
        let Some(url) = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(base) else { return Ok(None) };
        let is_valid = |url: http::Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
        if !url.parse().is_ok_and(is_valid) {
            // Not quoted: a URL may contain a password.
            return Err("the OTLP endpoint must be a URL such as http://collector:4318".to_owned());
        }
        if let Some(protocol) = traces_variable("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not {protocol}"));
        }
        let timeout = traces_variable("TIMEOUT").map(|value| {
            value
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| format!("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds, not {value:?}"))
        });
        Ok(Some(Self {
            url,
            timeout: timeout.transpose()?.unwrap_or(DEFAULT_EXPORT_TIMEOUT),
            ca_file: traces_variable("CERTIFICATE").map(PathBuf::from),
            sampler: sampler(
                variable("OTEL_TRACES_SAMPLER").as_deref(),
                variable("OTEL_TRACES_SAMPLER_ARG").as_deref(),
            )?,
            service: variable("OTEL_SERVICE_NAME"),
        }))
    }
}

/// A reconcile is the root of its trace, so samplers with and without `parentbased_` do the same.
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
                "OTEL_TRACES_SAMPLER must be always_on, always_off or traceidratio, optionally prefixed with parentbased_, not {other}"
            ));
        }
    };
    Ok(Sampler::ParentBased(Box::new(root)))
}

pub(super) struct TracePipeline {
    provider: SdkTracerProvider,
}

impl TracePipeline {
    /// Starts the SDK's export thread; its HTTP requests run on the current Tokio runtime.
    pub(super) fn start(options: OtlpOptions, counters: SpanCounters) -> Result<Self, Error> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::new(&options.url, options.ca_file.as_deref(), options.timeout)?)
            .with_endpoint(&options.url)
            .with_timeout(options.timeout)
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(counting_processor(exporter, counters))
            .with_sampler(options.sampler)
            .with_resource(resource(options.service))
            .build();
        Ok(Self { provider })
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer(MANAGER)
    }

    pub(super) async fn shutdown(self) {
        let shutdown = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT));
        if !matches!(shutdown.await, Ok(Ok(()))) {
            tracing::warn!("failed to export the last spans");
        }
    }
}

/// Attributes of the process. Environment variables override the built-in attributes.
fn resource(service: Option<String>) -> Resource {
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", MANAGER),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    let resource =
        resource.with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match service {
        Some(service) => resource.with_service_name(service).build(),
        None => resource.build(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn options(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<OtlpOptions>, String> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        OtlpOptions::from_env(endpoint, |name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn tracing_is_off_without_an_endpoint() {
        assert!(options(None, &[]).unwrap().is_none());
        assert!(options(Some(""), &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")]).unwrap().is_none());
        assert!(options(Some("http://a:4318"), &[("OTEL_SDK_DISABLED", "TRUE")]).unwrap().is_none());
    }

    #[test]
    fn opentelemetry_variables_keep_their_meaning() {
        let url = |endpoint, variables: &[_]| options(endpoint, variables).unwrap().unwrap().url;
        assert_eq!(url(Some("http://a:4318"), &[]), "http://a:4318/v1/traces");
        assert_eq!(url(Some("https://a/otlp/"), &[]), "https://a/otlp/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4318/custom");
        assert_eq!(url(Some("http://a:4318"), &[own]), "http://b:4318/custom", "the traces endpoint is used unchanged");
        assert_eq!(url(None, &[own]), "http://b:4318/custom");
        let timeouts = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2")];
        assert_eq!(options(None, &[own, timeouts[0], timeouts[1]]).unwrap().unwrap().timeout, Duration::from_millis(2));
        let ratio = [own, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        let sampler = format!("{:?}", options(None, &ratio).unwrap().unwrap().sampler);
        assert!(sampler.contains("TraceIdRatioBased(0.25)"), "{sampler}");
    }

    #[test]
    fn invalid_settings_are_rejected_with_valid_ones() {
        for (endpoint, variable, message) in [
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
            assert!(error.contains(message) && !error.contains("hidden"), "{error}");
        }
    }
}
