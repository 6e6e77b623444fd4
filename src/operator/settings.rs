//! Command-line flags of the operator. Each can also be set by an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use crate::{api::duration::parse_flag, domain::settings::Settings, reconcile::ReconcileSettings};

#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each bool is a flag")]
pub struct OperatorSettings {
    /// Age of an interrupted key attempt before the operator searches for its orphaned key; longer than IAM takes
    /// to list a new key.
    #[arg(long, env = "AWSDEPLOY_RECOVERY_DELAY", default_value = "60s", value_parser = parse_flag)]
    pub recovery_delay: Duration,

    /// Consecutive successful STS calls with a new key before it is published; 0 disables the check.
    #[arg(long, env = "AWSDEPLOY_VERIFY_SUCCESSES", default_value_t = 3)]
    pub verify_successes: u32,

    /// Time between two of these STS calls.
    #[arg(long, env = "AWSDEPLOY_VERIFY_INTERVAL", default_value = "1s", value_parser = parse_flag)]
    pub verify_interval: Duration,

    /// Time after which a new key that STS does not accept is deleted and replaced.
    #[arg(long, env = "AWSDEPLOY_VERIFY_TIMEOUT", default_value = "5m", value_parser = parse_flag)]
    pub verify_timeout: Duration,

    /// Time an old key is kept Inactive before it is deleted.
    #[arg(long, env = "AWSDEPLOY_DELETION_DELAY", default_value = "10m", value_parser = parse_flag)]
    pub deletion_delay: Duration,

    /// With rotation.holdWhileUsed: an old key whose last use in IAM is younger than this is in use; longer than 24h,
    /// so that a daily job is noticed.
    #[arg(long, env = "AWSDEPLOY_LAST_USED_WINDOW", default_value = "26h", value_parser = parse_flag)]
    pub last_used_window: Duration,

    /// With accessKey.restart: maximum time beyond the overlap that an old key is kept Active for a workload that is
    /// not rolled out; never beyond the next rotation.
    #[arg(long, env = "AWSDEPLOY_RESTART_HOLD", default_value = "24h", value_parser = parse_flag)]
    pub restart_hold: Duration,

    /// Time between two checks of a workload after its restart; six times longer after 10 minutes.
    #[arg(long, env = "AWSDEPLOY_RESTART_CHECK", default_value = "10s", value_parser = parse_flag)]
    pub restart_check: Duration,

    /// Time for which a deleted class revokes nothing, so that it can be replaced; a change of a class applies at once.
    #[arg(long, env = "AWSDEPLOY_CLASS_ABSENCE_GRACE", default_value = "5m", value_parser = parse_flag)]
    pub class_absence_grace: Duration,

    /// Shortest rotation interval that a resource may declare.
    #[arg(long, env = "AWSDEPLOY_MIN_ROTATION_INTERVAL", default_value = "1h", value_parser = parse_flag)]
    pub min_rotation_interval: Duration,

    /// Shortest time from an access key to the next one that is not scheduled; doubles, up to 24 hours, for each key in
    /// a row that replaces a lost one.
    #[arg(long, env = "AWSDEPLOY_REPAIR_INTERVAL", default_value = "10m", value_parser = parse_flag)]
    pub repair_interval: Duration,

    /// Time between two comparisons of each resource with IAM.
    #[arg(long, env = "AWSDEPLOY_RESYNC", default_value = "10m", value_parser = parse_flag)]
    pub resync: Duration,

    /// Time between two lists of the access keys of each user, one IAM call per user.
    #[arg(long, env = "AWSDEPLOY_KEY_CHECK", default_value = "1h", value_parser = parse_flag)]
    pub key_check: Duration,

    /// Compare the users of an account with one paginated read (iam:GetAccountAuthorizationDetails); false, or a
    /// denied read: five calls per user.
    #[arg(long, env = "AWSDEPLOY_ACCOUNT_DETAILS", default_value_t = true, action = clap::ArgAction::Set)]
    pub account_details: bool,

    /// Time between two checks of each published Secret; makes no AWS call.
    #[arg(long, env = "AWSDEPLOY_SECRET_CHECK", default_value = "1m", value_parser = parse_flag)]
    pub secret_check: Duration,

    /// Maximum number of concurrent reconciles of each AWS account. Namespaces share it; revocations have a few more.
    #[arg(long, env = "AWSDEPLOY_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Address and port of /metrics, /livez and /readyz.
    #[arg(long, env = "AWSDEPLOY_METRICS_BIND_ADDRESS", default_value = "127.0.0.1:8080")]
    pub metrics_bind_address: SocketAddr,

