//! Handover to consumers outside the cluster: the previous key waits for their confirmations.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, user::AwsDeployUserStatus, well_known};
use awsdeploy_testkit::aws_proxy::KeyState;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{HANDOVER_AGENT, TestEnv, condition, eventually, message};

const HUB: &str = "handover.awsdeploy.dev/hub";

fn spec(overlap: &str, within: &str) -> Value {
    json!({"userName": "u", "accessKey": {
        "rotation": {"every": "Never", "overlap": overlap}, "handover": [{"name": "hub", "within": within}],
    }})
}

/// Publishes a first key that the consumer has confirmed, then rotates it. Returns the previous and the new one.
async fn rotate(env: &TestEnv, overlap: &str, within: &str) -> (String, String) {
    env.apply("x", json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": overlap}}})).await;
    env.wait_ready("x").await;
    let old = env.published_key("x").await;
    // Before the consumer is declared, because its time for this key may be over.
    env.annotate("x", HUB, &old).await;
    env.apply("x", spec(overlap, within)).await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "1").await;
    let new = env.wait_published("x", &old).await;
    (old, new)
}

/// The clock of the tests and of AWS is one.
async fn wait_until(at: Timestamp) {
    eventually("the time comes", async || (Timestamp::now() >= at).then_some(()), String::new).await;
}

pub(crate) async fn confirmed_key_ends_the_previous_one_at_once() {
    let env = TestEnv::new().await;
    let (old, new) = rotate(&env, "2s", "3d").await;
    // The id of the previous key is still there, and another consumer is not declared.
    env.annotate("x", "handover.awsdeploy.dev/other", &new).await;
    let overlap_ends = env.publication_time("x").await + SignedDuration::from_secs(3);
    wait_until(overlap_ends).await;
    let user =
        env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::AwaitingHandover)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    assert!(text.contains(&format!("access key {new} is not confirmed by: hub")) && text.contains(&old), "{text}");
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    assert_eq!(env.iam("u").await.key(&old).map(|key| key.state), Some(KeyState::Active));

    let confirmed_at = Timestamp::now();
    env.annotate("x", HUB, &new).await;
    env.wait_for_iam("u", "the previous key is deleted", |user| user.active_keys() == [new.as_str()]).await;
    assert!(env.first_call_time("UpdateAccessKey", &old) >= confirmed_at, "a stale id confirms nothing");
    let text = env.wait_for_event("x", Reason::KeyDeactivated).await;
    assert!(text.contains("its overlap is over"), "{text}");
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
}

pub(crate) async fn unconfirmed_key_is_kept_for_a_bounded_time() {
    let env = TestEnv::new().await;
    let (old, new) = rotate(&env, "2s", "8s").await;
    env.wait_for_iam("u", "the previous key is deleted", |user| user.active_keys() == [new.as_str()]).await;
    let held = env.first_call_time("UpdateAccessKey", &old).duration_since(env.publication_time("x").await);
    assert!(held.as_secs_f64() >= 10.0, "overlap and handover took only {held}");
    let text = env.wait_for_event("x", Reason::KeyDeactivated).await;
    assert!(text.contains("have not confirmed the new key are refused from now on: hub"), "{text}");
    let user =
        env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::HandoverOverdue)).await;
    assert!(message(&user, ConditionType::RotationHealthy).contains("no previous key is Active"));
    assert_eq!(condition(&user, ConditionType::Ready).expect("Ready").status, "True");
    let text = env.wait_for_event("x", Reason::HandoverOverdue).await;
    assert!(text.contains(&format!("access key {new} is not confirmed by: hub")), "{text}");

    env.annotate("x", HUB, &new).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
}

pub(crate) async fn unconfirmed_key_is_reported_a_day_before_its_end() {
    let env = TestEnv::new().await;
    // A day and some seconds: the warning is due when the overlap has been over for these seconds.
    let (old, new) = rotate(&env, "1s", "86403s").await;
    let text = env.wait_for_event("x", Reason::PreviousKeyEnding).await;
    assert!(text.contains(&format!("access key {new} is not confirmed by: hub")) && text.contains(&old), "{text}");
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::PreviousKeyEnding)).await;
    env.annotate("x", HUB, &new).await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
    let warnings = env.events("x").await.into_iter().filter(|(reason, _)| reason.starts_with("PreviousKey"));
    assert_eq!(warnings.count(), 1, "reported once");
}

pub(crate) async fn handover_agent_may_only_confirm() {
    let env = TestEnv::new().await;
    env.apply("x", spec("2s", "3d")).await;
    env.wait_ready("x").await;
    let role: Role = serde_json::from_value(json!({
        "metadata": {"name": "agent"}, "rules": [{"apiGroups": ["awsdeploy.dev"], "resources": ["*"], "verbs": ["*"]}],
    }))
    .expect("a role");
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "agent"},
        "subjects": [{"kind": "User", "name": HANDOVER_AGENT, "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent"},
    }))
    .expect("a binding");
    let (roles, bindings) =
        (Api::namespaced(env.client.clone(), &env.namespace), Api::namespaced(env.client.clone(), &env.namespace));
    roles.create(&PostParams::default(), &role).await.expect("a role");
    bindings.create(&PostParams::default(), &binding).await.expect("a binding");
    let users: Api<AwsDeployUser> = Api::namespaced(env.client_as(HANDOVER_AGENT).await, &env.namespace);
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = async |change: Value| {
        users.patch("x", &params, &Patch::Merge(&change)).await.map(drop).map_err(|error| error.to_string())
    };
    let confirms = async || patch(json!({"metadata": {"annotations": {HUB: "AKIA1"}}})).await.ok();
    eventually("the role is effective", confirms, String::new).await;
    let refused = async || patch(json!({"spec": {"credentials": "Revoked"}})).await.err();
    let text = eventually("a refusal", refused, String::new).await;
    assert!(text.contains("must change nothing of an AwsDeployUser but annotations handover.awsdeploy.dev/"), "{text}");
    for change in [
        json!({"metadata": {"labels": {"a": "b"}}}),
        // With the operator's own: another policy protects that, and the API server reports any of the policies that refuse.
        json!({"metadata": {"finalizers": [well_known::FINALIZER, "example.com/a"]}}),
        json!({"metadata": {"annotations": {"awsdeploy.dev/rotate": "2"}}}),
        json!({"metadata": {"annotations": {HUB: "AKIA1", "example.com/a": "b"}}}),
        json!({"metadata": {"annotations": {HUB: "AKIA1"}}, "spec": {"policies": {"managed": ["AdministratorAccess"]}}}),
    ] {
        let text = patch(change.clone()).await.expect_err("refused");
        assert!(text.contains("an agent of admission.handoverAgents must"), "{change}: {text}");
    }
    let status = Patch::Merge(AwsDeployUserStatus::default());
    assert!(users.patch_status("x", &params, &status).await.is_err());
    assert!(users.delete("x", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.is_err());
    patch(json!({"metadata": {"annotations": {HUB: null}}})).await.expect("a confirmation is the agent's to remove");
}
