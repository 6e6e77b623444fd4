//! Workloads are restarted for a new key. The controllers of Kubernetes roll them out; the test is the kubelet, and says
//! when pods are ready.

use std::time::Duration;

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::{aws_proxy::KeyState, kube_proxy::KubeRule};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, eventually, message};

const ANNOTATION: &str = "key.awsdeploy.dev/x";

fn restarting(overlap: &str, targets: &[(&str, &str)]) -> Value {
    let targets: Vec<Value> = targets.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect();
    json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": overlap}, "restart": targets}})
}

/// A workload of one pod that reads the key from its environment.
async fn workload(env: &TestEnv, kind: &str, name: &str) {
    let labels = json!({"app": name});
    let mut spec = json!({
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "uploader", "envFrom": [{"secretRef": {"name": "x"}}]}]},
        },
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = json!(name);
    }
    if kind == "Deployment" {
        spec["progressDeadlineSeconds"] = json!(600);
    }
    let object = serde_json::from_value(
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}),
    );
    let api = workloads(env, kind);
    api.create(&PostParams::default(), &object.expect("an object")).await.expect("a workload");
}

fn workloads(env: &TestEnv, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "apps".into(),
        version: "v1".into(),
        api_version: "apps/v1".into(),
        kind: kind.into(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(env.client.clone(), &env.namespace, &resource)
}

/// The key that a workload was restarted for, and how often its spec was changed.
async fn seen(env: &TestEnv, kind: &str, name: &str) -> (Option<String>, i64) {
    let found = workloads(env, kind).get(name).await.expect("the workload");
    let key = &found.data["spec"]["template"]["metadata"]["annotations"][ANNOTATION];
    (key.as_str().map(str::to_owned), found.metadata.generation.unwrap_or_default())
}

async fn until_restarted(env: &TestEnv, kind: &str, name: &str, key: &str) {
    let probe = async || (seen(env, kind, name).await.0.as_deref() == Some(key)).then_some(());
    eventually(&format!("{kind} {name} is restarted"), probe, || env.log()).await;
}

/// Every pod is ready at once, until this is dropped.
struct Kubelet(JoinHandle<()>);

impl Kubelet {
    fn start(env: &TestEnv) -> Self {
        let pods: Api<Pod> = Api::namespaced(Client::clone(&env.client), &env.namespace);
        Self(tokio::spawn(async move {
            let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            loop {
                let all = pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
                for pod in all {
                    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                    if phase != Some("Running") {
                        // One that is being replaced may be gone by now.
                        let _ =
                            pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&ready)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for a rotation; gives the old and the new key.
async fn rotate(env: &TestEnv) -> (String, String) {
    let old = env.published("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, &old).await;
    let new = env.until_published("x", &old).await;
    (old, new)
}

async fn until_retired(env: &TestEnv, key: &str) {
    let retired = |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| {
        user.key(key).is_none_or(|key| key.state == KeyState::Inactive)
    };
    env.until_iam("u", "the old key retires", retired).await;
}

/// The Secret says that no restart is owed.
async fn until_nothing_is_owed(env: &TestEnv) {
    let probe = async || {
        let secret = env.secrets().get("x").await.expect("the Secret");
        (!secret.annotations().contains_key(well_known::ANNOTATION_RESTARTS)).then_some(())
    };
    eventually("every rollout is over", probe, || env.log()).await;
}

pub(crate) async fn previous_key_is_kept_until_workloads_restarted_once() {
    const ALL: [(&str, &str); 3] = [("Deployment", "web"), ("StatefulSet", "db"), ("DaemonSet", "agent")];
    let env = TestEnv::new().await;
    env.grant_restarts().await;
    for (kind, name) in ALL {
        workload(&env, kind, name).await;
    }
    env.apply("x", restarting("2s", &ALL)).await;
    env.ready("x").await;
    let (old, new) = rotate(&env).await;
    for (kind, name) in ALL {
        until_restarted(&env, kind, name, &new).await;
        assert_eq!(seen(&env, kind, name).await.1, 2, "{kind} {name}: not at the first key, and once at the second");
    }
    assert!(env.event("x", Reason::Restarted).await.contains(&new));
    // No pod gets ready: the overlap is over, and the old key stays.
    let user = env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RolloutStuck)).await;
    let told = message(&user, ConditionType::RotationHealthy);
    for part in ["Deployment web: ", "StatefulSet db: ", &old, "at most"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("DaemonSet"), "there is no node, so there is no pod to wait for: {told}");
    env.ready("x").await;
    assert!(env.iam("u").await.active_keys().contains(&old.as_str()), "what the pods have goes on working");
    assert!(env.event("x", Reason::RolloutStuck).await.contains("web"));

    let _kubelet = Kubelet::start(&env);
    until_nothing_is_owed(&env).await;
    until_retired(&env, &old).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let mut changed = restarting("2s", &ALL);
    changed["accessKey"]["secret"] = json!({"formats": ["Environment", "Csv"]});
    env.apply("x", changed).await;
    env.ready("x").await;
    assert_eq!(env.published("x").await, new);
    for (kind, name) in ALL {
        assert_eq!(
            seen(&env, kind, name).await,
            (Some(new.clone()), 2),
            "{kind} {name}: for a new key and nothing else"
        );
    }
}

pub(crate) async fn crash_or_second_leader_restarts_no_workload_twice() {
    let mut env = TestEnv::with(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await;
    let kube = env.kube.take().expect("a Kubernetes proxy");
    env.grant_restarts().await;
    workload(&env, "Deployment", "web").await;
    let _kubelet = Kubelet::start(&env);
    env.apply("x", restarting("2s", &[("Deployment", "web")])).await;
    env.ready("x").await;

    // It dies between the restart and its note.
    let pause = kube.rules().pause(KubeRule::on("patch", "deployments").nth(1).after_commit());
    let (_, second) = rotate(&env).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the workload is restarted and the answer is on its way");
    env.operator.kill().await;
    pause.abort();
    kube.rules().clear();
    env.operator.restart().await.expect("the operator comes back");
    until_nothing_is_owed(&env).await;
    assert_eq!(seen(&env, "Deployment", "web").await, (Some(second.clone()), 2));

    // It is held up just before, and another one does it meanwhile.
    let pause = kube.rules().pause(KubeRule::on("patch", "deployments").nth(1));
    let (_, third) = rotate(&env).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the workload is about to be restarted");
    let other = env.another_operator("other").await;
    until_restarted(&env, "Deployment", "web", &third).await;
    pause.release();
    until_nothing_is_owed(&env).await;
    other.stop(TIMEOUT).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    assert_eq!(seen(&env, "Deployment", "web").await, (Some(third), 3));
}

pub(crate) async fn failed_workload_restart_is_reported_and_blocks_nothing() {
    let env = TestEnv::new().await;
    workload(&env, "Deployment", "web").await;
    env.apply("x", restarting("1h", &[("Deployment", "web"), ("Deployment", "gone")])).await;
    env.ready("x").await;
    let (_, new) = rotate(&env).await;
    let user = env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RestartFailed)).await;
    let told = message(&user, ConditionType::RotationHealthy);
    let command = format!(
        "restartAccess.namespaces, or run: kubectl -n {} create rolebinding aws-deploy-user-operator-restarts",
        env.namespace
    );
    assert!(told.contains(&command), "{told}");
    env.ready("x").await;
    env.apply("y", json!({"userName": "other"})).await;
    env.ready("y").await;

    env.grant_restarts().await;
    let _kubelet = Kubelet::start(&env);
    until_restarted(&env, "Deployment", "web", &new).await;
    let missing = |user: &awsdeploy::api::AwsDeployUser| {
        let told = message(user, ConditionType::RotationHealthy);
        told.contains("Deployment gone does not exist in namespace") && !told.contains("web")
    };
    env.until("x", "missing one workload", missing).await;
    // Made now, its pods have the new key from the start.
    workload(&env, "Deployment", "gone").await;
    until_nothing_is_owed(&env).await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    assert_eq!(seen(&env, "Deployment", "gone").await, (None, 1));
}

pub(crate) async fn stuck_rollout_keeps_the_previous_key_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--restart-hold=20s"]).await;
    env.grant_restarts().await;
    workload(&env, "Deployment", "web").await;
    env.apply("x", restarting("1s", &[("Deployment", "web")])).await;
    env.ready("x").await;
    let (old, new) = rotate(&env).await;
    until_restarted(&env, "Deployment", "web", &new).await;
    let user = env.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RolloutStuck)).await;
    let retires = user.status.iter().flat_map(|status| &status.access_keys).find_map(|key| key.retires_at);
    let published = user.status.as_ref().and_then(|status| status.last_rotation_time).expect("a publication");
    assert_eq!(retires.map(|at| at.duration_since(published).as_secs()), Some(21), "overlap and --restart-hold");
    until_retired(&env, &old).await;
    assert!(env.event("x", Reason::KeyDeactivated).await.contains("not rolled out"));
    let told = |user: &awsdeploy::api::AwsDeployUser| {
        message(user, ConditionType::RotationHealthy).contains("is not Active any more")
    };
    env.until("x", "told that its pods are refused", told).await;
    // And the next rotation comes all the same.
    let (_, newer) = rotate(&env).await;
    until_restarted(&env, "Deployment", "web", &newer).await;
}

pub(crate) async fn workload_restart_changes_only_its_annotation() {
    let env = TestEnv::new().await;
    workload(&env, "Deployment", "web").await;
    let operator: Api<Deployment> = Api::namespaced(env.as_operator().await, &env.namespace);
    assert!(operator.get("web").await.is_err(), "where nobody has granted it, it cannot even read");
    env.grant_restarts().await;
    let patch = async |patch: Value| {
        let patched = operator.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|error| error.to_string())
    };
    let template = |template: Value| json!({"spec": {"template": template}});
    // RBAC and admission learn of things by watches of their own.
    let own = template(json!({"metadata": {"annotations": {"key.awsdeploy.dev/x": "K"}}}));
    let granted = async || patch(own.clone()).await.ok();
    eventually("a restart", granted, String::new).await;
    for (change, told) in [
        (template(json!({"spec": {"containers": [{"name": "c", "image": "evil"}]}})), "changes nothing else"),
        (json!({"spec": {"replicas": 50}}), "changes nothing else"),
        (json!({"spec": {"paused": true}}), "changes nothing else"),
        (json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}), "changes nothing else"),
        (json!({"metadata": {"labels": {"more": "x"}}}), "changes nothing else"),
        (json!({"metadata": {"finalizers": ["example.com/never"]}}), "changes nothing else"),
        (template(json!({"metadata": {"annotations": {"other": "x"}}})), "no annotation of a pod template but"),
        (
            template(json!({"metadata": {"annotations": {"key.awsdeploy.dev/x": null, "seccomp": "x"}}})),
            "no annotation of a pod template but",
        ),
        (template(json!({"metadata": {"labels": {"more": "x"}}})), "changes nothing else"),
    ] {
        let refused = patch(change.clone()).await.expect_err("refused");
        assert!(refused.contains(told), "{change}: {refused}");
    }
    let more = Patch::Merge(json!({"spec": {"replicas": 5}}));
    assert!(operator.patch_scale("web", &PatchParams::default(), &more).await.is_err());
}