    /// Export metrics with one series per resource (ready, key age, next rotation); false for thousands of resources.
    #[arg(long, env = "AWSDEPLOY_METRICS_PER_RESOURCE", default_value_t = true, action = clap::ArgAction::Set)]
    pub metrics_per_resource: bool,

    /// PEM file with the serving certificate and its intermediates; enables TLS for /metrics, /livez and /readyz, and
    /// is reloaded on change.
    #[arg(long, env = "AWSDEPLOY_METRICS_TLS_CERT", requires = "metrics_tls_key")]
    pub metrics_tls_cert: Option<PathBuf>,

    /// PEM file with the unencrypted private key of the serving certificate; reloaded on change.
    #[arg(long, env = "AWSDEPLOY_METRICS_TLS_KEY", requires = "metrics_tls_cert")]
    pub metrics_tls_key: Option<PathBuf>,

    /// Require a bearer token for /metrics whose user RBAC allows to get that path (default: true unless
    /// --metrics-bind-address is a loopback address).
    #[arg(long, env = "AWSDEPLOY_METRICS_AUTH", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub metrics_auth: Option<bool>,

    /// Audience that the bearer token for /metrics must have, so that it cannot be used at the API server (default: that
    /// of the API server).
    #[arg(long, env = "AWSDEPLOY_METRICS_AUDIENCE")]
    pub metrics_audience: Option<String>,

    /// Elect one leader among several replicas; off: run exactly one replica.
    #[arg(long, env = "AWSDEPLOY_LEADER_ELECT")]
    pub leader_elect: bool,

    /// Namespace of the operator: its Lease and journals (default: the namespace of the pod or of the kubeconfig context).
    #[arg(long, env = "AWSDEPLOY_NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of the leader election Lease.
    #[arg(long, env = "AWSDEPLOY_LEASE_NAME", default_value = "aws-deploy-user-operator")]
    pub lease_name: String,

    /// Time after which a leader that does not renew its Lease is replaced, in whole seconds, at least 3s; it renews
    /// after two thirds of it.
    #[arg(long, env = "AWSDEPLOY_LEASE_DURATION", default_value = "15s", value_parser = parse_flag)]
    pub lease_duration: Duration,

    /// Cluster id in the ownership tags of IAM users; set it for a copy of another cluster (default: UID of the
    /// namespace kube-system).
    #[arg(long, env = "AWSDEPLOY_CLUSTER_ID")]
    pub cluster_id: Option<String>,

    /// Comma-separated namespaces to watch (default: all).
    #[arg(long, env = "AWSDEPLOY_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Update the status of `AwsDeployUserClass` resources. Not a setting for users: without it a class looks unobserved to
    /// clients that wait. Tests share the classes of a cluster among many operators.
    #[arg(long, hide = true, default_value_t = true, action = clap::ArgAction::Set)]
    pub class_status: bool,

    /// Maximum number of managed policies per user, the IAM quota of the account (10, or up to 20 if AWS raised it).
    #[arg(long, env = "AWSDEPLOY_MAX_ATTACHED_POLICIES", default_value_t = 10)]
    pub max_attached_policies: usize,

    /// Maximum number of calls per second to each AWS account; halved while AWS throttles.
    #[arg(long, env = "AWSDEPLOY_AWS_RATE", default_value_t = 10.0)]
    pub aws_rate: f64,

    /// `ClusterRole` that error messages name to grant access to the Secrets of a namespace.
    #[arg(long, env = "AWSDEPLOY_SECRETS_CLUSTER_ROLE", default_value = "aws-deploy-user-operator-secrets")]
    pub secrets_cluster_role: String,

    /// `ClusterRole` that error messages name to grant restarts of workloads in a namespace.
    #[arg(long, env = "AWSDEPLOY_RESTARTS_CLUSTER_ROLE", default_value = "aws-deploy-user-operator-restarts")]
    pub restarts_cluster_role: String,

    /// Base URL of an OTLP/HTTP (protobuf) trace collector, such as <http://collector:4318>; other OTEL_* variables
    /// apply (default: tracing is off).
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Log level (error, warn, info, debug, trace), or directives such as `info,awsdeploy::aws=debug`; of libraries only
    /// `kube_lease_manager` can be logged.
    #[arg(long, env = "AWSDEPLOY_LOG", default_value = "info")]
    pub log: String,

