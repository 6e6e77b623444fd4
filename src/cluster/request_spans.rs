//! The client of the API server, and the one place that all its requests go through.

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

/// A client of the API server. If `traced`, each of its requests in a pass is a span of that pass.
///
/// # Errors
/// When the configuration has certificates or tokens that cannot be used.
pub fn build_client(config: Config, traced: bool) -> kube::Result<Client> {
    if traced {
        return Ok(ClientBuilder::try_from(config)?.with_layer(&Traces).build());
    }
    Client::try_from(config)
}

struct Traces;

impl<S> Layer<S> for Traces {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

struct Traced<S>(S);

impl<S, A, B> Service<Request<A>> for Traced<S>
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
        // Watches and the Lease belong to no pass.
        let span = if Span::current().is_none() {
            Span::none()
        } else {
            let call = Call::of(request.method(), request.uri().path());
            trace::kubernetes_call_span(call.verb, &call.resource, call.namespace, call.name)
        };
        let read = request.method() == Method::GET;
        let answer = self.0.call(request);
        async move {
            let answer = answer.instrument(span.clone()).await;
            match &answer {
                Ok(answer) => {
                    let status = answer.status();
                    span.record("http.response.status_code", status.as_u16());
                    // That there is no such object is an answer like others.
                    if status.as_u16() >= 400 && !(read && status == StatusCode::NOT_FOUND) {
                        trace::record_failure(&span, status.as_str(), &status);
                    }
                }
                Err(error) => trace::record_failure(&span, "transport", error),
            }
            answer
        }
        .boxed()
    }
}

/// What a request asks for, in the words of RBAC.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    verb: &'static str,
    resource: String,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Call<'a> {
    /// Reads `/api/v1/...` and `/apis/<group>/<version>/...`.
    fn of(method: &Method, path: &'a str) -> Self {
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
    fn a_request_is_named_as_rbac_names_it() {
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
            let wanted = Call { verb, resource: resource.to_owned(), namespace, name };
            assert_eq!(Call::of(&method, path), wanted, "{method} {path}");
        }
        assert_eq!(Call::of(&Method::GET, "/version").resource, "/version");
    }
}
