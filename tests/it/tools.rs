//! The commands of people, run with the real kubectl, helm and operator binary: those of the documentation, `helm install --wait` and
//! `doctor`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use awsdeploy_testkit::files;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, OPERATOR_NAMESPACE, TestEnv, eventually};

const MARKER: &str = "<!-- run by documented_wait_commands_work -->";

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Blocks of commands with the line before each.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut before, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.trim_start() == "```sh" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
            found.push((before.clone(), block.join("\n")));
        }
        line.trim().clone_into(&mut before);
    }
    found
}

/// Every command of the documentation that waits is run here, or says what it needs instead of this test.
pub(crate) async fn documented_wait_commands_work() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut recipes = Vec::new();
    for page in files::with_extensions(&docs, &["md"]).expect("the pages") {
        for (before, block) in blocks(&fs::read_to_string(&page).expect("a page")) {
            let waits = block.lines().any(|line| line.contains("kubectl") && line.contains(" wait "));
            if before == MARKER {
                assert!(page.ends_with("waiting.md"), "their order is that of one page: {}", page.display());
                recipes.push(block);
            } else {
                assert!(
                    !waits || before.starts_with("<!-- needs "),
                    "{}: neither run nor marked:\n{block}",
                    page.display()
                );
            }
        }
    }
    assert_eq!(recipes.len(), 7, "{recipes:#?}");
    let env =
        TestEnv::with_options(EnvOptions { arguments: vec!["--class-status=true"], ..EnvOptions::default() }).await;
    let class = env.apply_class("cycle", json!({})).await;
    let rotation = json!({"every": "Never", "overlap": "1h"});
    env.apply("cycle", json!({"className": class, "accessKey": {"rotation": rotation}})).await;
    for recipe in recipes {
        let script = recipe
            .replace("-n deploy", &format!("-n {}", env.namespace))
            .replace("aduc/cycle", &format!("aduc/{class}"));
        let run = env.run_shell(&script).await;
        assert!(run.status.success(), "{script}\n{}\n{}", text_of(&run), env.log());
        if recipe.contains("wait_ready()") {
            env.apply("invalid", json!({"accessKey": {"rotation": {"every": "12h", "overlap": "13h"}}})).await;
            let run = env.run_shell(&script.replace("wait_ready cycle", "wait_ready invalid")).await;
            assert_eq!(run.status.code(), Some(1), "{}", text_of(&run));
            let message = String::from_utf8_lossy(&run.stdout);
            assert!(message.contains("must be shorter than the time between two rotations"), "{message}");
        }
    }
    assert!(env.users().get_opt("cycle").await.expect("an answer").is_none(), "the last one waits for the deletion");
}

/// A chart that holds one `AwsDeployUser` with this spec.
fn write_chart(env: &TestEnv, name: &str, spec: &Value) -> PathBuf {
    let chart = env.directory.join(format!("chart-{name}"));
    fs::create_dir_all(chart.join("templates")).expect("a directory");
    let write = |file: &str, content: String| fs::write(chart.join(file), content).expect("a file");
    write("Chart.yaml", format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n"));
    let user = json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "metadata": {"name": name}, "spec": spec,
    });
    write("templates/user.yaml", user.to_string());
    chart
}

/// `helm install --wait` of helm 4 with the status of the operator.
async fn install(env: &TestEnv, name: &str, spec: &Value, timeout: &str) -> (Output, Duration) {
    let chart = write_chart(env, name, spec);
    let started = Instant::now();
    let script =
        format!("helm install {name} {} --namespace {} --wait --timeout {timeout}", chart.display(), env.namespace);
    (env.run_shell(&script).await, started.elapsed())
}

pub(crate) async fn helm_waits_for_the_operator() {
    let mut env = TestEnv::new().await;
    let version = env.run_shell("helm version --short").await;
    assert!(text_of(&version).starts_with("v4."), "{}", text_of(&version));
    env.operator.kill().await;
    let (unseen, took) = install(&env, "unseen", &json!({}), "5s").await;
    assert!(!unseen.status.success() && took >= Duration::from_secs(4), "{took:?} {}", text_of(&unseen));
    env.operator.restart().await.expect("the operator restarts");
    let (seen, _) = install(&env, "seen", &json!({}), "2m").await;
    assert!(seen.status.success(), "{}\n{}", text_of(&seen), env.log());
    env.wait_ready("seen").await;
}

pub(crate) async fn helm_reports_a_terminal_error_at_once() {
    let env = TestEnv::new().await;
    let invalid = json!({"accessKey": {"rotation": {"every": "12h", "overlap": "13h"}}});
    let (failed, took) = install(&env, "invalid", &invalid, "5m").await;
    assert!(!failed.status.success() && took < Duration::from_mins(1), "{took:?} {}", text_of(&failed));
    let text = text_of(&failed);
    assert!(text.contains("must be shorter than the time between two rotations"), "{text}");
}

