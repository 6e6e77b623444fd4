//! A mounted Secret: a directory of files that is updated like a volume of the kubelet.
//!
//! The kubelet never changes a file in place. It writes a new directory named after the time, replaces the symlink
//! `..data` with an atomic rename, and removes the old directory; `credentials` is a symlink to `..data/credentials`. A
//! reader that opens a file gets either the old or the new content. [`AtomicDirectory`] does the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{Error, Result, error::Context as _};

/// Symlink to the current version.
const DATA: &str = "..data";
/// Symlink that will replace [`DATA`].
const NEW_DATA: &str = "..data_tmp";

/// Files of a volume by name.
pub type VolumeFiles = BTreeMap<String, Vec<u8>>;

/// A directory whose files are replaced atomically.
#[derive(Debug)]
pub struct AtomicDirectory {
    path: PathBuf,
    versions: u64,
}

impl AtomicDirectory {
    /// Uses `path`, which is created if missing. Existing content is kept until the first [`write`](Self::write).
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Self { path, versions: 0 })
    }

    /// Replaces the content with `files`. Returns whether it changed.
    pub fn write(&mut self, files: &VolumeFiles) -> io::Result<bool> {
        let old = self.current()?;
        if let Some(old) = &old
            && read_files(&self.path.join(old))? == *files
        {
            return Ok(false);
        }

        let new = self.write_version(files)?;
        // This rename is the atomic switch.
        let next = self.path.join(NEW_DATA);
        ignore_not_found(fs::remove_file(&next))?;
        symlink(&new, &next)?;
        fs::rename(&next, self.path.join(DATA))?;

        self.link_names(files)?;
        if let Some(old) = old {
            fs::remove_dir_all(self.path.join(old))?;
        }
        Ok(true)
    }

    /// The directory that `..data` points to.
    fn current(&self) -> io::Result<Option<PathBuf>> {
        match fs::read_link(self.path.join(DATA)) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a new version directory and returns its name, relative for the symlink.
    fn write_version(&mut self, files: &VolumeFiles) -> io::Result<String> {
        loop {
            self.versions += 1;
            let name = format!("..{}.{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), self.versions);
            let directory = self.path.join(&name);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    for (file, content) in files {
                        fs::write(directory.join(file), content)?;
                    }
                    return Ok(name);
                }
            }
        }
    }

    /// Creates a symlink `name` to `..data/name` per file and removes those of removed files.
    fn link_names(&self, files: &VolumeFiles) -> io::Result<()> {
        let mut missing: BTreeSet<&str> = files.keys().map(String::as_str).collect();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            // Internal entries start with `..`, which Secret keys cannot.
            if !name.starts_with("..") && !missing.remove(name.as_ref()) {
                fs::remove_file(self.path.join(name.as_ref()))?;
            }
        }
        for name in missing {
            symlink(Path::new(DATA).join(name), self.path.join(name))?;
        }
        Ok(())
    }
}

fn read_files(directory: &Path) -> io::Result<VolumeFiles> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
        })
        .collect()
}

fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A mounted Secret. Dropping it stops the updates and keeps the files, like a stopped kubelet.
#[derive(Debug)]
pub struct SecretMount {
    directory: PathBuf,
    versions: watch::Receiver<u64>,
    task: JoinHandle<Result<()>>,
}

impl SecretMount {
    /// Mounts the Secret `name` in `namespace` at `directory` and updates the files from a watch. As in a pod, the
    /// directory is empty until the Secret exists, and the last files are kept after its deletion.
    pub fn start(client: Client, namespace: &str, name: &str, directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let mut volume =
            AtomicDirectory::new(&directory).context(|| format!("create the mount {}", directory.display()))?;
        let (sender, versions) = watch::channel(0);
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let updates = watch_object(secrets, name).default_backoff();
        let path = directory.clone();
        let task = tokio::spawn(async move {
            pin_mut!(updates);
            while let Some(update) = updates.next().await {
                // The watch backs off after errors; the files are kept.
                let Ok(Some(secret)) = update else { continue };
                let files = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
                if volume.write(&files).context(|| format!("write the mount {}", path.display()))? {
                    sender.send_modify(|versions| *versions += 1);
                }
            }
            Ok(())
        });
        Ok(Self { directory, versions, task })
    }

    /// The directory of the files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Number of versions written so far, as a channel to wait for updates.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.versions.clone()
    }

    /// Waits until updates stop and returns the error.
    pub async fn wait_for_failure(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::Unexpected(format!("the watch of {} ended", self.directory.display())),
            Err(error) => Error::Unexpected(format!("the mount of {} panicked: {error}", self.directory.display())),
        }
    }
}

impl Drop for SecretMount {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn files(entries: &[(&str, &str)]) -> VolumeFiles {
        entries.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn names_match_the_keys_and_old_versions_are_removed() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let mut volume = AtomicDirectory::new(directory.path().join("mount"))?;
        assert!(volume.write(&files(&[("a", "1"), ("b", "2")]))?);
        assert!(!volume.write(&files(&[("a", "1"), ("b", "2")]))?);
        assert!(volume.write(&files(&[("b", "3"), ("c", "4")]))?);

        let mut names: Vec<_> = fs::read_dir(&volume.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        let version = fs::read_link(volume.path.join(DATA))?.to_string_lossy().into_owned();
        assert_eq!(names, [version.as_str(), DATA, "b", "c"]);
        assert_eq!(fs::read_to_string(volume.path.join("b"))?, "3");
        Ok(())
    }

    #[test]
    fn interrupted_update_is_completed_by_the_next_write() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        AtomicDirectory::new(directory.path())?.write(&files(&[("a", "1")]))?;
        // A kubelet that died between creating the symlink and the rename.
        symlink("..gone", directory.path().join(NEW_DATA))?;
        let mut volume = AtomicDirectory::new(directory.path())?;
        assert!(volume.write(&files(&[("a", "2")]))?);
        assert_eq!(fs::read_to_string(directory.path().join("a"))?, "2");
        Ok(())
    }

    #[test]
    fn readers_see_only_complete_versions() -> io::Result<()> {
        const VERSIONS: usize = 300;
        let directory = tempfile::tempdir()?;
        let mut volume = AtomicDirectory::new(directory.path())?;
        let version = |n: usize| files(&[("credentials", &format!("{n:08}").repeat(4096))]);
        volume.write(&version(0))?;

        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(directory.path().join("credentials"));
                    match text {
                        Ok(text) => assert_eq!(text, text[..8].repeat(4096)),
                        // The old version was removed after `..data` was resolved. This can happen with a kubelet too.
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
                    }
                    reads += 1;
                }
                reads
            });
            let written = (1..=VERSIONS).try_for_each(|n| volume.write(&version(n)).map(drop));
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().is_ok_and(|reads| reads > 0));
            written
        })
    }
}
