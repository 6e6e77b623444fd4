//! Back-off of resources that people create: a failure costs one reconcile and one write of the status, then its delay.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use awsdeploy_testkit::{
    auditor::activity::ActivityKind,
    aws_proxy::{CallRecord, Rule},
    kube_proxy::KubeRule,
};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{ApplyMethod::Kubectl, EnvOptions, TIMEOUT, TestEnv, condition, eventually, message};

/// Valid by the schema, and refused by the operator: the overlap exceeds the interval.
fn invalid_spec() -> Value {
    json!({"userName": "u", "accessKey": {"rotation": {"every": "12h", "overlap": "13h"}}})
}

/// No comparison and no check falls into the test.
const RARE: [&str; 3] = ["--resync=1h", "--secret-check=1h", "--key-check=1h"];

/// Lets a loop show: another resource is created meanwhile, which takes many reconciles.
async fn reconcile_another(env: &TestEnv, name: &str) {
    env.apply(name, json!({"userName": name})).await;
    env.wait_ready(name).await;
}

/// Reconciles and status writes, once the last reconcile has ended: its status is visible earlier.
async fn counts_after(env: &TestEnv, name: &str) -> (usize, usize) {
    let resource = format!("resource={name:?}");
    let ended = async || {
        let log = env.log();
        let last = log.lines().rfind(|line| line.contains(&resource));
        last.is_some_and(|line| line.contains("reconciled resource")).then_some(())
    };
    eventually("the reconcile has ended", ended, || env.log()).await;
    counts(env, name)
}

fn counts(env: &TestEnv, name: &str) -> (usize, usize) {
    (env.activity.count(ActivityKind::Reconcile, name), env.activity.count(ActivityKind::StatusWrite, name))
}

pub(crate) async fn invalid_spec_costs_one_reconcile_and_one_write() {
    let env = TestEnv::with_arguments(&RARE).await;
    env.apply_with(Kubectl, "x", invalid_spec()).await;
    env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidSpec)).await;
    reconcile_another(&env, "y").await;
    assert_eq!(counts(&env, "x"), (1, 1), "{}", env.log());
    // Neither what others write nor kubectl's own annotation is a change.
    env.annotate("x", "example.com/touched", "1").await;
    reconcile_another(&env, "z").await;
    assert_eq!(counts(&env, "x"), (1, 1), "{}", env.log());
}

pub(crate) async fn denied_read_waits_for_its_back_off() {
    let env = TestEnv::with_arguments(&RARE).await;
    env.aws.rules().add(Rule::on("GetUser").user("u").deny());
    env.apply_with(Kubectl, "x", json!({"userName": "u"})).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "Unknown", Some(Reason::AccessDenied)).await;
    reconcile_another(&env, "y").await;
    assert_eq!(counts(&env, "x"), (1, 1), "{}", env.log());
    env.aws.rules().clear();
    env.request_retry("x", "allowed").await;
    env.wait_ready("x").await;
}

pub(crate) async fn spec_that_turns_invalid_ends_earlier_retries() {
    let env = TestEnv::with_arguments(&RARE).await;
    let rotation = |overlap: &str| json!({"every": "12h", "overlap": overlap});
    let spec = |overlap: &str| json!({"userName": "u", "policies": {"managed": ["NoSuchPolicy"]}, "accessKey": {"rotation": rotation(overlap)}});
    env.apply_with(Kubectl, "x", spec("1h")).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::PolicyNotFound)).await;
    env.apply_with(Kubectl, "x", spec("13h")).await;
    env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidSpec)).await;
    let before = counts_after(&env, "x").await;
    // The second try of another resource comes later than the one of the first resource would have.
    env.apply_with(Kubectl, "z", json!({"userName": "z", "policies": {"managed": ["NoSuchPolicy"]}})).await;
    let tries_z = |call: &CallRecord| call.action == "AttachUserPolicy" && call.user.as_deref() == Some("z");
    for _ in 0..2 {
        let position = env.aws.log().position();
        env.aws.log().wait_since(position, "another retry", TIMEOUT, tries_z).await.expect("z is tried again");
    }
    assert_eq!(counts(&env, "x"), before, "{}", env.log());
}

