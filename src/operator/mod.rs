//! The process: settings, telemetry, the controller, HTTP endpoints.

mod bounded_tasks;
mod core_dumps;
pub mod doctor;
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

pub use core_dumps::disable_core_dumps;
pub use error::RunError;
pub use run::run;
