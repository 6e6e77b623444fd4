//! The shared environment of tests against a real cluster.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Result,
    aws_proxy::{Account, StrictAws},
    control_plane::ControlPlane,
    emulator::Emulator,
    error::Context as _,
    ports,
    run_dir::RunDir,
    tools::Tools,
};

/// A control plane and the AWS emulator.
pub struct Rig {
    // Dropped, and so stopped, in this order.
    control_plane: ControlPlane,
    emulator: Emulator,
    tools: Tools,
    directory: RunDir,
}

impl Rig {
    /// Starts both in a temporary directory.
    pub async fn start() -> Result<Self> {
        Self::start_in(RunDir::create()?).await
    }

    /// Starts both in `directory`.
    pub async fn start_in(directory: RunDir) -> Result<Self> {
        let tools = Tools::locate().await?;
        let (control_plane, emulator) = tokio::try_join!(
            ControlPlane::start(&tools, directory.path()),
            Emulator::start(&tools, directory.path()),
        )?;
        Ok(Self { control_plane, emulator, tools, directory })
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Starts a strict AWS proxy with `account` in front of the emulator. Each test has its own proxy, most with
    /// [`Account::unique`], so that faults of one test do not affect others.
    pub async fn strict_aws(&self, account: Arc<Account>) -> Result<StrictAws> {
        // A reserved port, which no outgoing connection can take while the proxy is stopped.
        let listen = ports::reserve().context(|| "find a port for the AWS proxy".into())?;
        StrictAws::start_on(listen, self.emulator.address(), account).await.context(|| "start the AWS proxy".into())
    }

    /// The binaries of Kubernetes, etcd, helm and AWS.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The directory of the run, with logs and kubeconfigs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the directory of the run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Stops both.
    pub async fn stop(self) {
        tokio::join!(self.control_plane.stop(), self.emulator.stop());
    }
}
