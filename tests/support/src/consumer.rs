//! A workload that uses the published key continuously: every 100 ms it reads the mounted `credentials` file, signs
//! `sts:GetCallerIdentity` with it, and counts the results. A rotation without an outage has no refused call.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_credential_types::Credentials;
use aws_sdk_sts::{
    Client,
    config::{BehaviorVersion, Region, SharedCredentialsProvider, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata as _, SdkError},
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use crate::{Error, Result};

/// File in the mount.
const CREDENTIALS_FILE: &str = "credentials";
/// Profile in that file.
const PROFILE: &str = "default";
/// Number of refused calls that a report lists.
const MAX_REFUSALS: usize = 100;
/// Timeout of a call. Generous, because tests run on busy machines.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts to read the file while the mount is being updated.
const READ_ATTEMPTS: usize = 5;

/// Options of a [`Consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The mounted Secret.
    pub mount: PathBuf,
    /// The endpoint URL of AWS.
    pub endpoint: String,
    /// The region of the signature.
    pub region: String,
    /// The expected caller identity. A response with another ARN counts as refused.
    pub expected_arn: String,
    /// Time between two calls.
    pub interval: Duration,
    /// The consumer stops after this time.
    pub max_duration: Duration,
}

impl ConsumerOptions {
    /// A call every 100 ms in `us-east-1`, for at most one hour.
    pub fn new(mount: impl Into<PathBuf>, endpoint: impl Into<String>, expected_arn: impl Into<String>) -> Self {
        Self {
            mount: mount.into(),
            endpoint: endpoint.into(),
            region: "us-east-1".into(),
            expected_arn: expected_arn.into(),
            interval: Duration::from_millis(100),
            max_duration: Duration::from_hours(1),
        }
    }
}

/// Counters of a consumer. Contains key IDs, but no secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerReport {
    /// Calls whose response has the expected ARN.
    pub accepted: u64,
    /// Calls that AWS refused or answered with another ARN, and files without a key or that could not be read.
    pub refused: u64,
    /// Calls without a response or with a 5xx response, which are not caused by the key.
    pub unanswered: u64,
    /// Attempts before the file existed.
    pub missing_file: u64,
    /// Accepted calls by key ID.
    pub keys: BTreeMap<String, u64>,
    /// The first refused calls.
    pub refusals: Vec<RefusedCall>,
}

/// One refused call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedCall {
    /// Time of the call, by the local clock.
    pub at: Timestamp,
    /// AWS error code, or `WrongIdentity`, `MalformedFile`, `UnreadableFile`.
    pub code: String,
    /// ID of the key that signed; empty if the file has no key.
    pub key_id: String,
}

impl fmt::Display for ConsumerReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, refused, unanswered, missing_file, keys, refusals } = self;
        write!(
            formatter,
            "{accepted} calls accepted with {} keys, {refused} refused, {unanswered} unanswered, {missing_file} before the first key",
            keys.len()
        )?;
        for RefusedCall { at, code, key_id } in refusals {
            write!(formatter, "\n  {at} {code} {key_id}")?;
        }
        Ok(())
    }
}

/// A running consumer. Stops when dropped.
#[derive(Debug)]
pub struct Consumer {
    reports: watch::Receiver<ConsumerReport>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Starts a consumer.
    #[must_use]
    pub fn start(options: ConsumerOptions) -> Self {
        let (sender, reports) = watch::channel(ConsumerReport::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(consume(options, sender, stopped));
        Self { reports, stop, task }
    }

    /// The current counters.
    #[must_use]
    pub fn report(&self) -> ConsumerReport {
        self.reports.borrow().clone()
    }

    /// The counters as a channel, to wait for changes.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<ConsumerReport> {
        self.reports.clone()
    }

