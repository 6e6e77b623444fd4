//! What a request asks of the API server.

use hyper::Method;
use serde_json::Value;

/// Asking for an opinion writes nothing, although it is a POST.
const OPINIONS: [&str; 5] = [
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
    "tokenreviews",
];

/// One call in the words of RBAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeCall {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// Plural name of the resource, with the subresource behind a slash.
    pub resource: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name of the object; for a creation the one in its body.
    pub name: Option<String>,
    /// It asks for nothing to be stored.
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

    /// Whether it changes what is stored.
    #[must_use]
    pub fn is_mutating(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
            && !self.dry_run
            && !OPINIONS.contains(&self.resource.as_str())
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
    fn requests_are_told_in_the_words_of_rbac() {
        let words = |verb, resource: &str, namespace: &str, name: &str| {
            (verb, resource.to_owned(), namespace.to_owned(), name.to_owned())
        };
        assert_eq!(parse(&Method::GET, "/api/v1/namespaces/a/secrets/s", "", ""), words("get", "secrets", "a", "s"));
        assert_eq!(
            parse(&Method::POST, "/api/v1/namespaces/a/secrets", "", r#"{"metadata":{"name":"s"}}"#),
            words("create", "secrets", "a", "s")
        );
        assert_eq!(
            parse(
                &Method::PATCH,
                "/apis/awsdeploy.dev/v1alpha1/namespaces/a/awsdeployusers/x/status",
                "force=true",
                ""
            ),
            words("patch", "awsdeployusers/status", "a", "x")
        );
        assert_eq!(
            parse(&Method::GET, "/apis/awsdeploy.dev/v1alpha1/awsdeployusers", "watch=true&x=1", ""),
            words("watch", "awsdeployusers", "", "")
        );
        assert_eq!(
            parse(&Method::GET, "/api/v1/namespaces/kube-system", "", ""),
            words("get", "namespaces", "", "kube-system")
        );
    }

    #[test]
    fn opinions_and_dry_runs_change_nothing() {
        let call = |path: &str, query: &str| KubeCall::parse(&Method::POST, path, query, b"").is_mutating();
        assert!(call("/api/v1/namespaces/a/secrets", ""));
        assert!(!call("/api/v1/namespaces/a/secrets", "dryRun=All"));
        assert!(!call("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ""));
    }
}
