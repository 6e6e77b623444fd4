//! Logs and traces. No field that is logged anywhere holds key material: the types that do have no `Debug` of it.

mod collector;
mod queue;
mod traces;

use std::{io::IsTerminal as _, sync::Arc};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use self::traces::{OtlpOptions, TracePipeline};
use super::{
    metrics::Metrics,
    settings::{LogFormat, OperatorSettings},
};
use crate::trace;

/// The wire logs of HTTP and of the SDK may quote bodies; they stay off whatever is asked for.
const NEVER: [&str; 5] =
    ["hyper=warn", "hyper_util=warn", "h2=warn", "aws_smithy_runtime=warn", "aws_smithy_runtime_api=warn"];

/// kube's own span around a pass repeats what ours says.
const QUIETER: &str = "kube_runtime=warn";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What runs beside the reconciles to tell of them.
pub struct Telemetry {
    traces: Option<TracePipeline>,
}

/// Starts logging to standard error, and sending traces if there is an endpoint for them. Needs the runtime.
///
/// # Errors
/// When the directives of the log are none, or the settings of the traces cannot be used.
pub fn start(settings: &OperatorSettings) -> Result<Telemetry, Error> {
    let filter = filter(&settings.log).map_err(|error| format!("--log {:?}: {error}", settings.log))?;
    let options = OtlpOptions::of(settings.otlp_endpoint.as_deref(), |name| std::env::var(name).ok())?;
    let traces = options.map(TracePipeline::start).transpose()?;
    let json = settings.log_format == LogFormat::Json;
    let Some(traces) = traces else {
        // One filter for all: what is in no log is not even made.
        tracing_subscriber::registry().with(filter).with(lines(json)).try_init()?;
        return Ok(Telemetry { traces: None });
    };
    let ours = filter_fn(|metadata| metadata.target().starts_with("awsdeploy") && *metadata.level() <= Level::INFO)
        .with_max_level_hint(LevelFilter::INFO);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    tracing_subscriber::registry().with(lines(json).with_filter(filter)).with(spans.with_filter(ours)).try_init()?;
    Ok(Telemetry { traces: Some(traces) })
}

impl Telemetry {
    /// Whether anybody collects spans.
    pub(super) fn traces(&self) -> bool {
        self.traces.is_some()
    }

    /// Counts the spans here from now on.
    pub(super) fn count_in(&self, metrics: &Arc<Metrics>) {
        if let Some(traces) = &self.traces {
            traces.count_in(metrics);
        }
    }

    /// Sends what is left, for a limited time.
    pub(super) async fn stop(self) {
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
    }
}

fn filter(directives: &str) -> Result<EnvFilter, Error> {
    let mut filter = EnvFilter::try_new(directives)?;
    for directive in NEVER.into_iter().chain((!directives.contains("kube_runtime")).then_some(QUIETER)) {
        filter = filter.add_directive(directive.parse()?);
    }
    // Every line would name its step and its call.
    Ok(filter.add_directive(format!("{}=off", trace::TARGET).parse()?))
}

fn lines<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(json: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    if json {
        return Box::new(lines.json().flatten_event(true));
    }
    Box::new(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false))
}
