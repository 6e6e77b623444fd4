//! From a manifest to a pod that signs.

use std::{fs, time::Duration};

use awsdeploy_testkit::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::{
    summary::{range, seconds},
    version::Version,
    workload::{self, POD, Workload},
    world::{IAM_USER, NAMESPACE, SECRET, SOON, USER, World},
};

const ROTATIONS: usize = 3;
/// A resource that is made at the beginning and left alone: an example.
pub(super) const PEACEFUL: &str = "state-bucket";
/// Its IAM user.
pub(super) const PEACEFUL_USER: &str = "deploy-state-bucket";

pub(crate) async fn the_readme_manifest_gets_ready(world: &mut World) {
    let manifest = readme_manifest(world.first(), USER);
    fs::write(world.directory().join("cycle.yaml"), &manifest).expect("a file");
    print!("{manifest}");
    world.shell.shown("kubectl apply -f $RUN/cycle.yaml").await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=180s")).await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} get adu,secret")).await;
    let user = world.iam().await.expect("the IAM user is there");
    assert_eq!(user.name, IAM_USER);
    assert!(user.attached.iter().any(|arn| arn.ends_with("/AmazonEC2FullAccess")), "{:?}", user.attached);
    assert_eq!(user.active_keys(), [world.published().await]);
}

/// The manifest of this name in the README of a version: what a person copies from there has to work.
pub(crate) fn readme_manifest(version: &Version, name: &str) -> String {
    let readme = version.text("README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let head = format!("metadata: {{name: {name},");
    blocks.into_iter().find(|block| block.contains(&head)).expect("the README has the manifest").to_owned()
}

pub(crate) async fn an_example_gets_ready_and_is_left_alone(world: &mut World) {
    let example = world.first().named(&format!("examples/{PEACEFUL}.yaml"));
    world.shell.shown(&format!("kubectl apply -f {example}")).await;
    world
        .shell
        .shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{PEACEFUL} --timeout=180s"))
        .await;
    let user = world.aws.inspector().user(PEACEFUL_USER).await.expect("the truth can be read");
    assert_eq!(user.map(|user| user.active_keys().len()), Some(1));
    world.peaceful_since = world.aws.log().position();
}

pub(crate) async fn a_pod_signs_with_the_mounted_files(world: &mut World) {
    let user = world.iam().await.expect("the IAM user is there");
    let pod = workload::manifest(SECRET, &world.endpoint, &user.arn);
    fs::write(world.directory().join("pod.json"), pod.to_string()).expect("a file");
    world.shell.shown("kubectl apply -f $RUN/pod.json").await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready pod/{POD} --timeout=180s")).await;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let uid = pods.get(POD).await.expect("the pod is there").metadata.uid.expect("a UID");
    let workload = Workload::new(&world.node, &uid);
    let key = world.published().await;
    let signs = async || workload.report().keys.contains_key(&key).then_some(());
    eventually("the pod to sign a call", SOON, signs).await.unwrap_or_else(|error| panic!("{error}"));
    world.shell.shown(&format!("kubectl -n {NAMESPACE} get pod {POD} --output wide")).await;
    world.workload = Some(workload);
}

pub(crate) async fn three_rotations_reach_the_mounted_files(world: &mut World) {
    let mut key = world.published().await;
    rotate_every(world, "50s", "30s").await;
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..ROTATIONS {
        let arrival = world.until_another_key_is_used(&key).await;
        println!("the file changed {} after the Secret", seconds(arrival.in_file));
        key = arrival.key;
        delays.push(arrival.in_file);
    }
    // From here on a new key is made when the story asks for one.
    rotate_every(world, "30d", "30s").await;
    world.until_one_key_is_left().await;
    let report = world.workload().report();
    println!("{report:?}");
    assert_eq!(report.refused, 0, "{report:?}");
    assert!(report.keys.len() > ROTATIONS, "{report:?}");
    world.summary.fact("Secret written to changed file", range(&delays));
}

async fn rotate_every(world: &World, every: &str, overlap: &str) {
    let patch = format!(r#"{{"spec":{{"accessKey":{{"rotation":{{"every":"{every}","overlap":"{overlap}"}}}}}}}}"#);
    world.shell.shown(&format!("kubectl -n {NAMESPACE} patch adu {USER} --type merge -p '{patch}'")).await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=180s")).await;
}
