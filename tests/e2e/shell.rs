//! The commands of the story, as a person would type them.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use awsdeploy_testkit::{
    Error, Result,
    process::{Process, ProcessSpec},
};

/// No command takes longer; those that wait have a limit of their own, which tells more.
const LIMIT: Duration = Duration::from_mins(6);

/// Runs commands with the programs and the kubeconfig of the run, in the root of the repository.
#[derive(Debug)]
pub(crate) struct Shell {
    directory: PathBuf,
    variables: Vec<(&'static str, String)>,
    next: AtomicU32,
}

impl Shell {
    /// Output goes to files in `directory`; `programs` come before what else is on PATH.
    pub(crate) fn new(run: &Path, programs: &Path) -> Result<Self> {
        let directory = run.join("commands");
        std::fs::create_dir_all(&directory)
            .map_err(|source| Error::Io { what: format!("create {}", directory.display()), source })?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut variables = vec![("PATH", format!("{}:{path}", programs.display())), ("NO_COLOR", "1".to_owned())];
        for (variable, place) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            variables.push((variable, directory.join("helm").join(place).display().to_string()));
        }
        Ok(Self { directory, variables, next: AtomicU32::new(1) })
    }

    /// Sets an environment variable of all commands to come.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    /// Shows a command, runs it, shows what it writes to standard output, and returns that.
    pub(crate) async fn shown(&self, command: &str) -> String {
        println!("$ {command}");
        let output = self.quiet(command).await.unwrap_or_else(|error| panic!("{error}"));
        print!("{output}");
        output
    }

    /// Runs a command; its standard output without the line's end.
    pub(crate) async fn quiet(&self, command: &str) -> Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = |end: &str| self.directory.join(format!("command-{number:03}.{end}"));
        let spec = ProcessSpec::new(format!("`{command}`"), "/bin/bash", file("log"))
            .arguments(["-euo", "pipefail", "-c", command])
            .variables(self.variables.iter().map(|(name, value)| (name, value)))
            .output(file("out"));
        Process::run(spec, LIMIT).await
    }

    /// The output of a command that must work, without white space around it.
    pub(crate) async fn word(&self, command: &str) -> String {
        self.quiet(command).await.unwrap_or_else(|error| panic!("{error}")).trim().to_owned()
    }
}
