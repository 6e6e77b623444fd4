//! The life of the release: upgraded, rolled back, upgraded again, uninstalled with and without live resources.

use std::fs;

use awsdeploy::api::AwsDeployUser;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, LogPosition, Rule},
    wait::eventually,
};
use kube::{Api, ResourceExt as _};

use super::{
    faults::settled,
    install,
    keys::{PEACEFUL, PEACEFUL_USER, readme_manifest},
};
use crate::{
    summary::seconds,
    version::Version,
    workload::POD,
    world::{NAMESPACE, RELEASE, SOON, USER, World},
};

/// The value that the upgrade changes.
const CHANGED: &str = "secretCheck";

pub(crate) async fn an_upgrade_in_the_middle_of_a_rotation_loses_nothing(world: &mut World) {
    let today = world.today.clone();
    let command = format!(
        "helm upgrade {RELEASE} {} --namespace {RELEASE} --reset-then-reuse-values --set image.tag={} \
         --set settings.{CHANGED}=30s | sed -n 1,4p",
        today.chart(),
        today.tag
    );
    in_the_middle_of_a_rotation(world, &command, &today).await;
    assert!(arguments(world).await.contains("--secret-check=30s"), "{}", arguments(world).await);
    // With what the version before does not know: it has to live with that.
    install::apply_classes(world, &today).await;
}

pub(crate) async fn a_rollback_in_the_middle_of_a_rotation_loses_nothing(world: &mut World) {
    let (today, first) = (world.today.clone(), world.first().clone());
    let command = format!("helm rollback {RELEASE} 1 --namespace {RELEASE}");
    in_the_middle_of_a_rotation(world, &command, &first).await;
    let revision = format!("helm history {RELEASE} --namespace {RELEASE} --output json");
    let history: serde_json::Value = serde_json::from_str(&world.shell.word(&revision).await).expect("JSON");
    let revisions = history.as_array().map(Vec::len).unwrap_or_default();
    // To the one before the rollback: another way forward.
    let forward = format!("helm rollback {RELEASE} {} --namespace {RELEASE} --wait --timeout 4m", revisions - 1);
    world.shell.shown(&forward).await;
    // The older version has written status, and so dropped from the classes what it does not know.
    install::apply_classes(world, &today).await;
    settled(world).await;
    runs(world, &today).await;
}

/// Has the release changed to this version while AWS's answer to `CreateAccessKey` is on its way to the leader. It comes
/// to nobody: what the one has begun is in its journal, and the other reads it.
async fn in_the_middle_of_a_rotation(world: &mut World, command: &str, version: &Version) {
    let (key, before) = (world.published().await, world.aws.log().position());
    let made = world.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    world.ask_for_a_key().await;
    assert!(made.wait_until_held(SOON).await, "a key is made, and its answer is on the way");
    let asked = world.leader().await.name_any();
    world.shell.shown(command).await;
    let another = async || (world.leader().await.name_any() != asked).then_some(());
    eventually("another pod to lead", SOON, another).await.unwrap_or_else(|error| panic!("{error}"));
    made.abort();
    settled(world).await;
    runs(world, version).await;
    let new = world.until_another_key_is_used(&key).await.key;
    world.until_one_key_is_left().await;
    let mut made = world.aws.log().mutating_calls_since(before).into_iter();
    let lost = made.find(|call| call.action == "CreateAccessKey");
    let lost = lost.and_then(|call| call.access_key).expect("the key whose answer was lost");
    assert_ne!(lost, new, "a key whose secret nobody has is not published");
    nothing_was_written_for_a_resource_in_peace(world, before).await;
}

pub(crate) async fn a_rollback_goes_on_with_the_same_key(world: &mut World) {
    let (key, first) = (world.published().await, world.first().clone());
    let before = world.aws.log().position();
    world.shell.shown(&format!("helm rollback {RELEASE} 1 --namespace {RELEASE} --wait --timeout 4m")).await;
    world.shell.shown(&format!("helm history {RELEASE} --namespace {RELEASE}")).await;
    settled(world).await;
    assert!(!arguments(world).await.contains("--secret-check"), "{}", arguments(world).await);
    runs(world, &first).await;
    goes_on_with(world, &key, before).await;
}

