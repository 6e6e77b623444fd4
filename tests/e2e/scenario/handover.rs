//! A consumer outside of the cluster, which an agent hands each new key to.

use awsdeploy::api::{AwsDeployUser, user::AccessKeyState};
use awsdeploy_testkit::wait::eventually;
use jiff::SignedDuration;
use kube::Api;

use crate::environment::{E2eEnv, NAMESPACE, TIMEOUT, USER};

/// The ServiceAccount of `examples/handover/cycle`, which the chart limits to confirmations.
pub(super) const AGENT: &str = "system:serviceaccount:deploy:cycle-handover";
const CONSUMER: &str = "cycle-hub";

pub(crate) async fn previous_key_waits_for_the_agents_confirmation(env: &mut E2eEnv) {
    let rights = env.current.path_of("examples/handover/cycle/cronjob.yaml");
    // Without its CronJob: the image has to be pulled, and the hub is not reachable. The test acts as the agent.
    env.shell.run_printed(&format!("kubectl apply -f {rights}")).await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} delete cronjob cycle-handover")).await;
    let consumers = format!(r#"[{{"name":"{CONSUMER}","within":"1h"}}]"#);
    patch(env, &format!(r#"{{"rotation":{{"every":"30d","overlap":"10s"}},"handover":{consumers}}}"#)).await;
    let old = env.published().await;
    confirm(env, &old).await;

    env.request_rotation().await;
    let new = env.wait_for_new_key_in_use(&old).await.key;
    // The agent repeats what it did before: the previous key confirms nothing.
    confirm(env, &old).await;
    let user = awaited(env, &old).await;
    let status = user.status.expect("a status");
    let previous = status.access_keys.iter().find(|key| key.id == old).expect("the previous key");
    let ends = previous.retires_at.expect("a time").duration_since(status.last_rotation_time.expect("a time"));
    assert!(ends > SignedDuration::from_mins(59), "it is kept for {ends}, far beyond its overlap");
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} get adu {USER} --output wide")).await;
    assert_eq!(env.iam().await.expect("the IAM user is there").active_keys().len(), 2);

    let revocation = format!("kubectl -n {NAMESPACE} --as {AGENT} patch adu {USER} --type merge -p");
    let refused = env.shell.run(&format!(r#"{revocation} '{{"spec":{{"credentials":"Revoked"}}}}'"#)).await;
    let refused = refused.expect_err("the agent may only confirm").to_string();
    assert!(refused.contains("must change nothing of an AwsDeployUser but annotations"), "{refused}");
    confirm(env, &new).await;
    env.wait_for_single_key().await;
    assert_eq!(env.published().await, new);
    let report = env.workload().report();
    assert_eq!(report.refused, 0, "{report:?}");
    patch(env, r#"{"rotation":{"every":"30d","overlap":"30s"},"handover":null}"#).await;
    env.shell.run_printed(&format!("kubectl delete -f {rights} --ignore-not-found")).await;
}

async fn patch(env: &E2eEnv, access_key: &str) {
    let patch = format!(r#"{{"spec":{{"accessKey":{access_key}}}}}"#);
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} patch adu {USER} --type merge -p '{patch}'")).await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=180s"))
        .await;
}

/// Confirms as the agent.
async fn confirm(env: &E2eEnv, key: &str) {
    let annotation = format!("handover.awsdeploy.dev/{CONSUMER}={key}");
    let command = format!("kubectl -n {NAMESPACE} --as {AGENT} annotate adu {USER} --overwrite {annotation}");
    env.shell.run_printed(&command).await;
}

/// The resource while its previous key waits for the consumer.
async fn awaited(env: &E2eEnv, previous: &str) -> AwsDeployUser {
    let users: Api<AwsDeployUser> = Api::namespaced(env.client.clone(), NAMESPACE);
    let awaits = async || {
        let user = users.get_opt(USER).await.ok()??;
        let status = user.status.as_ref()?;
        let waits = status.conditions.iter().any(|condition| condition.reason == "AwaitingHandover");
        let held = status.access_keys.iter().any(|key| key.id == previous && key.state == AccessKeyState::Superseded);
        (waits && held).then(|| user.clone())
    };
    eventually("the handover to be awaited", TIMEOUT, awaits).await.unwrap_or_else(|error| panic!("{error}"))
}