pub(crate) async fn repeated_failure_is_written_once() {
    let env = TestEnv::new().await;
    env.apply_with(Kubectl, "x", json!({"userName": "u", "policies": {"managed": ["NoSuchPolicy"]}})).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::PolicyNotFound)).await;
    let (_, writes) = counts_after(&env, "x").await;
    let since = env.user("x").await.status.expect("a status").failing_since;
    assert!(since.is_some(), "{}", env.log());
    // Another try, with another request id of AWS.
    env.aws.log().wait_for_call("AttachUserPolicy", 2, 2 * TIMEOUT).await.expect("it is tried again");
    let is_try = |line: &&str| line.contains("result=\"PolicyNotFound\"") && line.contains("reconciled resource");
    let tried = async || (env.log().lines().filter(is_try).count() >= 2).then_some(());
    eventually("the second try has ended", tried, || env.log()).await;
    assert_eq!(counts(&env, "x").1, writes, "{}", env.log());
    assert_eq!(env.user("x").await.status.expect("a status").failing_since, since);
}

pub(crate) async fn user_of_another_owner_is_compared_at_the_resync() {
    let env = TestEnv::with_arguments(&["--resync=1h", "--key-check=100ms"]).await;
    env.aws.manual_changes().create_user("u").await.expect("an unmanaged user");
    env.apply_with(Kubectl, "x", json!({"userName": "u"})).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    reconcile_another(&env, "y").await;
    let (reconciles, _) = counts(&env, "x");
    assert!(reconciles <= 3, "{reconciles}\n{}", env.log());
}

/// A policy that sets a label of every Secret of the namespace.
async fn set_label_at_admission(env: &TestEnv, label: &str, value: &str) {
    let resource = |kind: &str, plural: &str| ApiResource {
        group: "admissionregistration.k8s.io".into(),
        version: "v1".into(),
        api_version: "admissionregistration.k8s.io/v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let name = format!("{}-label", env.namespace);
    let expression = format!(r#"[JSONPatch{{op: "add", path: "/metadata/labels/{label}", value: "{value}"}}]"#);
    for (kind, plural, spec) in [
        (
            "MutatingAdmissionPolicy",
            "mutatingadmissionpolicies",
            json!({
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                        "resources": ["secrets"]}],
                },
                "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            }),
        ),
        ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", json!({"policyName": name})),
    ] {
        let api: Api<DynamicObject> = Api::all_with(env.client.clone(), &resource(kind, plural));
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "spec": spec});
        let object = serde_json::from_value(object).expect("an object");
        api.create(&PostParams::default(), &object).await.expect("the policy is created");
    }
    let probe = json!({"metadata": {"name": "probe", "labels": {"a": "b"}}});
    let probe: Secret = serde_json::from_value(probe).expect("a Secret");
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let changed = async || {
        let secret = env.secrets().create(&params, &probe).await.ok()?;
        (secret.labels().get(label).map(String::as_str) == Some(value)).then_some(())
    };
    eventually("admission sets the label", changed, String::new).await;
}

pub(crate) async fn label_that_admission_changes_is_reported() {
    let env = TestEnv::new().await;
    set_label_at_admission(&env, "team", "platform").await;
    env.apply_with(Kubectl, "x", json!({"userName": "u", "accessKey": {"secret": {"labels": {"team": "payments"}}}}))
        .await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    let text = message(&user, ConditionType::KeyPublished);
    assert!(text.contains(r#"label team is "platform" instead of "payments""#), "{text}");
    let is_false = |user: &AwsDeployUser, kind| condition(user, kind).is_some_and(|found| found.status == "False");
    assert!(is_false(&user, ConditionType::Ready), "a declared label is missing");
    // The Secret is checked each second.
    reconcile_another(&env, "y").await;
    let writes = env.activity.count(ActivityKind::SecretWrite, "x");
    assert!(writes <= 4, "{writes}\n{}", env.log());
    assert!(env.events("x").await.len() <= 8, "{:?}", env.events("x").await);
}

/// What the API server does not keep would be written again by each check of the Secret.
pub(crate) async fn secret_that_is_not_kept_is_written_once() {
    // The Secret is checked each second while nothing fails.
    let env = TestEnv::with_arguments(&["--resync=1h"]).await;
    set_label_at_admission(&env, "team", "platform").await;
    env.apply_with(Kubectl, "x", json!({"userName": "u", "accessKey": {"secret": {"labels": {"team": "payments"}}}}))
        .await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::SecretConflict)).await;
    let all = |(reconciles, status): (usize, usize)| {
        (
            reconciles,
            status,
            env.activity.count(ActivityKind::SecretWrite, "x"),
            env.aws.log().calls_for_user("u").len(),
        )
    };
    let before = all(counts_after(&env, "x").await);
    reconcile_another(&env, "y").await;
    env.annotate("x", "example.com/touched", "1").await;
    reconcile_another(&env, "z").await;
    assert_eq!(all(counts(&env, "x")), before, "{}", env.log());
}

