//! Actions of cluster admins, tenants and AWS admins in a test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use awsdeploy::api::{AwsDeployUser, AwsDeployUserClass, well_known};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, core::v1::Namespace, rbac::v1::RoleBinding};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    TestEnv,
    apply::ApplyMethod,
    eventually,
    shared::{RELEASE, apply_class, shared},
};

/// API group, resource and verb: one permission that stands for all of a `RoleBinding`.
type Permission = (&'static str, &'static str, &'static str);

const SECRETS: Permission = ("", "secrets", "create");
const RESTARTS: Permission = ("apps", "deployments", "patch");

/// Grants access to Secrets of a namespace and waits until it takes effect.
pub(super) async fn grant_secret_access(client: &Client, namespace: &str, binding: &DynamicObject) {
    create_binding(client, namespace, binding).await;
    wait_for_permission(client, namespace, SECRETS, true).await;
}

async fn create_binding(client: &Client, namespace: &str, binding: &DynamicObject) {
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

/// Waits until the API server allows or denies the operator the permission. The authorizer caches bindings by a watch,
/// and an operator that is refused meanwhile backs off for minutes.
async fn wait_for_permission(client: &Client, namespace: &str, (group, resource, verb): Permission, allowed: bool) {
    let review = json!({
        "spec": {
            "user": format!("system:serviceaccount:{RELEASE}:{RELEASE}"),
            "resourceAttributes": {"namespace": namespace, "group": group, "resource": resource, "verb": verb},
        },
    });
    let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let decided = async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("the API server decides");
        (answer.status.is_some_and(|status| status.allowed) == allowed).then_some(())
    };
    let what = format!("the operator may {verb} {resource} in {namespace}: {allowed}");
    eventually(&what, decided, String::new).await;
}

impl TestEnv {
    /// Creates the `RoleBinding` of the chart for Secrets.
    pub(crate) async fn grant_secret_access(&self) {
        grant_secret_access(&self.client, &self.namespace, &self.bindings[0]).await;
    }

    /// Creates the `RoleBinding` of the chart for workload restarts.
    pub(crate) async fn grant_restarts(&self) {
        create_binding(&self.client, &self.namespace, &self.bindings[1]).await;
        wait_for_permission(&self.client, &self.namespace, RESTARTS, true).await;
    }

    /// Deletes the `RoleBinding` of the chart for Secrets.
    #[allow(dead_code, reason = "not used by all tests")]
    pub(crate) async fn revoke_secret_access(&self) {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = self.bindings[0].name_any();
        bindings.delete(&name, &DeleteParams::default()).await.expect("the RoleBinding is deleted");
        wait_for_permission(&self.client, &self.namespace, SECRETS, false).await;
    }

    /// Applies a resource as a tool of people does, chosen by the seed, with strict validation: an unknown field fails the
    /// test.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> AwsDeployUser {
        self.try_apply(name, spec).await.expect("the API server accepts the resource")
    }

    /// The seed of the tools that resources are applied with.
    #[allow(dead_code, reason = "used by the fault tests only")]
    pub(crate) fn apply_seed(&self) -> u64 {
        self.applier.seed()
    }

    /// Applies a resource that the API server may refuse.
    pub(crate) async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let method = self.applier.method_of(name);
        self.applier.apply(&self.client, method, self.manifest(name, &spec), false).await
    }

    /// Applies a resource with this tool, for a test about what it leaves in the object.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn apply_with(&self, method: ApplyMethod, name: &str, spec: Value) -> AwsDeployUser {
        let applied = self.applier.apply(&self.client, method, self.manifest(name, &spec), false).await;
        applied.expect("the API server accepts the resource")
    }

    /// Applies a resource as a dry run. Admission caches classes and labels, so tests poll it until it is up to date.
    pub(crate) async fn dry_run_apply(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let method = self.applier.method_of(name);
        self.applier.apply(&self.client, method, self.manifest(name, &spec), true).await
    }

    /// The output of the real `kubectl apply`.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn kubectl_apply(&self, name: &str, spec: Value) -> String {
        let file = self.directory.join(format!("{name}.json"));
        std::fs::write(&file, self.manifest(name, &spec).to_string()).expect("a manifest");
        let shared = shared().await;
        let mut kubectl = Command::new(&shared.kubectl);
        kubectl.arg("--kubeconfig").arg(&shared.admin).arg("--cache-dir").arg(self.directory.join("kubectl"));
        let run = kubectl.args(["apply", "--server-side=false", "-f"]).arg(&file).output().expect("kubectl runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// Runs a script with the real kubectl and helm as a cluster admin. The configuration of the user is not read.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn run_shell(&self, script: &str) -> Output {
        let shared = shared().await;
        let tools = shared.kubectl.parent().expect("a directory").display().to_string();
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", script]).kill_on_drop(true);
        shell.env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap_or_default()));
        shell.env("KUBECONFIG", &shared.admin).env("KUBECACHEDIR", self.directory.join("kubectl"));
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            shell.env(variable, self.directory.join("helm").join(folder));
        }
        shell.output().await.expect("bash runs")
    }

    /// Runs a command of the operator's binary.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn run_operator(&self, kubeconfig: &Path, arguments: &[String]) -> Output {
        let mut operator = tokio::process::Command::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"));
        operator.args(arguments).env("KUBECONFIG", kubeconfig).kill_on_drop(true);
        operator.output().await.expect("the operator runs")
    }

    /// A kubeconfig that impersonates the user in this group.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn kubeconfig_as(&self, user: &str, group: &str) -> PathBuf {
        let admin = std::fs::read_to_string(&shared().await.admin).expect("the admin's kubeconfig");
        let mut kubeconfig: Value = serde_saphyr::from_str(&admin).expect("YAML");
        for entry in kubeconfig["users"].as_array_mut().expect("users") {
            entry["user"]["as"] = json!(user);
            entry["user"]["as-groups"] = json!([group]);
        }
        let file = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&file, kubeconfig.to_string()).expect("a kubeconfig");
        file
    }

    /// The objects of the chart with these values.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn render_chart(&self, values: Value) -> Vec<DynamicObject> {
        let chart = shared().await.chart.clone().values(values);
        chart.template().await.expect("the chart is rendered")
    }

    /// Requests a retry: whatever the operator waits for is tried now.
    #[allow(dead_code, reason = "not used by all tests")]
    pub(crate) async fn request_retry(&self, name: &str, value: &str) {
        self.annotate(name, well_known::ANNOTATION_RETRY, value).await;
    }

    fn manifest(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
    }

    /// Applies a class of this test and returns its name. By default it serves the namespace of the test and allows every user
    /// name.
    pub(crate) async fn apply_class(&self, name: &str, spec: Value) -> String {
        let class = self.try_apply_class(name, spec).await.expect("the API server accepts the class");
        class.name_any()
    }

    /// Applies a class that the API server may refuse. The IAM policy of the operator is updated for it.
    pub(crate) async fn try_apply_class(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUserClass> {
        self.iam_permissions.grant(name, &spec);
        self.try_apply_class_without_permissions(name, spec).await
    }

    /// Extends the IAM policy of the operator for a class that the test did not create.
    pub(crate) fn grant_class_permissions(&self, class: &str, spec: &Value) {
        self.iam_permissions.grant(class, spec);
    }

    /// Replaces the IAM policy of the operator until another class of the test is applied.
    pub(crate) fn set_iam_policy(&self, policy: &Value) {
        self.iam_permissions.authorizer.enforce([policy]).expect("a valid policy");
    }

    /// Applies a class without extending the IAM policy of the operator, so that AWS refuses what it newly allows.
    pub(crate) async fn try_apply_class_without_permissions(
        &self,
        name: &str,
        mut spec: Value,
    ) -> kube::Result<AwsDeployUserClass> {
        if spec["namespaces"].is_null() {
            spec["namespaces"] = json!({"names": [self.namespace]});
        }
        if spec["users"].get("namePattern").is_none() {
            spec["users"]["namePattern"] = json!(".*");
        }
        apply_class(&self.client, &format!("{}-{name}", self.namespace), false, spec).await
    }

    /// Sets labels of the namespace; a null removes one.
    pub(crate) async fn label_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"labels": labels}});
        namespaces
            .patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the namespace is labelled");
    }

    pub(crate) async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.users().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("an annotation");
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.users().delete(name, &DeleteParams::default()).await.expect("the resource is deleted");
    }
}
