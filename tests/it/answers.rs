//! Answers of AWS and of the cluster that are late, contradict each other, or are not those of IAM.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use awsdeploy_testkit::{
    aws_proxy::{AwsError, CallRecord, Rule},
    kube_proxy::KubeRule,
};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestEnv, eventually, message};

/// Without these, the next comparison with IAM would find what the operator has to find by itself.
const RARE_CHECKS: [&str; 3] = ["--resync=10m", "--key-check=1h", "--secret-check=10m"];

fn spec() -> Value {
    json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})
}

fn about(env: &TestEnv, action: &str) -> Vec<CallRecord> {
    env.aws.log().calls_of(action)
}

/// The proxy passes the call on and answers with its own page.
pub(crate) async fn refusal_by_a_proxy_leaves_no_foreign_key() {
    let env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("CreateAccessKey").nth(1).after_commit().html(403));
    env.apply("x", spec()).await;
    env.wait_for_event("x", Reason::OrphanDeleted).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let found = env.iam("u").await;
    assert_eq!(found.active_keys(), [key.as_str()], "{}", env.aws.log().transcript());
    assert_eq!(found.keys.len(), 1);
}

/// Every server of IAM but the one that created the user knows it late.
pub(crate) async fn new_user_that_iam_shows_late_gets_its_key() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    // The first GetUser precedes the creation.
    let late = Rule::on_any_of(["GetUser", "AttachUserPolicy", "ListAccessKeys", "CreateAccessKey"]).user("u").first(4);
    env.aws.rules().add(late.respond_with(AwsError::no_such_user("u")));
    let mut declared = spec();
    declared["policies"] = json!({"managed": ["AmazonS3FullAccess"]});
    env.apply("x", declared).await;
    env.wait_ready("x").await;
    let accused = env.events("x").await.into_iter().find(|(reason, _)| reason == Reason::PolicyNotFound.as_str());
    assert_eq!(accused, None, "AWS names the user, not the policy");
}

pub(crate) async fn quota_that_counts_a_deleted_key_passes_soon() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    let quota = AwsError::limit_exceeded("Cannot exceed quota for AccessKeysPerUser: 2".to_owned());
    env.aws.rules().add(Rule::on("CreateAccessKey").first(1).respond_with(quota));
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    assert_eq!(about(&env, "CreateAccessKey").len(), 2);
}

/// Another operator has taken the attempt over while the key was created.
pub(crate) async fn undone_key_that_iam_shows_late_is_deleted() {
    let options = EnvOptions { kube_proxy: true, arguments: RARE_CHECKS.to_vec(), ..EnvOptions::default() };
    let env = TestEnv::with_options(options).await;
    let kube = env.kube.as_ref().expect("a proxy");
    kube.rules()
        .add(KubeRule::on("update", "secrets").name("awsdeploy-journal-*").nth(1).respond_with(409, "Conflict"));
    let unknown = AwsError::no_such_entity("The Access Key cannot be found.");
    env.aws.rules().add(Rule::on("DeleteAccessKey").first(2).respond_with(unknown));
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let calls = env.aws.log().calls();
    let made = calls.iter().find(|call| call.action == "CreateAccessKey").expect("a key");
    let second = calls.iter().filter(|call| call.action == "CreateAccessKey").nth(1).expect("another key");
    let deletions: Vec<_> = calls.iter().filter(|call| call.action == "DeleteAccessKey").collect();
    assert_eq!(deletions.len(), 3, "{}", env.aws.log().transcript());
    assert!(deletions.iter().all(|call| call.access_key == made.access_key && call.started < second.started));
    assert_eq!(env.iam("u").await.keys.len(), 1);
    let orphan = env.events("x").await.into_iter().find(|(reason, _)| reason == Reason::OrphanDeleted.as_str());
    assert_eq!(orphan, None, "the key is not left to the owner of the journal");
}

/// A revocation must not take the answer of a server that does not know the key yet for the end of the key.
pub(crate) async fn key_that_iam_shows_late_is_still_set_inactive() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let unknown = AwsError::no_such_entity("The Access Key cannot be found.");
    env.aws.rules().add(Rule::on("UpdateAccessKey").first(1).respond_with(unknown));
    let mut revoked = spec();
    revoked["credentials"] = json!("Revoked");
    env.apply("x", revoked).await;
    env.wait_for_iam("u", "without an Active key", |user| user.active_keys().is_empty()).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    assert_eq!(about(&env, "UpdateAccessKey").len(), 2);
}

