//! Child processes that never outlive the run.
//!
//! Four things end a child: [`Process::stop`], [`Process::kill`], [`Drop`] (so also a panic), and the death of our own
//! process, however it comes (on Linux: the parent-death signal). Each child is in a process group of its own: Ctrl-C in
//! a terminal reaches only us, and we end the children in order.
//!
//! A child has a thread that starts it, waits for it and reaps it. The parent-death signal is bound to the thread that
//! forked, so it must be one that lives as long as the child; and since only that thread reaps, under a lock that every
//! signal takes too, no signal can ever hit a stranger that got the same process id.

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

/// What a child keeps of our environment. All else would make tests depend on the machine: AWS profiles, proxies.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LLVM_PROFILE_FILE"];

/// How many lines of a log an error shows.
const TAIL_LINES: usize = 25;

/// What to run.
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
    /// The program at `program`, called `name` in errors, with its standard output and error appended to the file
    /// `log`.
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

    /// Sets an environment variable. Of our own environment a child sees next to nothing.
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

    /// Writes standard output to this file instead of the log, from its beginning.
    #[must_use]
    pub fn output(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Starts it, tied to the calling thread.
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
            .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .process_group(0);
        end_with_this_thread(&mut command);
        command.spawn().context(|| format!("start {} ({})", self.name, self.program.display()))
    }
}

/// Has the kernel kill the child when the calling thread ends, with its process or before. So call it on the thread that
/// starts the child and waits for it.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "only Linux has the signal"))]
#[allow(unsafe_code)] // pre_exec, see below
pub(crate) fn end_with_this_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getpid();
        let tie = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // Gone before the kernel knew that it matters.
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

/// The process id until the child is reaped. A signal is sent under this lock or not at all.
type Alive = Mutex<Option<Pid>>;

/// A running child, or one that has ended. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    id: u32,
    alive: Arc<Alive>,
    status: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it and returns as soon as the program is loaded.
    pub fn start(spec: ProcessSpec) -> Result<Self> {
        let (status_sender, status) = watch::channel(None);
        let (started_sender, started) = mpsc::sync_channel(1);
        let alive = Arc::new(Alive::new(None));

        let thread = std::thread::Builder::new().name(format!("wait:{}", spec.name));
        let body = {
            let (spec, alive) = (spec.clone(), Arc::clone(&alive));
            move || match spec.spawn() {
                Err(error) => drop(started_sender.send(Err(error))),
                Ok(child) => {
                    *alive.lock().unwrap_or_else(PoisonError::into_inner) = pid(&child);
                    let _ = started_sender.send(Ok(child.id()));
                    status_sender.send_replace(Some(reap(child, &alive)));
                }
            }
        };
        let waiter = thread.spawn(body).context(|| format!("start a thread for {}", spec.name))?;
        let id =
            started.recv().map_err(|_| Error::Unexpected(format!("the thread of {} died", spec.name))).flatten()?;
        Ok(Self { spec, id, alive, status, waiter: Some(waiter) })
    }

    /// Runs it to its end, at most for `limit`, and returns its standard output if it succeeds ([`ProcessSpec::output`] must
    /// be set, otherwise it is in the log).
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
            return Err(process.ended(status));
        }
        match &process.spec.output {
            None => Ok(String::new()),
            Some(file) => fs::read_to_string(file).context(|| format!("read {}", file.display())),
        }
    }

    /// Its name in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file that its output goes to.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.spec.log
    }

    /// All that it has written so far, over all of its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.spec.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits for its end, however long that takes.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // The sender goes only after it has sent.
        ended.unwrap_or_default()
    }

    /// Asks `probe` until it says yes, at most for `limit`. Fails at once, with the end of the log, if the process ends.
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
            status = self.wait() => Err(self.ended(status)),
            ready = ready => match ready {
                Err(Error::TimedOut { what, limit, .. }) => Err(Error::TimedOut { what, limit, tail: self.tail_for_error() }),
                other => other,
            },
        }
    }

    /// Stops it in its tracks (SIGSTOP): it keeps its sockets and memory and does nothing, like a paused virtual machine
    /// or a long garbage collection.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT) after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it like a crash of the machine (SIGKILL) and waits until it is gone.
    pub async fn kill(&self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Ends it as Kubernetes would: SIGTERM, and SIGKILL to one that has not ended after `grace`. A paused process is
    /// resumed to receive it.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        match timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    /// Starts it anew with the same arguments and the same log. What still runs is killed first.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await;
        *self = Self::start(self.spec.clone())?;
        Ok(())
    }

    /// Sends a signal, if the process has not ended.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.alive.lock().unwrap_or_else(PoisonError::into_inner) {
            // The only possible failure is "no such process", which the lock excludes.
            let _ = kill_process(pid, signal);
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::ProcessEnded { name: self.spec.name.clone(), status, log: self.spec.log.clone(), tail: self.tail() }
    }

    fn tail_for_error(&self) -> String {
        format!("; its log {} ends:\n{}", self.spec.log.display(), self.tail())
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

/// Waits for the end of the child, then takes its process id out of circulation before the system may give it away.
fn reap(mut child: Child, alive: &Alive) -> ExitStatus {
    if let Some(pid) = pid(&child) {
        // Leaves the dead child unreaped, so that its id is still its own.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
    }
    let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
    *alive = None;
    // It cannot fail: the child is ours and was not waited for.
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
    async fn a_dropped_process_is_gone() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let process = Process::start(shell(directory.path(), "trap '' TERM; while :; do sleep 60; done"))?;
        let id = process.id();
        assert!(runs(id));
        drop(process);
        assert!(!runs(id));
        Ok(())
    }

    #[tokio::test]
    async fn stop_lets_it_finish_and_kills_it_only_after_the_grace_period() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done";
        let process = Process::start(shell(directory.path(), polite))?;
        process.wait_until_ready(LIMIT, async || process.log().contains("up")).await?;
        process.pause();
        assert_eq!(process.stop(LIMIT).await.code(), Some(3));
        assert_eq!(process.log(), "up\nbye\n");

        let stubborn = "trap '' TERM; echo deaf; while :; do sleep 0.01; done";
        let process = Process::start(shell(directory.path(), stubborn))?;
        process.wait_until_ready(LIMIT, async || process.log().contains("deaf")).await?;
        assert_eq!(process.stop(Duration::from_millis(50)).await.code(), None);
        Ok(())
    }

    #[tokio::test]
    async fn a_process_that_dies_while_awaited_explains_itself() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let process = Process::start(shell(directory.path(), "echo no such flag >&2; exit 2"))?;
        let error = process.wait_until_ready(LIMIT, async || false).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("no such flag"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn a_restart_is_a_new_process_with_the_same_log() -> Result<()> {
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
    async fn a_child_sees_none_of_our_environment() -> Result<()> {
        let directory = tempfile::tempdir().context(String::new)?;
        let spec = shell(directory.path(), "env").variable("GIVEN", "yes").output(directory.path().join("out"));
        let seen = Process::run(spec, LIMIT).await?;
        assert!(seen.contains("GIVEN=yes"));
        assert!(!seen.contains("CARGO_MANIFEST_DIR"), "{seen}");
        Ok(())
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Process::start(ProcessSpec::new("ghost", "/nonexistent/ghost", "/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "failed to start ghost (/nonexistent/ghost)");
    }
}
