//! Workloads are restarted for a new key. The Kubernetes controllers roll them out; the test acts as the kubelet and
//! sets pods to ready.

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

fn spec_with_restarts(overlap: &str, targets: &[(&str, &str)]) -> Value {
    let targets: Vec<Value> = targets.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect();
    json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": overlap}, "restart": targets}})
}

/// Creates a workload of one pod that reads the key from its environment.
async fn create_workload(env: &TestEnv, kind: &str, name: &str) {
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

/// The key that a workload was restarted for, and its generation.
async fn restart_state(env: &TestEnv, kind: &str, name: &str) -> (Option<String>, i64) {
    let found = workloads(env, kind).get(name).await.expect("the workload");
    let key = &found.data["spec"]["template"]["metadata"]["annotations"][ANNOTATION];
    (key.as_str().map(str::to_owned), found.metadata.generation.unwrap_or_default())
}

async fn wait_restarted(env: &TestEnv, kind: &str, name: &str, key: &str) {
    let probe = async || (restart_state(env, kind, name).await.0.as_deref() == Some(key)).then_some(());
    eventually(&format!("{kind} {name} is restarted"), probe, || env.log()).await;
}

/// Sets every pod to ready until it is dropped.
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
                        // A pod that is being replaced may be deleted by now.
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

/// Requests a rotation. Returns the previous and the new key.
async fn rotate(env: &TestEnv) -> (String, String) {
    let old = env.published_key("x").await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, &old).await;
    let new = env.wait_published("x", &old).await;
    (old, new)
}

async fn wait_retired(env: &TestEnv, key: &str) {
    let retired = |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| {
        user.key(key).is_none_or(|key| key.state == KeyState::Inactive)
    };
    env.wait_for_iam("u", "the previous key is retired", retired).await;
}

/// Waits until the Secret records no pending restart.
async fn wait_restarts_complete(env: &TestEnv) {
    let probe = async || {
        let secret = env.secrets().get("x").await.expect("the Secret");
        (!secret.annotations().contains_key(well_known::ANNOTATION_RESTARTS)).then_some(())
    };
    eventually("every rollout is complete", probe, || env.log()).await;
}

pub(crate) async fn previous_key_is_kept_until_workloads_restarted_once() {
    const ALL: [(&str, &str); 3] = [("Deployment", "web"), ("StatefulSet", "db"), ("DaemonSet", "agent")];
    let env = TestEnv::new().await;
    env.grant_restarts().await;
    for (kind, name) in ALL {
        create_workload(&env, kind, name).await;
    }
    env.apply("x", spec_with_restarts("2s", &ALL)).await;
    env.wait_ready("x").await;
    let (old, new) = rotate(&env).await;
    for (kind, name) in ALL {
        wait_restarted(&env, kind, name, &new).await;
        assert_eq!(
            restart_state(&env, kind, name).await.1,
            2,
            "{kind} {name}: not for the first key, and once for the second"
        );
    }
    assert!(env.wait_for_event("x", Reason::Restarted).await.contains(&new));
    // No pod becomes ready, so the previous key is kept after the overlap.
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RolloutStuck)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    for part in ["Deployment web: ", "StatefulSet db: ", &old, "at most"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("DaemonSet"), "there is no node, so there is no pod to wait for: {text}");
    env.wait_ready("x").await;
    assert!(env.iam("u").await.active_keys().contains(&old.as_str()), "the key of the pods still works");
    assert!(env.wait_for_event("x", Reason::RolloutStuck).await.contains("web"));

    let _kubelet = Kubelet::start(&env);
    wait_restarts_complete(&env).await;
    wait_retired(&env, &old).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let mut changed = spec_with_restarts("2s", &ALL);
    changed["accessKey"]["secret"] = json!({"formats": ["Environment", "Csv"]});
    env.apply("x", changed).await;
    env.wait_ready("x").await;
    assert_eq!(env.published_key("x").await, new);
    for (kind, name) in ALL {
        assert_eq!(
            restart_state(&env, kind, name).await,
            (Some(new.clone()), 2),
            "{kind} {name}: only a new key restarts it"
        );
    }
}

