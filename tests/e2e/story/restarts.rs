//! A program that reads the key at its start only.

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
    workload,
    world::{NAMESPACE, SOON, World, key_of},
};

/// Resource, Secret and Deployment of the example.
const NAME: &str = "uploader";

pub(crate) async fn a_program_with_the_key_in_its_environment_is_restarted_before_the_old_key_goes(world: &mut World) {
    let objects = example(&world.endpoint);
    fs::write(world.directory().join("restarted.json"), objects.to_string()).expect("a file");
    // For a moment after the CRDs have changed, admission goes by the classes as they were before.
    let taken = async || world.shell.quiet("kubectl apply -f $RUN/restarted.json --dry-run=server").await.ok();
    eventually("the class to permit restarts", SOON, taken).await.unwrap_or_else(|error| panic!("{error}"));
    world.shell.shown("kubectl apply -f $RUN/restarted.json").await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{NAME} --timeout=180s")).await;
    rolled_out(world).await;
    let old = published(world).await;
    assert_eq!(keys_in_environments(world).await, [old.as_str(), old.as_str()]);

    world.shell.shown(&format!("kubectl -n {NAMESPACE} annotate adu {NAME} awsdeploy.dev/rotate=now")).await;
    let moved = async || {
        let new = published(world).await;
        let keys: Vec<_> = iam(world).await.keys.into_iter().map(|key| key.id).collect();
        (new != old && keys == [new.as_str()]).then_some(new)
    };
    let new = eventually("the new key to be the only one", SOON, moved).await.unwrap_or_else(|error| panic!("{error}"));
    rolled_out(world).await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} get adu,deployments,pods")).await;
    assert_eq!(keys_in_environments(world).await, [new.as_str(), new.as_str()]);

    let retired = world.aws.log().calls_of("UpdateAccessKey").into_iter().find(|call| {
        call.access_key.as_deref() == Some(&old) && call.params.get("Status").is_some_and(|to| to == "Inactive")
    });
    let retired = retired.expect("the old key was set Inactive").started;
    let ready = pods(world).await.iter().filter_map(ready_since).max().expect("pods are ready");
    assert!(ready <= retired, "the last new pod was ready at {ready}, the old key was set Inactive at {retired}");
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), NAMESPACE);
    let deployment = deployments.get(NAME).await.expect("the Deployment is there");
    assert_eq!(deployment.metadata.generation, Some(2), "it was changed once");
    world.shell.shown(&format!("kubectl -n {NAMESPACE} delete deployment/{NAME} adu/{NAME} --timeout=180s")).await;
    let user = world.aws.inspector().user(&user_name()).await.expect("the truth can be read");
    assert!(user.is_none(), "the IAM user goes with its resource");
}

/// `examples/restarted.yaml`, with the testkit's consumer in the pods and a short overlap.
fn example(endpoint: &str) -> Value {
    let text = fs::read_to_string(repository().join("examples/restarted.yaml")).expect("the example can be read");
    let mut objects = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).expect("the example is YAML"));
    let (mut user, mut deployment): (Value, Value) =
        (objects.next().expect("the user"), objects.next().expect("the Deployment"));
    user["spec"]["accessKey"]["rotation"]["overlap"] = json!("2s");
    let pod = &mut deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["envFrom"][0]["secretRef"]["name"], NAME, "how the example reads the key");
    workload::put_consumer_in(
        pod,
        NAME,
        endpoint,
        &format!("arn:aws:iam::000000000000:user/awsdeploy/{}", user_name()),
    );
    json!({"apiVersion": "v1", "kind": "List", "items": [user, deployment]})
}

fn user_name() -> String {
    format!("{NAMESPACE}-{NAME}")
}

async fn rolled_out(world: &World) {
    world.shell.shown(&format!("kubectl -n {NAMESPACE} rollout status deployment/{NAME} --timeout=180s")).await;
}

async fn published(world: &World) -> String {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), NAMESPACE);
    key_of(&secrets.get(NAME).await.expect("the Secret is there")).expect("the Secret holds a key")
}

async fn iam(world: &World) -> UserSnapshot {
    world.aws.inspector().user(&user_name()).await.expect("the truth can be read").expect("the IAM user is there")
}

async fn pods(world: &World) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let wanted = ListParams::default().labels(&format!("app={NAME}"));
    let pods = pods.list(&wanted).await.expect("pods can be listed").items;
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// The key id that each program was started with.
async fn keys_in_environments(world: &World) -> Vec<String> {
    let mut keys = Vec::new();
    for pod in pods(world).await {
        let process = world.process_of(&pod).await;
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
