//! Control groups of a run. They are shared with the host, so each run creates and removes its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const MOUNTS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "awsdeploy-e2e-";

/// A control group in every hierarchy, in which the kubelet places its pods. Removed when dropped; its processes must
/// have exited.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates the group, named after the directory of the run, and removes groups of killed runs.
    pub(crate) fn create(run: &Path) -> io::Result<Self> {
        let run = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut cgroup = Self { name: format!("{PREFIX}{run}"), directories: Vec::new() };
        for hierarchy in hierarchies()? {
            remove_stale(&hierarchy);
            let directory = hierarchy.join(&cgroup.name);
            fs::create_dir(&directory)?;
            cgroup.directories.push(directory);
        }
        Ok(cgroup)
    }

    /// The path in each hierarchy, for the kubelet.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.directories.iter().for_each(|directory| remove(directory));
    }
}

/// Version 2 has one hierarchy, version 1 one per controller.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = PathBuf::from(MOUNTS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(&root)? {
        let directory = entry?.path();
        // Controllers that share a hierarchy are links to one directory; `unified` has no controllers.
        if directory.is_dir() && !directory.is_symlink() && directory.join("cgroup.procs").exists() {
            all.push(directory);
        }
    }
    Ok(all)
}

/// Removes the groups of killed runs.
fn remove_stale(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
}

/// Removes a group and its children. The kernel keeps groups with processes.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
