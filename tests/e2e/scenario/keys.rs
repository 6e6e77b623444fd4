//! From a manifest to a pod that uses the key.

use std::{fs, time::Duration};

use awsdeploy_testkit::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::{
    environment::{E2eEnv, IAM_USER, NAMESPACE, SECRET, TIMEOUT, USER},
    summary::{range, seconds},
    version::Version,
    workload::{self, POD, Workload},
};

const ROTATIONS: usize = 3;
/// An example resource that is created first and then not changed.
pub(super) const UNCHANGED: &str = "state-bucket";
/// Its IAM user.
pub(super) const UNCHANGED_IAM_USER: &str = "deploy_state-bucket";

pub(crate) async fn readme_manifest_becomes_ready(env: &mut E2eEnv) {
    let manifest = readme_manifest(env.first(), USER);
    fs::write(env.directory().join("cycle.yaml"), &manifest).expect("a file");
    print!("{manifest}");
    env.shell.run_printed("kubectl apply -f $RUN/cycle.yaml").await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=180s"))
        .await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} get adu,secret")).await;
    let user = env.iam().await.expect("the IAM user is there");
    assert_eq!(user.name, IAM_USER);
    assert!(user.attached.iter().any(|arn| arn.ends_with("/AmazonEC2FullAccess")), "{:?}", user.attached);
    assert_eq!(user.active_keys(), [env.published().await]);
}

/// The manifest with this name in the README of a version.
pub(crate) fn readme_manifest(version: &Version, name: &str) -> String {
    let readme = version.text("README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let head = format!("metadata: {{name: {name},");
    blocks.into_iter().find(|block| block.contains(&head)).expect("the README has the manifest").to_owned()
}

pub(crate) async fn example_becomes_ready(env: &mut E2eEnv) {
    let example = env.first().path_of(&format!("examples/{UNCHANGED}.yaml"));
    env.shell.run_printed(&format!("kubectl apply -f {example}")).await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{UNCHANGED} --timeout=180s"))
        .await;
    let user = env.aws.inspector().user(UNCHANGED_IAM_USER).await.expect("the IAM user can be read");
    assert_eq!(user.map(|user| user.active_keys().len()), Some(1));
    env.unchanged_since = env.aws.log().position();
}

pub(crate) async fn pod_signs_with_the_mounted_key(env: &mut E2eEnv) {
    let user = env.iam().await.expect("the IAM user is there");
    let pod = workload::manifest(SECRET, &env.endpoint, &user.arn);
    fs::write(env.directory().join("pod.json"), pod.to_string()).expect("a file");
    env.shell.run_printed("kubectl apply -f $RUN/pod.json").await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready pod/{POD} --timeout=180s")).await;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), NAMESPACE);
    let uid = pods.get(POD).await.expect("the pod is there").metadata.uid.expect("a UID");
    let workload = Workload::new(&env.node, &uid);
    let key = env.published().await;
    let signs = async || workload.report().keys.contains_key(&key).then_some(());
    eventually("the pod to sign a call", TIMEOUT, signs).await.unwrap_or_else(|error| panic!("{error}"));
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} get pod {POD} --output wide")).await;
    env.workload = Some(workload);
}

pub(crate) async fn three_rotations_update_the_mounted_files(env: &mut E2eEnv) {
    let mut key = env.published().await;
    rotate_every(env, "50s", "30s").await;
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..ROTATIONS {
        let update = env.wait_for_new_key_in_use(&key).await;
        println!("the file was updated {} after the Secret", seconds(update.in_file));
        key = update.key;
        delays.push(update.in_file);
    }
    // From now on keys rotate only on request.
    rotate_every(env, "30d", "30s").await;
    env.wait_for_single_key().await;
    let report = env.workload().report();
    println!("{report:?}");
    assert_eq!(report.refused, 0, "{report:?}");
    assert!(report.keys.len() > ROTATIONS, "{report:?}");
    env.summary.add("Secret write to updated file", range(&delays));
}

async fn rotate_every(env: &E2eEnv, every: &str, overlap: &str) {
    let patch = format!(r#"{{"spec":{{"accessKey":{{"rotation":{{"every":"{every}","overlap":"{overlap}"}}}}}}}}"#);
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} patch adu {USER} --type merge -p '{patch}'")).await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=180s"))
        .await;
}
