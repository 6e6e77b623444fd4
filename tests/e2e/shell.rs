//! Runs the shell commands of the scenario.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use awsdeploy_testkit::{
    Error, Result,
    process::{Process, ProcessSpec},
};

/// Limit of one command. Waiting commands have shorter timeouts with better errors.
const COMMAND_LIMIT: Duration = Duration::from_mins(6);

/// Runs commands in the root of the repository, with the binaries and the kubeconfig of the run.
#[derive(Debug)]
pub(crate) struct Shell {
    directory: PathBuf,
    variables: Vec<(&'static str, String)>,
    next: AtomicU32,
}

impl Shell {
    /// Writes output to files in `run` and prepends `programs` to PATH.
    pub(crate) fn new(run: &Path, programs: &Path) -> Result<Self> {
        let directory = run.join("commands");
        std::fs::create_dir_all(&directory)
            .map_err(|source| Error::Io { what: format!("create {}", directory.display()), source })?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut variables = vec![("PATH", format!("{}:{path}", programs.display())), ("NO_COLOR", "1".to_owned())];
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            variables.push((variable, directory.join("helm").join(folder).display().to_string()));
        }
        Ok(Self { directory, variables, next: AtomicU32::new(1) })
    }

    /// Sets an environment variable for later commands.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    /// Prints and runs a command, and prints and returns its standard output. Panics if it fails.
    pub(crate) async fn run_printed(&self, command: &str) -> String {
        println!("$ {command}");
        let output = self.run(command).await.unwrap_or_else(|error| panic!("{error}"));
        print!("{output}");
        output
    }

    /// Runs a command and returns its standard output.
    pub(crate) async fn run(&self, command: &str) -> Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = |end: &str| self.directory.join(format!("command-{number:03}.{end}"));
        let spec = ProcessSpec::new(format!("`{command}`"), "/bin/bash", file("log"))
            .arguments(["-euo", "pipefail", "-c", command])
            .variables(self.variables.iter().map(|(name, value)| (name, value)))
            .output(file("out"));
        Process::run(spec, COMMAND_LIMIT).await
    }

    /// Runs a command and returns its trimmed output. Panics if it fails.
    pub(crate) async fn output_of(&self, command: &str) -> String {
        self.run(command).await.unwrap_or_else(|error| panic!("{error}")).trim().to_owned()
    }
}
