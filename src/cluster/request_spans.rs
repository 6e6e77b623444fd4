//! Spans of the requests to the API server that belong to a reconcile.
//!
//! kube-client has request spans of its own. They are not used for traces: they are named by the method of `Api` and carry the
//! URL, not the verb and resource of RBAC; they also cover watches and the Lease, each a trace without a reconcile; there is
//! one per retry; and they mark every 404 as an error.

use std::{
    fmt::Display,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use kube::{Client, Config, client::ClientBuilder};
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use crate::trace;

/// Builds the client of the API server. If `traced`, each request during a reconcile gets a span.
///
/// # Errors
/// When certificates or tokens of the configuration are invalid.
pub fn build_client(config: Config, traced: bool) -> kube::Result<Client> {
    if traced {
        return Ok(ClientBuilder::try_from(config)?.with_layer(&RequestSpanLayer).build());
    }
    Client::try_from(config)
}

struct RequestSpanLayer;

impl<S> Layer<S> for RequestSpanLayer {
    type Service = RequestSpans<S>;

    fn layer(&self, inner: S) -> RequestSpans<S> {
        RequestSpans(inner)
    }
}

struct RequestSpans<S>(S);

impl<S, A, B> Service<Request<A>> for RequestSpans<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Display,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // Watches and the Lease belong to no reconcile.
        let span = if Span::current().is_none() {
            Span::none()
        } else {
            let call = RbacCall::parse(request.method(), request.uri().path());
            trace::kubernetes_call_span(call.verb, &call.resource, call.namespace, call.name)
        };
        let read = request.method() == Method::GET;
        let response = self.0.call(request);
        async move {
            let response = response.instrument(span.clone()).await;
            match &response {
                Ok(response) => {
                    let status = response.status();
                    span.record("http.response.status_code", status.as_u16());
                    // Absence is an expected result of a read.
                    if status.as_u16() >= 400 && !(read && status == StatusCode::NOT_FOUND) {
                        trace::record_failure(&span, status.as_str(), &status);
                    }
                }
                Err(error) => trace::record_failure(&span, "transport", error),
            }
            response
        }
        .boxed()
    }
}

/// A request in the terms of RBAC.
#[derive(Debug, PartialEq, Eq)]
struct RbacCall<'a> {
    verb: &'static str,
    resource: String,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> RbacCall<'a> {
    /// Parses `/api/v1/...` and `/apis/<group>/<version>/...`.
    fn parse(method: &Method, path: &'a str) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let skipped = if parts.next() == Some("apis") { 2 } else { 1 };
        let rest: Vec<&str> = parts.skip(skipped).collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name) = match rest {
            [] => (path.to_owned(), ""),
            [resource] => ((*resource).to_owned(), ""),
            [resource, name] => ((*resource).to_owned(), *name),
            [resource, name, subresource, ..] => (format!("{resource}/{subresource}"), *name),
        };
        let verb = match method.as_str() {
            "GET" if name.is_empty() => "list",
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "other",
        };
        Self { verb, resource, namespace, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_named_in_the_terms_of_rbac() {
        for (method, path, verb, resource, namespace, name) in [
            (Method::GET, "/api/v1/namespaces/deploy/secrets/cycle", "get", "secrets", "deploy", "cycle"),
            (Method::POST, "/api/v1/namespaces/deploy/secrets", "create", "secrets", "deploy", ""),
            (Method::PUT, "/api/v1/namespaces/deploy/secrets/cycle", "update", "secrets", "deploy", "cycle"),
            (Method::DELETE, "/api/v1/namespaces/deploy/secrets/cycle", "delete", "secrets", "deploy", "cycle"),
            (
                Method::PUT,
                "/apis/awsdeploy.dev/v1alpha1/namespaces/deploy/awsdeployusers/cycle/status",
                "update",
                "awsdeployusers/status",
                "deploy",
                "cycle",
            ),
            (Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b", "patch", "deployments", "a", "b"),
            (Method::GET, "/api/v1/namespaces/kube-system", "get", "namespaces", "", "kube-system"),
            (Method::GET, "/api/v1/namespaces", "list", "namespaces", "", ""),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "create",
                "selfsubjectaccessreviews",
                "",
                "",
            ),
        ] {
            let expected = RbacCall { verb, resource: resource.to_owned(), namespace, name };
            assert_eq!(RbacCall::parse(&method, path), expected, "{method} {path}");
        }
        assert_eq!(RbacCall::parse(&Method::GET, "/version").resource, "/version");
    }
}
