//! Protects the host from changes by the node.
//!
//! - Control groups are shared with the host: the run creates and removes its own.
//! - The kubelet writes kernel settings of the whole host. It sees files that already contain the values that it wants.
//! - Some directories have fixed paths. They are covered by empty ones during the run.
//!
//! The data of containerd and the kubelet is in memory, because they sync each step to disk, which is slow on a busy
//! machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use awsdeploy_testkit::{Error, Result};

use crate::{cgroup::Cgroup, shell::Shell};

/// Kernel settings that the kubelet writes unless they already have these values.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Directories with fixed paths.
const COVERED_DIRECTORIES: [&str; 6] = [
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/log/containers",
];

/// Data directory of containerd and the kubelet.
pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Limit for killed processes to exit.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Isolation of the host. Dropping it kills remaining containers and reverts all changes.
pub(crate) struct HostIsolation {
    directory: PathBuf,
    created: Vec<PathBuf>,
    covered: Vec<PathBuf>,
    cgroup: Cgroup,
}

impl HostIsolation {
    /// Isolates the host; `directory` is the directory of the node, whose [`data`] is in memory.
    pub(crate) async fn apply(directory: &Path, shell: &Shell) -> Result<Self> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let run = directory.parent().unwrap_or(directory);
        let cgroup = Cgroup::create(run).map_err(failed("create a control group"))?;
        let mut isolation = Self { directory: directory.to_owned(), created: Vec::new(), covered: Vec::new(), cgroup };

        let files = directory.join("kernel");
        fs::create_dir_all(&files).map_err(failed("create a directory"))?;
        for (name, value) in KERNEL_SETTINGS {
            let (setting, file) = (Path::new("/proc/sys").join(name), files.join(name.replace('/', ".")));
            if setting.exists() {
                fs::write(&file, format!("{value}\n")).map_err(failed("write a setting"))?;
                shell.run(&format!("mount --bind {} {}", file.display(), setting.display())).await?;
                isolation.covered.push(setting);
            }
        }
        fs::create_dir_all(data(directory)).map_err(failed("create a directory"))?;
        for path in COVERED_DIRECTORIES.map(PathBuf::from).into_iter().chain([data(directory)]) {
            if !path.exists() {
                fs::create_dir(&path).map_err(failed("create a directory"))?;
                isolation.created.push(path.clone());
            }
            shell.run(&format!("mount -t tmpfs e2e {}", path.display())).await?;
            isolation.covered.push(path);
        }
        Ok(isolation)
    }

    /// The directory of the node.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of the control group, for the kubelet.
    pub(crate) fn cgroup(&self) -> String {
        self.cgroup.path()
    }

    /// Kills all processes in the control group, and containerd shims, whose arguments contain the directory.
    fn kill_containers(&self) {
        let own = std::process::id().to_string();
        let begun = Instant::now();
        loop {
            let mut remaining = 0;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                    continue;
                }
                let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
                let contained = String::from_utf8_lossy(&read("cgroup")).contains(&self.cgroup());
                let shim = String::from_utf8_lossy(&read("cmdline")).contains(&*self.directory.to_string_lossy());
                // A zombie has no memory map.
                if (contained || shim) && !read("maps").is_empty() {
                    remaining += 1;
                    let _ = Command::new("kill").args(["-9", &name]).stderr(Stdio::null()).status();
                }
            }
            if remaining == 0 || begun.elapsed() > END_LIMIT {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Unmounts everything below the directory, innermost first.
    fn unmount(&self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let below: Vec<_> = mounts.filter(|mount| mount.starts_with(&self.directory)).collect();
        for mount in below.iter().rev().chain(self.covered.iter().rev()) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for HostIsolation {
    fn drop(&mut self) {
        self.kill_containers();
        self.unmount();
        for path in self.created.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}
