//! Parses requests to the API server.

use hyper::Method;
use serde_json::Value;

/// Review resources, whose POST requests store nothing.
const REVIEWS: [&str; 5] = [
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
    "tokenreviews",
];

/// One call, in terms of RBAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeCall {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// Plural resource name, with the subresource after a slash.
    pub resource: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Object name; for create, from the body.
    pub name: Option<String>,
    /// Whether it is a dry run.
    pub dry_run: bool,
}

impl KubeCall {
    pub(super) fn parse(method: &Method, path: &str, query: &str, body: &[u8]) -> Self {
        let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
        let skipped = if path.starts_with("/apis/") { 3 } else { 2 };
        let mut parts: Vec<String> = parts.by_ref().skip(skipped).collect();
        let namespace = (parts.len() >= 3 && parts[0] == "namespaces").then(|| {
            let namespace = parts[1].clone();
            parts.drain(..2);
            namespace
        });
        let mut parts = parts.into_iter();
        let mut resource = parts.next().unwrap_or_default();
        let mut name = parts.next();
        if let Some(sub) = parts.next() {
            resource = format!("{resource}/{sub}");
        }
        let watch = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let verb = match (method, watch, name.is_some()) {
            (&Method::GET, true, _) => "watch",
            (&Method::GET, false, true) => "get",
            (&Method::GET, false, false) => "list",
            (&Method::POST, ..) => "create",
            (&Method::PUT, ..) => "update",
            (&Method::PATCH, ..) => "patch",
            (&Method::DELETE, ..) => "delete",
            _ => "other",
        };
        if verb == "create" && name.is_none() {
            let body: Option<Value> = serde_json::from_slice(body).ok();
            name = body.and_then(|body| Some(body["metadata"]["name"].as_str()?.to_owned()));
        }
        Self { verb, resource, namespace, name, dry_run: query.contains("dryRun=") }
    }

    /// Whether it changes stored objects.
    #[must_use]
    pub fn is_mutating(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
            && !self.dry_run
            && !REVIEWS.contains(&self.resource.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, path: &str, query: &str, body: &str) -> (&'static str, String, String, String) {
        let call = KubeCall::parse(method, path, query, body.as_bytes());
        (call.verb, call.resource, call.namespace.unwrap_or_default(), call.name.unwrap_or_default())
    }

    #[test]
    fn requests_are_parsed_into_rbac_terms() {
        let expected = |verb, resource: &str, namespace: &str, name: &str| {
            (verb, resource.to_owned(), namespace.to_owned(), name.to_owned())
        };
        assert_eq!(parse(&Method::GET, "/api/v1/namespaces/a/secrets/s", "", ""), expected("get", "secrets", "a", "s"));
        assert_eq!(
            parse(&Method::POST, "/api/v1/namespaces/a/secrets", "", r#"{"metadata":{"name":"s"}}"#),
            expected("create", "secrets", "a", "s")
        );
        assert_eq!(
            parse(
                &Method::PATCH,
                "/apis/awsdeploy.dev/v1alpha1/namespaces/a/awsdeployusers/x/status",
                "force=true",
                ""
            ),
            expected("patch", "awsdeployusers/status", "a", "x")
        );
        assert_eq!(
            parse(&Method::GET, "/apis/awsdeploy.dev/v1alpha1/awsdeployusers", "watch=true&x=1", ""),
            expected("watch", "awsdeployusers", "", "")
        );
        assert_eq!(
            parse(&Method::GET, "/api/v1/namespaces/kube-system", "", ""),
            expected("get", "namespaces", "", "kube-system")
        );
    }

    #[test]
    fn reviews_and_dry_runs_are_not_mutating() {
        let call = |path: &str, query: &str| KubeCall::parse(&Method::POST, path, query, b"").is_mutating();
        assert!(call("/api/v1/namespaces/a/secrets", ""));
        assert!(!call("/api/v1/namespaces/a/secrets", "dryRun=All"));
        assert!(!call("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ""));
    }
}