    /// Waits up to `limit` until `wanted` holds for the report; `what` describes it in the error.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&ConsumerReport) -> bool,
    ) -> Result<ConsumerReport> {
        let mut reports = self.reports.clone();
        let ended = match tokio::time::timeout(limit, reports.wait_for(wanted)).await {
            Ok(Ok(report)) => return Ok(report.clone()),
            Ok(Err(_)) => "; the consumer has stopped",
            Err(_) => "",
        };
        let tail = format!("; report: {}{ended}", self.report());
        Err(Error::TimedOut { what: what.into(), limit, tail })
    }

    /// Waits until the consumer stops at its maximum duration.
    pub async fn ended(&self) {
        let mut reports = self.reports.clone();
        while reports.changed().await.is_ok() {}
    }

    /// Finishes the current call, stops, and returns the report.
    pub async fn stop(mut self) -> ConsumerReport {
        self.stop.send_replace(true);
        // A consumer that panicked has reported all calls before the panic.
        let _ = (&mut self.task).await;
        self.report()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn consume(options: ConsumerOptions, report: watch::Sender<ConsumerReport>, mut stopped: watch::Receiver<bool>) {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&options.endpoint)
        .region(Region::new(options.region.clone()))
        // A retry would hide a refusal.
        .retry_config(RetryConfig::disabled())
        // The SDK's default connect timeout is three seconds.
        .timeout_config(TimeoutConfig::builder().connect_timeout(CALL_TIMEOUT).operation_timeout(CALL_TIMEOUT).build())
        .build();
    let client = Client::from_conf(config);
    let end = Instant::now() + options.max_duration;
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            now = ticks.tick() => if now >= end { return },
        }
        let outcome = attempt(&client, &options).await;
        report.send_modify(|report| report.count(outcome));
    }
}

/// Result of one call.
enum Outcome {
    Accepted { key_id: String },
    Refused(RefusedCall),
    Unanswered,
    MissingFile,
}

impl ConsumerReport {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted { key_id } => {
                self.accepted += 1;
                *self.keys.entry(key_id).or_default() += 1;
            }
            Outcome::Refused(refusal) => {
                self.refused += 1;
                if self.refusals.len() < MAX_REFUSALS {
                    self.refusals.push(refusal);
                }
            }
            Outcome::Unanswered => self.unanswered += 1,
            Outcome::MissingFile => self.missing_file += 1,
        }
    }
}

async fn attempt(client: &Client, options: &ConsumerOptions) -> Outcome {
    let refused = |code: &str, key_id: &str| {
        Outcome::Refused(RefusedCall { at: Timestamp::now(), code: code.into(), key_id: key_id.into() })
    };
    let credentials = match read(&options.mount) {
        Ok(Some(text)) => match parse(&text) {
            Some(credentials) => credentials,
            None => return refused("MalformedFile", ""),
        },
        Ok(None) => return Outcome::MissingFile,
        Err(_) => return refused("UnreadableFile", ""),
    };
    let key_id = credentials.access_key_id().to_owned();
    let provider = SharedCredentialsProvider::new(credentials);
    let signer = aws_sdk_sts::Config::builder().credentials_provider(provider);
    match client.get_caller_identity().customize().config_override(signer).send().await {
        Ok(identity) if identity.arn() == Some(&options.expected_arn) => Outcome::Accepted { key_id },
        Ok(_) => refused("WrongIdentity", &key_id),
        // A 5xx response does not depend on the key.
        Err(SdkError::ServiceError(error)) if error.raw().status().is_server_error() => Outcome::Unanswered,
        Err(SdkError::ServiceError(error)) => refused(error.err().code().unwrap_or("NoCode"), &key_id),
        Err(_) => Outcome::Unanswered,
    }
}