pub(crate) async fn used_up_secret_quota_costs_no_key() {
    let mut env = TestEnv::with_arguments(&["--verify-timeout=1s", "--account-details=false"]).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(env.client.clone(), &env.namespace);
    let hard = json!({"hard": {"count/secrets": "0"}});
    let quota = json!({"metadata": {"name": "secrets"}, "spec": hard});
    let quota: ResourceQuota = serde_json::from_value(quota).expect("a quota");
    quotas.create(&PostParams::default(), &quota).await.expect("the quota is created");
    let status = json!({"status": {"hard": {"count/secrets": "0"}, "used": {"count/secrets": "0"}}});
    quotas.patch_status("secrets", &PatchParams::default(), &Patch::Merge(&status)).await.expect("it is in force");
    let probe: Secret = serde_json::from_value(json!({"metadata": {"name": "probe"}})).expect("a Secret");
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let refused = async || env.secrets().create(&params, &probe).await.is_err().then_some(());
    eventually("no Secret can be created", refused, String::new).await;

    env.apply_with(Kubectl, "x", json!({"userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::AdmissionDenied)).await;
    let text = message(&user, ConditionType::KeyPublished);
    assert!(text.contains("exceeded quota: secrets"), "{text}");
    env.operator.restart().await.expect("the operator restarts");
    let line = r#"awsdeploy_reconciles_total{result="AdmissionDenied"}"#;
    let tried = async || (env.metric_count(line).await >= 1).then_some(());
    eventually("the new process tries to publish", tried, || env.log()).await;
    assert!(env.aws.log().calls_of("CreateAccessKey").is_empty(), "{}", env.log());
    quotas.delete("secrets", &DeleteParams::default()).await.expect("the quota is deleted");
    let allowed = async || env.secrets().create(&params, &probe).await.ok().map(drop);
    eventually("Secrets can be created", allowed, String::new).await;
    env.request_retry("x", "raised").await;
    env.wait_ready("x").await;
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1);
}

pub(crate) async fn unanswered_status_write_ends_the_reconcile() {
    let env = TestEnv::with_options(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await;
    let kube = env.kube.as_ref().expect("a proxy");
    let held = kube.rules().pause(KubeRule::on("update", "awsdeployusers/status").name("x").nth(1));
    env.apply_with(Kubectl, "x", invalid_spec()).await;
    let reported = async || env.log().contains("no response in 30 s").then_some(());
    eventually("the write is cut off", reported, || env.log()).await;
    held.release();
    env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidSpec)).await;
}

pub(crate) async fn written_status_ends_the_retry_of_its_conflict() {
    let options = EnvOptions { kube_proxy: true, arguments: RARE.to_vec(), ..EnvOptions::default() };
    let env = TestEnv::with_options(options).await;
    let kube = env.kube.as_ref().expect("a proxy");
    env.aws.rules().add(Rule::on("AttachUserPolicy").user("u").deny());
    // The first write records the user, the second one reports on it.
    let held = kube.rules().pause(KubeRule::on("update", "awsdeployusers/status").name("x").nth(2));
    env.apply_with(Kubectl, "x", json!({"userName": "u", "policies": {"managed": ["ReadOnlyAccess"]}})).await;
    assert!(held.wait_until_held(TIMEOUT).await, "the status is written");
    env.annotate("x", "example.com/touched", "1").await;
    held.release();
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::AccessDenied)).await;
    counts_after(&env, "x").await;
    let log = env.log();
    assert!(log.contains("the object has been modified"), "{log}");
    let last = log.lines().rfind(|line| line.contains("reconciled resource")).expect("a reconcile");
    let (_, wait) = last.split_once(" wait=").expect("the time of the next reconcile");
    let seconds = wait.strip_suffix('s').and_then(|wait| wait.parse::<f64>().ok()).expect("seconds");
    assert!(seconds > 60.0, "{wait}\n{log}");
}
