//! Life cycle of the release: upgrade, rollback, uninstall with and without resources.

use std::fs;

use awsdeploy::api::AwsDeployUser;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, LogPosition, Rule},
    wait::eventually,
};
use kube::{Api, ResourceExt as _};

use super::{
    faults::wait_for_rollout,
    install,
    keys::{UNCHANGED, UNCHANGED_IAM_USER, readme_manifest},
};
use crate::{
    environment::{E2eEnv, NAMESPACE, RELEASE, TIMEOUT, USER},
    summary::seconds,
    version::Version,
    workload::POD,
};

/// Value under `settings` that the upgrade changes.
const CHANGED_SETTING: &str = "secretCheck";

pub(crate) async fn upgrade_during_rotation_loses_no_key(env: &mut E2eEnv) {
    let current = env.current.clone();
    let command = format!(
        "helm upgrade {RELEASE} {} --namespace {RELEASE} --reset-then-reuse-values --set image.tag={} \
         --set settings.{CHANGED_SETTING}=30s | sed -n 1,4p",
        current.chart(),
        current.tag
    );
    change_release_during_rotation(env, &command, &current).await;
    assert!(arguments(env).await.contains("--secret-check=30s"), "{}", arguments(env).await);
    // Apply fields that the previous version does not know, which it must tolerate after the rollback.
    install::apply_classes(env, &current).await;
}

pub(crate) async fn rollback_during_rotation_loses_no_key(env: &mut E2eEnv) {
    let (current, first) = (env.current.clone(), env.first().clone());
    let command = format!("helm rollback {RELEASE} 1 --namespace {RELEASE}");
    change_release_during_rotation(env, &command, &first).await;
    let revision = format!("helm history {RELEASE} --namespace {RELEASE} --output json");
    let history: serde_json::Value = serde_json::from_str(&env.shell.output_of(&revision).await).expect("JSON");
    let revisions = history.as_array().map(Vec::len).unwrap_or_default();
    // Roll forward to the revision before the rollback.
    let forward = format!("helm rollback {RELEASE} {} --namespace {RELEASE} --wait --timeout 4m", revisions - 1);
    env.shell.run_printed(&forward).await;
    // The previous version dropped unknown fields of classes when it wrote their status.
    install::apply_classes(env, &current).await;
    wait_for_rollout(env).await;
    assert_version(env, &current).await;
}

/// Changes the release to `version` while the response to `CreateAccessKey` is held, and then drops it. The new leader
/// must recover the attempt from the journal.
async fn change_release_during_rotation(env: &mut E2eEnv, command: &str, version: &Version) {
    let (key, before) = (env.published().await, env.aws.log().position());
    let create = env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    env.request_rotation().await;
    assert!(create.wait_until_held(TIMEOUT).await, "CreateAccessKey is committed, and its response is held");
    let old_leader = env.leader().await.name_any();
    env.shell.run_printed(command).await;
    let another = async || (env.leader().await.name_any() != old_leader).then_some(());
    eventually("another pod to become the leader", TIMEOUT, another).await.unwrap_or_else(|error| panic!("{error}"));
    create.abort();
    wait_for_rollout(env).await;
    assert_version(env, version).await;
    let new = env.wait_for_new_key_in_use(&key).await.key;
    env.wait_for_single_key().await;
    let mut writes = env.aws.log().mutating_calls_since(before).into_iter();
    let lost = writes.find(|call| call.action == "CreateAccessKey");
    let lost = lost.and_then(|call| call.access_key).expect("the key whose response was lost");
    assert_ne!(lost, new, "a key without a known secret is not published");
    assert_unchanged_resource_was_not_written(env, before).await;
}

pub(crate) async fn rollback_keeps_the_published_key(env: &mut E2eEnv) {
    let (key, first) = (env.published().await, env.first().clone());
    let before = env.aws.log().position();
    env.shell.run_printed(&format!("helm rollback {RELEASE} 1 --namespace {RELEASE} --wait --timeout 4m")).await;
    env.shell.run_printed(&format!("helm history {RELEASE} --namespace {RELEASE}")).await;
    wait_for_rollout(env).await;
    assert!(!arguments(env).await.contains("--secret-check"), "{}", arguments(env).await);
    assert_version(env, &first).await;
    assert_key_is_kept_and_rotates(env, &key, before).await;
}

