//! What is applied again is unchanged: no defaulting, admission or operator writes anything into what a tool declares.

use std::{fs, path::Path};

use awsdeploy::api::AwsDeployUser;
use awsdeploy_testkit::aws_proxy::{Call, DEFAULT_ACCOUNT_ID};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::test_env::{ApplyMethod, TestEnv, eventually};

const CLUSTER_ID: &str = "repeated";
const ROUNDS: usize = 3;

/// How a tool applies a manifest.
#[derive(Clone, Copy, Debug)]
enum Tool {
    With(ApplyMethod),
    /// A server-side apply as a dry run, and a real one only if its result differs from the object.
    Flux,
}

const TOOLS: [Tool; 5] = [
    Tool::With(ApplyMethod::Kubectl),
    Tool::With(ApplyMethod::KubectlServerSide),
    Tool::With(ApplyMethod::Helm),
    Tool::With(ApplyMethod::ArgoCd),
    Tool::Flux,
];

impl Tool {
    async fn apply(self, env: &TestEnv, name: &str, spec: &Value) -> AwsDeployUser {
        match self {
            Self::With(method) => env.apply_with(method, name, spec.clone()).await,
            Self::Flux => flux_apply(env, name, spec).await,
        }
    }
}

async fn flux_apply(env: &TestEnv, name: &str, spec: &Value) -> AwsDeployUser {
    let manifest = Patch::Apply(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "spec": spec,
        "metadata": {
            "name": name, "namespace": env.namespace,
            "labels": {"kustomize.toolkit.fluxcd.io/name": "deploy", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
        },
    }));
    let params = PatchParams::apply("kustomize-controller").force().validation_strict();
    let live = env.users().get_opt(name).await.expect("the resource can be read");
    let preview = env.users().patch(name, &params.clone().dry_run(), &manifest).await.expect("the dry run is accepted");
    match live {
        Some(live) if declared(&live) == declared(&preview) => live,
        _ => env.users().patch(name, &params, &manifest).await.expect("the API server accepts the resource"),
    }
}

/// What Flux compares.
fn declared(user: &AwsDeployUser) -> Value {
    json!([user.spec, user.labels(), user.annotations()])
}

/// The manifests of a folder of examples, for the account of the test.
fn examples(folder: &str, account: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("an example").replace(DEFAULT_ACCOUNT_ID, account);
            serde_saphyr::from_multiple::<Value>(&text).expect("YAML")
        })
        .collect()
}

/// Creates what the examples expect to exist, and returns name and spec of each user.
async fn prepare(env: &TestEnv) -> Vec<(String, Value)> {
    let account = env.account.id().to_owned();
    let manual_changes = env.aws.manual_changes();
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": format!("arn:aws:iam::{account}:role/cdk-*")},
    ]});
    manual_changes.create_policy("cdk-deploy", &policy.to_string()).await.expect("a policy");
    let consent = [("awsdeploy.dev/adoptable-by", format!("{CLUSTER_ID}/{}/ci", env.namespace))];
    let create = Call::iam("CreateUser").with("UserName", "ci-deployer").with("Path", "/awsdeploy/");
    let create = create.with_tags(consent.iter().map(|(key, value)| (*key, value)));
    manual_changes.call(&create).await.expect("an unmanaged user");
    for class in examples("examples/classes", &account) {
        let mut spec = class["spec"].clone();
        spec["namespaces"] = Value::Null;
        env.apply_class(class["metadata"]["name"].as_str().expect("a name"), spec).await;
    }
    let users = examples("examples", &account).into_iter().filter(|object| object["kind"] == "AwsDeployUser");
    users
        .map(|user| {
            let mut spec = user["spec"].clone();
            spec["className"] = json!(format!("{}-{}", env.namespace, spec["className"].as_str().expect("a class")));
            (user["metadata"]["name"].as_str().expect("a name").to_owned(), spec)
        })
        .collect()
}

/// Applies each user several times and returns whether the API server stored nothing. A change of the spec fails the test; another
/// change may be a late one of the operator.
async fn apply_again(env: &TestEnv, tool: Tool, users: &[(String, Value)]) -> bool {
    let mut unchanged = true;
    for (name, spec) in users {
        let before = env.user(name).await;
        for _ in 0..ROUNDS {
            let after = tool.apply(env, name, spec).await;
            assert_eq!(after.metadata.generation, before.metadata.generation, "{tool:?} changed the spec of {name}");
            unchanged &= after.resource_version() == before.resource_version();
        }
    }
    unchanged
}

pub(crate) async fn examples_applied_again_change_nothing() {
    let env = TestEnv::with_arguments(&["--cluster-id=repeated"]).await;
    let users = prepare(&env).await;
    assert!(users.len() >= 10, "{}", users.len());
    for (number, tool) in TOOLS.into_iter().enumerate() {
        for (name, spec) in &users {
            // A tool that takes a resource over writes its labels and annotations once.
            let applied = tool.apply(&env, name, spec).await;
            assert_eq!(applied.metadata.generation, Some(1), "{tool:?} {name}");
        }
        if number == 0 {
            for (name, _) in &users {
                env.wait_ready(name).await;
            }
        }
        let again = async || apply_again(&env, tool, &users).await.then_some(());
        eventually(&format!("{tool:?} changes nothing"), again, || env.log()).await;
    }
}
