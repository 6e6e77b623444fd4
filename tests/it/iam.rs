//! User, policies, tags and groups are kept as declared.

use std::collections::BTreeSet;

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::kube_proxy::KubeRule;
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TestEnv, eventually, message};

const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const VIEW: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

pub(crate) async fn policy_change_is_applied_in_aws() {
    let mut env = TestEnv::new().await;
    let bucket = |action: &str| {
        json!([{"name": "state", "document": {"Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": [action], "Resource": "arn:aws:s3:::state/*"}]}}])
    };
    env.apply(
        "x",
        json!({"userName": "p", "policies": {"managed": ["AmazonEC2FullAccess"], "documents": bucket("s3:GetObject")}}),
    )
    .await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.apply("x", json!({"userName": "p", "policies": {"managed": ["job-function/ViewOnlyAccess"], "documents": bucket("s3:PutObject")}})).await;
    env.wait_ready("x").await;
    let iam = env.iam("p").await;
    assert_eq!(iam.attached, BTreeSet::from([VIEW.to_owned()]));
    assert_eq!(iam.inline["state"]["Statement"][0]["Action"][0], "s3:PutObject");
    let changes: Vec<String> =
        env.aws.log().select(|call| call.mutating).into_iter().map(|call| call.action).skip(5).collect();
    assert_eq!(changes, ["DetachUserPolicy", "PutUserPolicy", "AttachUserPolicy"], "shrink before grow");
    assert_eq!(env.published_key("x").await, key, "a policy change creates no key");
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn drift_is_corrected_and_reported() {
    let mut env = TestEnv::new().await;
    let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]});
    env.apply(
        "x",
        json!({"userName": "d", "tags": {"team": "payments"},
            "policies": {"managed": ["AmazonEC2FullAccess"], "documents": [{"name": "list", "document": document}]}}),
    )
    .await;
    env.wait_ready("x").await;
    let manual_changes = env.aws.manual_changes();
    manual_changes.detach("d", EC2).await.expect("manually");
    manual_changes.attach("d", VIEW).await.expect("manually");
    let allow_all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    for name in ["list", "more"] {
        manual_changes.put_inline("d", name, allow_all).await.expect("manually");
    }
    manual_changes.tag("d", &[("Team", "attackers"), ("note", "manually")]).await.expect("manually");
    let iam = env
        .wait_for_iam("d", "corrected", |user| {
            user.attached == BTreeSet::from([EC2.to_owned()])
                && user.inline.len() == 1
                && user.inline["list"] == document
                && user.tags.values().any(|value| value == "payments")
        })
        .await;
    assert_eq!(iam.tags["note"], "manually", "unknown tags are kept");
    let text = env.wait_for_event("x", Reason::UserChanged).await;
    assert!(text.contains(EC2), "{text}");
    env.wait_for_condition("x", ConditionType::UserSynced, "True", None).await;
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn tags_follow_the_manifest() {
    let env = TestEnv::new().await;
    env.apply(
        "x",
        json!({"userName": "t", "tags": {"team": "payments", "cost": "42"}, "accessKey": {"useCase": "Other"}}),
    )
    .await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let described =
        |text: &str| json!({"userName": "t", "tags": {"team": "payments"}, "accessKey": {"description": text}});
    env.apply("x", described("Cycle hub")).await;
    env.wait_for_iam("t", "described", |user| user.tags.get(&key).is_some_and(|text| text == "Cycle hub")).await;
    env.aws.manual_changes().tag("t", &[(&key, "manually")]).await.expect("in the console");
    env.wait_for_iam("t", "described again", |user| user.tags.get(&key).is_some_and(|text| text == "Cycle hub")).await;
    env.apply("x", json!({"userName": "t", "tags": {"team": "search"}})).await;
    env.wait_ready("x").await;
    let tags = env.iam("t").await.tags;
    assert_eq!(tags["team"], "search");
    assert!(!tags.contains_key("cost") && !tags.contains_key("awsdeploy.dev/use-case"), "{tags:?}");
    assert!(tags.contains_key("awsdeploy.dev/uid"));
}

