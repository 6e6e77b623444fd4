//! What metrics there are: one list, which they are registered from and documented by.

use std::fmt::Write as _;

/// A metric, without the prefix.
pub struct MetricDescription {
    /// Name, without the suffix that a counter or an info has.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, one sentence without a full stop.
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

        /// Every metric.
        pub const ALL: &[MetricDescription] = &[$($constant),+];
    };
}

metrics! {
    RECONCILES = counter reconciles { result } "Passes by result: ok, or the reason of the first failure";
    RECONCILE_SECONDS = histogram reconcile_duration_seconds {} "Duration of reconciles";
    EFFECTS = counter effects { effect, result } "What reconciles did, by result: ok, or the reason of the failure";
    ROTATIONS = counter rotations { result }
        "Attempts at a new access key, first ones too: published, not_accepted (given up because AWS did not take the key), cut_off (cleaned up after a crash or a lost answer), refused (no key was made)";
    VERIFICATION_SECONDS = histogram key_verification_seconds {} "Time from an access key's making to its publication";
    AWS_REQUESTS = counter aws_requests { account, operation, code }
        "Calls to AWS by account, operation and code: OK, AWS's error code, or what went wrong on the way. AssumeRole counts for the account of the role";
    AWS_REQUEST_SECONDS = histogram aws_request_duration_seconds { account } "Duration of calls to AWS";
    AWS_THROTTLED = counter aws_throttled { account } "Answers of AWS that asked to slow down, those too after which another attempt succeeded";
    LEADER = gauge leader {} "1 while this replica leads, else 0";
    BUILD = info build { version } "Version of the operator";
    CERTIFICATE_REFUSED = gauge certificate_refused {}
        "1 while the files of the certificate of /metrics hold what cannot be used, so that the one that was read before is served, else 0";
    TRACE_SPANS = counter trace_spans { result }
        "Spans of traces by what became of them: exported, failed (the collector did not take them), dropped (too many waited for it)";
    RESOURCES = gauge resources {} "AwsDeployUsers that are looked after";
    CONDITIONS = gauge conditions { type, status, reason } "AwsDeployUsers by condition, its status and its reason";
    KEYS = gauge keys { state } "Access keys by state: Staged, Published, Superseded, Inactive, Foreign";
    OLDEST_KEY = gauge oldest_key_created_timestamp_seconds {} "When the oldest published access key was made";
    EARLIEST_ROTATION = gauge earliest_rotation_timestamp_seconds {} "When the first of all rotations to come is due; in the past: overdue";
    READY = gauge ready { namespace, name } "1 if the condition Ready is True, else 0";
    SUSPENDED = gauge suspended { namespace, name } "1 for each AwsDeployUser with spec.suspend, which is not Ready on purpose";
    QUARANTINED = gauge quarantined { namespace, name }
        "1 for each AwsDeployUser whose IAM user AWS has quarantined, because it found a key of it in public; told even without series for each resource";
    KEY_CREATED = gauge key_created_timestamp_seconds { namespace, name } "When the published access key was made";
    NEXT_ROTATION = gauge next_rotation_timestamp_seconds { namespace, name } "When the next rotation is due; absent without a schedule";
}

/// The reference of all metrics, Markdown.
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

`/metrics` on port 8080 answers in the OpenMetrics text format. Every replica counts what it has done itself. What is told of
AwsDeployUsers comes from the leader alone, out of their status, so it costs no call to AWS.

| metric | type | labels | |
|---|---|---|---|
";

const TAIL: &str = "
Those with `namespace` and `name` have one series for each AwsDeployUser. With thousands of them that may be too much for a
Prometheus: `--metrics-per-resource=false` (chart: `metrics.perResource: false`) leaves them out (but for quarantines), and the alerts of the chart then
speak of all resources together. No label ever holds a key id, an ARN or the name of an IAM user; `account` is the id
of an AWS account, or `unknown` before AWS has told which one the operator's own is. A histogram is
`..._bucket`, `..._sum` and `..._count`.

The chart brings a ServiceMonitor or PodMonitor, alerts (PrometheusRule) and a Grafana dashboard: `metrics.*` in its values. What
to do when an alert fires stands in [operations.md](operations.md).
";
