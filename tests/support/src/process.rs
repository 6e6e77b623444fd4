//! Child processes that never outlive the test run.
//!
//! A child is ended by [`Process::stop`], [`Process::kill`], [`Drop`] (also on panic), and by the death of the test
//! process (on Linux: the parent-death signal). Each child has its own process group, so that Ctrl-C in a terminal
//! reaches only the test process, which stops its children in order.
//!
//! A dedicated thread starts, waits for and reaps each child. The parent-death signal is bound to the forking thread,
//! which must therefore live as long as the child. Reaping and signalling share a lock, so that no signal can reach an
//! unrelated process with a recycled process ID.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::{sync::watch, time::timeout};

use crate::{Error, Result, error::Context as _, wait::eventually};

/// Environment variables that children inherit. Others, such as AWS profiles or proxies, would make tests depend on the
/// machine.
const INHERITED_VARIABLES: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LLVM_PROFILE_FILE"];

/// Number of log lines in errors.
const TAIL_LINES: usize = 25;

/// Command, environment and log of a child process.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    log: PathBuf,
    output: Option<PathBuf>,
}

impl ProcessSpec {
    /// Runs `program`, called `name` in errors, and appends its standard output and error to `log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            log: log.into(),
            output: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. Only `PATH` and a few others are inherited.
    #[must_use]
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn variables<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        variables.into_iter().fold(self, |spec, (name, value)| spec.variable(name, value))
    }

    /// Redirects standard output to this file, which is truncated, instead of the log.
    #[must_use]
    pub fn output(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Starts the process, bound to the calling thread.
    fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)
            .context(|| format!("open {}", self.log.display()))?;
        let output = match &self.output {
            Some(file) => File::create(file).context(|| format!("create {}", file.display()))?,
            None => log.try_clone().context(|| format!("open {}", self.log.display()))?,
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(INHERITED_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .process_group(0);
        kill_with_current_thread(&mut command);
        command.spawn().context(|| format!("start {} ({})", self.name, self.program.display()))
    }
}

/// Makes the kernel kill the child when the calling thread ends. Must be called on the thread that starts the child and
/// waits for it.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "only Linux has the signal"))]
#[allow(unsafe_code)] // pre_exec, see below
pub(crate) fn kill_with_current_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getpid();
        let tie = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent died before the signal was set.
            if rustix::process::getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe calls are allowed. These are two bare system calls
        // (prctl, getppid) and constructors that neither allocate nor lock.
        unsafe {
            command.pre_exec(tie);
        }
    }
}

/// Process ID until the child is reaped. Signals are sent only under this lock.
type UnreapedPid = Mutex<Option<Pid>>;

