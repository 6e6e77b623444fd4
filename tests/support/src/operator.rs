//! The operator as a child process outside of the cluster: with the RBAC of the chart, but accessible for SIGKILL and
//! SIGSTOP.

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use crate::{
    Error, Result,
    emulator::AwsAccess,
    error::Context as _,
    ports,
    process::{Process, ProcessSpec},
    tls::TlsClient,
};

/// Limit for the operator to become ready. Generous, because tests share a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Timeout of a single HTTP request. Generous, because it is not retried.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Timeout of a readiness probe, which is retried.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of an [`Operator`].
#[derive(Clone)]
pub struct OperatorOptions {
    name: String,
    binary: PathBuf,
    kubeconfig: PathBuf,
    aws: AwsAccess,
    directory: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    tls: Option<TlsClient>,
}

impl OperatorOptions {
    /// The operator at `binary`, connected to Kubernetes with `kubeconfig` and to AWS with `aws`. It logs to
    /// `operator.log` in
    /// `directory`.
    pub fn new(
        binary: impl Into<PathBuf>,
        kubeconfig: impl Into<PathBuf>,
        aws: AwsAccess,
        directory: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: "operator".into(),
            binary: binary.into(),
            kubeconfig: kubeconfig.into(),
            aws,
            directory: directory.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            tls: None,
        }
    }

    /// Sets the name for errors and the log file, for tests with several operators.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Uses TLS for requests to its HTTP server.
    #[must_use]
    pub fn tls(mut self, client: TlsClient) -> Self {
        self.tls = Some(client);
        self
    }

    fn spec(self, metrics: SocketAddr) -> ProcessSpec {
        let log = self.directory.join(format!("{}.log", self.name));
        let spec = ProcessSpec::new(self.name, self.binary, log)
            .arguments(&self.arguments)
            .arguments(["--metrics-bind-address", &metrics.to_string()])
            .variable("KUBECONFIG", self.kubeconfig)
            .variable("RUST_BACKTRACE", "1")
            .variables(self.aws.variables());
        spec.variables(self.variables)
    }
}

/// A running operator. Killed when dropped.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    metrics: SocketAddr,
    http: reqwest::Client,
    tls: Option<TlsClient>,
}

impl Operator {
    /// Starts the operator and waits until it is ready.
    pub async fn start(options: OperatorOptions) -> Result<Self> {
        let operator = Self::spawn(options)?;
        operator.wait_until_ready(START_LIMIT).await?;
        Ok(operator)
    }

    /// Starts the operator without waiting.
    pub fn spawn(options: OperatorOptions) -> Result<Self> {
        let metrics = ports::reserve().context(|| "find a port for the operator's metrics".into())?;
        let http = reqwest::Client::builder()
            // One connection per request: the operator closes idle connections, and a request sent at that moment would
            // get no response.
            .pool_max_idle_per_host(0)
            .build()
            .context(|| "make a client for the operator's metrics".into())?;
        let tls = options.tls.clone();
        Ok(Self { process: Process::start(options.spec(metrics))?, metrics, http, tls })
    }

    /// Waits until `/readyz` succeeds. If the operator exits or `limit` passes, the error contains the last lines of
    /// its log.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        let ready = async || self.get("/readyz", None, PROBE_TIMEOUT).await.is_ok_and(|(status, _)| status == 200);
        self.process.wait_until_ready(limit, ready).await
    }

    /// The body of `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics", None, REQUEST_TIMEOUT).await? {
            (200, text) => Ok(text),
            (status, text) => Err(Error::Unexpected(format!("/metrics responded with {status}: {text}"))),
        }
    }

    /// Status and body of `/metrics` for a bearer token.
    pub async fn metrics_with_token(&self, token: Option<&str>) -> Result<(u16, String)> {
        self.get("/metrics", token, REQUEST_TIMEOUT).await
    }

    /// Sends a GET request to its HTTP server; returns status and body.
    async fn get(&self, path: &str, token: Option<&str>, limit: Duration) -> Result<(u16, String)> {
        let what = || format!("get {path} of {}", self.process.name());
        if let Some(tls) = &self.tls {
            let request = async { tls.connect(self.metrics).await?.get(path, token).await };
            let response = tokio::time::timeout(limit, request).await;
            return response.unwrap_or_else(|_| Err(Error::Unexpected(format!("no response in time: {}", what()))));
        }
        let mut request = self.http.get(format!("http://{}{path}", self.metrics)).timeout(limit);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.context(what)?;
        Ok((response.status().as_u16(), response.text().await.context(what)?))
    }

    /// The address of its HTTP server.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its log, including all restarts.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.process.log_file()
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends SIGSTOP: the process keeps its Lease and connections but does not run.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(&self) -> ExitStatus {
        self.process.kill().await
    }

    /// Sends SIGTERM, like Kubernetes, and SIGKILL after `grace`.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.process.stop(grace).await
    }

    /// Kills the operator if it runs, starts it with the same arguments, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// As [`Operator::restart`], with more arguments; of an argument that is set twice the last value counts.
    pub async fn restart_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.process.restart_with(arguments).await?;
        self.wait_until_ready(START_LIMIT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn operator_gets_its_settings_and_early_exit_shows_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("fake");
        let script = "#!/bin/sh\necho \"args: $*; endpoint: $AWS_ENDPOINT_URL; kubeconfig: $KUBECONFIG; extra: $EXTRA\"; exit 7\n";
        write_executable(&binary, script);
        let aws = AwsAccess::administrator("127.0.0.1:4566".parse().unwrap());
        let options = OperatorOptions::new(&binary, "/kube/config", aws, directory.path())
            .name("first")
            .arguments(["--leader-elect", "false"])
            .variable("EXTRA", "yes");
        let error = Operator::start(options).await.unwrap_err().to_string();
        assert!(error.starts_with("first exited: exit status: 7"), "{error}");
        assert!(error.contains("args: --leader-elect false --metrics-bind-address 127.0.0.1:"), "{error}");
        assert!(error.contains("endpoint: http://127.0.0.1:4566; kubeconfig: /kube/config; extra: yes"), "{error}");
        assert!(directory.path().join("first.log").is_file());
    }

    fn write_executable(file: &Path, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        std::fs::write(file, content).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
