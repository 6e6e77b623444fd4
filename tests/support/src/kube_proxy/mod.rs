//! A Kubernetes API server that goes wrong on request: a proxy between the operator and the real one.
//!
//! ```text
//! operator --HTTP, loopback--> KubeProxy --(log, rules)--> HTTPS, the operator's own token --> kube-apiserver
//! auditor  ---------------------------------------------------------------------------------------^
//! ```
//!
//! The rule language is that of [`crate::aws_proxy`]: match by verb, resource, name and the n-th time; before the call
//! reaches the API server or after it has committed it; then an effect. Watches are streams, so they have switches of
//! their own: [`KubeProxy::stall_watches`], [`KubeProxy::resume_watches`], [`KubeProxy::expire_watches`].

mod call;
mod log;
mod rules;
mod server;

pub use call::KubeCall;
pub use log::{KubeLog, KubeRecord};
pub use rules::{KubeRule, KubeRules};
pub use server::KubeProxy;