pub(crate) async fn deletion_that_conflicts_for_a_while_ends_soon() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    env.aws.rules().add(Rule::on("DeleteUser").first(3).respond_with(AwsError::delete_conflict("must detach first")));
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

/// Replicas of IAM show the user of the earlier resource for a while.
pub(crate) async fn recreated_resource_takes_the_name_when_iam_lets_go() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    let old = env.iam("u").await.tags;
    env.delete("x").await;
    env.wait_deleted("x").await;
    let tags: String = old
        .iter()
        .map(|(key, value)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>"))
        .collect::<Vec<_>>()
        .concat();
    let stale = format!(
        "<GetUserResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><GetUserResult><User><Path>/awsdeploy/</Path>\
         <UserName>u</UserName><UserId>AIDAOLD0000000000000</UserId><Arn>arn:aws:iam::{}:user/awsdeploy/u</Arn>\
         <CreateDate>2026-11-21T10:00:00Z</CreateDate><Tags>{tags}</Tags></User></GetUserResult><ResponseMetadata>\
         <RequestId>r</RequestId></ResponseMetadata></GetUserResponse>",
        env.account.id()
    );
    let rule = Rule::on("GetUser").user("u").first(2).rewrite(move |_, response| {
        response.status = 200;
        response.body.clone_from(&stale);
    });
    env.aws.rules().add(rule);
    env.apply("x", spec()).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("deleted or being deleted") && !text.contains("Choose another"), "{text}");
    env.wait_published("x", &first).await;
    env.wait_ready("x").await;
}

/// A new name in Git for the same user: the old resource is being deleted while the new one is applied.
pub(crate) async fn renamed_resource_takes_its_user_name_over() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    env.apply("old", spec()).await;
    env.wait_ready("old").await;
    let held = env.aws.rules().pause(Rule::on("DeleteUser").user("u").before());
    env.delete("old").await;
    assert!(held.wait_until_held(TIMEOUT).await, "the old user is about to be deleted");
    env.apply("new", spec()).await;
    env.wait_for_condition("new", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    held.release();
    env.wait_deleted("old").await;
    env.wait_ready("new").await;
}

pub(crate) async fn taken_name_is_terminal_where_users_cannot_be_listed() {
    let env = TestEnv::with_arguments(&RARE_CHECKS).await;
    env.aws.manual_changes().create_user("Taken").await.expect("an unmanaged user");
    env.aws.rules().add(Rule::on("ListUsers").deny());
    env.apply("x", json!({"userName": "taken"})).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("iam:ListUsers"));
    // Another resource is created meanwhile, which takes longer than the retry of a conflict.
    env.apply("y", spec()).await;
    env.wait_ready("y").await;
    let tries = env.aws.log().select(|call| call.action == "CreateUser" && call.user.as_deref() == Some("taken"));
    // The finalizer that the first reconcile has added may cause a second one.
    assert!(tries.len() <= 2, "{}", env.aws.log().transcript());
}

/// A namespace admin can delete the `RoleBinding` of the operator.
pub(crate) async fn revocation_needs_no_access_to_secrets() {
    let mut env = TestEnv::new().await;
    let class = env.apply_class("c", json!({"onRevoked": "Deactivate"})).await;
    env.apply("x", json!({"userName": "u"})).await;
    env.apply("y", json!({"className": class, "userName": "v"})).await;
    env.wait_ready("x").await;
    env.wait_ready("y").await;
    env.revoke_secret_access().await;
    env.apply("x", json!({"userName": "u", "credentials": "Revoked"})).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    let user =
        env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    assert!(text.contains("create rolebinding"), "what is wrong is reported too: {text}");
    env.apply_class("c", json!({"onRevoked": "Deactivate", "namespaces": {"names": ["elsewhere"]}})).await;
    env.wait_for_iam("v", "revoked", |user| user.active_keys().is_empty()).await;
    // A restarted operator revokes too.
    env.grant_secret_access().await;
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    env.operator.kill().await;
    env.revoke_secret_access().await;
    env.apply("x", json!({"userName": "u", "credentials": "Revoked"})).await;
    env.operator.restart().await.expect("the operator restarts");
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
}

