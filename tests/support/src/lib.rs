//! The test rig of `aws-deploy-user-operator`: a real Kubernetes control plane, an AWS that behaves like AWS, the
//! operator as a process, and consumers that read a secret_mount Secret as a pod would.
//!
//! Everything listens on loopback only, lives in one directory per run, and ends with the process that started it:
//! by [`Drop`], and if that process is killed, by the kernel (see [`process`]).
//!
//! [`rig::Rig`] starts what every test needs. The binary `testkit` offers the same to shell scripts.

pub mod auditor;
pub mod aws_proxy;
pub mod chart;
pub mod collector;
pub mod consumer;
pub mod control_plane;
pub mod emulator;
pub mod error;
pub mod iam_policy;
pub mod kube_proxy;
pub mod kubeconfig;
pub mod operator;
pub mod pki;
pub mod ports;
pub mod process;
pub mod rig;
pub mod run_dir;
pub mod secret_mount;
pub mod tls;
pub mod tools;
pub mod wait;

pub use error::{Error, Result};

/// Makes aws-lc-rs the cryptography of this process. Every client of the rig needs it; calling it twice is harmless.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already: nothing left to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
