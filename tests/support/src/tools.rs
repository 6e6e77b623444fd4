//! Locates the binaries of the test kit.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, Result, error::Context as _, process::kill_with_current_thread};

/// Directory of the binaries, instead of running `tests/cluster/build`: one that it printed, or one that contains
/// kube-apiserver, kube-controller-manager, etcd, kubectl, helm, aws and `moto_server`.
pub const DIRECTORY_VARIABLE: &str = "AWSDEPLOY_TEST_BIN";

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    // tests/support is two levels below the root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The binaries of Kubernetes, etcd, helm and AWS.
#[derive(Clone, Debug)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Finds the binaries and builds missing ones, which takes minutes the first time. Progress is written to standard
    /// error.
    pub async fn locate() -> Result<Self> {
        tokio::task::spawn_blocking(Self::locate_blocking)
            .await
            .map_err(|error| Error::Tools(format!("the search panicked: {error}")))?
    }

    fn locate_blocking() -> Result<Self> {
        match std::env::var_os(DIRECTORY_VARIABLE) {
            Some(directory) if !directory.is_empty() => Ok(Self::in_directory(Path::new(&directory))),
            _ => Self::build(),
        }
    }

    fn build() -> Result<Self> {
        let script = repository().join("tests/cluster/build");
        let mut command = Command::new(&script);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        kill_with_current_thread(&mut command);
        let output = command.output().context(|| format!("run {}", script.display()))?;
        if !output.status.success() {
            return Err(Error::Tools(format!("{}: {}; see its output above", script.display(), output.status)));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let directory = printed.trim();
        if directory.is_empty() {
            return Err(Error::Tools(format!("{} printed no directory", script.display())));
        }
        Ok(Self::in_directory(Path::new(directory)))
    }

    /// A directory of the build script has a folder `bin`; any other contains the binaries itself.
    fn in_directory(directory: &Path) -> Self {
        let is_built = directory.join("env").is_file();
        Self { directory: if is_built { directory.join("bin") } else { directory.to_owned() } }
    }

    /// The path of one of kube-apiserver, kube-controller-manager, etcd, kubectl, helm, aws, `moto_server`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of the binaries, for `PATH`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn build_directory_has_its_binaries_in_bin() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let plain = Tools::in_directory(directory.path());
        assert_eq!(plain.program("etcd"), directory.path().join("etcd"));

        fs::write(directory.path().join("env"), "")?;
        let set = Tools::in_directory(directory.path());
        assert_eq!(set.program("etcd"), directory.path().join("bin/etcd"));
        Ok(())
    }

    #[test]
    fn repository_contains_the_lock_file() {
        assert!(repository().join("Cargo.lock").is_file());
    }
}
