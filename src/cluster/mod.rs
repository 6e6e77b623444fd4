//! What we read and write in Kubernetes. The only place that knows kube's errors.

mod access;
mod error;
mod events;
mod identity;
mod journal;
mod secrets;
mod status;

pub use access::SecretAccess;
pub use error::{ClusterError, ClusterErrorKind};
pub use events::{Events, News};
pub use identity::{cluster_id, whoami};
pub use journal::{Attempt, Journals};
pub use secrets::{Held, Secrets};
pub use status::Users;
