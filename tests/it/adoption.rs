//! Adoption of an existing IAM user: needs the permission of the class and the consent tag of an AWS admin.

use std::collections::BTreeSet;

use awsdeploy::api::{ConditionType, Reason, user::AccessKeyState};
use awsdeploy_testkit::aws_proxy::{Call, Rule};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, condition, message, open_class};

const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";
const ALLOW_ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const TAG: &str = "awsdeploy.dev/adoptable-by";

/// Name of resource and user, tags and path of the user, and a part of the expected message.
type RefusedCase = (&'static str, Vec<(String, String)>, &'static str, &'static str);

/// An environment with a fixed cluster id, which consent tags contain.
async fn start_env() -> TestEnv {
    TestEnv::with_arguments(&["--cluster-id=it"]).await
}

/// The value of the consent tag for the resource `x`.
fn consent(env: &TestEnv) -> String {
    format!("it/{}/x", env.namespace)
}

fn spec(user: &str) -> Value {
    json!({"userName": user, "adoption": "IfTagged", "policies": {"managed": ["AmazonEC2FullAccess"]}})
}

async fn create_unmanaged_user(env: &TestEnv, name: &str, path: &str, tags: &[(&str, &str)]) {
    let create = Call::iam("CreateUser").with("UserName", name).with("Path", path);
    env.aws.manual_changes().call(&create.with_tags(tags.iter().copied())).await.expect("an unmanaged user");
}

pub(crate) async fn user_is_adopted_with_consent_of_both_sides() {
    let mut env = start_env().await;
    let mut limited = open_class();
    limited["permissionsBoundary"] = json!("arn:aws:iam::aws:policy/PowerUserAccess");
    limited["namespaces"] = json!({"names": [env.namespace]});
    let class = env.apply_class("limited", limited).await;
    let spec = |user: &str| {
        let mut spec = spec(user);
        spec["className"] = json!(class);
        spec
    };
    let manual_changes = env.aws.manual_changes();
    create_unmanaged_user(&env, "ci", "/awsdeploy/team/", &[("owner", "platform")]).await;
    manual_changes.attach("ci", EC2).await.expect("manually");
    manual_changes.attach("ci", S3).await.expect("manually");
    manual_changes.put_inline("ci", "theirs", ALLOW_ALL).await.expect("manually");
    manual_changes.create_group("admins").await.expect("a group");
    manual_changes.add_to_group("ci", "admins").await.expect("manually");
    let theirs = manual_changes.create_key("ci").await.expect("their key").id;
    let id = env.iam("ci").await.id;

    env.apply("x", spec("ci")).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let text = message(&user, ConditionType::Ready);
    let command = format!("aws iam tag-user --user-name ci --tags Key={TAG},Value={}", consent(&env));
    assert!(text.contains(&command) && !text.contains("adoption: Allow"), "{text}");
    assert!(env.aws.log().select(|call| call.mutating).is_empty(), "nothing is written without consent");
    assert!(env.secret_data("x").await.is_none());

    let position = env.aws.log().position();
    manual_changes.tag("ci", &[(TAG, &consent(&env))]).await.expect("an AWS admin consents");
    let user = env.wait_ready("x").await;
    let iam = env.iam("ci").await;
    assert_eq!((iam.id, iam.path.as_str()), (id, "/awsdeploy/team/"), "the same user, where it was");
    assert_eq!(iam.attached, BTreeSet::from([EC2.to_owned()]));
    assert!(iam.inline.is_empty() && iam.groups.is_empty(), "undeclared policies and groups are removed");
    assert_eq!(iam.boundary.as_deref(), Some("arn:aws:iam::aws:policy/PowerUserAccess"));
    assert_eq!(iam.tags["awsdeploy.dev/name"], "x");
    assert_eq!(iam.tags["owner"], "platform", "other tags are kept");
    assert!(!iam.tags.contains_key(TAG), "the consent tag is removed: {:?}", iam.tags);
    let published = env.published_key("x").await;
    assert!(env.account.accepts(&published) && env.account.accepts(&theirs), "their key still works");
    let status = user.status.expect("a status");
    let shown = |id: &str| status.access_keys.iter().find(|key| key.id == id).map(|key| key.state);
    assert_eq!((shown(&theirs), shown(&published)), (Some(AccessKeyState::Foreign), Some(AccessKeyState::Published)));
    let writes = env.aws.log().mutating_calls_since(position);
    assert_eq!(writes[0].action, "TagUser", "the ownership tags come first");
    assert_eq!(writes[1].action, "PutUserPermissionsBoundary", "then the boundary");
    assert!(writes.iter().all(|call| call.access_key.as_ref() != Some(&theirs) && call.action != "CreateUser"));
    let text = env.wait_for_event("x", Reason::UserAdoptable).await;
    for loss in [S3, "inline policy theirs", "group admins", &theirs] {
        assert!(text.contains(loss), "{loss} is not announced: {text}");
    }
    assert!(!text.contains(EC2), "what is kept is not announced: {text}");
    env.wait_for_event("x", Reason::UserAdopted).await;
    let is_drift = env.events("x").await.into_iter().any(|(_, note)| note.contains("corrected drift"));
    assert!(!is_drift, "removing undeclared policies is not reported as drift");
    env.assert_restart_writes_nothing("x").await;
}

/// Covers every kind of missing or invalid consent.
pub(crate) async fn adoption_without_valid_consent_writes_nothing() {
    let env = start_env().await;
    let ns = env.namespace.clone();
    let tag_pair = |name: &str, value: &str| (format!("awsdeploy.dev/{name}"), value.to_owned());
    let owned = |cluster: &str, name: &str| {
        vec![tag_pair("cluster", cluster), tag_pair("namespace", &ns), tag_pair("name", name), tag_pair("uid", "u0")]
    };
    let consent = |value: String| vec![tag_pair("adoptable-by", &value)];
    let mine = |name: &str| tag_pair("adoptable-by", &format!("it/{ns}/{name}"));
    let with = |mut tags: Vec<(String, String)>, more| {
        tags.push(more);
        tags
    };
    let cases: Vec<RefusedCase> = vec![
        ("untagged", vec![], "/awsdeploy/", "no AWS admin has consented;"),
        ("namespace", consent("it/other/namespace".into()), "/awsdeploy/", "(the tag names another resource)"),
        ("neighbour", consent(format!("it/{ns}/x")), "/awsdeploy/", "no AWS admin has consented (the tag names"),
        ("cluster", consent(format!("other/{ns}/cluster")), "/awsdeploy/", "no AWS admin has consented"),
        ("incase", consent(format!("IT/{ns}/InCase")), "/awsdeploy/", "no AWS admin has consented"),
        ("short", consent(format!("{ns}/short")), "/awsdeploy/", "no AWS admin has consented"),
        ("theirs", with(owned("other", "theirs"), mine("theirs")), "/awsdeploy/", "belongs to another owner;"),
        ("sibling", with(owned("it", "first"), mine("sibling")), "/awsdeploy/", "belongs to AwsDeployUser"),
        ("earlier", with(owned("it", "earlier"), mine("earlier")), "/awsdeploy/", "an earlier AwsDeployUser"),
        ("partly", vec![tag_pair("uid", "x"), mine("partly")], "/awsdeploy/", "belongs to another owner;"),
        ("outside", vec![mine("outside")], "/", "--new-path /awsdeploy/"),
    ];
    for (name, tags, path, _) in &cases {
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        create_unmanaged_user(&env, name, path, &tags).await;
    }
    create_unmanaged_user(&env, "Spelled", "/awsdeploy/", &[(TAG, &format!("it/{ns}/spelled"))]).await;
    create_unmanaged_user(&env, "never", "/awsdeploy/", &[(TAG, &format!("it/{ns}/never"))]).await;
    for (name, ..) in &cases {
        env.apply(name, spec(name)).await;
    }
    env.apply("spelled", spec("spelled")).await;
    env.apply("never", json!({"userName": "never"})).await;
    let refused = cases.iter().map(|(name, _, _, text)| (*name, *text));
    for (name, text) in refused.chain([("spelled", "under its exact name only"), ("never", "spec.adoption: IfTagged")])
    {
        let user = env.wait_for_condition(name, ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
        let message = message(&user, ConditionType::Ready);
        assert!(message.contains(text), "{name}: {message}");
        assert!(env.secret_data(name).await.is_none(), "{name}");
    }
    let committed = env.aws.log().select(|call| call.mutating && call.committed);
    assert!(committed.is_empty(), "{committed:#?}");
}

pub(crate) async fn adoption_needs_permission_of_the_class() {
    let env = TestEnv::with_arguments(&["--cluster-id=it"]).await;
    create_unmanaged_user(&env, "ci", "/awsdeploy/", &[(TAG, &consent(&env))]).await;
    let class = env.apply_class("denies", json!({"policies": {"allowed": ["AmazonEC2FullAccess"]}})).await;
    let mut spec = spec("ci");
    spec["className"] = json!(class);
    env.apply("x", spec).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(
        text.contains("adoption: Allow") && !text.contains("aws iam tag-user"),
        "only the missing permission is named: {text}"
    );
    assert!(env.aws.log().select(|call| call.mutating).is_empty());
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert_eq!(env.iam("ci").await.tags.len(), 1, "a user that is not owned is not deleted");
}

pub(crate) async fn adopted_user_with_two_keys_waits_for_a_free_slot() {
    let env = start_env().await;
    create_unmanaged_user(&env, "ci", "/awsdeploy/", &[(TAG, &consent(&env))]).await;
    let manual_changes = env.aws.manual_changes();
    let (one, two) = (
        manual_changes.create_key("ci").await.expect("a key").id,
        manual_changes.create_key("ci").await.expect("a key").id,
    );
    env.apply("x", spec("ci")).await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::KeyQuotaExceeded)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains(&one) && text.contains(&two), "{text}");
    assert_eq!(condition(&user, ConditionType::UserSynced).map(|synced| synced.status.as_str()), Some("True"));
    assert!(env.aws.log().calls_of("CreateAccessKey").is_empty(), "no third key is attempted");
    manual_changes.delete_key("ci", &one).await.expect("its owner frees a slot");
    env.wait_ready("x").await;
    assert_eq!(env.iam("ci").await.keys.len(), 2);
    assert!(env.account.accepts(&two));
}

