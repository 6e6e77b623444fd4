//! Test kit of `aws-deploy-user-operator`: a real Kubernetes control plane, an AWS emulator behind a strict proxy, the
//! operator as a child process, and consumers that read a mounted Secret like a pod.
//!
//! All servers listen on loopback only, keep their files in one directory per run, and end with the process that
//! started them: through [`Drop`], or through the kernel if that process is killed (see [`process`]).
//!
//! [`rig::Rig`] starts the parts that every test needs. The binary `testkit` provides the same for shell scripts.

pub mod auditor;
pub mod aws_proxy;
pub mod chart;
pub mod collector;
pub mod consumer;
pub mod control_plane;
pub mod emulator;
pub mod error;
pub mod files;
pub mod iam_policy;
pub mod kstatus;
pub mod kube_proxy;
pub mod kubeconfig;
pub mod operator;
pub mod percentiles;
pub mod pki;
pub mod ports;
pub mod process;
pub mod rig;
pub mod rng;
pub mod run_dir;
pub mod secret_mount;
pub mod tls;
pub mod tools;
pub mod wait;

pub use error::{Error, Result};

/// Installs aws-lc-rs as the crypto provider of this process. Every TLS client of the test kit requires it. Idempotent.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
