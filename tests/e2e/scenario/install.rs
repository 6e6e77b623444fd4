//! Image and installation.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::handover::AGENT;
use crate::{
    environment::{E2eEnv, NAMESPACE, RELEASE},
    image::{self, OciLayout},
    summary::{megabytes, seconds},
    version::{Version, profile},
};

/// Both namespaces enforce the Pod Security Standard `restricted`.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

pub(crate) async fn image_contains_one_binary_and_runs_as_non_root(env: &mut E2eEnv) {
    let image = OciLayout::read(&env.images.layout).expect("the image can be read");
    println!("config: {:#}", image.config);
    assert_eq!(image.config["User"], "65532:65532", "numeric, so that Kubernetes can verify runAsNonRoot");
    assert_eq!(image.config["Entrypoint"], json!(["/usr/local/bin/aws-deploy-user-operator"]));
    for label in ["title", "description", "licenses", "version", "revision"] {
        let label = format!("org.opencontainers.image.{label}");
        assert!(image.config["Labels"][&label].is_string(), "{label} is missing");
    }

    let Some(((base, base_size), own)) = image.layers.split_first() else { panic!("the image has no layers") };
    println!("base layer {}: {}", base.display(), megabytes(*base_size));
    let mut files = Vec::new();
    for (layer, _) in own {
        let list = env.shell.output_of(&format!("tar --list --gzip --verbose --file {}", layer.display())).await;
        files.extend(list.lines().filter(|line| !line.starts_with('d')).map(str::to_owned));
    }
    assert_eq!(files.len(), 1, "one file in addition to the base image: {files:#?}");
    assert!(files[0].ends_with("usr/local/bin/aws-deploy-user-operator"), "{files:?}");

    let own: u64 = own.iter().map(|(_, size)| size).sum();
    let sizes = format!(
        "{} ({} build {}, base of Debian files of the host {})",
        megabytes(own + base_size),
        profile(),
        megabytes(own),
        megabytes(*base_size)
    );
    env.summary.add("image, compressed", sizes);
}

pub(crate) async fn chart_installs_and_becomes_ready(env: &mut E2eEnv) {
    for namespace in [NAMESPACE, RELEASE] {
        env.shell.run_printed(&format!("kubectl create namespace {namespace}")).await;
        env.shell.run_printed(&format!("kubectl label namespace {namespace} {RESTRICTED}")).await;
    }
    // Passed as a file, so that no secret is a command-line argument.
    let administrator = env.administrator();
    let file = env.directory().join("administrator.env");
    let text = format!(
        "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n",
        administrator.access_key_id, administrator.secret_access_key
    );
    fs::write(&file, text).expect("a file");
    let credentials = "kubectl create secret generic administrator --from-env-file=$RUN/administrator.env";
    env.shell.run_printed(&format!("{credentials} --namespace {RELEASE}")).await;

    let took = install(env, &env.first().clone()).await;
    env.shell.run_printed(&format!("kubectl --namespace {RELEASE} get pods,lease")).await;
    let memory = idle_memory(env).await;
    if env.previous.is_none() {
        env.summary.add("helm install until ready", seconds(took));
        env.summary.add("idle memory", memory);
    }
}

/// Memory of leader and standby while idle. Also asserts that both are unprivileged.
pub(super) async fn idle_memory(env: &E2eEnv) -> String {
    let leader = env.leader().await;
    let mut memory = Vec::new();
    for pod in env.operator_pods().await {
        let process = env.process_of(&pod).await;
        assert_unprivileged(process);
        let what = if pod.name_any() == leader.name_any() { "leader" } else { "standby" };
        memory.push(format!("{what} {} MiB", resident_kib(process) / 1024));
    }
    assert_eq!(memory.len(), 2, "one leader and one standby");
    format!("{} (resident, {} build)", memory.join(", "), profile())
}

/// Values for a cluster without pod roles, limited to those that the chart of `version` supports.
pub(super) fn values(env: &E2eEnv, version: &Version) -> Value {
    version.supported_values(json!({
        "image": {"repository": image::OPERATOR, "tag": version.tag, "pullPolicy": "Never"},
        "aws": {"region": "us-east-1", "endpointUrl": env.endpoint, "credentialsSecret": "administrator"},
        "secretAccess": {"namespaces": [NAMESPACE]},
        "restartAccess": {"namespaces": [NAMESPACE]},
        "admission": {"handoverAgents": [AGENT]},
        // Short for the test; the defaults are 1h, 60s and 10m.
        "settings": {"minRotationInterval": "10s", "repairInterval": "1s", "recoveryDelay": "5s", "deletionDelay": "3s"},
    }))
}

/// Writes the values of a version to `$RUN/values.json`.
pub(super) fn write_values(env: &E2eEnv, version: &Version) {
    let values = values(env, version);
    fs::write(env.directory().join("values.json"), values.to_string()).expect("a file");
    println!("{values:#}");
}

/// Installs a version from its chart; returns the time until it is ready.
pub(super) async fn install(env: &E2eEnv, version: &Version) -> Duration {
    write_values(env, version);
    let begun = Instant::now();
    let command = format!(
        "helm install {RELEASE} {} --namespace {RELEASE} --values $RUN/values.json --wait --timeout 4m",
        version.chart()
    );
    env.shell.run_printed(&command).await;
    let took = begun.elapsed();
    apply_classes(env, version).await;
    took
}

/// Applies the example classes of a version, and a default class that allows everything.
pub(super) async fn apply_classes(env: &E2eEnv, version: &Version) {
    fs::write(env.directory().join("class.json"), open_class().to_string()).expect("a file");
    env.shell
        .run_printed(&format!("kubectl apply -f {} -f $RUN/class.json", version.path_of("examples/classes")))
        .await;
}

/// A default class that allows everything.
fn open_class() -> Value {
    json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": "open", "annotations": {"awsdeploy.dev/is-default-class": "true"}},
        "spec": {
            "namespaces": {"names": ["*"]}, "users": {"namePattern": ".*"},
            "policies": {"allowed": ["*"], "documents": "Allow"}, "groups": ["*"],
            "console": "Allow", "acknowledgeAdminEquivalent": true, "tagKeys": ["*"],
            "secrets": {"labelKeys": ["*"], "annotationKeys": ["*"], "templateKeys": ["*"]},
        },
    })
}

/// Asserts the privileges of the process as reported by the kernel.
fn assert_unprivileged(process: u32) {
    let status = proc_file(process, "status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(field("Uid"), "65532");
    assert_eq!(field("CapEff"), "0000000000000000", "no capability");
    assert_eq!(field("CapBnd"), "0000000000000000", "no capability can be gained");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "system calls are filtered");
    let mounts = proc_file(process, "mountinfo");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "ro")), "{root}");
}

fn resident_kib(process: u32) -> u64 {
    let status = proc_file(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn proc_file(process: u32, name: &str) -> String {
    fs::read_to_string(Path::new("/proc").join(process.to_string()).join(name)).expect("the process is there")
}
