//! What we read and write in Kubernetes. The only place that knows kube's errors.

mod access;
mod calls;
mod classes;
mod error;
mod events;
mod identity;
mod journal;
pub mod resources;
mod scrapers;
mod secrets;
mod status;
mod workloads;

pub use access::SecretAccess;
pub use calls::connect;
pub use classes::{ClassReports, Classes, Rules};
pub use error::{ClusterError, ClusterErrorKind};
pub use events::{Events, News};
pub use identity::{cluster_id, whoami};
pub use journal::{Attempt, Journals};
pub use resources::{Guarded, Resources};
pub use scrapers::{Scraper, Scrapers};
pub use secrets::{Held, Secrets};
pub use status::Users;
pub use workloads::Workloads;
