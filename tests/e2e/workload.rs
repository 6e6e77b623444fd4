//! The pod that uses the key: `examples/pod.yaml` with the testkit's consumer.

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

/// The example pod, whose image is replaced by the testkit, with a volume for the report.
pub(crate) fn manifest(secret: &str, endpoint: &str, arn: &str) -> Value {
    let file = repository().join("examples/pod.yaml");
    let text = fs::read_to_string(&file).expect("the example can be read");
    let mut pod: Value = serde_saphyr::from_str(&text).expect("the example is YAML");
    pod["metadata"]["name"] = json!(POD);
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0]["mountPath"], MOUNT, "mount path of the example");
    insert_consumer(&mut pod["spec"], secret, endpoint, arn);
    pod
}

/// Replaces the program of the first container with the testkit's consumer, and mounts the Secret. Keeps the other
/// fields.
pub(crate) fn insert_consumer(pod: &mut Value, secret: &str, endpoint: &str, arn: &str) {
    let container = &mut pod["containers"][0];
    container["image"] = json!(TESTKIT);
    container["imagePullPolicy"] = json!("Never");
    container.as_object_mut().expect("a container").remove("command");
    container["args"] =
        json!(["consume", "--mount", MOUNT, "--endpoint", endpoint, "--arn", arn, "--report", "/report/report.json"]);
    let mount = |name, path| json!({"name": name, "mountPath": path});
    container["volumeMounts"] = json!([mount("aws", MOUNT), mount("report", "/report")]);
    // Lets the non-root user read the files, which are owned by root.
    pod["securityContext"]["fsGroup"] = json!(65532);
    pod["volumes"] = json!([
        {"name": "aws", "secret": {"secretName": secret, "defaultMode": 0o440}}, {"name": "report", "emptyDir": {}},
    ]);
}

/// Counters of the consumer; see `awsdeploy_testkit::consumer`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConsumerReport {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    pub(crate) keys: BTreeMap<String, u64>,
    pub(crate) refusals: Vec<Value>,
}

/// The files of the running pod on its node.
pub(crate) struct Workload {
    secret: PathBuf,
    report: PathBuf,
}

impl Workload {
    /// The pod with UID `uid`.
    pub(crate) fn new(node: &Node, uid: &str) -> Self {
        Self { secret: node.volume(uid, "secret", "aws"), report: node.volume(uid, "empty-dir", "report") }
    }

    /// The key ID in the mounted files.
    pub(crate) fn mounted_key(&self) -> Option<String> {
        let text = read(&self.secret.join("credentials"))?;
        text.lines().find_map(|line| Some(line.split_once("aws_access_key_id")?.1.trim_matches([' ', '=']).to_owned()))
    }

    /// The counters of the pod, which it writes every second.
    pub(crate) fn report(&self) -> ConsumerReport {
        let text = read(&self.report.join("report.json"));
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// Reads a file that may be replaced concurrently.
fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}
