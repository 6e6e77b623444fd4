//! Logs. No field that is logged anywhere holds key material: the types that do have no `Debug` of it.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::settings::LogFormat;

/// The wire logs of HTTP and of the SDK may quote bodies; they stay off whatever is asked for.
const NEVER: [&str; 5] =
    ["hyper=warn", "hyper_util=warn", "h2=warn", "aws_smithy_runtime=warn", "aws_smithy_runtime_api=warn"];

/// kube's own span around a pass repeats what ours says.
const QUIETER: &str = "kube_runtime=warn";

/// Starts logging to standard error.
///
/// # Errors
/// When the directives are none.
pub fn start(directives: &str, format: LogFormat) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut filter = EnvFilter::try_new(directives)?;
    for directive in NEVER.into_iter().chain((!directives.contains("kube_runtime")).then_some(QUIETER)) {
        filter = filter.add_directive(directive.parse()?);
    }
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()?;
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
