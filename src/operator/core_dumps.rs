//! Keeps key material out of core dumps, and other processes of the same user out of the memory of the operator.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Sets the core file size to 0 and makes the process undumpable, so that no debugger of the same user can attach.
///
/// # Errors
/// When the kernel refuses it.
pub fn disable_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A core pattern with a pipe ignores the limit.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

    use super::*;

    #[test]
    fn core_limit_is_zero_and_process_is_not_dumpable() {
        disable_core_dumps().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        // Other tests of this process may read its files in /proc.
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }
}