/// The rights and the arguments of the chart's start-up check for an operator `op` in the namespace of the test.
async fn start_check(env: &TestEnv) -> (PathBuf, Vec<String>) {
    let values = json!({
        "replicaCount": 1, "fullnameOverride": "op", "namespaceOverride": env.namespace, "crds": {"enabled": false},
        "startupCheck": {"timeout": "60s"},
    });
    let rendered = env.render_chart(values).await;
    let check: Vec<_> = rendered.into_iter().filter(|object| object.name_any() == "op-check").collect();
    assert_eq!(check.len(), 6, "{check:?}");
    let job =
        check.iter().find(|object| object.types.as_ref().is_some_and(|types| types.kind == "Job")).expect("a Job");
    let arguments = job.data["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let rights: Vec<_> = check.iter().filter(|object| !std::ptr::eq(*object, job)).collect();
    let file = env.directory.join("check.json");
    fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": rights}).to_string()).expect("a manifest");
    let applied = env.run_shell(&format!("kubectl apply -f {}", file.display())).await;
    assert!(applied.status.success(), "{}", text_of(&applied));
    let account = format!("system:serviceaccount:{}:op-check", env.namespace);
    let kubeconfig = env.kubeconfig_as(&account, "system:authenticated").await;
    (kubeconfig, serde_json::from_value(arguments).expect("arguments"))
}

pub(crate) async fn doctor_waits_until_the_operator_leads() {
    let env = TestEnv::new().await;
    let (kubeconfig, arguments) = start_check(&env).await;
    let log = env.directory.join("doctor.log");
    let program = env!("CARGO_BIN_EXE_aws-deploy-user-operator");
    let command =
        format!("KUBECONFIG={} {program} {} >{} 2>&1", kubeconfig.display(), arguments.join(" "), log.display());
    let doctor = env.run_shell(&command);
    let report = || fs::read_to_string(&log).unwrap_or_default();
    let act = async {
        let waits = async || report().contains("missing  operator: the Deployment").then_some(());
        eventually("a report of what is missing", waits, report).await;
        let labels = json!({"app.kubernetes.io/name": "op"});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "op"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "operator"}]},
            }},
        }))
        .expect("a Deployment");
        let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
        deployments.create(&PostParams::default(), &deployment).await.expect("a Deployment");
        // The test acts as the kubelet, and as the operator.
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), &env.namespace);
        let first = async || pods.list(&ListParams::default()).await.ok()?.items.into_iter().next();
        let pod = eventually("a pod", first, String::new).await.name_any();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&ready)).await.expect("a status");
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": "op"}, "spec": {"holderIdentity": format!("{pod}-1-1700000000000")},
        }))
        .expect("a Lease");
        let leases: Api<Lease> = Api::namespaced(env.client.clone(), &env.namespace);
        leases.create(&PostParams::default(), &lease).await.expect("a Lease");
    };
    let (done, ()) = tokio::join!(doctor, act);
    let text = report();
    assert!(done.status.success(), "{text}");
    for part in ["ok       operator", "ok       leader", "ok       admission"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let users = env.users().list(&ListParams::default()).await.expect("a list");
    assert!(users.items.is_empty(), "the trial is a dry run");
}

pub(crate) async fn doctor_names_what_is_missing_and_fails() {
    let env = TestEnv::new().await;
    let kubeconfig = env.kubeconfig_as("admin", "system:masters").await;
    let run = async |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let done = env.run_operator(&kubeconfig, &arguments).await;
        (done.status.code(), text_of(&done))
    };
    // The operators of the tests are no pods.
    let (code, text) = run(&["doctor", "--namespace", OPERATOR_NAMESPACE, "--class", "missing"]).await;
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "ok       resource types",
        "has no replicas. A cluster admin sets replicaCount",
        "class missing: it does not exist",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Without the rights, it says so.
    let stranger = env.kubeconfig_as("stranger", "system:authenticated").await;
    let arguments = ["doctor", "--namespace", &env.namespace].map(str::to_owned);
    let done = env.run_operator(&stranger, &arguments).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text_of(&done).contains("get Deployment") && text_of(&done).contains("cannot get resource"),
        "{}",
        text_of(&done)
    );
    let (code, text) = run(&["doctor", "--wait", "--timeout", "1s", "--namespace", &env.namespace]).await;
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(text.matches("the Deployment of the operator does not exist").count(), 1, "reported once: {text}");
}
