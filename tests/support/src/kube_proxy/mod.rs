//! A fault-injecting proxy between the operator and the Kubernetes API server.
//!
//! ```text
//! operator --HTTP, loopback--> KubeProxy --(log, rules)--> HTTPS, the operator's own token --> kube-apiserver
//! auditor  ---------------------------------------------------------------------------------------^
//! ```
//!
//! Rules work like those of [`crate::aws_proxy`]: they match calls by verb, resource, name and occurrence, before the
//! call reaches the API server or after it was committed, and apply an effect. Watches are streams and have separate
//! controls: [`KubeProxy::stall_watches`], [`KubeProxy::resume_watches`], [`KubeProxy::expire_watches`].

mod call;
mod log;
mod rules;
mod server;

pub use call::KubeCall;
pub use log::{KubeLog, KubeRecord};
pub use rules::{KubeRule, KubeRules};
pub use server::KubeProxy;
