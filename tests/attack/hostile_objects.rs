//! Objects of a tenant that cannot be read, or are large: they cost their own resource only.

use awsdeploy::{
    api::{ConditionType, Reason},
    cluster::GuardedUser,
};
use awsdeploy_testkit::aws_proxy::KeyState;
use http::Request;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, condition};

/// A text that must appear in no log line.
const CANARY: &str = "canary-4711";

/// The limit of the chart.
const MEMORY_LIMIT_KIB: u64 = 128 * 1024;

/// A document of that many levels.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(CANARY), |inner, _| json!({ "a": inner }))
}

#[allow(clippy::needless_pass_by_value, reason = "callers pass `json!` values")]
fn with_document(document: Value, mut spec: Value) -> Value {
    spec["policies"] = json!({"documents": [{"name": "own", "document": document}]});
    spec
}

/// The resources, with a type that reads hostile ones too.
fn resources(env: &TestEnv) -> Api<GuardedUser> {
    Api::namespaced(env.client.clone(), &env.namespace)
}

async fn apply(env: &TestEnv, name: &str, spec: &Value) {
    let object = json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": name, "namespace": env.namespace}, "spec": spec});
    let params = PatchParams::apply("test").force();
    resources(env).patch(name, &params, &Patch::Apply(&object)).await.expect("the API server accepts the resource");
}

/// Waits until the resource is reported as invalid. Returns the message of `Ready`.
async fn wait_reported(env: &TestEnv, name: &str) -> String {
    let ready = |user: &GuardedUser| {
        let user = user.object()?;
        let ready = condition(user, ConditionType::Ready)?;
        (ready.status == "False" && ready.reason == Reason::InvalidSpec.as_str()).then(|| ready.message.clone())
    };
    let is_reported = |user: Option<&GuardedUser>| user.is_some_and(|user| ready(user).is_some());
    let reported = tokio::time::timeout(TIMEOUT, await_condition(resources(env), name, is_reported)).await;
    let Ok(Ok(Some(user))) = reported else { panic!("{name} is not reported: {reported:?}\n{}", env.log()) };
    ready(&user).expect("the condition")
}

/// Sends a request whose response cannot be read as an object.
async fn send(env: &TestEnv, method: &str, path: &str, body: &Value) -> String {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/merge-patch+json");
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).expect("JSON") };
    env.client.request_text(request.body(body).expect("a request")).await.expect("the API server accepts the request")
}

/// Sets the time of a managed field of the namespace. The API server accepts a time zone that leads to the year 10000.
async fn set_managed_time(env: &TestEnv, time: &str) -> String {
    let managed = json!([{"manager": "odd", "operation": "Update", "apiVersion": "v1", "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:odd": {}}}}}]);
    let path = format!("/api/v1/namespaces/{}", env.namespace);
    send(env, "PATCH", &path, &json!({"metadata": {"managedFields": managed}})).await
}

pub(crate) async fn hostile_objects_do_not_stop_the_operator() {
    let mut env = TestEnv::new().await;
    env.label_namespace(json!({"odd": "yes"})).await;
    let namespace = set_managed_time(&env, "9999-12-31T23:59:59-01:00").await;
    assert!(namespace.contains("10000-01-01"), "{namespace}");
    apply(&env, "deep", &with_document(nested(140), json!({"userName": "deep"}))).await;
    let large = json!({"Version": CANARY, "Statement": "x".repeat(300 * 1024)});
    apply(&env, "large", &with_document(large, json!({"userName": "large"}))).await;
    env.operator.restart().await.expect("the operator restarts");
    env.apply("normal", json!({"userName": "normal"})).await;
    env.wait_ready("normal").await;
    for (name, error) in [("deep", "nested deeper than 32 levels"), ("large", "larger than 128 KiB")] {
        let message = wait_reported(&env, name).await;
        assert!(message.contains("spec.policies is") && message.contains(error), "{message}");
        let note = env.wait_for_event(name, Reason::InvalidSpec).await;
        assert!(note.contains(error), "{note}");
        assert!(env.aws.log().calls_for_user(name).is_empty(), "AWS is not called for {name}");
    }
    assert!(!env.log().contains(CANARY), "the log has a document");
    set_managed_time(&env, "2026-01-01T00:00:00Z").await;
}

pub(crate) async fn unreadable_resource_is_revoked_and_deleted() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    apply(&env, "x", &with_document(nested(140), json!({"userName": "u"}))).await;
    wait_reported(&env, "x").await;
    assert!(env.iam("u").await.keys.iter().all(|key| key.state == KeyState::Active), "an invalid spec revokes nothing");
    apply(&env, "x", &with_document(nested(140), json!({"userName": "u", "credentials": "Revoked"}))).await;
    env.wait_for_iam("u", "without an Active key", |user| user.keys.iter().all(|key| key.state == KeyState::Inactive))
        .await;
    let path = format!("/apis/awsdeploy.dev/v1alpha1/namespaces/{}/awsdeployusers/x", env.namespace);
    send(&env, "DELETE", &path, &Value::Null).await;
    let deleted = await_condition(resources(&env), "x", |user: Option<&GuardedUser>| user.is_none());
    assert!(tokio::time::timeout(TIMEOUT, deleted).await.is_ok(), "not deleted\n{}", env.log());
    assert!(env.iam_opt("u").await.is_none(), "the IAM user is deleted");
}

pub(crate) async fn large_objects_take_little_memory() {
    let mut env = TestEnv::new().await;
    let document = json!({"Statement": "x".repeat(1_300_000)});
    for number in 0..60 {
        apply(&env, &format!("x{number}"), &with_document(document.clone(), json!({"className": "none"}))).await;
    }
    env.operator.restart().await.expect("the operator restarts");
    let status = std::fs::read_to_string(format!("/proc/{}/status", env.operator.process().id())).expect("a status");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    // Pages of the program file are shared and can be dropped; a debug build has many.
    let peak = kib("VmHWM:").saturating_sub(kib("RssFile:"));
    println!("60 objects of 1.3 MB in an unserved namespace: peak {} MiB besides the program file", peak / 1024);
    assert!(peak < MEMORY_LIMIT_KIB, "{peak} KiB\n{status}");
}