/// A document that is nested too deeply makes a class unreadable to this version.
pub(crate) async fn unreadable_class_stops_no_revocation() {
    let env = TestEnv::new().await;
    let class = env.apply_class("c", json!({})).await;
    let spec = |credentials: &str| json!({"className": class, "userName": "u", "credentials": credentials});
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
    let deep = (0..60).fold(json!("end"), |inner, _| json!([inner]));
    let template = json!({"name": "deep", "document": {"Version": "2012-10-17", "Statement": deep}});
    env.apply_class("c", json!({"policies": {"templates": [template]}})).await;
    let reported = |user: &AwsDeployUser| message(user, ConditionType::UserSynced).contains("cannot be read");
    env.wait_until("x", "reporting the class", reported).await;
    assert_eq!(env.iam("u").await.active_keys().len(), 1, "an unreadable class revokes nothing");
    env.apply("x", spec("Revoked")).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::CredentialsRevoked)).await;
    env.apply_class("c", json!({})).await;
    env.apply("x", spec("Active")).await;
    env.wait_ready("x").await;
}

/// `kubectl replace --force` and `GitOps` tools delete a class and create it again.
pub(crate) async fn replaced_class_revokes_nothing() {
    let options = EnvOptions { arguments: vec!["--class-absence-grace=1h"], ..EnvOptions::default() };
    let mut env = TestEnv::with_options(options).await;
    let rules = json!({"onRevoked": "Deactivate"});
    let class = env.apply_class("c", rules.clone()).await;
    env.apply("x", json!({"className": class, "userName": "u"})).await;
    env.wait_ready("x").await;
    let position = env.aws.log().position();
    env.classes().delete(&class, &DeleteParams::default()).await.expect("the class is deleted");
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains("onRevoked: Deactivate applies at"), "{text}");
    let since = |user: &AwsDeployUser| user.status.as_ref()?.class.as_ref()?.missing_since;
    let recorded = since(&user).expect("a record of the absence");
    env.operator.restart().await.expect("the operator restarts");
    let observed = env.aws.log().position();
    env.annotate("x", "touched", "yes").await;
    env.wait_for_call(observed, "GetUser").await;
    assert_eq!(since(&env.user("x").await), Some(recorded), "the grace does not start again");
    env.apply_class("c", rules).await;
    let user = env.wait_ready("x").await;
    assert_eq!(since(&user), None);
    assert!(env.aws.log().mutating_calls_since(position).is_empty(), "{}", env.aws.log().transcript());
    // A class that exists is followed at once.
    env.apply_class("c", json!({"onRevoked": "Deactivate", "namespaces": {"names": ["elsewhere"]}})).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
}

/// Kyverno, Gatekeeper and admission policies often ask for a label on every object.
pub(crate) async fn policy_that_refuses_the_secret_is_named() {
    let env = TestEnv::new().await;
    let name = format!("require-team-{}", env.namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"]});
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "'team' in object.metadata.?labels.orValue({})", "message": "label team is missing", "reason": "Forbidden"}],
    }});
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": env.namespace}});
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector},
    }});
    let parameters = PostParams::default();
    policies.create(&parameters, &serde_json::from_value(policy).expect("a policy")).await.expect("created");
    bindings.create(&parameters, &serde_json::from_value(binding).expect("a binding")).await.expect("created");
    let probe: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"metadata": {"name": "probe"}})).expect("a Secret");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let in_force = async || env.secrets().create(&dry, &probe).await.err().map(drop);
    eventually("the policy is in force", in_force, String::new).await;

    env.apply("x", spec()).await;
    let user =
        env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::AdmissionDenied)).await;
    let text = message(&user, ConditionType::RotationHealthy);
    assert!(text.contains(&name) && text.contains("label team is missing"), "{text}");
    assert!(text.contains("spec.accessKey.secret"), "{text}");
    assert!(about(&env, "CreateAccessKey").is_empty(), "no key that cannot be published");
    let mut labelled = spec();
    labelled["accessKey"]["secret"] = json!({"labels": {"team": "a"}});
    env.apply("x", labelled).await;
    env.wait_ready("x").await;
    bindings.delete(&name, &DeleteParams::default()).await.expect("deleted");
    policies.delete(&name, &DeleteParams::default()).await.expect("deleted");
}
