//! The process: settings, telemetry, the controller, HTTP endpoints.

mod crowd;
mod error;
mod guard;
pub mod iam_policy;
mod leader;
pub mod metrics;
mod run;
mod server;
pub mod settings;
pub mod telemetry;
mod tls;

pub use error::RunError;
pub use run::run;
