//! Spans of what a pass does, for whoever collects traces: its steps, its effects, its calls. They are in no log line, and
//! cost nothing while nobody collects them. What is in them may be read by others: names and codes, never key material.

use std::fmt::Display;

use tracing::{Span, field::Empty};

/// The target of these spans, by which they are kept out of the logs.
pub const TARGET: &str = "awsdeploy_trace";

/// A step of a pass: validate, observe, plan, act, report.
#[must_use]
pub fn step_span(name: &'static str) -> Span {
    tracing::info_span!(
        target: TARGET, "step", otel.name = name, otel.status_code = Empty, otel.status_description = Empty,
        error.type = Empty
    )
}

/// What is done in an `act` step, with its subject.
#[must_use]
pub fn effect_span(verb: &'static str, effect: &dyn Display) -> Span {
    tracing::info_span!(
        target: TARGET, "act", otel.name = %format_args!("act {verb}"), %effect, otel.status_code = Empty,
        otel.status_description = Empty, error.type = Empty
    )
}

/// A call to AWS, from its place in the line to its last answer.
#[must_use]
pub fn aws_call_span(operation: &'static str) -> Span {
    tracing::info_span!(
        target: TARGET, "aws", otel.name = operation, otel.kind = "client", rpc.system = "aws-api",
        rpc.method = operation, cloud.account.id = Empty, code = Empty, otel.status_code = Empty,
        otel.status_description = Empty, error.type = Empty
    )
}

/// A request to the API server that belongs to a pass. `resource` is its plural, with a subresource; `name` is empty where the
/// request names no object.
#[must_use]
pub fn kubernetes_call_span(verb: &str, resource: &str, namespace: &str, name: &str) -> Span {
    tracing::info_span!(
        target: TARGET, "kubernetes", otel.name = %format_args!("{verb} {resource}"), otel.kind = "client",
        k8s.verb = verb, k8s.resource = resource, k8s.namespace.name = namespace, k8s.object.name = name,
        http.response.status_code = Empty, otel.status_code = Empty, otel.status_description = Empty,
        error.type = Empty
    )
}

/// Marks a span as failed: with a short name of the failure, and with what is told people of it.
pub fn record_failure(span: &Span, kind: &str, error: &dyn Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", tracing::field::display(error));
    span.record("error.type", kind);
}
