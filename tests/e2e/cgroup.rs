//! Control groups of a run. They belong to no namespace of ours, so they are made under a name of their own and removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const MOUNTS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "awsdeploy-e2e-";

/// A group in every hierarchy of the machine, for the kubelet to put its pods in. Dropping it removes it; the processes in
/// it must have ended.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes it, named after the directory of the run. Those of runs that were killed go first.
    pub(crate) fn create(run: &Path) -> io::Result<Self> {
        let run = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut cgroup = Self { name: format!("{PREFIX}{run}"), directories: Vec::new() };
        for hierarchy in hierarchies()? {
            sweep(&hierarchy);
            let directory = hierarchy.join(&cgroup.name);
            fs::create_dir(&directory)?;
            cgroup.directories.push(directory);
        }
        Ok(cgroup)
    }

    /// Its path in each hierarchy, as the kubelet is told it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.directories.iter().for_each(|directory| remove(directory));
    }
}

/// Version 2 has one hierarchy, version 1 one for each controller.
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

/// Removes the groups of runs that were killed: nobody is in them any more.
fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
}

/// Removes a group with those in it. One in which a process lives stays: the kernel refuses.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