/// The file's content; `None` while there is no such file.
fn read(mount: &Path) -> io::Result<Option<String>> {
    let file = mount.join(CREDENTIALS_FILE);
    for _ in 0..READ_ATTEMPTS {
        match std::fs::read_to_string(&file) {
            Ok(text) => return Ok(Some(text)),
            // Without the link the file does not exist yet. With it, the mount was updated between resolving and
            // opening the link, so a retry opens the new version.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.symlink_metadata().is_err() => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The key in the profile [`PROFILE`] of a shared credentials file.
fn parse(text: &str) -> Option<Credentials> {
    let mut in_profile = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            in_profile = name.trim() == PROFILE;
        } else if in_profile && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Credentials::new(id?, secret?, token, None, "mounted Secret"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use axum::{
        Router,
        extract::State,
        http::{HeaderMap, StatusCode, header::AUTHORIZATION},
        routing::post,
    };

    use super::*;
    use crate::secret_mount::AtomicDirectory;

    const ARN: &str = "arn:aws:iam::123456789012:user/deploy";
    const LIMIT: Duration = Duration::from_secs(20);

    /// A mock STS that maps key IDs to ARNs and rejects unknown keys. Does not verify signatures.
    async fn sts(keys: &[(&str, &str)]) -> io::Result<String> {
        async fn respond(
            State(keys): State<Arc<BTreeMap<String, String>>>,
            headers: HeaderMap,
        ) -> (StatusCode, String) {
            let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let key = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
            match key.and_then(|key| keys.get(key)) {
                Some(arn) if arn.is_empty() => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "<h1>Internal Server Error</h1>".to_owned())
                }
                Some(arn) => (
                    StatusCode::OK,
                    format!(
                        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
                    ),
                ),
                None => (
                    StatusCode::FORBIDDEN,
                    "<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>".to_owned(),
                ),
            }
        }
        let keys = keys.iter().map(|(key, arn)| ((*key).to_owned(), (*arn).to_owned())).collect();
        let router = Router::new().route("/", post(respond)).with_state(Arc::new(keys));
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("http://{address}"))
    }

    fn publish(volume: &mut AtomicDirectory, content: &str) -> io::Result<bool> {
        volume.write(&[(CREDENTIALS_FILE.to_owned(), content.as_bytes().to_vec())].into())
    }

    fn file_of(key: &str) -> String {
        format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = not-a-real-one\n")
    }

    fn quick(mount: &Path, endpoint: &str) -> ConsumerOptions {
        crate::install_crypto_provider();
        ConsumerOptions { interval: Duration::from_millis(5), ..ConsumerOptions::new(mount, endpoint, ARN) }
    }

    #[tokio::test]
    async fn consumer_follows_rotations_and_counts_refused_calls() -> Result<(), Box<dyn std::error::Error>> {
        let endpoint =
            sts(&[("FIRST", ARN), ("SECOND", ARN), ("OTHERS", "arn:aws:iam::123456789012:user/other")]).await?;
        let directory = tempfile::tempdir()?;
        let mut volume = AtomicDirectory::new(directory.path())?;
        let consumer = Consumer::start(quick(directory.path(), &endpoint));

        consumer.wait_for("a read of the empty mount", LIMIT, |report| report.missing_file > 0).await?;
        for key in ["FIRST", "SECOND"] {
            publish(&mut volume, &file_of(key))?;
            consumer.wait_for(key, LIMIT, |report| report.keys.get(key).is_some_and(|calls| *calls > 2)).await?;
        }
        assert_eq!(consumer.report().refused, 0);

        for (content, code, key_id) in [
            (file_of("DELETED"), "InvalidClientTokenId", "DELETED"),
            (file_of("OTHERS"), "WrongIdentity", "OTHERS"),
            ("[default]\naws_access_key_id = FIRST\n".to_owned(), "MalformedFile", ""),
        ] {
            publish(&mut volume, &content)?;
            let refused =
                |report: &ConsumerReport| report.refusals.iter().any(|one| one.code == code && one.key_id == key_id);
            consumer.wait_for(code, LIMIT, refused).await?;
        }
        let report = consumer.stop().await;
        assert_eq!(report.accepted, report.keys.values().sum::<u64>());
        assert_eq!(report.unanswered, 0);
        assert!(!report.to_string().contains("not-a-real-one"));
        Ok(())
    }

    #[tokio::test]
    async fn unreachable_aws_counts_as_unanswered() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        publish(&mut AtomicDirectory::new(directory.path())?, &file_of("FIRST"))?;
        let endpoint = format!("http://{}", crate::ports::reserve()?);
        let options =
            ConsumerOptions { max_duration: Duration::from_millis(200), ..quick(directory.path(), &endpoint) };
        let consumer = Consumer::start(options);
        tokio::time::timeout(LIMIT, consumer.ended()).await?;
        let report = consumer.stop().await;
        assert!(report.unanswered > 0 && report.refused == 0 && report.accepted == 0, "{report}");
        Ok(())
    }

    #[tokio::test]
    async fn server_errors_count_as_unanswered() -> Result<(), Box<dyn std::error::Error>> {
        let endpoint = sts(&[("FIRST", "")]).await?;
        let directory = tempfile::tempdir()?;
        publish(&mut AtomicDirectory::new(directory.path())?, &file_of("FIRST"))?;
        let consumer = Consumer::start(quick(directory.path(), &endpoint));
        consumer.wait_for("a response with status 500", LIMIT, |report| report.unanswered + report.refused > 2).await?;
        let report = consumer.stop().await;
        assert!(report.unanswered > 2 && report.refused == 0 && report.accepted == 0, "{report}");
        Ok(())
    }

    #[test]
    fn only_the_default_profile_is_read() {
        let text = "[other]\naws_access_key_id=NO\naws_secret_access_key=x\n[ default ]\n aws_secret_access_key = a=b/c+d \naws_access_key_id=YES\n";
        let credentials = parse(text);
        assert_eq!(credentials.as_ref().map(Credentials::access_key_id), Some("YES"));
        assert_eq!(credentials.as_ref().map(Credentials::secret_access_key), Some("a=b/c+d"));
        assert!(parse("[default]\naws_access_key_id=\naws_secret_access_key=x").is_none());
    }
}
