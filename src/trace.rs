//! Spans of a reconcile: its steps, effects and calls. They appear in traces only, not in log lines, and cost nothing without a
//! trace exporter. They carry names and codes, never key material: traces leave the cluster.

use std::fmt::Display;

use tracing::{Span, field::Empty};

/// Target of these spans; a filter on it keeps them out of the log.
pub const TARGET: &str = "awsdeploy_trace";

/// Span of a reconcile step: validate, observe, plan, act, report.
#[must_use]
pub fn step_span(name: &'static str) -> Span {
    tracing::info_span!(
        target: TARGET, "step", otel.name = name, otel.status_code = Empty, otel.status_description = Empty,
        error.type = Empty
    )
}

/// Span of an `act` step, with the effect that it executes.
#[must_use]
pub fn effect_span(verb: &'static str, effect: &dyn Display) -> Span {
    tracing::info_span!(
        target: TARGET, "act", otel.name = %format_args!("act {verb}"), %effect, otel.status_code = Empty,
        otel.status_description = Empty, error.type = Empty
    )
}

/// Span of an AWS call, including its wait for the rate limit and its retries.
#[must_use]
pub fn aws_call_span(operation: &'static str) -> Span {
    tracing::info_span!(
        target: TARGET, "aws", otel.name = operation, otel.kind = "client", rpc.system = "aws-api",
        rpc.method = operation, cloud.account.id = Empty, code = Empty, otel.status_code = Empty,
        otel.status_description = Empty, error.type = Empty
    )
}

/// Span of a request to the API server. `resource` is the plural, with the subresource; `name` is empty for requests to a
/// collection.
#[must_use]
pub fn kubernetes_call_span(verb: &str, resource: &str, namespace: &str, name: &str) -> Span {
    tracing::info_span!(
        target: TARGET, "kubernetes", otel.name = %format_args!("{verb} {resource}"), otel.kind = "client",
        k8s.verb = verb, k8s.resource = resource, k8s.namespace.name = namespace, k8s.object.name = name,
        http.response.status_code = Empty, otel.status_code = Empty, otel.status_description = Empty,
        error.type = Empty
    )
}

/// Marks a span as failed. `kind` is a short name of bounded cardinality, `error` the message.
pub fn record_failure(span: &Span, kind: &str, error: &dyn Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", tracing::field::display(error));
    span.record("error.type", kind);
}
