//! Deleted, killed and restarted pods of the operator.

use awsdeploy_testkit::{aws_proxy::Rule, wait::eventually};
use kube::ResourceExt;

use crate::environment::{E2eEnv, RELEASE, TIMEOUT};

pub(crate) async fn standby_takes_over_after_leader_pod_is_deleted(env: &mut E2eEnv) {
    let key = env.published().await;
    let leader = env.leader().await.name_any();
    env.shell.run_printed(&format!("kubectl -n {RELEASE} delete pod {leader} --wait=false")).await;
    env.request_rotation().await;
    env.wait_for_new_key_in_use(&key).await;
    let next = env.leader().await.name_any();
    assert_ne!(next, leader, "another pod is the leader");
    env.wait_for_single_key().await;
    wait_for_rollout(env).await;
}

/// The operator is killed after AWS created the key and before the operator receives the response.
pub(crate) async fn killed_operator_leaves_no_orphaned_key(env: &mut E2eEnv) {
    let key = env.published().await;
    let create = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.request_rotation().await;
    assert!(create.wait_until_held(TIMEOUT).await, "CreateAccessKey is committed, and its response is held");
    let leader = env.leader().await;
    let process = env.process_of(&leader).await;
    env.shell.run_printed(&format!("kill -9 {process}   # {} on its node", leader.name_any())).await;
    create.release();
    env.wait_for_new_key_in_use(&key).await;
    env.wait_for_single_key().await;
    wait_for_rollout(env).await;
    let restarts = async || {
        let pods = env.operator_pods().await;
        let pod = pods.into_iter().find(|pod| pod.name_any() == leader.name_any())?;
        let container = pod.status?.container_statuses?.into_iter().next()?;
        (container.restart_count >= 1 && container.ready).then_some(())
    };
    eventually("the kubelet to restart the container", TIMEOUT, restarts)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) async fn rollout_restart_during_rotation_loses_no_key(env: &mut E2eEnv) {
    let key = env.published().await;
    let create = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.request_rotation().await;
    assert!(create.wait_until_held(TIMEOUT).await, "CreateAccessKey is committed, and its response is held");
    let before: Vec<_> = env.operator_pods().await.iter().map(ResourceExt::name_any).collect();
    env.shell.run_printed(&format!("kubectl -n {RELEASE} rollout restart deployment/{RELEASE}")).await;
    let another = async || {
        let pods = env.operator_pods().await;
        pods.iter().any(|pod| !before.contains(&pod.name_any())).then_some(())
    };
    eventually("a new pod", TIMEOUT, another).await.unwrap_or_else(|error| panic!("{error}"));
    create.release();
    wait_for_rollout(env).await;
    env.wait_for_new_key_in_use(&key).await;
    env.wait_for_single_key().await;
}

/// Waits for the rollout of the operator.
pub(crate) async fn wait_for_rollout(env: &E2eEnv) {
    let command = format!("kubectl -n {RELEASE} rollout status deployment/{RELEASE} --timeout=180s");
    env.shell.run_printed(&command).await;
}
