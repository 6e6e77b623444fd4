//! Errors of the test kit. Messages name the process and include the last lines of its log, so that a failed test can
//! be diagnosed without a second run.

use std::{fmt, io, path::PathBuf, process::ExitStatus, time::Duration};

/// Result with the error of the test kit.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the test kit itself, never of the system under test.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file, directory or socket.
    #[error("failed to {what}")]
    Io {
        /// The operation, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// The test binaries could not be found or built.
    #[error("the test binaries are not ready: {0}")]
    Tools(String),

    /// A process exited unexpectedly or failed.
    #[error("{name} exited: {status}; last lines of its log {}:\n{tail}", log.display())]
    ProcessEnded {
        /// The process.
        name: String,
        /// Exit status.
        status: ExitStatus,
        /// The log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A wait timed out.
    #[error("waited {limit:?} for {what}{tail}")]
    TimedOut {
        /// The condition.
        what: String,
        /// The timeout.
        limit: Duration,
        /// The last lines of a related log; empty if there is none.
        tail: String,
    },

    /// A call to the Kubernetes API failed.
    #[error("failed to {what}")]
    Kubernetes {
        /// The operation, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },

    /// A kubeconfig is invalid.
    #[error("failed to use kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },

    /// A certificate could not be issued.
    #[error("failed to issue a certificate")]
    Certificate(#[from] rcgen::Error),

    /// A plain HTTP request on loopback failed.
    #[error("failed to {what}")]
    Http {
        /// The operation, after "failed to".
        what: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },

    /// Unexpected output or state.
    #[error("{0}")]
    Unexpected(String),
}

/// Formats like `Display` with causes, because tests print errors with `Debug` and the log lines must stay readable.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&format_chain(self))
    }
}

/// Adds the operation to an external error.
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

/// Formats an error with its causes, separated by colons.
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
