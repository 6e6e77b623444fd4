//! Tests of the test kit with a real control plane: it starts, works, and leaves no process or file behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::Duration,
};

use awsdeploy_testkit::{
    aws_proxy::Account,
    chart::Chart,
    emulator::AwsAccess,
    kubeconfig,
    process::{Process, ProcessSpec},
    rig::Rig,
    secret_mount::SecretMount,
    wait::eventually,
};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
};
use kube::{
    Api, Resource as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(2);

/// One control plane for all checks, because starting it takes time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_plane_works_and_is_removed_completely() {
    let rig = Rig::start().await.unwrap();
    let client = rig.control_plane().client();
    let directory = rig.directory().to_owned();
    let processes = children_of(std::process::id());
    assert!(processes.len() >= 4, "{processes:?}");

    service_account_tokens_work(&rig).await;
    owned_objects_are_collected(&rig).await;
    mount_is_updated_with_its_secret(&rig).await;
    chart_is_rendered_and_installed(&rig).await;
    writes_are_audited(&rig);
    aws_accepts_the_administrator(&rig).await;

    rig.stop().await;
    assert!(!directory.exists());
    for id in processes {
        assert!(!runs(id), "process {id} is still running");
    }
    drop(client);
}

async fn service_account_tokens_work(rig: &Rig) {
    let accounts: Api<ServiceAccount> = Api::namespaced(rig.control_plane().client(), "default");
    let account = ServiceAccount { metadata: named("robot"), ..ServiceAccount::default() };
    accounts.create(&PostParams::default(), &account).await.unwrap();

    let file = rig.file("robot.kubeconfig");
    rig.control_plane().write_service_account_kubeconfig("default", "robot", &file).await.unwrap();
    let reviews: Api<SelfSubjectReview> = Api::all(kubeconfig::client(&file).await.unwrap());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));

    // Authentication is not authorization: RBAC is on.
    let secrets: Api<Secret> = Api::namespaced(kubeconfig::client(&file).await.unwrap(), "default");
    match secrets.list(&kube::api::ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("{other:?}"),
    }
}

async fn owned_objects_are_collected(rig: &Rig) {
    let maps: Api<ConfigMap> = Api::namespaced(rig.control_plane().client(), "default");
    let owner = ConfigMap { metadata: named("owner"), ..ConfigMap::default() };
    let owner = maps.create(&PostParams::default(), &owner).await.unwrap();
    let mut dependent = ConfigMap { metadata: named("dependent"), ..ConfigMap::default() };
    dependent.metadata.owner_references = Some(vec![owner.owner_ref(&()).unwrap()]);
    maps.create(&PostParams::default(), &dependent).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    let deleted = async || maps.get_opt("dependent").await.unwrap().is_none().then_some(());
    eventually("the dependent ConfigMap to be collected", LIMIT, deleted).await.unwrap();
}

async fn mount_is_updated_with_its_secret(rig: &Rig) {
    let directory = rig.file("mount");
    let mounted = SecretMount::start(rig.control_plane().client(), "default", "mounted", &directory).unwrap();
    let mut versions = mounted.versions();
    let secrets: Api<Secret> = Api::namespaced(rig.control_plane().client(), "default");
    for (version, value) in ["first", "second"].into_iter().enumerate() {
        let secret = Secret {
            metadata: named("mounted"),
            string_data: Some(BTreeMap::from([("credentials".to_owned(), value.to_owned())])),
            ..Secret::default()
        };
        let parameters = PatchParams::apply("test");
        secrets.patch("mounted", &parameters, &Patch::Apply(json!(secret))).await.unwrap();
        let update = versions.wait_for(|seen| *seen > version as u64);
        tokio::time::timeout(LIMIT, update).await.unwrap().unwrap();
        assert_eq!(fs::read_to_string(directory.join("credentials")).unwrap(), value);
    }
}

async fn chart_is_rendered_and_installed(rig: &Rig) {
    let source = rig.file("chart");
    fs::create_dir_all(source.join("templates")).unwrap();
    fs::write(source.join("Chart.yaml"), "apiVersion: v2\nname: sample\nversion: 1.2.3\n").unwrap();
    fs::write(
        source.join("templates/all.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  from: {{ .Values.from | quote }}\n---\n# nothing\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: other\n",
    )
    .unwrap();
    let chart =
        Chart::new(rig.tools(), rig.directory(), "sample", "charted").source(source).values(json!({"from": "here"}));

    let objects = chart.template().await.unwrap();
    let mut kinds: Vec<_> = objects.iter().map(|object| object.types.as_ref().unwrap().kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["ConfigMap", "ServiceAccount"]);

    chart.install(rig.control_plane().kubeconfig()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(rig.control_plane().client(), "charted");
    assert_eq!(maps.get("sample").await.unwrap().data.unwrap()["from"], "here");
    chart.uninstall(rig.control_plane().kubeconfig()).await.unwrap();
    assert!(maps.get_opt("sample").await.unwrap().is_none());

    let namespaces: Api<Namespace> = Api::all(rig.control_plane().client());
    namespaces.delete("charted", &DeleteParams::default()).await.unwrap();
    let deleted = async || namespaces.get_opt("charted").await.unwrap().is_none().then_some(());
    eventually("the namespace to be deleted", LIMIT, deleted).await.unwrap();
}

fn writes_are_audited(rig: &Rig) {
    let log = fs::read_to_string(rig.control_plane().audit_log().unwrap()).unwrap();
    let writes: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(writes.iter().any(|write| write["objectRef"]["name"] == "mounted" && write["verb"] == "patch"));
    assert!(!log.contains("second"), "a Secret's value is in the audit log");
}

async fn aws_accepts_the_administrator(rig: &Rig) {
    let aws = rig.strict_aws(Account::unique()).await.unwrap();
    let spec = ProcessSpec::new("aws", rig.tools().program("aws"), rig.file("aws.log"))
        .arguments(["sts", "get-caller-identity", "--query", "Account", "--output", "text"])
        .variables(AwsAccess::administrator(aws.address()).variables())
        .output(rig.file("aws.out"));
    assert_eq!(Process::run(spec, LIMIT).await.unwrap().trim(), aws.account().id());
}

#[test]
fn killed_testkit_leaves_no_child_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut testkit = Command::new(env!("CARGO_BIN_EXE_testkit"))
        .args(["up", "--dir"])
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(testkit.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: source "), "{line:?}");
    let environment = fs::read_to_string(directory.path().join("env")).unwrap();
    for name in ["KUBECONFIG", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "KUBE_BIN", "PATH"] {
        assert!(environment.contains(&format!("export {name}=")), "{environment}");
    }

    let processes = children_of(testkit.id());
    assert!(processes.len() >= 4, "{processes:?}");
    testkit.kill().unwrap();
    testkit.wait().unwrap();
    let deadline = std::time::Instant::now() + LIMIT;
    while processes.iter().any(|id| runs(*id)) {
        assert!(std::time::Instant::now() < deadline, "still running: {processes:?}");
        std::thread::yield_now();
    }
}

#[test]
fn testkit_exits_on_eof_of_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let mut testkit = Command::new(env!("CARGO_BIN_EXE_testkit"))
        .args(["up", "--dir"])
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(testkit.stdin.take());
    let mut rest = String::new();
    testkit.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(testkit.wait().unwrap().success());
    assert!(!directory.path().join("env").exists());
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// Children of `parent` that are not reaped yet.
fn children_of(parent: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Whether the process exists and is not a zombie.
fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}