pub(crate) async fn the_next_upgrade_takes_new_values_and_keeps_the_key(world: &mut World) {
    let (key, today) = (world.published().await, world.today.clone());
    let before = world.aws.log().position();
    install::write_values(world, &today);
    let command = format!(
        "helm upgrade {RELEASE} {} --namespace {RELEASE} --values $RUN/values.json --wait --timeout 4m | sed -n 1,4p",
        today.chart()
    );
    world.shell.shown(&command).await;
    settled(world).await;
    runs(world, &today).await;
    goes_on_with(world, &key, before).await;
    let memory = install::idle(world).await;
    if world.before.is_some() {
        world.summary.fact("memory, idle", memory);
    }
}

/// Waits until all is well, with the same key and no write for a resource that nobody touches, and replaces the key.
async fn goes_on_with(world: &mut World, key: &str, before: LogPosition) {
    nothing_was_written_for_a_resource_in_peace(world, before).await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu --all --timeout=180s")).await;
    assert_eq!(world.published().await, key, "a new operator makes no new key");
    world.ask_for_a_key().await;
    world.until_another_key_is_used(key).await;
    world.until_one_key_is_left().await;
    nothing_was_written_for_a_resource_in_peace(world, before).await;
}

/// Whoever looks at it, of whatever version, finds it as it should be and changes nothing.
async fn nothing_was_written_for_a_resource_in_peace(world: &World, since: LogPosition) {
    let of_it = |call: &CallRecord| call.user.as_deref() == Some(PEACEFUL_USER);
    // At this user alone, or at all of the account.
    let looked = |call: &CallRecord| of_it(call) || call.action == "GetAccountAuthorizationDetails";
    world.aws.log().wait_since(since, "a look", SOON, looked).await.unwrap_or_else(|error| panic!("{error}"));
    let writes: Vec<_> = world.aws.log().mutating_calls_since(world.peaceful_since).into_iter().filter(of_it).collect();
    assert!(writes.is_empty(), "{PEACEFUL} was well as it was: {writes:#?}");
}

/// All pods of the operator are of this version.
async fn runs(world: &World, version: &Version) {
    let images = "jsonpath='{.items[*].spec.containers[0].image}'";
    let pods = format!("kubectl -n {RELEASE} get pods --selector app.kubernetes.io/name={RELEASE} --output {images}");
    let running = async || {
        let images = world.shell.word(&pods).await;
        images.split(' ').all(|image| image.ends_with(&format!(":{}", version.tag))).then_some(())
    };
    eventually("pods of that version alone", SOON, running).await.unwrap_or_else(|error| panic!("{error}"));
}

/// The arguments of the operator, as the cluster has them.
async fn arguments(world: &World) -> String {
    let path = "jsonpath='{.spec.template.spec.containers[0].args}'";
    world.shell.word(&format!("kubectl -n {RELEASE} get deployment {RELEASE} --output {path}")).await
}

pub(crate) async fn an_uninstall_leaves_a_live_resource_working(world: &mut World) {
    let key = world.published().await;
    world.shell.shown(&format!("helm uninstall {RELEASE} --namespace {RELEASE} --wait --timeout 4m")).await;
    pods_are_gone(world).await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} get adu,secret")).await;
    assert_eq!(world.published().await, key);
    assert_eq!(world.iam().await.expect("the IAM user is there").active_keys(), [key]);
    let before = world.workload().report().accepted;
    let more = async || (world.workload().report().accepted > before + 10).then_some(());
    eventually("ten more calls of the pod", SOON, more).await.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) async fn no_call_of_the_pod_was_refused(world: &mut World) {
    let report = world.workload().report();
    println!("{report:?}");
    let keys = report.keys.len();
    world.summary.fact("calls signed by the pod", format!("{} with {keys} keys", report.accepted));
    world.summary.fact("calls refused, unanswered", format!("{}, {}", report.refused, report.unanswered));
    assert_eq!((report.refused, report.unanswered), (0, 0), "{:#?}", report.refusals);
    // By AWS's own count too: what the pod sent and what arrived is one number, but for the calls of the last second.
    let arrived = world.aws.log().calls_of("GetCallerIdentity").len() as u64;
    assert!(arrived >= report.accepted, "{arrived} calls arrived");
    assert!(report.keys.len() > 10, "eleven keys were in use: {:?}", report.keys);
    world.shell.shown(&format!("kubectl -n {NAMESPACE} delete pod {POD}")).await;
    world.workload = None;
}

