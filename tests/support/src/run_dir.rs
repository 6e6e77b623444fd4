//! Directory of a test run: data, certificates, kubeconfigs and logs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Result, error::Context as _};

/// If set and not empty, the directory of the run is kept, for inspection of its logs.
pub const KEEP_VARIABLE: &str = "AWSDEPLOY_TEST_KEEP";

const PREFIX: &str = "awsdeploy-run-";
const LOCK: &str = ".lock";
/// Minimum age of directories that are removed as stale.
const MIN_STALE_AGE: Duration = Duration::from_mins(1);

/// Directory of a test run, removed when dropped.
///
/// It is locked during the run. If a run is killed, the next run finds its directory unlocked and removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
    /// Dropped after the lock. `None` keeps the directory.
    _temporary: Option<TempDir>,
}

impl RunDir {
    /// Creates a directory in the temporary directory of the system.
    pub fn create() -> Result<Self> {
        remove_stale();
        let temporary =
            tempfile::Builder::new().prefix(PREFIX).tempdir().context(|| "create the directory of the run".into())?;
        let path = temporary.path().to_owned();
        let lock = lock(&path)?;
        let keep = std::env::var_os(KEEP_VARIABLE).is_some_and(|value| !value.is_empty());
        let temporary = if keep {
            // Without a lock file no later run removes it.
            fs::remove_file(path.join(LOCK)).context(|| "remove the lock of the run".into())?;
            let _ = temporary.keep();
            None
        } else {
            Some(temporary)
        };
        Ok(Self { path, _lock: lock, _temporary: temporary })
    }

    /// Uses a directory of the caller, which is created if missing and not removed. Only one run at a time can use it.
    pub fn at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).context(|| format!("create {}", path.display()))?;
        let path = path.canonicalize().context(|| format!("resolve {}", path.display()))?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock, _temporary: None })
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(directory: &Path) -> Result<File> {
    let lock = File::create(directory.join(LOCK)).context(|| format!("create a file in {}", directory.display()))?;
    lock.try_lock()
        .map_err(std::io::Error::from)
        .context(|| format!("lock {}; is it in use by another run?", directory.display()))?;
    Ok(lock)
}

/// Removes directories of killed runs. Best effort: they may belong to other users.
fn remove_stale() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory without a lock file is kept on purpose. A recent one may belong to a run that is starting.
        let Ok(file) = File::open(entry.path().join(LOCK)) else { continue };
        let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > MIN_STALE_AGE) && file.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
