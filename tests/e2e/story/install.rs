//! From nothing to an operator that is ready.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    image::{self, Layout},
    summary::{megabytes, seconds},
    version::{Version, profile},
    world::{NAMESPACE, RELEASE, World},
};

/// Both namespaces refuse pods that are not as the strictest Pod Security Standard wants them.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

pub(crate) async fn the_image_holds_one_program_that_runs_as_nobody(world: &mut World) {
    let image = Layout::read(&world.images.layout).expect("the image can be read");
    println!("config: {:#}", image.config);
    assert_eq!(image.config["User"], "65532:65532", "a number, which Kubernetes can check");
    assert_eq!(image.config["Entrypoint"], json!(["/usr/local/bin/aws-deploy-user-operator"]));
    for label in ["title", "description", "licenses", "version", "revision"] {
        let label = format!("org.opencontainers.image.{label}");
        assert!(image.config["Labels"][&label].is_string(), "{label} is missing");
    }

    let Some(((base, base_size), own)) = image.layers.split_first() else { panic!("the image has no layers") };
    println!("base layer {}: {}", base.display(), megabytes(*base_size));
    let mut files = Vec::new();
    for (layer, _) in own {
        let list = world.shell.word(&format!("tar --list --gzip --verbose --file {}", layer.display())).await;
        files.extend(list.lines().filter(|line| !line.starts_with('d')).map(str::to_owned));
    }
    assert_eq!(files.len(), 1, "one file beside the base's: {files:#?}");
    assert!(files[0].ends_with("usr/local/bin/aws-deploy-user-operator"), "{files:?}");

    let own: u64 = own.iter().map(|(_, size)| size).sum();
    let sizes = format!(
        "{} ({} build {}, base of this machine's Debian files {})",
        megabytes(own + base_size),
        profile(),
        megabytes(own),
        megabytes(*base_size)
    );
    world.summary.fact("image, compressed", sizes);
}

pub(crate) async fn the_chart_installs_from_zero_and_gets_ready(world: &mut World) {
    for namespace in [NAMESPACE, RELEASE] {
        world.shell.shown(&format!("kubectl create namespace {namespace}")).await;
        world.shell.shown(&format!("kubectl label namespace {namespace} {RESTRICTED}")).await;
    }
    // In a file: no secret is an argument.
    let administrator = world.administrator();
    let file = world.directory().join("administrator.env");
    let text = format!(
        "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n",
        administrator.access_key_id, administrator.secret_access_key
    );
    fs::write(&file, text).expect("a file");
    let credentials = "kubectl create secret generic administrator --from-env-file=$RUN/administrator.env";
    world.shell.shown(&format!("{credentials} --namespace {RELEASE}")).await;

    let took = install(world, &world.first().clone()).await;
    world.shell.shown(&format!("kubectl --namespace {RELEASE} get pods,lease")).await;
    let memory = idle(world).await;
    if world.before.is_none() {
        world.summary.fact("helm install to ready", seconds(took));
        world.summary.fact("memory, idle", memory);
    }
}

/// What the pods take when there is little to do, one leader and one that stands by. They run with no rights.
pub(super) async fn idle(world: &World) -> String {
    let leader = world.leader().await;
    let mut idle = Vec::new();
    for pod in world.operator_pods().await {
        let process = world.process_of(&pod).await;
        runs_with_no_rights(process);
        let what = if pod.name_any() == leader.name_any() { "leader" } else { "standby" };
        idle.push(format!("{what} {} MiB", resident_kib(process) / 1024));
    }
    assert_eq!(idle.len(), 2, "one leads, one stands by");
    format!("{} (resident, {} build)", idle.join(", "), profile())
}

/// The values that a cluster without roles for pods would use, as far as the chart of this version knows them.
pub(super) fn values(world: &World, version: &Version) -> Value {
    version.known(json!({
        "image": {"repository": image::OPERATOR, "tag": version.tag, "pullPolicy": "Never"},
        "aws": {"region": "us-east-1", "endpointUrl": world.endpoint, "credentialsSecret": "administrator"},
        "secretAccess": {"namespaces": [NAMESPACE]},
        "restartAccess": {"namespaces": [NAMESPACE]},
        // As short as the story needs it; the defaults are 1h, 60s and 10m.
        "settings": {"minRotationInterval": "10s", "recoveryDelay": "5s", "deletionDelay": "3s"},
    }))
}

/// Writes the values of a version to `$RUN/values.json`.
pub(super) fn write_values(world: &World, version: &Version) {
    let values = values(world, version);
    fs::write(world.directory().join("values.json"), values.to_string()).expect("a file");
    println!("{values:#}");
}

/// Installs a version from its chart; how long it took until that was ready.
pub(super) async fn install(world: &World, version: &Version) -> Duration {
    write_values(world, version);
    let begun = Instant::now();
    let command = format!(
        "helm install {RELEASE} {} --namespace {RELEASE} --values $RUN/values.json --wait --timeout 4m",
        version.chart()
    );
    world.shell.shown(&command).await;
    let took = begun.elapsed();
    apply_classes(world, version).await;
    took
}

/// The classes that the examples of a version name, and one by which what names none is allowed all.
pub(super) async fn apply_classes(world: &World, version: &Version) {
    fs::write(world.directory().join("class.json"), open_class().to_string()).expect("a file");
    world.shell.shown(&format!("kubectl apply -f {} -f $RUN/class.json", version.named("examples/classes"))).await;
}

/// A class by which every resource of the story is allowed what it asks for.
fn open_class() -> Value {
    json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": "open", "annotations": {"awsdeploy.dev/is-default-class": "true"}},
        "spec": {
            "namespaces": {"names": ["*"]}, "policies": {"allowed": ["*"], "inline": "Allow"}, "groups": ["*"],
            "console": "Allow", "acknowledgeAdminEquivalent": true,
        },
    })
}

/// What the kernel says of the process: whatever image and chart promise comes down to this.
fn runs_with_no_rights(process: u32) {
    let status = proc_file(process, "status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(field("Uid"), "65532");
    assert_eq!(field("CapEff"), "0000000000000000", "no capability");
    assert_eq!(field("CapBnd"), "0000000000000000", "and none to be had");
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
