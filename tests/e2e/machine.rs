//! What a node would change of the machine, and how the machine is kept from it.
//!
//! - Control groups belong to no namespace of ours: those of the run are made under a name of their own and removed.
//! - A kubelet writes settings of the kernel that hold for the whole machine. It is shown files instead that say already
//!   what it wants to read.
//! - Some directories have fixed places. They are covered, for this run, by empty ones.
//!
//! What containerd and the kubelet keep is in memory: they wait for the disk at every step, and on a busy machine that is
//! most of their time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use awsdeploy_testkit::{Error, Result};

use crate::{cgroup::Cgroup, shell::Shell};

/// Settings of the whole machine that a kubelet writes unless they are so already.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Directories whose places nobody can choose.
const PLACES: [&str; 6] = [
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/log/containers",
];

/// Where containerd and the kubelet of the node in this directory keep their data.
pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// How long killed processes may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The machine, shielded. Dropping it ends every container that is left and undoes what was done.
pub(crate) struct Machine {
    directory: PathBuf,
    made: Vec<PathBuf>,
    covered: Vec<PathBuf>,
    cgroup: Cgroup,
}

impl Machine {
    /// Shields it; `directory` is that of the node, and [`data`] in it is in memory.
    pub(crate) async fn shield(directory: &Path, shell: &Shell) -> Result<Self> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let run = directory.parent().unwrap_or(directory);
        let cgroup = Cgroup::create(run).map_err(failed("make a control group"))?;
        let mut machine = Self { directory: directory.to_owned(), made: Vec::new(), covered: Vec::new(), cgroup };

        let files = directory.join("kernel");
        fs::create_dir_all(&files).map_err(failed("create a directory"))?;
        for (name, value) in SETTINGS {
            let (setting, file) = (Path::new("/proc/sys").join(name), files.join(name.replace('/', ".")));
            if setting.exists() {
                fs::write(&file, format!("{value}\n")).map_err(failed("write a setting"))?;
                shell.quiet(&format!("mount --bind {} {}", file.display(), setting.display())).await?;
                machine.covered.push(setting);
            }
        }
        fs::create_dir_all(data(directory)).map_err(failed("create a directory"))?;
        for place in PLACES.map(PathBuf::from).into_iter().chain([data(directory)]) {
            if !place.exists() {
                fs::create_dir(&place).map_err(failed("create a directory"))?;
                machine.made.push(place.clone());
            }
            shell.quiet(&format!("mount -t tmpfs e2e {}", place.display())).await?;
            machine.covered.push(place);
        }
        Ok(machine)
    }

    /// The directory of the node.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The control group of the run, as the kubelet is told it.
    pub(crate) fn cgroup(&self) -> String {
        self.cgroup.path()
    }

    /// Kills what runs in the control group, and the shims of containers: they name the directory in their arguments.
    fn end_containers(&self) {
        let own = std::process::id().to_string();
        let begun = Instant::now();
        loop {
            let mut left = 0;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                    continue;
                }
                let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
                let contained = String::from_utf8_lossy(&read("cgroup")).contains(&self.cgroup());
                let shim = String::from_utf8_lossy(&read("cmdline")).contains(&*self.directory.to_string_lossy());
                // A zombie has no memory map any more.
                if (contained || shim) && !read("maps").is_empty() {
                    left += 1;
                    let _ = Command::new("kill").args(["-9", &name]).stderr(Stdio::null()).status();
                }
            }
            if left == 0 || begun.elapsed() > END_LIMIT {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes mounts below the directory away, the innermost first.
    fn unmount(&self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let below: Vec<_> = mounts.filter(|mount| mount.starts_with(&self.directory)).collect();
        for mount in below.iter().rev().chain(self.covered.iter().rev()) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end_containers();
        self.unmount();
        for place in self.made.iter().rev() {
            let _ = fs::remove_dir(place);
        }
    }
}
