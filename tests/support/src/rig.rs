//! All that a test against a real cluster needs, started at once.

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

/// A control plane, and the emulator behind every AWS.
pub struct Rig {
    // In this order they are dropped, so stopped.
    control_plane: ControlPlane,
    emulator: Emulator,
    tools: Tools,
    directory: RunDir,
}

impl Rig {
    /// Starts everything in a new directory that goes with the run.
    pub async fn start() -> Result<Self> {
        Self::start_in(RunDir::create()?).await
    }

    /// Starts everything in this directory.
    pub async fn start_in(directory: RunDir) -> Result<Self> {
        let tools = Tools::locate().await?;
        let (control_plane, emulator) = tokio::try_join!(
            ControlPlane::start(&tools, directory.path()),
            Emulator::start(&tools, directory.path()),
        )?;
        Ok(Self { control_plane, emulator, tools, directory })
    }

    /// The cluster.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Starts an AWS in front of the emulator, with this account. Each test starts its own, most with
    /// [`Account::unique`]: what one breaks, others do not see.
    pub async fn strict_aws(&self, account: Arc<Account>) -> Result<StrictAws> {
        // A port that no outgoing connection can take while AWS is away.
        let listen = ports::reserve().context(|| "find a port for AWS".into())?;
        StrictAws::start_on(listen, self.emulator.address(), account).await.context(|| "start the strict AWS".into())
    }

    /// The programs of Kubernetes, etcd, helm and AWS.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The directory of the run: logs, kubeconfigs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the directory of the run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Ends everything.
    pub async fn stop(self) {
        tokio::join!(self.control_plane.stop(), self.emulator.stop());
    }
}
