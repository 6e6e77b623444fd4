//! Descriptions of all metrics. Registration and the generated documentation use the same list.

use std::fmt::Write as _;

pub struct MetricDescription {
    /// Without the prefix `awsdeploy_` and the suffix of a counter or an info.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    /// One sentence without a full stop.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $constant:ident = $kind:ident $name:ident { $($label:ident),* } $help:literal;)+) => {
        $(pub(super) const $constant: MetricDescription = MetricDescription {
            name: stringify!($name),
            kind: stringify!($kind),
            labels: &[$(stringify!($label)),*],
            help: $help,
        };)+

        pub const ALL: &[MetricDescription] = &[$($constant),+];
    };
}

metrics! {
    RECONCILES = counter reconciles { result } "Reconciles by result: ok, or the reason of the first failure";
    RECONCILE_SECONDS = histogram reconcile_duration_seconds {} "Duration of reconciles";
    EFFECTS = counter effects { effect, result } "Executed effects by result: ok, or the reason of the failure";
    ROTATIONS = counter rotations { result }
        "Attempts to create an access key, including first keys: published, not_accepted (deleted because STS did not accept the key in time), cut_off (cleaned up after a crash or a lost response), refused (no key was created)";
    VERIFICATION_SECONDS = histogram key_verification_seconds {} "Time from the creation of an access key to its publication";
    AWS_REQUESTS = counter aws_requests { account, operation, code }
        "AWS calls by account, operation and code: OK, the AWS error code, or the kind of transport failure. AssumeRole counts for the account of the role";
    AWS_REQUEST_SECONDS = histogram aws_request_duration_seconds { account } "Duration of AWS calls";
    AWS_THROTTLED = counter aws_throttled { account } "Throttling responses of AWS, including those whose retry succeeded";
    LEADER = gauge leader {} "1 if this replica is the leader, else 0";
    BUILD = info build { version } "Version of the operator";
    CERTIFICATE_REFUSED = gauge certificate_refused {}
        "1 if the files of the serving certificate are not usable and the previous certificate is served, else 0";
    TRACE_SPANS = counter trace_spans { result }
        "Trace spans by result: exported, failed (the collector did not accept them), dropped (the queue was full)";
    RESOURCES = gauge resources {} "Watched AwsDeployUsers";
    CONDITIONS = gauge conditions { type, status, reason } "AwsDeployUsers by condition, status and reason";
    KEYS = gauge keys { state } "Access keys by state: Staged, Published, Superseded, Inactive, Foreign";
    OLDEST_KEY = gauge oldest_key_created_timestamp_seconds {} "Creation time of the oldest published access key";
    EARLIEST_ROTATION = gauge earliest_rotation_timestamp_seconds {} "Due time of the next rotation of all resources; in the past if overdue";
    EARLIEST_EXPIRY = gauge earliest_previous_key_expiry_timestamp_seconds { reason }
        "When the first previous access key of all resources is set Inactive, by the reason of RotationHealthy";
    READY = gauge ready { namespace, name } "1 if the condition Ready is True, else 0";
    CREDENTIALS_REVOKED = gauge credentials_revoked { namespace, name } "1 for each AwsDeployUser with spec.credentials: Revoked, which is not Ready on purpose";
    QUARANTINED = gauge quarantined { namespace, name }
        "1 for each AwsDeployUser whose IAM user AWS has quarantined because it found one of its keys in public; exported even without per-resource series";
    KEY_CREATED = gauge key_created_timestamp_seconds { namespace, name } "Creation time of the published access key";
    NEXT_ROTATION = gauge next_rotation_timestamp_seconds { namespace, name } "Due time of the next rotation; absent without a schedule";
    PREVIOUS_KEY_EXPIRY = gauge previous_key_expiry_timestamp_seconds { namespace, name, reason }
        "When the previous access key is set Inactive: the end of its overlap, or the latest time if it is held; by the reason of RotationHealthy, absent without a previous key";
}

/// Reference documentation of all metrics.
#[must_use]
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for metric in ALL {
        let suffix = match metric.kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            text,
            "| `awsdeploy_{}{suffix}` | {} | {} | {} |",
            metric.name,
            metric.kind,
            labels.join(", "),
            metric.help
        );
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "# Metrics

<!-- Written by `make generate` from src/operator/metrics/reference.rs. -->

`/metrics` on port 8080 serves the OpenMetrics text format. Every replica counts its own actions. Only the leader exports metrics
of AwsDeployUsers; they are derived from their status and need no AWS call.

| metric | type | labels | |
|---|---|---|---|
";

const TAIL: &str = "
Metrics with the labels `namespace` and `name` have one series per AwsDeployUser. For thousands of resources, disable them with
`--metrics-per-resource=false` (chart: `metrics.perResource: false`): only quarantines keep their series, and the alerts of the
chart then use the totals. Labels contain no key ids, ARNs or names of IAM users; `account` is an AWS account id, or `unknown`
before the operator has resolved its own account. A histogram has the series `..._bucket`, `..._sum` and `..._count`.

The chart contains a ServiceMonitor, a PodMonitor, alerts (PrometheusRule) and a Grafana dashboard: see `metrics.*` in its values.
[operations.md](../operations.md) describes what to do when an alert fires.
";
