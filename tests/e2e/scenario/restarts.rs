//! A workload that reads the key only at startup.

use std::fs;

use awsdeploy_testkit::{aws_proxy::UserSnapshot, tools::repository, wait::eventually};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::{
    environment::{E2eEnv, NAMESPACE, TIMEOUT, key_of},
    workload,
};

/// Resource, Secret and Deployment of the example.
const NAME: &str = "uploader";

pub(crate) async fn workload_is_restarted_before_previous_key_is_retired(env: &mut E2eEnv) {
    let objects = example(&env.endpoint);
    fs::write(env.directory().join("restarted.json"), objects.to_string()).expect("a file");
    // Admission may use stale classes shortly after the CRDs have changed.
    let accepted = async || env.shell.run("kubectl apply -f $RUN/restarted.json --dry-run=server").await.ok();
    eventually("admission to allow restarts", TIMEOUT, accepted).await.unwrap_or_else(|error| panic!("{error}"));
    env.shell.run_printed("kubectl apply -f $RUN/restarted.json").await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{NAME} --timeout=180s"))
        .await;
    wait_for_rollout(env).await;
    let old = published(env).await;
    assert_eq!(keys_in_environments(env).await, [old.as_str(), old.as_str()]);

    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} annotate adu {NAME} awsdeploy.dev/rotate=now")).await;
    let rotated = async || {
        let new = published(env).await;
        let keys: Vec<_> = iam(env).await.keys.into_iter().map(|key| key.id).collect();
        (new != old && keys == [new.as_str()]).then_some(new)
    };
    let new =
        eventually("the new key to be the only one", TIMEOUT, rotated).await.unwrap_or_else(|error| panic!("{error}"));
    wait_for_rollout(env).await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} get adu,deployments,pods")).await;
    assert_eq!(keys_in_environments(env).await, [new.as_str(), new.as_str()]);

    let retired = env.aws.log().calls_of("UpdateAccessKey").into_iter().find(|call| {
        call.access_key.as_deref() == Some(&old) && call.params.get("Status").is_some_and(|to| to == "Inactive")
    });
    let retired = retired.expect("the old key was set Inactive").started;
    let ready = pods(env).await.iter().filter_map(ready_since).max().expect("pods are ready");
    assert!(ready <= retired, "the last new pod was ready at {ready}, the old key was set Inactive at {retired}");
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), NAMESPACE);
    let deployment = deployments.get(NAME).await.expect("the Deployment is there");
    assert_eq!(deployment.metadata.generation, Some(2), "the Deployment was changed once");
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} delete deployment/{NAME} adu/{NAME} --timeout=180s")).await;
    let user = env.aws.inspector().user(&user_name()).await.expect("the IAM user can be read");
    assert!(user.is_none(), "the IAM user is deleted with its resource");
}

/// `examples/restarted.yaml`, with the testkit's consumer in the pods and a short overlap.
fn example(endpoint: &str) -> Value {
    let text = fs::read_to_string(repository().join("examples/restarted.yaml")).expect("the example can be read");
    let mut objects = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).expect("the example is YAML"));
    let (mut user, mut deployment): (Value, Value) =
        (objects.next().expect("the user"), objects.next().expect("the Deployment"));
    user["spec"]["accessKey"]["rotation"]["overlap"] = json!("2s");
    let pod = &mut deployment["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["envFrom"][0]["secretRef"]["name"], NAME,
        "the example reads the key from its environment"
    );
    workload::insert_consumer(
        pod,
        NAME,
        endpoint,
        &format!("arn:aws:iam::000000000000:user/awsdeploy/{}", user_name()),
    );
    json!({"apiVersion": "v1", "kind": "List", "items": [user, deployment]})
}

fn user_name() -> String {
    format!("{NAMESPACE}_{NAME}")
}

async fn wait_for_rollout(env: &E2eEnv) {
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} rollout status deployment/{NAME} --timeout=180s")).await;
}

async fn published(env: &E2eEnv) -> String {
    let secrets: Api<Secret> = Api::namespaced(env.client.clone(), NAMESPACE);
    key_of(&secrets.get(NAME).await.expect("the Secret is there")).expect("the Secret holds a key")
}

async fn iam(env: &E2eEnv) -> UserSnapshot {
    env.aws.inspector().user(&user_name()).await.expect("the IAM user can be read").expect("the IAM user is there")
}

async fn pods(env: &E2eEnv) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), NAMESPACE);
    let wanted = ListParams::default().labels(&format!("app={NAME}"));
    let pods = pods.list(&wanted).await.expect("pods can be listed").items;
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// The key ID in the environment of each process.
async fn keys_in_environments(env: &E2eEnv) -> Vec<String> {
    let mut keys = Vec::new();
    for pod in pods(env).await {
        let process = env.process_of(&pod).await;
        let environment = fs::read_to_string(format!("/proc/{process}/environ")).expect("the process is there");
        let key = environment.split('\0').find_map(|variable| variable.strip_prefix("AWS_ACCESS_KEY_ID="));
        keys.push(key.unwrap_or_else(|| panic!("{} has no key in its environment", pod.name_any())).to_owned());
    }
    keys
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0)
}
