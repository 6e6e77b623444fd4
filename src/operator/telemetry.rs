//! Logs. No field that is logged anywhere holds key material: the types that do have no `Debug` of it.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::settings::LogFormat;

/// The wire logs of HTTP and the SDK may quote bodies; they stay off whatever is asked for.
const NEVER: [&str; 4] = ["hyper=info", "h2=info", "aws_smithy_runtime=info", "aws_sdk_iam=info"];

/// Starts logging to standard error.
///
/// # Errors
/// When the directives are none.
pub fn start(directives: &str, format: LogFormat) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut filter = EnvFilter::try_new(directives)?;
    for directive in NEVER {
        filter = filter.add_directive(directive.parse()?);
    }
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_target(false)).try_init()?,
        LogFormat::Json => {
            registry.with(fmt::layer().json().with_writer(std::io::stderr).flatten_event(true)).try_init()?;
        }
    }
    Ok(())
}
