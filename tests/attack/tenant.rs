//! A tenant: administrator of one namespace by RBAC, nothing else. It writes what it wants and as it wants.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{Request, StatusCode};
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use crate::test_env::{LAST_APPLIED, TestEnv, eventually};

/// The time between two writes of a tenant that writes all the time.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// A text that no output of the operator may contain.
pub(crate) const CANARY: &str = "canary/wJalrXUtnFEMIK7MDENGbPxRfiCY";

/// How an object is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Apply {
    /// `kubectl apply`: the whole manifest is in an annotation.
    ClientSide,
    /// `kubectl apply --server-side`.
    ServerSide,
}

/// A kind that the tenant writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Secret,
}

/// The API server refused the write, or answered with something unexpected.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) message: String,
}

pub(crate) struct Tenant {
    client: Client,
    pub(crate) namespace: String,
    /// Alternates the kind of apply.
    applied: AtomicU64,
}

impl Tenant {
    /// A tenant with all rights on everything in the namespace of the test that namespaces have.
    pub(crate) async fn new(env: &TestEnv) -> Self {
        let name = format!("owner-of-{}", env.namespace);
        let role: Role = serde_json::from_value(json!({
            "metadata": {"name": "owner"},
            "rules": [
                {"apiGroups": ["awsdeploy.dev"], "resources": ["*"], "verbs": ["*"]},
                {"apiGroups": [""], "resources": ["secrets", "pods", "configmaps", "serviceaccounts", "events"], "verbs": ["*"]},
                {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]},
                {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["get", "list", "create", "update", "patch", "delete"]},
            ],
        }))
        .expect("a role");
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "owner"},
            "subjects": [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "owner"},
        }))
        .expect("a binding");
        let roles: Api<Role> = Api::namespaced(env.client.clone(), &env.namespace);
        let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.namespace);
        roles.create(&PostParams::default(), &role).await.expect("the role is created");
        bindings.create(&PostParams::default(), &binding).await.expect("the tenant is bound");
        let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {"user": name, "resourceAttributes": {
            "namespace": env.namespace, "group": "awsdeploy.dev", "resource": "awsdeployusers", "verb": "create",
        }}}))
        .expect("a review");
        let reviews: Api<SubjectAccessReview> = Api::all(env.client.clone());
        let allowed = async || {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
            answer.status.is_some_and(|status| status.allowed).then_some(())
        };
        eventually("the tenant may write in its namespace", allowed, String::new).await;
        let client = env.client_as(&name).await;
        Self { client, namespace: env.namespace.clone(), applied: AtomicU64::new(0) }
    }

    fn path(&self, kind: Kind, name: &str) -> String {
        let namespace = &self.namespace;
        let folder = match kind {
            Kind::User => format!("/apis/awsdeploy.dev/v1alpha1/namespaces/{namespace}/awsdeployusers"),
            Kind::Secret => format!("/api/v1/namespaces/{namespace}/secrets"),
        };
        if name.is_empty() { folder } else { format!("{folder}/{name}") }
    }

    /// Sends a request. The answer is text, because the tenant writes objects that no client can read.
    pub(crate) async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<String, Refused> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        match self.client.request_text(request.body(body).expect("a request")).await {
            Ok(text) => Ok(text),
            Err(kube::Error::Api(status)) => Err(Refused { code: status.code, message: status.message }),
            Err(error) => Err(Refused { code: 0, message: error.to_string() }),
        }
    }

    /// Whether the object exists.
    pub(crate) async fn exists(&self, kind: Kind, name: &str) -> bool {
        self.send("GET", &self.path(kind, name), "application/json", Vec::new()).await.is_ok()
    }

    /// Reads an object that `serde_json` can read.
    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        let text = self.send("GET", &self.path(kind, name), "application/json", Vec::new()).await.ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the object: fields of `metadata` and of the object itself.
    pub(crate) async fn apply(&self, kind: Kind, name: &str, metadata: &Value, content: &Value) -> Result<(), Refused> {
        let way = match self.applied.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Apply::ClientSide,
            _ => Apply::ServerSide,
        };
        self.apply_as(way, kind, name, metadata, content).await
    }

    pub(crate) async fn apply_as(
        &self,
        way: Apply,
        kind: Kind,
        name: &str,
        metadata: &Value,
        content: &Value,
    ) -> Result<(), Refused> {
        let mut object = content.clone();
        let (version, kind_name) = match kind {
            Kind::User => ("awsdeploy.dev/v1alpha1", "AwsDeployUser"),
            Kind::Secret => ("v1", "Secret"),
        };
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind_name);
        object["metadata"] = metadata.clone();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(self.namespace);
        let path = self.path(kind, name);
        match way {
            Apply::ServerSide => {
                let query = format!("{path}?fieldManager=kubectl&force=true");
                self.send("PATCH", &query, "application/apply-patch+yaml", object.to_string().into_bytes()).await
            }
            Apply::ClientSide => {
                let manifest = object.to_string();
                // kubectl skips the annotation when the object has no room for it; annotations have 256 KiB.
                if manifest.len() < 200 * 1024 {
                    object["metadata"]["annotations"][LAST_APPLIED] = json!(manifest);
                }
                let body = object.to_string().into_bytes();
                if self.exists(kind, name).await {
                    self.send("PATCH", &path, "application/merge-patch+json", body).await
                } else {
                    self.send("POST", &self.path(kind, ""), "application/json", body).await
                }
            }
        }
        .map(drop)
    }

    /// Merges a change into an object, or into its status.
    pub(crate) async fn patch(&self, kind: Kind, name: &str, change: &Value) -> Result<(), Refused> {
        let body = change.to_string().into_bytes();
        self.send("PATCH", &self.path(kind, name), "application/merge-patch+json", body).await.map(drop)
    }

    pub(crate) async fn annotate(&self, name: &str, key: &str, value: &str) -> Result<(), Refused> {
        self.patch(Kind::User, name, &json!({"metadata": {"annotations": {key: value}}})).await
    }

    pub(crate) async fn patch_status(&self, name: &str, status: &Value) -> Result<(), Refused> {
        self.patch(Kind::User, &format!("{name}/status"), &json!({"status": status})).await
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<(), Refused> {
        self.send("DELETE", &self.path(kind, name), "application/json", Vec::new()).await.map(drop)
    }

    /// A controller reference to a resource of the tenant, whether it is the tenant's to give or not.
    pub(crate) async fn owner_reference(&self, resource: &str) -> Option<Value> {
        let uid = self.uid(resource).await?;
        Some(json!([{"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "name": resource, "uid": uid,
            "controller": true, "blockOwnerDeletion": true}]))
    }

    pub(crate) async fn uid(&self, resource: &str) -> Option<String> {
        self.get(Kind::User, resource).await?["metadata"]["uid"].as_str().map(str::to_owned)
    }
}

impl Refused {
    /// Whether a rule refused it, not a lack of the object or a conflict.
    pub(crate) fn is_forbidden(&self) -> bool {
        [StatusCode::FORBIDDEN, StatusCode::UNPROCESSABLE_ENTITY].iter().any(|code| code.as_u16() == self.code)
    }
}

/// A document of that many levels.
pub(crate) fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(CANARY), |inner, _| json!({ "a": inner }))
}

/// A time that the API server accepts and that is in the year 10000.
pub(crate) fn managed_in_year_10000() -> Value {
    json!([{"manager": "odd", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59-01:00",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:odd": {}}}}}])
}
