//! Kubernetes access. The only module that classifies errors of kube.

mod access;
mod authorization_cache;
mod class_status;
mod current_user;
mod error;
mod events;
mod guarded;
mod installation;
mod journal;
mod mac_keys;
mod request_spans;
mod secrets;
mod token_access;
pub mod user_stores;
mod users;
mod workloads;

pub use access::SecretAccess;
pub use authorization_cache::{AuthorizationCache, ClassSnapshot};
pub use class_status::ClassStatusWriter;
pub use current_user::{cluster_id, current_user};
pub use error::{ClusterError, ClusterErrorKind};
pub use events::{Events, PendingEvent};
pub use guarded::{DELETION_POLICY, Guarded, LIST_PAGE_SIZE, watch_config};
pub use installation::{InstallationNames, read_installation};
pub use journal::{JournalPage, JournalSnapshot, JournalStore, Journals};
pub use mac_keys::load_or_create_mac_keys;
pub use request_spans::build_client;
pub use secrets::{SecretSnapshot, Secrets};
pub use token_access::{TokenAccess, TokenReviewer};
pub use user_stores::{GuardedUser, UserStores};
pub use users::DeployUsers;
pub use workloads::Workloads;