/// Kills the operator after the ownership tags are written and before the consent tag is removed.
pub(crate) async fn crash_during_adoption_does_no_harm() {
    let mut env = start_env().await;
    create_unmanaged_user(&env, "ci", "/awsdeploy/", &[(TAG, &consent(&env))]).await;
    env.aws.manual_changes().attach("ci", S3).await.expect("manually");
    for rule in [Rule::on("TagUser").nth(1).after_commit(), Rule::on("UntagUser").nth(1).before()] {
        let pause = env.aws.rules().pause(rule);
        env.apply("x", spec("ci")).await;
        assert!(pause.wait_until_held(TIMEOUT).await, "during the adoption");
        env.operator.kill().await;
        pause.abort();
        assert!(
            env.iam("ci").await.tags.contains_key("awsdeploy.dev/uid"),
            "all ownership tags are written in one call"
        );
        env.operator.restart().await.expect("the operator restarts");
    }
    env.wait_ready("x").await;
    let iam = env.iam("ci").await;
    assert_eq!(iam.attached, BTreeSet::from([EC2.to_owned()]));
    assert!(!iam.tags.contains_key(TAG));
    assert_eq!(iam.active_keys(), [env.published_key("x").await.as_str()]);
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn adopted_user_is_deleted_or_retained_like_any_other() {
    let env = start_env().await;
    create_unmanaged_user(&env, "ci", "/awsdeploy/", &[(TAG, &consent(&env))]).await;
    let theirs = env.aws.manual_changes().create_key("ci").await.expect("their key").id;
    env.apply("x", spec("ci")).await;
    env.wait_ready("x").await;
    let ours = env.published_key("x").await;
    env.delete("x").await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    assert!(message(&user, ConditionType::Ready).contains(&theirs));
    assert!(env.account.accepts(&ours), "nothing is removed before the blocker is resolved");
    let mut retained = spec("ci");
    retained["deletionPolicy"] = json!("Retain");
    env.apply("x", retained).await;
    env.wait_deleted("x").await;
    let iam = env.iam("ci").await;
    assert!(env.account.accepts(&theirs) && env.account.accepts(&ours));
    assert!(
        iam.tags.keys().all(|key| !key.starts_with("awsdeploy.dev/")),
        "all ownership tags are removed: {:?}",
        iam.tags
    );
}
