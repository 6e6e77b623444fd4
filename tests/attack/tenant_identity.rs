//! Which IAM user a resource is bound to: nothing that a tenant can write decides it.

use awsdeploy::{
    api::{AwsDeployUser, ConditionType, Reason, well_known},
    domain::{console, desired::DesiredConsole, owner::Owner},
};
use awsdeploy_testkit::{
    aws_proxy::CallRecord,
    kube_proxy::{KubeProxy, KubeRule},
};
use kube::{
    Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TestEnv, eventually};

/// The status of `x` is refused, as that of a resource whose size is just below the limit of etcd.
fn refuse_status(kube: &KubeProxy) {
    let rule = KubeRule::on("update", "awsdeployusers/status").name("x");
    kube.rules().add(rule.respond_with(413, "RequestEntityTooLarge"));
}

async fn proxied() -> TestEnv {
    TestEnv::with_options(EnvOptions { kube_proxy: true, ..EnvOptions::default() }).await
}

/// Creates `x` with a finalizer of the operator, as any tenant can.
async fn create_with_finalizer(env: &TestEnv, spec: &Value) -> AwsDeployUser {
    let user = json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": "x", "finalizers": [well_known::FINALIZER]}, "spec": spec,
    });
    let user = serde_json::from_value(user).expect("a resource");
    env.users().create(&PostParams::default(), &user).await.expect("the resource is created")
}

/// Changes `x`, which causes a reconcile, and waits until that has tried to write the status.
async fn reconcile_without_status(env: &TestEnv, annotation: &str, value: &str) {
    let kube = env.kube.as_ref().expect("a proxy");
    let position = kube.log().position();
    env.annotate("x", annotation, value).await;
    let refused = async || {
        let writes = kube.log().mutating_since(position);
        writes.iter().any(|call| call.resource == "awsdeployusers/status" && call.status == Some(413)).then_some(())
    };
    eventually("a refused write of the status", refused, || env.log()).await;
}

/// Writes the console Secret of `x` with a password of the tenant's choice, owned by the resource.
async fn forge_console_secret(env: &TestEnv, user: &AwsDeployUser) {
    let meta = &user.metadata;
    let owner = Owner {
        cluster: "unknown".to_owned(),
        namespace: env.namespace.clone(),
        name: "x".to_owned(),
        uid: meta.uid.clone().expect("a UID"),
    };
    let desired = DesiredConsole { secret_name: "x-console".to_owned(), reset_required: false, reset_request: None };
    let content = console::render(&owner, &desired, "victim", &"Aa1-chosen-by-the-tenant".to_owned().into(), None);
    let data = content.data.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).expect("text")));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": "x-console", "labels": content.labels, "annotations": content.annotations,
            "ownerReferences": [user.controller_owner_ref(&()).expect("an owner")],
        },
        "stringData": data.collect::<std::collections::BTreeMap<_, _>>(),
    });
    let params = PatchParams::apply("tenant").force();
    env.secrets().patch("x-console", &params, &Patch::Apply(&secret)).await.expect("the tenant may write it");
}

pub(crate) async fn annotation_never_names_the_user() {
    let env = proxied().await;
    let kube = env.kube.as_ref().expect("a proxy");
    env.aws.manual_changes().create_user("victim").await.expect("an unmanaged user");
    refuse_status(kube);
    let user = create_with_finalizer(&env, &json!({"console": {"secretName": "x-console"}})).await;
    reconcile_without_status(&env, "example.com/touched", "1").await;
    forge_console_secret(&env, &user).await;
    for (number, annotation) in ["awsdeploy.dev/user-name", "awsdeploy.dev/account"].into_iter().enumerate() {
        reconcile_without_status(&env, annotation, "victim").await;
        reconcile_without_status(&env, "example.com/touched", &format!("again {number}")).await;
    }
    let transcript = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    assert!(env.aws.log().calls_for_user("victim").is_empty(), "{}", transcript());
    assert!(env.aws.log().select(|call| call.mutating).is_empty(), "nothing is created\n{}", transcript());

    kube.rules().clear();
    env.annotate("x", "example.com/touched", "with a status").await;
    let user = env.wait_ready("x").await.status.and_then(|status| status.user).expect("a user");
    assert_ne!(user.name, "victim");
    assert!(env.iam(&user.name).await.login_profile.is_some());
    assert!(env.aws.log().calls_for_user("victim").is_empty(), "{}", transcript());
}

pub(crate) async fn user_is_created_only_after_its_status() {
    let env = proxied().await;
    let kube = env.kube.as_ref().expect("a proxy");
    refuse_status(kube);
    env.apply("x", json!({"userName": "u"})).await;
    let note = env.wait_for_event("x", Reason::InvalidSpec).await;
    assert!(note.contains("failed to write the status"), "{note}");
    assert!(env.aws.log().select(|call| call.mutating).is_empty(), "{}", env.aws.log().transcript());
    let failures = r#"awsdeploy_effects_total{effect="RecordUser",result="InvalidSpec"}"#;
    assert!(env.metric_count(failures).await >= 1);

    kube.rules().clear();
    env.annotate("x", "example.com/touched", "with a status").await;
    let user = env.wait_ready("x").await.status.and_then(|status| status.user).expect("a user");
    let iam = env.iam("u").await;
    assert_eq!((user.account, user.arn, user.id), (env.account.id().to_owned(), Some(iam.arn), Some(iam.id)));
}

pub(crate) async fn finalizer_of_a_denied_resource_causes_no_aws_call() {
    let env = TestEnv::new().await;
    create_with_finalizer(&env, &json!({"className": "no-such-class", "credentials": "Revoked"})).await;
    env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
    for number in 0..5 {
        env.annotate("x", well_known::ANNOTATION_ROTATE, &number.to_string()).await;
    }
    env.delete("x").await;
    env.wait_deleted("x").await;
    let calls = env.aws.log().select(|call: &CallRecord| call.service == "iam");
    assert!(calls.is_empty(), "{calls:#?}");
}

pub(crate) async fn user_is_found_by_its_tags_without_a_status() {
    let mut env = TestEnv::new().await;
    let class = |template: &str| json!({"users": {"nameTemplate": template}});
    let name = env.apply_class("c", class("before-{name}")).await;
    env.apply("x", json!({"className": name})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.operator.kill().await;
    // The backup has no status, and the class has another template since.
    let mut user = env.user("x").await;
    user.status = None;
    env.users().replace_status("x", &PostParams::default(), &user).await.expect("the status is lost");
    env.apply_class("c", class("after-{name}")).await;
    env.operator.restart().await.expect("the operator restarts");
    let user = env.wait_ready("x").await.status.and_then(|status| status.user).expect("a user");
    assert_eq!(user.name, "before-x");
    assert_eq!(env.published_key("x").await, key);
    assert!(env.iam_opt("after-x").await.is_none(), "no second user is created");
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("before-x").await.is_none());
}
