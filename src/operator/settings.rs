//! Flags of the operator. Each is also an environment variable `AWSDEPLOY_...`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use crate::{api::duration::parse_flag, domain::settings::Settings, reconcile::ReconcileSettings};

/// Settings of `aws-deploy-user-operator`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct OperatorSettings {
    /// How old a cut-off key attempt must be before its lost key is looked for; longer than the lag of IAM's lists.
    #[arg(long, env = "AWSDEPLOY_RECOVERY_DELAY", default_value = "60s", value_parser = parse_flag)]
    pub recovery_delay: Duration,

    /// How many times in a row STS must accept a new key before it is published; 0 switches the check off.
    #[arg(long, env = "AWSDEPLOY_VERIFY_SUCCESSES", default_value_t = 3)]
    pub verify_successes: u32,

    /// Time between two such checks.
    #[arg(long, env = "AWSDEPLOY_VERIFY_INTERVAL", default_value = "1s", value_parser = parse_flag)]
    pub verify_interval: Duration,

    /// A new key that AWS has not accepted after this long is deleted, and another one is made.
    #[arg(long, env = "AWSDEPLOY_VERIFY_TIMEOUT", default_value = "5m", value_parser = parse_flag)]
    pub verify_timeout: Duration,

    /// How long an old key stays Inactive before it is deleted.
    #[arg(long, env = "AWSDEPLOY_DELETION_DELAY", default_value = "10m", value_parser = parse_flag)]
    pub deletion_delay: Duration,

    /// With `rotation.holdWhileUsed`: an old key that AWS saw used within this time is taken to be in use. Longer than
    /// a day, so that a nightly job is seen, and AWS learns of uses late.
    #[arg(long, env = "AWSDEPLOY_LAST_USED_WINDOW", default_value = "26h", value_parser = parse_flag)]
    pub last_used_window: Duration,

    /// With accessKey.restart: how much longer than its overlap an old key stays Active at most while a workload is not
    /// rolled out with the new one. It never stays into the next rotation.
    #[arg(long, env = "AWSDEPLOY_RESTART_HOLD", default_value = "24h", value_parser = parse_flag)]
    pub restart_hold: Duration,

    /// How often a workload is looked at that was restarted a moment ago; six times more rarely after ten minutes.
    #[arg(long, env = "AWSDEPLOY_RESTART_CHECK", default_value = "10s", value_parser = parse_flag)]
    pub restart_check: Duration,

    /// Smallest rotation interval that a resource may declare.
    #[arg(long, env = "AWSDEPLOY_MIN_ROTATION_INTERVAL", default_value = "1h", value_parser = parse_flag)]
    pub min_rotation_interval: Duration,

    /// How often each resource is compared with AWS even if nothing happens.
    #[arg(long, env = "AWSDEPLOY_RESYNC", default_value = "10m", value_parser = parse_flag)]
    pub resync: Duration,

    /// How often the access keys of each user are listed: AWS tells of all users together, but not of their keys.
    #[arg(long, env = "AWSDEPLOY_KEY_CHECK", default_value = "1h", value_parser = parse_flag)]
    pub key_check: Duration,

    /// Compare the users of an account by reading all of them together (iam:GetAccountAuthorizationDetails). False: one by
    /// one, at five calls each. Where AWS refuses it, that happens by itself.
    #[arg(long, env = "AWSDEPLOY_ACCOUNT_DETAILS", default_value_t = true, action = clap::ArgAction::Set)]
    pub account_details: bool,

    /// How often each published Secret is looked at; asks nothing of AWS.
    #[arg(long, env = "AWSDEPLOY_SECRET_CHECK", default_value = "1m", value_parser = parse_flag)]
    pub secret_check: Duration,

    /// Passes at the same time while one AWS account is busy. Several share them, each with two at least, so that an account
    /// that does not answer keeps no other waiting.
    #[arg(long, env = "AWSDEPLOY_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "AWSDEPLOY_METRICS_BIND_ADDRESS", default_value = "127.0.0.1:8080")]
    pub metrics_bind_address: SocketAddr,

    /// Metrics with a series for each resource: ready, key age, next rotation. False: sums alone, for thousands of resources.
    #[arg(long, env = "AWSDEPLOY_METRICS_PER_RESOURCE", default_value_t = true, action = clap::ArgAction::Set)]
    pub metrics_per_resource: bool,

    /// File with the certificate of /metrics, /livez and /readyz (PEM, with those between it and its authority), which then speak
    /// TLS only. Read again when it changes.
    #[arg(long, env = "AWSDEPLOY_METRICS_TLS_CERT", requires = "metrics_tls_key")]
    pub metrics_tls_cert: Option<PathBuf>,

    /// File with the private key of that certificate (PEM, not encrypted).
    #[arg(long, env = "AWSDEPLOY_METRICS_TLS_KEY", requires = "metrics_tls_cert")]
    pub metrics_tls_key: Option<PathBuf>,

    /// Ask for a bearer token at /metrics whose owner may get the path by RBAC.
    #[arg(long, env = "AWSDEPLOY_METRICS_AUTH")]
    pub metrics_auth: bool,

    /// Let one of several replicas lead; the others are ready and wait. Off: run one replica only.
    #[arg(long, env = "AWSDEPLOY_LEADER_ELECT")]
    pub leader_elect: bool,

    /// Namespace of the Lease. Default: that of the pod, as its kubeconfig or service account has it.
    #[arg(long, env = "AWSDEPLOY_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease.
    #[arg(long, env = "AWSDEPLOY_LEASE_NAME", default_value = "aws-deploy-user-operator")]
    pub lease_name: String,

    /// A leader that has not been heard of for this long is replaced. It renews after two thirds of it.
    #[arg(long, env = "AWSDEPLOY_LEASE_DURATION", default_value = "15s", value_parser = parse_flag)]
    pub lease_duration: Duration,

    /// Id of this cluster, written into the ownership tags of IAM users. Default: the UID of the
    /// namespace kube-system. Set it when a cluster is a copy of another one.
    #[arg(long, env = "AWSDEPLOY_CLUSTER_ID")]
    pub cluster_id: Option<String>,

    /// Namespaces to look after, separated by commas. Default: all.
    #[arg(long, env = "AWSDEPLOY_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Write what was found about each class into its status. With several operators in a cluster, one of them.
    #[arg(long, env = "AWSDEPLOY_CLASS_STATUS", default_value_t = true, action = clap::ArgAction::Set)]
    pub class_status: bool,

    /// Managed policies that the AWS account allows per user (IAM quota, 10 unless AWS has raised it to at most 20).
    #[arg(long, env = "AWSDEPLOY_MAX_ATTACHED_POLICIES", default_value_t = 10)]
    pub max_attached_policies: usize,

    /// Calls to each AWS account per second at the most; halved by itself when AWS throttles.
    #[arg(long, env = "AWSDEPLOY_AWS_RATE", default_value_t = 10.0)]
    pub aws_rate: f64,

    /// `ClusterRole` that a namespace without access to its Secrets is told to bind.
    #[arg(long, env = "AWSDEPLOY_SECRETS_CLUSTER_ROLE", default_value = "aws-deploy-user-operator-secrets")]
    pub secrets_cluster_role: String,

    /// `ClusterRole` that a namespace without leave to restart its workloads is told to bind.
    #[arg(long, env = "AWSDEPLOY_RESTARTS_CLUSTER_ROLE", default_value = "aws-deploy-user-operator-restarts")]
    pub restarts_cluster_role: String,

    /// Where to send traces by OTLP, protobuf over HTTP, such as <http://collector:4318>; `/v1/traces` is added. The other
    /// variables of OpenTelemetry hold too. Default: there are none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// What to log: a level, or directives such as info,awsdeploy=debug.
    #[arg(long, env = "AWSDEPLOY_LOG", default_value = "info")]
    pub log: String,

    /// How to log.
    #[arg(long, env = "AWSDEPLOY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl OperatorSettings {
    /// Whether the operator can work by them.
    ///
    /// # Errors
    /// The flag that is out of range, and what is allowed.
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
        match intervals.into_iter().find(|(_, time)| time.is_zero()) {
            Some((flag, _)) => Err(format!("{flag} must be longer than 0s: the operator would never rest")),
            None => Ok(()),
        }
    }

    /// The part that reconciles work by.
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
    struct Line {
        #[command(flatten)]
        settings: OperatorSettings,
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let line = Line::parse_from(["operator"]);
        assert_eq!(line.settings.reconcile_settings().protocol, Settings::default());
    }

    #[test]
    fn a_certificate_and_its_key_come_together_or_not_at_all() {
        let line = Line::parse_from(["operator", "--metrics-tls-cert=a", "--metrics-tls-key=b"]);
        assert!(line.settings.metrics_tls_cert.is_some() && line.settings.metrics_tls_key.is_some());
        for (one, other) in [("cert", "key"), ("key", "cert")] {
            let error =
                Line::try_parse_from(["operator", &format!("--metrics-tls-{one}=a")]).err().unwrap().to_string();
            assert!(error.contains(&format!("--metrics-tls-{other} <")), "{error}");
        }
    }

    #[test]
    fn a_look_that_would_never_end_is_refused_and_a_dwell_may_be_none() {
        let checked = |argument: &str| Line::parse_from(["operator", argument]).settings.validate();
        for flag in ["--resync", "--key-check", "--secret-check", "--restart-check"] {
            let told = checked(&format!("{flag}=0s")).unwrap_err();
            assert!(told.starts_with(flag), "{told}");
        }
        for wrong in ["--aws-rate=0", "--aws-rate=NaN", "--aws-rate=inf"] {
            assert!(checked(wrong).unwrap_err().contains("greater than 0"), "{wrong}");
        }
        for fine in ["--recovery-delay=0s", "--deletion-delay=0s", "--verify-interval=0s", "--log=info"] {
            assert_eq!(checked(fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn zero_switches_a_dwell_off_and_nonsense_is_refused_with_an_example() {
        assert_eq!(Line::parse_from(["operator", "--deletion-delay", "0s"]).settings.deletion_delay, Duration::ZERO);
        let error = Line::try_parse_from(["operator", "--resync", "soon"]).err().unwrap().to_string();
        assert!(error.contains("30d, 12h, 90m"), "{error}");
    }
}