pub(crate) async fn crash_or_second_leader_restarts_no_workload_twice() {
    let mut env = TestEnv::with_options(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await;
    let kube = env.kube.take().expect("a Kubernetes proxy");
    env.grant_restarts().await;
    create_workload(&env, "Deployment", "web").await;
    let _kubelet = Kubelet::start(&env);
    env.apply("x", spec_with_restarts("2s", &[("Deployment", "web")])).await;
    env.wait_ready("x").await;

    // The operator is killed between the restart and its record.
    let pause = kube.rules().pause(KubeRule::on("patch", "deployments").nth(1).after_commit());
    let (_, second) = rotate(&env).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the workload is restarted and the response pending");
    env.operator.kill().await;
    pause.abort();
    kube.rules().clear();
    env.operator.restart().await.expect("the operator restarts");
    wait_restarts_complete(&env).await;
    assert_eq!(restart_state(&env, "Deployment", "web").await, (Some(second.clone()), 2));

    // The operator is paused just before the restart, and another one performs it meanwhile.
    let pause = kube.rules().pause(KubeRule::on("patch", "deployments").nth(1));
    let (_, third) = rotate(&env).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the workload is about to be restarted");
    let other = env.start_another_operator("other").await;
    wait_restarted(&env, "Deployment", "web", &third).await;
    pause.release();
    wait_restarts_complete(&env).await;
    other.stop(TIMEOUT).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    assert_eq!(restart_state(&env, "Deployment", "web").await, (Some(third), 3));
}

pub(crate) async fn failed_workload_restart_is_reported_and_blocks_nothing() {
    let env = TestEnv::new().await;
    create_workload(&env, "Deployment", "web").await;
    env.apply("x", spec_with_restarts("1h", &[("Deployment", "web"), ("Deployment", "absent")])).await;
    env.wait_ready("x").await;
    let (_, new) = rotate(&env).await;
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RestartFailed)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    let command = format!(
        "restartAccess.namespaces, or run: kubectl -n {} create rolebinding aws-deploy-user-operator-restarts",
        env.namespace
    );
    assert!(text.contains(&command), "{text}");
    env.wait_ready("x").await;
    env.apply("y", json!({"userName": "other"})).await;
    env.wait_ready("y").await;

    env.grant_restarts().await;
    let _kubelet = Kubelet::start(&env);
    wait_restarted(&env, "Deployment", "web", &new).await;
    let missing = |user: &awsdeploy::api::AwsDeployUser| {
        let text = message(user, ConditionType::RotationHealthy);
        text.contains("Deployment absent does not exist in namespace") && !text.contains("web")
    };
    env.wait_until("x", "missing one workload", missing).await;
    // Pods of a workload created now have the new key from the start.
    create_workload(&env, "Deployment", "absent").await;
    wait_restarts_complete(&env).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::Overlap)).await;
    assert_eq!(restart_state(&env, "Deployment", "absent").await, (None, 1));
}

pub(crate) async fn stuck_rollout_keeps_the_previous_key_for_a_bounded_time() {
    let env = TestEnv::with_arguments(&["--restart-hold=20s"]).await;
    env.grant_restarts().await;
    create_workload(&env, "Deployment", "web").await;
    env.apply("x", spec_with_restarts("1s", &[("Deployment", "web")])).await;
    env.wait_ready("x").await;
    let (old, new) = rotate(&env).await;
    wait_restarted(&env, "Deployment", "web", &new).await;
    let user = env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::RolloutStuck)).await;
    let retires = user.status.iter().flat_map(|status| &status.access_keys).find_map(|key| key.retires_at);
    let published = user.status.as_ref().and_then(|status| status.last_rotation_time).expect("a publication");
    assert_eq!(retires.map(|at| at.duration_since(published).as_secs()), Some(21), "overlap and --restart-hold");
    wait_retired(&env, &old).await;
    assert!(env.wait_for_event("x", Reason::KeyDeactivated).await.contains("not rolled out"));
    let reported = |user: &awsdeploy::api::AwsDeployUser| {
        message(user, ConditionType::RotationHealthy).contains("is not Active any more")
    };
    env.wait_until("x", "reporting that its pods are refused", reported).await;
    // The next rotation is not blocked.
    let (_, newer) = rotate(&env).await;
    wait_restarted(&env, "Deployment", "web", &newer).await;
}

pub(crate) async fn workload_restart_changes_only_its_annotation() {
    let env = TestEnv::new().await;
    create_workload(&env, "Deployment", "web").await;
    let operator: Api<Deployment> = Api::namespaced(env.operator_client().await, &env.namespace);
    assert!(operator.get("web").await.is_err(), "it cannot even read without permission");
    env.grant_restarts().await;
    let patch = async |patch: Value| {
        let patched = operator.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|error| error.to_string())
    };
    let template = |template: Value| json!({"spec": {"template": template}});
    // RBAC and admission are cached by watches and take effect late.
    let own = template(json!({"metadata": {"annotations": {"key.awsdeploy.dev/x": "K"}}}));
    let granted = async || patch(own.clone()).await.ok();
    eventually("a restart", granted, String::new).await;
    for (change, text) in [
        (
            template(json!({"spec": {"containers": [{"name": "c", "image": "evil"}]}})),
            "must not change anything in a workload except",
        ),
        (json!({"spec": {"replicas": 50}}), "must not change anything in a workload except"),
        (json!({"spec": {"paused": true}}), "must not change anything in a workload except"),
        (
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
            "must not change anything in a workload except",
        ),
        (json!({"metadata": {"labels": {"more": "x"}}}), "must not change anything in a workload except"),
        (json!({"metadata": {"finalizers": ["example.com/never"]}}), "must not change anything in a workload except"),
        (
            template(json!({"metadata": {"annotations": {"other": "x"}}})),
            "must not write annotations of a pod template other than",
        ),
        (
            template(json!({"metadata": {"annotations": {"key.awsdeploy.dev/x": null, "seccomp": "x"}}})),
            "must not write annotations of a pod template other than",
        ),
        (template(json!({"metadata": {"labels": {"more": "x"}}})), "must not change anything in a workload except"),
    ] {
        let refused = patch(change.clone()).await.expect_err("refused");
        assert!(refused.contains(text), "{change}: {refused}");
    }
    let more = Patch::Merge(json!({"spec": {"replicas": 5}}));
    assert!(operator.patch_scale("web", &PatchParams::default(), &more).await.is_err());
}
