//! The pod that uses the key: `examples/pod.yaml` with the testkit's consumer in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use awsdeploy_testkit::tools::repository;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{image::TESTKIT, node::Node};

/// The name of the pod.
pub(crate) const POD: &str = "consumer";
const MOUNT: &str = "/var/run/secrets/aws";

/// The pod of the example: its mount, its rights, its users. Only what runs in it is ours, and what that writes its counts
/// to.
pub(crate) fn manifest(secret: &str, endpoint: &str, arn: &str) -> Value {
    let file = repository().join("examples/pod.yaml");
    let text = fs::read_to_string(&file).expect("the example can be read");
    let mut pod: Value = serde_saphyr::from_str(&text).expect("the example is YAML");
    pod["metadata"]["name"] = json!(POD);
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0]["mountPath"], MOUNT, "where the example mounts the Secret");
    put_consumer_in(&mut pod["spec"], secret, endpoint, arn);
    pod
}

/// Lets the testkit's consumer run in the first container of a pod, with the Secret as files. All else stays as it is.
pub(crate) fn put_consumer_in(pod: &mut Value, secret: &str, endpoint: &str, arn: &str) {
    let container = &mut pod["containers"][0];
    container["image"] = json!(TESTKIT);
    container["imagePullPolicy"] = json!("Never");
    container.as_object_mut().expect("a container").remove("command");
    container["args"] =
        json!(["consume", "--mount", MOUNT, "--endpoint", endpoint, "--arn", arn, "--report", "/report/report.json"]);
    let mount = |name, path| json!({"name": name, "mountPath": path});
    container["volumeMounts"] = json!([mount("aws", MOUNT), mount("report", "/report")]);
    // Lets the user read the files, which belong to root.
    pod["securityContext"]["fsGroup"] = json!(65532);
    pod["volumes"] = json!([
        {"name": "aws", "secret": {"secretName": secret, "defaultMode": 0o440}}, {"name": "report", "emptyDir": {}},
    ]);
}

/// What the consumer counts; see the testkit's `consumer`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConsumerReport {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    pub(crate) keys: BTreeMap<String, u64>,
    pub(crate) refusals: Vec<Value>,
}

/// The running pod, seen from its node.
pub(crate) struct Workload {
    secret: PathBuf,
    report: PathBuf,
}

impl Workload {
    /// The pod with this UID.
    pub(crate) fn new(node: &Node, uid: &str) -> Self {
        Self { secret: node.volume(uid, "secret", "aws"), report: node.volume(uid, "empty-dir", "report") }
    }

    /// The key id in the files that the pod has mounted.
    pub(crate) fn mounted_key(&self) -> Option<String> {
        let text = read(&self.secret.join("credentials"))?;
        text.lines().find_map(|line| Some(line.split_once("aws_access_key_id")?.1.trim_matches([' ', '=']).to_owned()))
    }

    /// What the pod has counted so far; it writes that down every second.
    pub(crate) fn report(&self) -> ConsumerReport {
        let text = read(&self.report.join("report.json"));
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// A file that may be about to be replaced.
fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}