    /// Format of log lines.
    #[arg(long, env = "AWSDEPLOY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

impl OperatorSettings {
    /// Checks the ranges that clap does not.
    ///
    /// # Errors
    /// Names the flag that is out of range and the allowed values.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.aws_rate.is_finite() && self.aws_rate > 0.0) {
            return Err(format!("--aws-rate must be greater than 0, not {}", self.aws_rate));
        }
        let intervals = [
            ("--resync", self.resync),
            ("--key-check", self.key_check),
            ("--secret-check", self.secret_check),
            ("--restart-check", self.restart_check),
        ];
        match intervals.into_iter().find(|(_, interval)| interval.is_zero()) {
            Some((flag, _)) => {
                Err(format!("{flag} must be longer than 0s: the operator would requeue without a pause"))
            }
            None => Ok(()),
        }
    }

    /// Whether `/metrics` requires a token. They name accounts, resources and revoked users, so pods of other namespaces must
    /// not read them.
    #[must_use]
    pub fn requires_metrics_token(&self) -> bool {
        self.metrics_auth.unwrap_or(!self.metrics_bind_address.ip().is_loopback())
    }

    #[must_use]
    pub fn reconcile_settings(&self) -> ReconcileSettings {
        let signed = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        ReconcileSettings {
            protocol: Settings {
                recovery_delay: signed(self.recovery_delay),
                verify_successes: self.verify_successes,
                verify_interval: signed(self.verify_interval),
                verify_timeout: signed(self.verify_timeout),
                deletion_delay: signed(self.deletion_delay),
                last_used_window: signed(self.last_used_window),
                restart_hold: signed(self.restart_hold),
                restart_check_interval: signed(self.restart_check),
                class_absence_grace: signed(self.class_absence_grace),
                repair_interval: signed(self.repair_interval),
                min_rotation_interval: signed(self.min_rotation_interval),
                max_attached_policies: self.max_attached_policies,
            },
            resync: self.resync,
            key_check: self.key_check,
            account_details: self.account_details,
            secret_check: self.secret_check,
            concurrency: usize::from(self.concurrency),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        settings: OperatorSettings,
    }

    fn parse(arguments: &[&str]) -> Result<OperatorSettings, String> {
        let parsed = CommandLine::try_parse_from(["operator"].iter().chain(arguments));
        parsed.map(|line| line.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn flag_defaults_match_protocol_defaults() {
        assert_eq!(parse(&[]).unwrap().reconcile_settings().protocol, Settings::default());
    }

    #[test]
    fn certificate_and_key_flags_require_each_other() {
        let settings = parse(&["--metrics-tls-cert=a", "--metrics-tls-key=b"]).unwrap();
        assert!(settings.metrics_tls_cert.is_some() && settings.metrics_tls_key.is_some());
        for (given, missing) in [("cert", "key"), ("key", "cert")] {
            let error = parse(&[&format!("--metrics-tls-{given}=a")]).unwrap_err();
            assert!(error.contains(&format!("--metrics-tls-{missing} <")), "{error}");
        }
    }

    #[test]
    fn metrics_require_a_token_unless_bound_to_loopback() {
        for (arguments, required) in [
            ("", false),
            ("--metrics-bind-address=[::1]:8080", false),
            ("--metrics-bind-address=0.0.0.0:8080", true),
            ("--metrics-bind-address=[::]:8080", true),
            ("--metrics-bind-address=10.0.0.1:8080", true),
            ("--metrics-bind-address=0.0.0.0:8080 --metrics-auth=false", false),
            ("--metrics-auth", true),
        ] {
            let settings = parse(&arguments.split_whitespace().collect::<Vec<_>>()).unwrap();
            assert_eq!(settings.requires_metrics_token(), required, "{arguments}");
        }
    }

    #[test]
    fn zero_intervals_are_rejected_and_zero_delays_accepted() {
        let validate = |argument: &str| parse(&[argument]).unwrap().validate();
        for flag in ["--resync", "--key-check", "--secret-check", "--restart-check"] {
            let error = validate(&format!("{flag}=0s")).unwrap_err();
            assert!(error.starts_with(flag), "{error}");
        }
        for invalid in ["--aws-rate=0", "--aws-rate=NaN", "--aws-rate=inf"] {
            assert!(validate(invalid).unwrap_err().contains("greater than 0"), "{invalid}");
        }
        for valid in ["--recovery-delay=0s", "--deletion-delay=0s", "--verify-interval=0s", "--log=info"] {
            assert_eq!(validate(valid), Ok(()), "{valid}");
        }
    }

    #[test]
    fn invalid_duration_is_rejected_with_examples() {
        assert_eq!(parse(&["--deletion-delay", "0s"]).unwrap().deletion_delay, Duration::ZERO);
        let error = parse(&["--resync", "soon"]).unwrap_err();
        assert!(error.contains("30d, 12h, 90m"), "{error}");
    }
}
