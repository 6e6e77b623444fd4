//! A Secret as a pod sees it: a directory of files that a kubelet keeps up to date.
//!
//! A kubelet never changes a file in place. It writes a new directory named after the time, turns the link `..data`
//! to it in one rename, and removes the old directory; `credentials` is a link to `..data/credentials`. A reader that
//! opens one file gets all of the old or all of the new content. [`AtomicDirectory`] does the same.

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

/// The link to the current version.
const DATA: &str = "..data";
/// The link that is about to become [`DATA`].
const NEW_DATA: &str = "..data_tmp";

/// The files of a volume, by name.
pub type VolumeFiles = BTreeMap<String, Vec<u8>>;

/// A directory whose files change all at once or not at all.
#[derive(Debug)]
pub struct AtomicDirectory {
    path: PathBuf,
    versions: u64,
}

impl AtomicDirectory {
    /// Takes over `path`, created if missing. What is in it stays until the first [`write`](Self::write).
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Self { path, versions: 0 })
    }

    /// Makes `files` the content of the directory. Returns whether that changed anything.
    pub fn write(&mut self, files: &VolumeFiles) -> io::Result<bool> {
        let old = self.current()?;
        if let Some(old) = &old
            && read_files(&self.path.join(old))? == *files
        {
            return Ok(false);
        }

        let new = self.write_version(files)?;
        // The switch. All before it is invisible, all after it is tidying up.
        let next = self.path.join(NEW_DATA);
        remove_if_there(fs::remove_file(&next))?;
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

    /// A new directory with these files, still unused. Its name is relative, as the link needs it.
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

    /// One link per file, `name` to `..data/name`; none for a file that is no more.
    fn link_names(&self, files: &VolumeFiles) -> io::Result<()> {
        let mut missing: BTreeSet<&str> = files.keys().map(String::as_str).collect();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            // Keys of a Secret never begin like this; the names of the volume's own entries do.
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

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A mounted Secret. Dropping it stops the updates and leaves the files, as a stopped kubelet does.
#[derive(Debug)]
pub struct SecretMount {
    directory: PathBuf,
    versions: watch::Receiver<u64>,
    task: JoinHandle<Result<()>>,
}

impl SecretMount {
    /// Mounts the Secret `name` in `namespace` at `directory` and keeps the files as they are in the cluster. As in a
    /// pod: until the Secret exists the directory is empty, and after its deletion the last files stay.
    pub fn start(client: Client, namespace: &str, name: &str, directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let mut volume =
            AtomicDirectory::new(&directory).context(|| format!("create the mount {}", directory.display()))?;
        let (sender, versions) = watch::channel(0);
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let updates = watch_object(secrets, name).default_backoff();
        let place = directory.clone();
        let task = tokio::spawn(async move {
            pin_mut!(updates);
            while let Some(update) = updates.next().await {
                // Errors of the watch are for its back-off; the files stay as they are meanwhile.
                let Ok(Some(secret)) = update else { continue };
                let files = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
                if volume.write(&files).context(|| format!("write the mount {}", place.display()))? {
                    sender.send_modify(|versions| *versions += 1);
                }
            }
            Ok(())
        });
        Ok(Self { directory, versions, task })
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many versions of the files there have been. Await a change of it to await an update of the files.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.versions.clone()
    }

    /// Waits for as long as the files are kept up to date; returns the failure that ended it.
    pub async fn wait_for_failure(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::Unexpected(format!("the watch of {} ended", self.directory.display())),
            Err(error) => Error::Unexpected(format!("the mount of {} died: {error}", self.directory.display())),
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
    fn names_follow_the_keys_and_only_one_version_stays() -> io::Result<()> {
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
    fn a_mount_taken_over_from_before_goes_on() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        AtomicDirectory::new(directory.path())?.write(&files(&[("a", "1")]))?;
        // A kubelet that died between the two steps of the switch.
        symlink("..gone", directory.path().join(NEW_DATA))?;
        let mut volume = AtomicDirectory::new(directory.path())?;
        assert!(volume.write(&files(&[("a", "2")]))?);
        assert_eq!(fs::read_to_string(directory.path().join("a"))?, "2");
        Ok(())
    }

    #[test]
    fn a_reader_sees_whole_versions_only_while_files_change() -> io::Result<()> {
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
                        // Resolved `..data` just before it was turned and the old version removed. With a kubelet too.
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