/// A tag is removed only if the status recorded that the operator set it.
pub(crate) async fn tags_end_as_last_edited_despite_conflicts() {
    let options = EnvOptions { kube_proxy: true, arguments: vec!["--resync=1h"], ..EnvOptions::default() };
    let env = TestEnv::with_options(options).await;
    let kube = env.kube.as_ref().expect("a proxy");
    let tagged = |tags: Value| json!({"userName": "t", "tags": tags});
    env.apply("x", tagged(json!({"team": "a"}))).await;
    env.wait_ready("x").await;
    // The first write of an edit records the tags before they are set, the second one is the status of the reconcile.
    for write in [1, 2] {
        let (short, last) = (format!("short{write}"), format!("last{write}"));
        kube.rules().add(KubeRule::on("update", "awsdeployusers/status").nth(write).respond_with(409, "Conflict"));
        let mut edited = json!({"team": "b"});
        edited[&short] = json!("1");
        env.apply("x", tagged(edited)).await;
        let mut edited = json!({"team": "c"});
        edited[&last] = json!("1");
        env.apply("x", tagged(edited)).await;
        env.wait_ready("x").await;
        let ours: Vec<(String, String)> = env
            .iam("t")
            .await
            .tags
            .into_iter()
            .filter(|(key, _)| !key.contains('.') && !key.starts_with("AKIA"))
            .collect();
        assert_eq!(ours, [(last, "1".to_owned()), ("team".to_owned(), "c".to_owned())], "{}", env.log());
        kube.rules().clear();
    }
}

pub(crate) async fn quarantine_policies_are_never_detached() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "q", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    env.wait_ready("x").await;
    let quarantine = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
    env.aws.manual_changes().attach("q", quarantine).await.expect("AWS attaches it");
    env.aws.manual_changes().attach("q", VIEW).await.expect("manually");
    let iam = env.wait_for_iam("q", "the other policy is detached", |user| !user.attached.contains(VIEW)).await;
    assert!(iam.attached.contains(quarantine));
}

pub(crate) async fn groups_are_exactly_the_declared_ones() {
    let mut env = TestEnv::new().await;
    let manual_changes = env.aws.manual_changes();
    for group in ["deployers", "readers", "admins"] {
        manual_changes.create_group(group).await.expect("a group");
    }
    env.apply("x", json!({"userName": "g", "groups": ["deployers", "readers"]})).await;
    env.wait_ready("x").await;
    assert_eq!(env.iam("g").await.groups, BTreeSet::from(["deployers".to_owned(), "readers".to_owned()]));
    manual_changes.add_to_group("g", "admins").await.expect("manually");
    env.wait_for_iam("g", "out of the group", |user| user.groups.len() == 2 && !user.groups.contains("admins")).await;
    let probe = async || {
        env.events("x").await.into_iter().find(|(_, note)| note.contains("removed from group admins")).map(drop)
    };
    eventually("an Event about the drift", probe, || env.log()).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "True", None).await;
    env.assert_restart_writes_nothing("x").await;
    env.apply("x", json!({"userName": "g", "groups": ["readers"]})).await;
    env.wait_ready("x").await;
    assert_eq!(env.iam("g").await.groups, BTreeSet::from(["readers".to_owned()]));
    let position = env.aws.log().position();
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(
        env.aws.log().calls_since(position).iter().all(|call| call.error.is_none()),
        "declared groups are removed without a deletion conflict"
    );
}

pub(crate) async fn missing_group_is_named() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"userName": "g", "groups": ["absent"]})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::GroupNotFound)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("absent") && text.contains("spec.groups"), "{text}");
    assert!(env.secret_data("x").await.is_none(), "no key before the user is in sync");
    env.aws.manual_changes().create_group("absent").await.expect("a group");
    env.wait_ready("x").await;
}

pub(crate) async fn boundary_is_set_on_creation_and_kept() {
    let env = TestEnv::new().await;
    let class =
        json!({"permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess", "users": {"path": "/team/deploy/"}});
    let class = env.apply_class("limited", class).await;
    env.apply("x", json!({"className": class, "userName": "b"})).await;
    env.wait_ready("x").await;
    let boundary = Some("arn:aws:iam::aws:policy/PowerUserAccess".to_owned());
    let iam = env.iam("b").await;
    assert_eq!((iam.boundary.clone(), iam.path.as_str()), (boundary.clone(), "/team/deploy/"));
    assert!(env.aws.log().calls_of("PutUserPermissionsBoundary").is_empty(), "the boundary is set by CreateUser");
    for by_hand in [None, Some(EC2)] {
        let position = env.aws.log().position();
        env.aws.manual_changes().set_boundary("b", by_hand).await.expect("manually");
        env.wait_for_iam("b", "with its boundary again", |user| user.boundary == boundary).await;
        assert_eq!(env.aws.log().mutating_calls_since(position).len(), 1);
    }
    let text = env.wait_for_event("x", Reason::UserChanged).await;
    assert!(text.contains("permissions boundary"), "{text}");
}

pub(crate) async fn no_user_is_created_without_its_boundary() {
    let env = TestEnv::new().await;
    let class =
        env.apply_class("limited", json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/missing"})).await;
    env.apply("x", json!({"className": class, "userName": "b"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::BoundaryNotFound)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("policy/missing") && text.contains("permissionsBoundary in the class"), "{text}");
    assert!(env.iam_opt("b").await.is_none());
    env.delete("x").await;
    env.wait_deleted("x").await;
}
