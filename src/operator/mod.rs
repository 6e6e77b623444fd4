//! The process: settings, telemetry, the controller, HTTP endpoints.

mod bounded_tasks;
mod error;
pub mod iam_policy;
mod leader;
pub mod metrics;
mod metrics_auth;
pub mod reference;
mod run;
mod server;
pub mod settings;
pub mod telemetry;
mod tls;

pub use error::RunError;
pub use run::run;