pub(crate) async fn second_upgrade_applies_values_and_keeps_the_key(env: &mut E2eEnv) {
    let (key, current) = (env.published().await, env.current.clone());
    let before = env.aws.log().position();
    install::write_values(env, &current);
    let command = format!(
        "helm upgrade {RELEASE} {} --namespace {RELEASE} --values $RUN/values.json --wait --timeout 4m | sed -n 1,4p",
        current.chart()
    );
    env.shell.run_printed(&command).await;
    wait_for_rollout(env).await;
    assert_version(env, &current).await;
    assert_key_is_kept_and_rotates(env, &key, before).await;
    let memory = install::idle_memory(env).await;
    if env.previous.is_some() {
        env.summary.add("idle memory", memory);
    }
}

/// Asserts that the published key is kept and the unchanged resource is not written, then rotates the key.
async fn assert_key_is_kept_and_rotates(env: &mut E2eEnv, key: &str, before: LogPosition) {
    assert_unchanged_resource_was_not_written(env, before).await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu --all --timeout=180s")).await;
    assert_eq!(env.published().await, key, "a new operator does not rotate");
    env.request_rotation().await;
    env.wait_for_new_key_in_use(key).await;
    env.wait_for_single_key().await;
    assert_unchanged_resource_was_not_written(env, before).await;
}

/// Asserts that a comparison by the running version did not write for the unchanged resource.
async fn assert_unchanged_resource_was_not_written(env: &E2eEnv, since: LogPosition) {
    let of_it = |call: &CallRecord| call.user.as_deref() == Some(UNCHANGED_IAM_USER);
    // A read of this user, or a bulk read of the account.
    let compared = |call: &CallRecord| of_it(call) || call.action == "GetAccountAuthorizationDetails";
    env.aws.log().wait_since(since, "a comparison", TIMEOUT, compared).await.unwrap_or_else(|error| panic!("{error}"));
    let writes: Vec<_> = env.aws.log().mutating_calls_since(env.unchanged_since).into_iter().filter(of_it).collect();
    assert!(writes.is_empty(), "{UNCHANGED} was written: {writes:#?}");
}

/// Waits until all pods of the operator have this version.
async fn assert_version(env: &E2eEnv, version: &Version) {
    let images = "jsonpath='{.items[*].spec.containers[0].image}'";
    let pods = format!("kubectl -n {RELEASE} get pods --selector app.kubernetes.io/name={RELEASE} --output {images}");
    let running = async || {
        let images = env.shell.output_of(&pods).await;
        images.split(' ').all(|image| image.ends_with(&format!(":{}", version.tag))).then_some(())
    };
    eventually("all pods to have that version", TIMEOUT, running).await.unwrap_or_else(|error| panic!("{error}"));
}

/// The arguments of the operator in the Deployment.
async fn arguments(env: &E2eEnv) -> String {
    let path = "jsonpath='{.spec.template.spec.containers[0].args}'";
    env.shell.output_of(&format!("kubectl -n {RELEASE} get deployment {RELEASE} --output {path}")).await
}

pub(crate) async fn uninstall_keeps_published_keys_working(env: &mut E2eEnv) {
    let key = env.published().await;
    env.shell.run_printed(&format!("helm uninstall {RELEASE} --namespace {RELEASE} --wait --timeout 4m")).await;
    wait_until_pods_are_deleted(env).await;
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} get adu,secret")).await;
    assert_eq!(env.published().await, key);
    assert_eq!(env.iam().await.expect("the IAM user is there").active_keys(), [key]);
    let before = env.workload().report().accepted;
    let more = async || (env.workload().report().accepted > before + 10).then_some(());
    eventually("ten more calls of the pod", TIMEOUT, more).await.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) async fn no_call_of_the_pod_was_refused(env: &mut E2eEnv) {
    let report = env.workload().report();
    println!("{report:?}");
    let keys = report.keys.len();
    env.summary.add("calls signed by the pod", format!("{} with {keys} keys", report.accepted));
    env.summary.add("calls refused, unanswered", format!("{}, {}", report.refused, report.unanswered));
    assert_eq!((report.refused, report.unanswered), (0, 0), "{:#?}", report.refusals);
    // The log of AWS has at least as many calls; the report may lack the last second.
    let arrived = env.aws.log().calls_of("GetCallerIdentity").len() as u64;
    assert!(arrived >= report.accepted, "only {arrived} calls arrived");
    assert!(report.keys.len() > 10, "fewer than eleven keys were used: {:?}", report.keys);
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} delete pod {POD}")).await;
    env.workload = None;
}

