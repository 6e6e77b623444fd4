//! The operator as a process of its own, outside of the cluster: with the chart's rights, but within reach of SIGKILL and
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

/// How long the operator may take until it says that it is ready. It takes a moment; on a machine that is busy with
/// other tests it may take far longer.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long one question to its HTTP server may take. Generous, since a question is asked once and must be answered.
const ASK_LIMIT: Duration = Duration::from_mins(1);

/// How long one question may take that is asked again: one that is lost does not use up the time for all of them.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// How to start an operator.
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
    /// The operator at `binary`, which reaches Kubernetes as `kubeconfig` says and AWS as `aws` says. Its log is
    /// `operator.log` in `directory`.
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

    /// The name in errors and of the log file, where a test runs more than one.
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

    /// Its HTTP server is asked by TLS.
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

/// A running operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    metrics: SocketAddr,
    http: reqwest::Client,
    tls: Option<TlsClient>,
}

impl Operator {
    /// Starts it and returns when it says that it is ready.
    pub async fn start(options: OperatorOptions) -> Result<Self> {
        let operator = Self::spawn(options)?;
        operator.wait_until_ready(START_LIMIT).await?;
        Ok(operator)
    }

    /// Starts it and does not wait.
    pub fn spawn(options: OperatorOptions) -> Result<Self> {
        let metrics = ports::reserve().context(|| "find a port for the operator's metrics".into())?;
        let http = reqwest::Client::builder()
            // A connection for each question: the operator closes those that are idle for some time, and a question
            // that is sent at that very moment gets no answer.
            .pool_max_idle_per_host(0)
            .build()
            .context(|| "make a client for the operator's metrics".into())?;
        let tls = options.tls.clone();
        Ok(Self { process: Process::start(options.spec(metrics))?, metrics, http, tls })
    }

    /// Waits until its `/readyz` says yes. Fails with the end of its log if it ends instead, or takes too long.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        let ready = async || self.get("/readyz", None, PROBE_LIMIT).await.is_ok_and(|(status, _)| status == 200);
        self.process.wait_until_ready(limit, ready).await
    }

    /// What its `/metrics` says.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics", None, ASK_LIMIT).await? {
            (200, text) => Ok(text),
            (status, text) => Err(Error::Unexpected(format!("/metrics answers {status}: {text}"))),
        }
    }

    /// What its `/metrics` says to the bearer of this token: status and body.
    pub async fn metrics_with_token(&self, token: Option<&str>) -> Result<(u16, String)> {
        self.get("/metrics", token, ASK_LIMIT).await
    }

    /// Asks its HTTP server for a path, as the bearer of a token, and waits this long: status and body.
    async fn get(&self, path: &str, token: Option<&str>, limit: Duration) -> Result<(u16, String)> {
        let what = || format!("get {path} of {}", self.process.name());
        if let Some(tls) = &self.tls {
            let asked = async { tls.connect(self.metrics).await?.get(path, token).await };
            let asked = tokio::time::timeout(limit, asked).await;
            return asked.unwrap_or_else(|_| Err(Error::Unexpected(format!("no answer in time: {}", what()))));
        }
        let mut request = self.http.get(format!("http://{}{path}", self.metrics)).timeout(limit);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.context(what)?;
        Ok((answer.status().as_u16(), answer.text().await.context(what)?))
    }

    /// Where its HTTP server listens.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// All that it has written so far, over all of its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file of its log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.process.log_file()
    }

    /// Its process, to pause it, to resume it, or to wait for its end.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGSTOP: it holds its leases and connections and does nothing.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// SIGKILL: it dies where it stands. Start it again with [`restart`](Self::restart).
    pub async fn kill(&self) -> ExitStatus {
        self.process.kill().await
    }

    /// SIGTERM, as Kubernetes ends a pod; SIGKILL after `grace`.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.process.stop(grace).await
    }

    /// Starts it again with the same arguments, killing it first if it runs, and returns when it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.wait_until_ready(START_LIMIT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_told_where_to_find_things_and_explains_its_early_end() {
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
        assert!(error.starts_with("first ended: exit status: 7"), "{error}");
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
