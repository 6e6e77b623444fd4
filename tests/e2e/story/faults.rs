//! Pods of the operator that go, in the three ways in which pods go.

use awsdeploy_testkit::{aws_proxy::Rule, wait::eventually};
use kube::ResourceExt;

use crate::world::{RELEASE, SOON, World};

pub(crate) async fn the_standby_takes_over_from_a_deleted_leader_pod(world: &mut World) {
    let key = world.published().await;
    let leader = world.leader().await.name_any();
    world.shell.shown(&format!("kubectl -n {RELEASE} delete pod {leader} --wait=false")).await;
    world.ask_for_a_key().await;
    world.until_another_key_is_used(&key).await;
    let next = world.leader().await.name_any();
    assert_ne!(next, leader, "another pod leads");
    world.until_one_key_is_left().await;
    settled(world).await;
}

/// At the worst moment: AWS has made the key, and the operator does not know it.
pub(crate) async fn an_operator_killed_on_its_node_leaves_no_key_behind(world: &mut World) {
    let key = world.published().await;
    let made = world.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    world.ask_for_a_key().await;
    assert!(made.wait_until_held(SOON).await, "a key is made, and its answer is on the way");
    let leader = world.leader().await;
    let process = world.process_of(&leader).await;
    world.shell.shown(&format!("kill -9 {process}   # {} on its node", leader.name_any())).await;
    made.release();
    world.until_another_key_is_used(&key).await;
    world.until_one_key_is_left().await;
    settled(world).await;
    let restarts = async || {
        let pods = world.operator_pods().await;
        let pod = pods.into_iter().find(|pod| pod.name_any() == leader.name_any())?;
        let container = pod.status?.container_statuses?.into_iter().next()?;
        (container.restart_count >= 1 && container.ready).then_some(())
    };
    eventually("the kubelet to start it again", SOON, restarts).await.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) async fn a_rollout_restart_in_the_middle_of_a_rotation_loses_nothing(world: &mut World) {
    let key = world.published().await;
    let made = world.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    world.ask_for_a_key().await;
    assert!(made.wait_until_held(SOON).await, "a key is made, and its answer is on the way");
    let before: Vec<_> = world.operator_pods().await.iter().map(ResourceExt::name_any).collect();
    world.shell.shown(&format!("kubectl -n {RELEASE} rollout restart deployment/{RELEASE}")).await;
    let another = async || {
        let pods = world.operator_pods().await;
        pods.iter().any(|pod| !before.contains(&pod.name_any())).then_some(())
    };
    eventually("a new pod", SOON, another).await.unwrap_or_else(|error| panic!("{error}"));
    made.release();
    settled(world).await;
    world.until_another_key_is_used(&key).await;
    world.until_one_key_is_left().await;
}

/// Waits until all pods of the operator are up to date and ready.
pub(crate) async fn settled(world: &World) {
    let command = format!("kubectl -n {RELEASE} rollout status deployment/{RELEASE} --timeout=180s");
    world.shell.shown(&command).await;
}
