//! Logs and traces. Key material cannot be logged: its types implement no `Debug` that shows it.

mod collector;
mod filter;
mod span_counts;
mod traces;

use std::io::IsTerminal as _;

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

pub(super) use self::span_counts::SpanCounters;
use self::traces::{OtlpOptions, TracePipeline};
use super::{
    metrics::Metrics,
    settings::{LogFormat, OperatorSettings},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Exports traces until it is shut down.
pub struct Telemetry {
    traces: Option<TracePipeline>,
}

/// Starts logging to standard error, and exporting traces if an endpoint is configured. Must be called in a Tokio runtime.
///
/// # Errors
/// When the log directives or the OpenTelemetry settings are not valid.
pub fn start(settings: &OperatorSettings, metrics: &Metrics) -> Result<Telemetry, Error> {
    let filter = filter::parse(&settings.log).map_err(|error| format!("--log {:?}: {error}", settings.log))?;
    let options = OtlpOptions::from_env(settings.otlp_endpoint.as_deref(), |name| std::env::var(name).ok())?;
    let traces = options.map(|options| TracePipeline::start(options, metrics.span_counters())).transpose()?;
    let json = settings.log_format == LogFormat::Json;
    let Some(traces) = traces else {
        // A global filter: spans and events that are not logged are not created.
        tracing_subscriber::registry().with(filter).with(log_layer(json)).try_init()?;
        return Ok(Telemetry { traces: None });
    };
    let own_spans =
        filter_fn(|metadata| metadata.target().starts_with("awsdeploy") && *metadata.level() <= Level::INFO)
            .with_max_level_hint(LevelFilter::INFO);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    tracing_subscriber::registry()
        .with(log_layer(json).with_filter(filter))
        .with(spans.with_filter(own_spans))
        .try_init()?;
    Ok(Telemetry { traces: Some(traces) })
}

impl Telemetry {
    pub(super) fn is_tracing(&self) -> bool {
        self.traces.is_some()
    }

    /// Exports the queued spans, for a limited time.
    pub(super) async fn shutdown(self) {
        if let Some(traces) = self.traces {
            traces.shutdown().await;
        }
    }
}

fn log_layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(json: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let layer = fmt::layer().with_writer(std::io::stderr);
    if json {
        return Box::new(layer.json().flatten_event(true));
    }
    Box::new(layer.with_ansi(std::io::stderr().is_terminal()).with_target(false))
}