pub(crate) async fn a_deletion_without_an_operator_waits_and_the_next_one_finishes_it(world: &mut World) {
    delete_and_see_it_wait(world, USER).await;
    assert!(world.iam().await.is_some(), "nobody is there to remove the IAM user");
    let took = install::install(world, &world.today.clone()).await;
    if world.before.is_some() {
        world.summary.fact("helm install to ready", seconds(took));
    }
    gone(world, USER).await;
    assert_eq!(world.iam().await, None, "the IAM user goes with it");
    let secrets = world.shell.word(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await;
    assert_eq!(secrets, "", "and the Secret");
}

/// The other way out of a deletion that waits: by hand, as docs/operations.md says. What is in AWS stays and belongs to no
/// resource any more; an operator that comes later leaves it alone.
pub(crate) async fn a_finalizer_that_is_taken_off_by_hand_leaves_the_iam_user(world: &mut World) {
    let users = world.aws.inspector();
    let user = users.user(PEACEFUL_USER).await.expect("the truth can be read").expect("the IAM user is there");
    delete_and_see_it_wait(world, PEACEFUL).await;
    world.shell.shown(&documented_patch().replace(USER, PEACEFUL)).await;
    gone(world, PEACEFUL).await;
    let secrets = async || {
        let secrets = world.shell.word(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await;
        (!secrets.contains(PEACEFUL)).then_some(())
    };
    eventually("its Secret to go with it", SOON, secrets).await.unwrap_or_else(|error| panic!("{error}"));
    let left = users.user(PEACEFUL_USER).await.expect("the truth can be read");
    assert_eq!(left.as_ref(), Some(&user), "in AWS all is as it was");
}

/// Deletes a resource while there is no operator: it hangs.
async fn delete_and_see_it_wait(world: &World, name: &str) {
    world.shell.shown(&format!("kubectl -n {NAMESPACE} delete adu {name} --wait=false")).await;
    let user = users(world).get(name).await.expect("the resource is there");
    assert!(user.metadata.deletion_timestamp.is_some() && !user.finalizers().is_empty(), "{:?}", user.metadata);
}

fn users(world: &World) -> Api<AwsDeployUser> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

/// The command of docs/operations.md that takes the finalizer off.
fn documented_patch() -> String {
    let operations = Version::of_today().text("docs/operations.md");
    let command = operations.lines().find(|line| line.contains("kubectl") && line.contains("\"finalizers\":null"));
    command.expect("the page has the command").trim().to_owned()
}

pub(crate) async fn a_removal_in_the_documented_order_leaves_nothing(world: &mut World) {
    let manifest = readme_manifest(&world.today, "defang");
    fs::write(world.directory().join("defang.yaml"), manifest).expect("a file");
    world.shell.shown("kubectl apply -f $RUN/defang.yaml").await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/defang --timeout=180s")).await;
    for command in documented_removal() {
        world.shell.shown(&command).await;
    }
    let left = world.aws.inspector().user_names().await.expect("the truth");
    assert_eq!(left, [PEACEFUL_USER], "no IAM user but the one that was left on purpose");
    let kinds = "all,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget,\
        clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";
    pods_are_gone(world).await;
    let left = format!("kubectl get {kinds} --all-namespaces --selector app.kubernetes.io/instance={RELEASE}");
    let left = world.shell.word(&format!("{left} --output name")).await;
    assert_eq!(left, "", "no object of the release");
    assert_eq!(world.shell.word("kubectl get crds --output name | grep awsdeploy.dev || true").await, "");
    assert_eq!(world.shell.word(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await, "");
    world.shell.shown(&format!("kubectl -n {RELEASE} get all,lease,secret,configmap")).await;
}

/// The commands of the chart's README, in their order.
fn documented_removal() -> Vec<String> {
    let readme = Version::of_today().text("charts/aws-deploy-user-operator/README.md");
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains("helm uninstall")).expect("the README tells how");
    let commands: Vec<_> = block.lines().map(str::to_owned).collect();
    assert!(commands.len() > 1, "resources first, then the release: {commands:?}");
    commands
}

async fn pods_are_gone(world: &World) {
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    world
        .shell
        .shown(&format!("kubectl -n {RELEASE} wait --for=delete pod --selector {selector} --timeout=180s"))
        .await;
}

async fn gone(world: &World, name: &str) {
    let users = users(world);
    let probe = async || users.get_opt(name).await.is_ok_and(|user| user.is_none()).then_some(());
    eventually("the resource to be gone", SOON, probe).await.unwrap_or_else(|error| panic!("{error}"));
}