/// A running or exited child. Dropping it kills the child and waits for the exit.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    id: u32,
    unreaped: Arc<UnreapedPid>,
    status: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts the process and returns after exec.
    pub fn start(spec: ProcessSpec) -> Result<Self> {
        let (status_sender, status) = watch::channel(None);
        let (started_sender, started) = mpsc::sync_channel(1);
        let unreaped = Arc::new(UnreapedPid::new(None));

        let thread = std::thread::Builder::new().name(format!("wait:{}", spec.name));
        let body = {
            let (spec, unreaped) = (spec.clone(), Arc::clone(&unreaped));
            move || match spec.spawn() {
                Err(error) => drop(started_sender.send(Err(error))),
                Ok(child) => {
                    *unreaped.lock().unwrap_or_else(PoisonError::into_inner) = pid(&child);
                    let _ = started_sender.send(Ok(child.id()));
                    status_sender.send_replace(Some(reap(child, &unreaped)));
                }
            }
        };
        let waiter = thread.spawn(body).context(|| format!("start a thread for {}", spec.name))?;
        let id =
            started.recv().map_err(|_| Error::Unexpected(format!("the thread of {} panicked", spec.name))).flatten()?;
        Ok(Self { spec, id, unreaped, status, waiter: Some(waiter) })
    }

    /// Runs the process to completion within `limit` and returns its standard output, if [`ProcessSpec::output`] is
    /// set.
    pub async fn run(spec: ProcessSpec, limit: Duration) -> Result<String> {
        let process = Self::start(spec)?;
        let Ok(status) = timeout(limit, process.wait()).await else {
            return Err(Error::TimedOut {
                what: format!("{} to finish", process.spec.name),
                limit,
                tail: process.tail_for_error(),
            });
        };
        if !status.success() {
            return Err(process.exited(status));
        }
        match &process.spec.output {
            None => Ok(String::new()),
            Some(file) => fs::read_to_string(file).context(|| format!("read {}", file.display())),
        }
    }

    /// The name in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.spec.log
    }

    /// The log, including all restarts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.spec.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The exit status; `None` while running.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits for the exit without a limit.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // The sender is dropped only after it has sent the status.
        ended.unwrap_or_default()
    }

    /// Polls `probe` until it returns true, at most for `limit`. If the process exits, fails immediately with the last
    /// lines of its log.
    pub async fn wait_until_ready<F, Fut>(&self, limit: Duration, mut probe: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let what = format!("{} to be ready", self.spec.name);
        let ready = eventually(&what, limit, || {
            let answer = probe();
            async { answer.await.then_some(()) }
        });
        tokio::select! {
            biased;
            status = self.wait() => Err(self.exited(status)),
            ready = ready => match ready {
                Err(Error::TimedOut { what, limit, .. }) => Err(Error::TimedOut { what, limit, tail: self.tail_for_error() }),
                other => other,
            },
        }
    }

    /// Sends SIGSTOP: the process keeps its sockets and memory but does not run, like a paused virtual machine.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT, after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(&self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Sends SIGTERM, and SIGKILL after `grace`, like Kubernetes. Resumes a paused process, so that it handles SIGTERM.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        match timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the process if it runs and starts it with the same arguments and log.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await;
        *self = Self::start(self.spec.clone())?;
        Ok(())
    }

    /// As [`Process::restart`], with more arguments.
    pub async fn restart_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.kill().await;
        *self = Self::start(self.spec.clone().arguments(arguments))?;
        Ok(())
    }

    /// Sends a signal unless the process has exited.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.unreaped.lock().unwrap_or_else(PoisonError::into_inner) {
            // The only possible error is "no such process", which the lock prevents.
            let _ = kill_process(pid, signal);
        }
    }

    fn exited(&self, status: ExitStatus) -> Error {
        Error::ProcessEnded { name: self.spec.name.clone(), status, log: self.spec.log.clone(), tail: self.tail() }
    }

    fn tail_for_error(&self) -> String {
        format!("; last lines of its log {}:\n{}", self.spec.log.display(), self.tail())
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Waits for the exit of the child and clears its process ID before the kernel can reuse it.
fn reap(mut child: Child, unreaped: &UnreapedPid) -> ExitStatus {
    if let Some(pid) = pid(&child) {
        // NOWAIT leaves the child unreaped, so that its process ID is not reused yet.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
    }
    let mut unreaped = unreaped.lock().unwrap_or_else(PoisonError::into_inner);
    *unreaped = None;
    // Cannot fail: this is our child, and it was not reaped.
    child.wait().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell(directory: &Path, script: &str) -> ProcessSpec {
        ProcessSpec::new("script", "/bin/sh", directory.join("log")).arguments(["-c", script])
    }

    /// Whether the process exists and is not a zombie.
    fn runs(id: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    #[tokio::test]
    async fn dropped_process_is_killed() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let process = Process::start(shell(directory.path(), "trap '' TERM; while :; do sleep 60; done"))?;
        let id = process.id();
        assert!(runs(id));
        drop(process);
        assert!(!runs(id));
        Ok(())
    }

    #[tokio::test]
    async fn stop_sends_sigkill_only_after_the_grace_period() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let graceful = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done";
        let process = Process::start(shell(directory.path(), graceful))?;
        process.wait_until_ready(LIMIT, async || process.log().contains("up")).await?;
        process.pause();
        assert_eq!(process.stop(LIMIT).await.code(), Some(3));
        assert_eq!(process.log(), "up\nbye\n");

        let unresponsive = "trap '' TERM; echo started; while :; do sleep 0.01; done";
        let process = Process::start(shell(directory.path(), unresponsive))?;
        process.wait_until_ready(LIMIT, async || process.log().contains("started")).await?;
        assert_eq!(process.stop(Duration::from_millis(50)).await.code(), None);
        Ok(())
    }

    #[tokio::test]
    async fn exit_while_waiting_returns_the_log() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let process = Process::start(shell(directory.path(), "echo no such flag >&2; exit 2"))?;
        let error = process.wait_until_ready(LIMIT, async || false).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("no such flag"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn restarted_process_appends_to_the_same_log() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let mut process = Process::start(shell(directory.path(), "echo here; exec sleep 60"))?;
        process.wait_until_ready(LIMIT, async || process.log() == "here\n").await?;
        let first = process.id();
        process.restart().await?;
        process.wait_until_ready(LIMIT, async || process.log() == "here\nhere\n").await?;
        assert!(!runs(first) && runs(process.id()));
        Ok(())
    }

    #[tokio::test]
    async fn child_does_not_inherit_the_environment() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let spec = shell(directory.path(), "env").variable("GIVEN", "yes").output(directory.path().join("out"));
        let seen = Process::run(spec, LIMIT).await?;
        assert!(seen.contains("GIVEN=yes"));
        assert!(!seen.contains("CARGO_MANIFEST_DIR"), "{seen}");
        Ok(())
    }

    #[test]
    fn missing_program_is_named_in_the_error() {
        let error = Process::start(ProcessSpec::new("ghost", "/nonexistent/ghost", "/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "failed to start ghost (/nonexistent/ghost)");
    }
}
