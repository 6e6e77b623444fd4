//! The AWS emulator: moto server with IAM, STS and the AWS managed policies.
//!
//! It is more lenient than AWS, so tests use [`crate::aws_proxy`] in front of it.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::{
    Result,
    error::Context as _,
    ports,
    process::{Process, ProcessSpec},
    tools::Tools,
};

const START_LIMIT: Duration = Duration::from_mins(1);

/// Endpoint and credentials of AWS.
#[derive(Clone)]
pub struct AwsAccess {
    /// The endpoint URL of every service.
    pub endpoint: String,
    /// The access key ID.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The region.
    pub region: String,
}

impl AwsAccess {
    /// The administrator of the test account at `address`, with the example key of the AWS documentation, which every
    /// [`crate::aws_proxy::Account`] accepts.
    #[must_use]
    pub fn administrator(address: SocketAddr) -> Self {
        Self {
            endpoint: format!("http://{address}"),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        }
    }

    /// Environment variables for an AWS SDK or CLI, which also disable the user's AWS configuration.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &str); 8] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("AWS_REGION", &self.region),
            ("AWS_DEFAULT_REGION", &self.region),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    process: Process,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Emulator {
    /// Starts it with its log in `directory` and waits until it responds.
    pub async fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        let address = ports::reserve().context(|| "find a port for the AWS emulator".into())?;
        let modules = directory.join("python");
        let customized = std::fs::create_dir_all(&modules)
            .and_then(|()| std::fs::write(modules.join("sitecustomize.py"), include_str!("emulator/sitecustomize.py")));
        customized.context(|| format!("write {}", modules.display()))?;
        let spec = ProcessSpec::new("moto_server", tools.program("moto_server"), directory.join("moto.log"))
            .arguments(["-H", &address.ip().to_string(), "-p", &address.port().to_string()])
            .variable("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .variable("PYTHONPATH", &modules);
        let process = Process::start(spec)?;
        let emulator = Self { process, address, http: reqwest::Client::new() };
        let url = emulator.url("data.json");
        let answers = async || emulator.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        emulator.process.wait_until_ready(START_LIMIT, answers).await?;
        Ok(emulator)
    }

    /// The address of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deletes the state of all accounts.
    pub async fn reset(&self) -> Result<()> {
        let answer = self.http.post(self.url("reset")).send().await;
        answer.and_then(reqwest::Response::error_for_status).map(drop).context(|| "reset the AWS emulator".into())
    }

    /// The server process, for tests that pause or kill it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it. No grace period, because the state is discarded.
    pub async fn stop(self) {
        self.process.kill().await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/moto-api/{path}", self.address)
    }
}
