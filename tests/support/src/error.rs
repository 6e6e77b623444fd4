//! What can go wrong in the rig. Messages name the process and show the end of its log: a failing test must explain
//! itself without a second run.

use std::{fmt, io, path::PathBuf, process::ExitStatus, time::Duration};

/// The result of everything that the rig does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the rig itself, never of what is under test.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file, directory or socket.
    #[error("failed to {what}")]
    Io {
        /// What was tried, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// The binaries are not there and could not be built.
    #[error("the test binaries are not ready: {0}")]
    Tools(String),

    /// A process ended that should have gone on, or failed at its task.
    #[error("{name} ended: {status}; its log {} ends:\n{tail}", log.display())]
    ProcessEnded {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// Something awaited did not happen in time.
    #[error("waited {limit:?} for {what}{tail}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// How long.
        limit: Duration,
        /// The last lines of a log, where one can explain it, else empty.
        tail: String,
    },

    /// A call to the Kubernetes API.
    #[error("failed to {what}")]
    Kubernetes {
        /// What was tried, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },

    /// A kubeconfig that cannot be used.
    #[error("failed to use kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },

    /// A certificate could not be made.
    #[error("failed to make a certificate")]
    Certificate(#[from] rcgen::Error),

    /// A plain HTTP request on loopback.
    #[error("failed to {what}")]
    Http {
        /// What was tried, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },

    /// Something was read that is not what it should be.
    #[error("{0}")]
    Unexpected(String),
}

/// As a person reads it, since a test shows its failure by `Debug`: the end of a log on lines of its own.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&format_chain(self))
    }
}

/// Adds to a foreign error what was tried.
pub(crate) trait Context<T> {
    /// Wraps the error; `what` completes "failed to ...".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, io::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Context<T> for std::result::Result<T, kube::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kubernetes { what: what(), source: Box::new(source) })
    }
}

impl<T> Context<T> for std::result::Result<T, reqwest::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Http { what: what(), source })
    }
}

/// An error with its causes, one after the other, as a person reads it.
pub fn format_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
