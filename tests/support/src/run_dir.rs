//! One directory per run: data, certificates, kubeconfigs and logs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Result, error::Context as _};

/// Set to anything but the empty string, it leaves the directory of a run behind, for a look at its logs.
pub const KEEP_VARIABLE: &str = "AWSDEPLOY_TEST_KEEP";

const PREFIX: &str = "awsdeploy-run-";
const LOCK: &str = ".lock";
/// A directory younger than this is never taken for a leftover.
const YOUNG: Duration = Duration::from_mins(1);

/// The directory of a run, removed at its end.
///
/// It is locked while the run lives. A run that was killed could not remove its directory; the next one finds it
/// unlocked and removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
    /// Last, so that the lock is gone when the directory goes. `None`: the directory stays.
    _temporary: Option<TempDir>,
}

impl RunDir {
    /// A new directory for this run, under the system's directory for temporary files.
    pub fn create() -> Result<Self> {
        sweep();
        let temporary =
            tempfile::Builder::new().prefix(PREFIX).tempdir().context(|| "create the directory of the run".into())?;
        let path = temporary.path().to_owned();
        let lock = lock(&path)?;
        let keep = std::env::var_os(KEEP_VARIABLE).is_some_and(|value| !value.is_empty());
        let temporary = if keep {
            // Without a lock file no later run takes it for a leftover.
            fs::remove_file(path.join(LOCK)).context(|| "remove the lock of the run".into())?;
            let _ = temporary.keep();
            None
        } else {
            Some(temporary)
        };
        Ok(Self { path, _lock: lock, _temporary: temporary })
    }

    /// A directory of the caller's choice, created if missing and not removed at the end. Only one run at a time can
    /// have it.
    pub fn at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).context(|| format!("create {}", path.display()))?;
        let path = path.canonicalize().context(|| format!("resolve {}", path.display()))?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock, _temporary: None })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(directory: &Path) -> Result<File> {
    let lock = File::create(directory.join(LOCK)).context(|| format!("create a file in {}", directory.display()))?;
    lock.try_lock()
        .map_err(std::io::Error::from)
        .context(|| format!("lock {}, is it in use by another run?", directory.display()))?;
    Ok(lock)
}

/// Removes what killed runs left. Failures are nobody's concern: the directories may belong to other users.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // No lock file: one kept for its logs. A young one: a run that is just starting.
        let Ok(file) = File::open(entry.path().join(LOCK)) else { continue };
        let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > YOUNG) && file.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
