//! The life of the release: upgraded, rolled back, uninstalled with and without live resources.

use std::fs;

use awsdeploy::api::AwsDeployUser;
use awsdeploy_testkit::{aws_proxy::Rule, wait::eventually};
use kube::{Api, ResourceExt as _};

use super::{faults::settled, install, keys::readme_manifest};
use crate::{
    workload::POD,
    world::{NAMESPACE, RELEASE, SOON, USER, World},
};

/// The value that the upgrade changes.
const CHANGED: &str = "secretCheck";

pub(crate) async fn an_upgrade_in_the_middle_of_a_rotation_loses_nothing(world: &mut World) {
    let key = world.published().await;
    let made = world.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    world.ask_for_a_key().await;
    assert!(made.paused(SOON).await, "a key is made, and its answer is on the way");
    let command = format!(
        "helm upgrade {RELEASE} charts/aws-deploy-user-operator --namespace {RELEASE} --reset-then-reuse-values \
         --set settings.{CHANGED}=30s | head -n 4"
    );
    world.shell.shown(&command).await;
    made.release();
    settled(world).await;
    assert!(arguments(world).await.contains("--secret-check=30s"), "{}", arguments(world).await);
    world.until_another_key_is_used(&key).await;
    world.until_one_key_is_left().await;
}

pub(crate) async fn a_rollback_goes_on_with_the_same_key(world: &mut World) {
    let key = world.published().await;
    world.shell.shown(&format!("helm rollback {RELEASE} 1 --namespace {RELEASE} --wait --timeout 2m")).await;
    world.shell.shown(&format!("helm history {RELEASE} --namespace {RELEASE}")).await;
    settled(world).await;
    assert!(!arguments(world).await.contains("--secret-check"), "{}", arguments(world).await);
    let ready = format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/{USER} --timeout=60s");
    world.shell.shown(&ready).await;
    assert_eq!(world.published().await, key, "a new operator makes no new key");
    world.ask_for_a_key().await;
    world.until_another_key_is_used(&key).await;
    world.until_one_key_is_left().await;
}

/// The arguments of the operator, as the cluster has them.
async fn arguments(world: &World) -> String {
    let path = "jsonpath='{.spec.template.spec.containers[0].args}'";
    world.shell.word(&format!("kubectl -n {RELEASE} get deployment {RELEASE} --output {path}")).await
}

pub(crate) async fn an_uninstall_leaves_a_live_resource_working(world: &mut World) {
    let key = world.published().await;
    world.shell.shown(&format!("helm uninstall {RELEASE} --namespace {RELEASE} --wait --timeout 2m")).await;
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
    assert!(report.keys.len() > 7, "eight keys were in use: {:?}", report.keys);
    world.shell.shown(&format!("kubectl -n {NAMESPACE} delete pod {POD}")).await;
    world.workload = None;
}

pub(crate) async fn a_deletion_without_an_operator_waits_and_the_next_one_finishes_it(world: &mut World) {
    world.shell.shown(&format!("kubectl -n {NAMESPACE} delete adu {USER} --wait=false")).await;
    let user = world.user().await;
    assert!(user.metadata.deletion_timestamp.is_some() && !user.finalizers().is_empty(), "{:?}", user.metadata);
    assert!(world.iam().await.is_some(), "nobody is there to remove the IAM user");
    install::install(world).await;
    let users: Api<AwsDeployUser> = Api::namespaced(world.client.clone(), NAMESPACE);
    gone("the resource", async || users.get_opt(USER).await.is_ok_and(|user| user.is_none())).await;
    assert_eq!(world.iam().await, None, "the IAM user goes with it");
    let secrets = world.shell.word(&format!("kubectl -n {NAMESPACE} get secrets --output name")).await;
    assert_eq!(secrets, "", "and the Secret");
}

pub(crate) async fn a_removal_in_the_documented_order_leaves_nothing(world: &mut World) {
    fs::write(world.directory().join("defang.yaml"), readme_manifest("defang")).expect("a file");
    world.shell.shown("kubectl apply -f $RUN/defang.yaml").await;
    world.shell.shown(&format!("kubectl -n {NAMESPACE} wait --for=condition=Ready adu/defang --timeout=60s")).await;
    for command in documented_removal() {
        world.shell.shown(&command).await;
    }
    assert_eq!(world.aws.truth().user_names().await.expect("the truth"), [""; 0], "no IAM user");
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
    let readme = awsdeploy_testkit::tools::repository().join("charts/aws-deploy-user-operator/README.md");
    let readme = fs::read_to_string(readme).expect("the chart's README can be read");
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains("helm uninstall")).expect("the README tells how");
    let commands: Vec<_> = block.lines().map(str::to_owned).collect();
    assert!(commands.len() > 1, "resources first, then the release: {commands:?}");
    commands
}

async fn pods_are_gone(world: &World) {
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    world.shell.shown(&format!("kubectl -n {RELEASE} wait --for=delete pod --selector {selector} --timeout=90s")).await;
}

async fn gone(what: &str, probe: impl AsyncFn() -> bool) {
    let probe = async || probe().await.then_some(());
    let what = format!("{what} to be gone");
    eventually(&what, SOON, probe).await.unwrap_or_else(|error| panic!("{error}"));
}