pub(crate) async fn deletion_without_operator_completes_after_reinstall(env: &mut E2eEnv) {
    delete_without_operator(env, USER).await;
    assert!(env.iam().await.is_some(), "the IAM user is not deleted without an operator");
    let took = install::install(env, &env.current.clone()).await;
    if env.previous.is_some() {
        env.summary.add("helm install until ready", seconds(took));
    }
    wait_until_deleted(env, USER).await;
    assert_eq!(env.iam().await, None, "the IAM user is deleted");
    let secrets = env.shell.output_of(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await;
    assert_eq!(secrets, "", "the Secret is deleted");
}

/// Removes the finalizer of a pending deletion manually, as described in docs/operations.md. The IAM user remains, and
/// an operator that is installed later does not change it.
pub(crate) async fn manually_removed_finalizer_keeps_the_iam_user(env: &mut E2eEnv) {
    let users = env.aws.inspector();
    let user = users.user(UNCHANGED_IAM_USER).await.expect("the IAM user can be read").expect("the IAM user is there");
    delete_without_operator(env, UNCHANGED).await;
    env.shell.run_printed(&documented_finalizer_patch().replace(USER, UNCHANGED)).await;
    wait_until_deleted(env, UNCHANGED).await;
    let secrets = async || {
        let secrets = env.shell.output_of(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await;
        (!secrets.contains(UNCHANGED)).then_some(())
    };
    eventually("its Secret to be deleted", TIMEOUT, secrets).await.unwrap_or_else(|error| panic!("{error}"));
    let left = users.user(UNCHANGED_IAM_USER).await.expect("the IAM user can be read");
    assert_eq!(left.as_ref(), Some(&user), "the IAM user is unchanged");
}

/// Deletes a resource while no operator runs, and asserts that its finalizer blocks the deletion.
async fn delete_without_operator(env: &E2eEnv, name: &str) {
    env.shell.run_printed(&format!("kubectl -n {NAMESPACE} delete adu {name} --wait=false")).await;
    let user = users(env).get(name).await.expect("the resource is there");
    assert!(user.metadata.deletion_timestamp.is_some() && !user.finalizers().is_empty(), "{:?}", user.metadata);
}

fn users(env: &E2eEnv) -> Api<AwsDeployUser> {
    Api::namespaced(env.client.clone(), NAMESPACE)
}

/// The command of docs/operations.md that removes the finalizer.
fn documented_finalizer_patch() -> String {
    let operations = Version::current().text("docs/operations.md");
    let command = operations.lines().find(|line| line.contains("kubectl") && line.contains("\"finalizers\":null"));
    command.expect("docs/operations.md has the command").trim().to_owned()
}

pub(crate) async fn documented_removal_leaves_no_objects(env: &mut E2eEnv) {
    let manifest = readme_manifest(&env.current, "defang");
    fs::write(env.directory().join("defang.yaml"), manifest).expect("a file");
    env.shell.run_printed("kubectl apply -f $RUN/defang.yaml").await;
    env.shell
        .run_printed(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/defang --timeout=180s"))
        .await;
    for command in documented_removal() {
        env.shell.run_printed(&command).await;
    }
    let left = env.aws.inspector().user_names().await.expect("IAM users can be listed");
    assert_eq!(left, [UNCHANGED_IAM_USER], "only the deliberately kept IAM user remains");
    let kinds = "all,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget,\
        clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";
    wait_until_pods_are_deleted(env).await;
    let left = format!("kubectl get {kinds} --all-namespaces --selector app.kubernetes.io/instance={RELEASE}");
    let left = env.shell.output_of(&format!("{left} --output name")).await;
    assert_eq!(left, "", "no object of the release remains");
    assert_eq!(env.shell.output_of("kubectl get crds --output name | grep awsdeploy.dev || true").await, "");
    assert_eq!(env.shell.output_of(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await, "");
    env.shell.run_printed(&format!("kubectl -n {RELEASE} get all,lease,secret,configmap")).await;
}

/// The removal commands of the chart's README.
fn documented_removal() -> Vec<String> {
    let readme = Version::current().text("charts/aws-deploy-user-operator/README.md");
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains("helm uninstall")).expect("the README has the commands");
    let commands: Vec<_> = block.lines().map(str::to_owned).collect();
    assert!(commands.len() > 1, "resources first, then the release: {commands:?}");
    commands
}

async fn wait_until_pods_are_deleted(env: &E2eEnv) {
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    env.shell
        .run_printed(&format!("kubectl -n {RELEASE} wait --for=delete pod --selector {selector} --timeout=180s"))
        .await;
}

async fn wait_until_deleted(env: &E2eEnv, name: &str) {
    let users = users(env);
    let probe = async || users.get_opt(name).await.is_ok_and(|user| user.is_none()).then_some(());
    eventually("the resource to be deleted", TIMEOUT, probe).await.unwrap_or_else(|error| panic!("{error}"));
}
