//! What people do on a test environment: they apply, label, grant and delete.

use awsdeploy::api::{AwsDeployUser, AwsDeployUserClass};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, core::v1::Namespace, rbac::v1::RoleBinding};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    TestEnv, eventually,
    shared::{SYSTEM, apply_class},
};

/// One right of those that a binding of the chart grants: API group, resource and verb. The others come with it.
type Right = (&'static str, &'static str, &'static str);

/// To write Secrets.
const SECRETS: Right = ("", "secrets", "create");
/// To restart workloads.
const RESTARTS: Right = ("apps", "deployments", "patch");

/// Lets the operator write Secrets in a namespace, and returns when it may.
pub(super) async fn grant_secret_access(client: &Client, namespace: &str, binding: &DynamicObject) {
    bind(client, namespace, binding).await;
    until_the_operator(client, namespace, SECRETS, true).await;
}

async fn bind(client: &Client, namespace: &str, binding: &DynamicObject) {
    let types = binding.types.as_ref().expect("types");
    let (group, version) = types.api_version.split_once('/').expect("a group");
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
        plural: "rolebindings".into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.create(&PostParams::default(), binding).await.expect("the RoleBinding is created");
}

/// Waits until the API server lets the operator do this, or no longer. It learns of bindings by a watch of its own, and
/// an operator that is refused meanwhile pauses for minutes.
async fn until_the_operator(client: &Client, namespace: &str, (group, resource, verb): Right, may: bool) {
    let review = json!({
        "spec": {
            "user": format!("system:serviceaccount:{SYSTEM}:{SYSTEM}"),
            "resourceAttributes": {"namespace": namespace, "group": group, "resource": resource, "verb": verb},
        },
    });
    let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let decided = async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("the API server decides");
        (answer.status.is_some_and(|status| status.allowed) == may).then_some(())
    };
    let what = format!("the operator may {verb} {resource} in {namespace}: {may}");
    eventually(&what, decided, String::new).await;
}

impl TestEnv {
    /// What a cluster admin does to grant access to Secrets: the chart's own `RoleBinding`.
    pub(crate) async fn grant_secret_access(&self) {
        grant_secret_access(&self.client, &self.namespace, &self.bindings[0]).await;
    }

    /// What a cluster admin does to let workloads be restarted: the chart's own `RoleBinding`.
    pub(crate) async fn grant_restarts(&self) {
        bind(&self.client, &self.namespace, &self.bindings[1]).await;
        until_the_operator(&self.client, &self.namespace, RESTARTS, true).await;
    }

    /// A cluster admin takes back all that is granted in the namespace.
    #[allow(dead_code, reason = "for the fault runs, which share the stage")]
    pub(crate) async fn revoke_access(&self) {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        bindings.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("unbound");
        until_the_operator(&self.client, &self.namespace, SECRETS, false).await;
    }

    /// Applies a resource, strictly: an unknown field fails the test.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> AwsDeployUser {
        self.try_apply(name, spec).await.expect("the API server takes the resource")
    }

    /// Applies a resource that the API server may refuse.
    pub(crate) async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let params = PatchParams::apply("test").force().validation_strict();
        self.users().patch(name, &params, &Patch::Apply(&self.manifest(name, &spec))).await
    }

    fn manifest(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
    }

    /// Applies a class of this test and gives its name. It serves the namespace of the test unless it says otherwise.
    pub(crate) async fn class(&self, name: &str, spec: Value) -> String {
        let class = self.try_class(name, spec).await.expect("the API server takes the class");
        class.name_any()
    }

    /// Applies a class of this test that the API server may refuse. The operator's IAM policy follows it.
    pub(crate) async fn try_class(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUserClass> {
        self.rights.grant(name, &spec);
        self.try_class_without_rights(name, spec).await
    }

    /// An AWS admin grants what a class needs that the test has not made.
    pub(crate) fn grant(&self, class: &str, spec: &Value) {
        self.rights.grant(class, spec);
    }

    /// From now on the operator may do in AWS what this policy allows, until another class of the test is applied.
    pub(crate) fn enforce(&self, policy: &Value) {
        self.rights.authorizer.enforce([policy]).expect("a policy that AWS takes");
    }

    /// Applies a class that the operator has no IAM policy for: what it allows beyond the other classes is for AWS to refuse.
    pub(crate) async fn try_class_without_rights(
        &self,
        name: &str,
        mut spec: Value,
    ) -> kube::Result<AwsDeployUserClass> {
        if spec["namespaces"].is_null() {
            spec["namespaces"] = json!({"names": [self.namespace]});
        }
        apply_class(&self.client, &format!("{}-{name}", self.namespace), false, spec).await
    }

    /// Sets labels of the test's namespace; a null takes one away.
    pub(crate) async fn label_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"labels": labels}});
        namespaces
            .patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the namespace is labelled");
    }

    /// Asks whether the API server would take the resource, and changes nothing: the API server learns of classes and
    /// labels a moment late, and what it has taken once it takes again.
    pub(crate) async fn try_dry(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let params = PatchParams::apply("test").force().dry_run();
        self.users().patch(name, &params, &Patch::Apply(&self.manifest(name, &spec))).await
    }

    /// Sets an annotation of a resource.
    pub(crate) async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.users().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("an annotation");
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.users().delete(name, &DeleteParams::default()).await.expect("the resource is deleted");
    }
}
