//! User, policies and tags are kept as declared.

use std::collections::BTreeSet;

use awsdeploy::api::{ConditionType, Reason};
use serde_json::json;

use crate::stage::{Stage, eventually, message};

const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const VIEW: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

pub(crate) async fn a_changed_policy_is_changed_in_aws() {
    let mut stage = Stage::new().await;
    let bucket = |action: &str| {
        json!([{"name": "state", "document": {"Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": [action], "Resource": "arn:aws:s3:::state/*"}]}}])
    };
    stage.apply("x", json!({"userName": "p", "policies": {"managed": ["AmazonEC2FullAccess"], "inline": bucket("s3:GetObject")}})).await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.apply("x", json!({"userName": "p", "policies": {"managed": ["job-function/ViewOnlyAccess"], "inline": bucket("s3:PutObject")}})).await;
    stage.ready("x").await;
    let iam = stage.iam("p").await;
    assert_eq!(iam.attached, BTreeSet::from([VIEW.to_owned()]));
    assert_eq!(iam.inline["state"]["Statement"][0]["Action"][0], "s3:PutObject");
    let changes: Vec<String> =
        stage.aws.log().select(|call| call.mutating).into_iter().map(|call| call.action).skip(5).collect();
    assert_eq!(changes, ["DetachUserPolicy", "PutUserPolicy", "AttachUserPolicy"], "shrink before grow");
    assert_eq!(stage.published("x").await, key, "a changed policy is no reason for a new key");
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn drift_is_put_back_and_told() {
    let mut stage = Stage::new().await;
    let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]});
    stage
        .apply(
            "x",
            json!({"userName": "d", "tags": {"team": "payments"},
            "policies": {"managed": ["AmazonEC2FullAccess"], "inline": [{"name": "list", "document": document}]}}),
        )
        .await;
    stage.ready("x").await;
    let human = stage.aws.human();
    human.detach("d", EC2).await.expect("by hand");
    human.attach("d", VIEW).await.expect("by hand");
    human
        .put_inline(
            "d",
            "list",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        )
        .await
        .expect("by hand");
    human
        .put_inline(
            "d",
            "more",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        )
        .await
        .expect("by hand");
    human.tag("d", &[("Team", "attackers"), ("note", "by hand")]).await.expect("by hand");
    let iam = stage
        .until_iam("d", "as declared again", |user| {
            user.attached == BTreeSet::from([EC2.to_owned()])
                && user.inline.len() == 1
                && user.inline["list"] == document
                && user.tags.values().any(|value| value == "payments")
        })
        .await;
    assert_eq!(iam.tags["note"], "by hand", "unknown tags are left alone");
    let told = stage.event("x", Reason::UserChanged).await;
    assert!(told.contains(EC2), "{told}");
    stage.until_condition("x", ConditionType::UserSynced, "True", None).await;
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn tags_come_and_go_with_the_manifest() {
    let stage = Stage::new().await;
    stage
        .apply(
            "x",
            json!({"userName": "t", "tags": {"team": "payments", "cost": "42"}, "accessKey": {"useCase": "Other"}}),
        )
        .await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    let described =
        |text: &str| json!({"userName": "t", "tags": {"team": "payments"}, "accessKey": {"description": text}});
    stage.apply("x", described("Cycle hub")).await;
    stage.until_iam("t", "described", |user| user.tags.get(&key).is_some_and(|text| text == "Cycle hub")).await;
    stage.aws.human().tag("t", &[(&key, "by hand")]).await.expect("in the console");
    stage.until_iam("t", "described again", |user| user.tags.get(&key).is_some_and(|text| text == "Cycle hub")).await;
    stage.apply("x", json!({"userName": "t", "tags": {"team": "search"}})).await;
    stage.ready("x").await;
    let tags = stage.iam("t").await.tags;
    assert_eq!(tags["team"], "search");
    assert!(!tags.contains_key("cost") && !tags.contains_key("awsdeploy.dev/use-case"), "{tags:?}");
    assert!(tags.contains_key("awsdeploy.dev/uid"));
}

pub(crate) async fn quarantine_policies_are_never_detached() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "q", "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    stage.ready("x").await;
    let quarantine = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
    stage.aws.human().attach("q", quarantine).await.expect("AWS attaches it");
    stage.aws.human().attach("q", VIEW).await.expect("by hand");
    let iam = stage.until_iam("q", "the other policy is detached", |user| !user.attached.contains(VIEW)).await;
    assert!(iam.attached.contains(quarantine));
}

pub(crate) async fn groups_are_exactly_the_declared_ones() {
    let mut stage = Stage::new().await;
    let human = stage.aws.human();
    for group in ["deployers", "readers", "admins"] {
        human.create_group(group).await.expect("a group");
    }
    stage.apply("x", json!({"userName": "g", "groups": ["deployers", "readers"]})).await;
    stage.ready("x").await;
    assert_eq!(stage.iam("g").await.groups, BTreeSet::from(["deployers".to_owned(), "readers".to_owned()]));
    human.add_to_group("g", "admins").await.expect("by hand");
    stage.until_iam("g", "out of the group", |user| user.groups.len() == 2 && !user.groups.contains("admins")).await;
    let probe = async || {
        stage.events("x").await.into_iter().find(|(_, note)| note.contains("taken out of group admins")).map(drop)
    };
    eventually("an Event that tells of the drift", probe, || stage.log()).await;
    stage.until_condition("x", ConditionType::UserSynced, "True", None).await;
    stage.assert_a_fresh_look_writes_nothing("x").await;
    stage.apply("x", json!({"userName": "g", "groups": ["readers"]})).await;
    stage.ready("x").await;
    assert_eq!(stage.iam("g").await.groups, BTreeSet::from(["readers".to_owned()]));
    let mark = stage.aws.log().mark();
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(
        stage.aws.log().calls_since(mark).iter().all(|call| call.error.is_none()),
        "a declared group is no surprise"
    );
}

pub(crate) async fn a_group_that_does_not_exist_is_named() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"userName": "g", "groups": ["nobody"]})).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::GroupNotFound)).await;
    let told = message(&user, ConditionType::UserSynced);
    assert!(told.contains("nobody") && told.contains("spec.groups"), "{told}");
    assert!(stage.secret("x").await.is_none(), "no key before the user is what it should be");
    stage.aws.human().create_group("nobody").await.expect("a group");
    stage.ready("x").await;
}

pub(crate) async fn the_boundary_is_there_from_the_start_and_kept() {
    let stage = Stage::new().await;
    let class =
        json!({"permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess", "users": {"path": "/team/deploy/"}});
    let class = stage.class("limited", class).await;
    stage.apply("x", json!({"className": class, "userName": "b"})).await;
    stage.ready("x").await;
    let boundary = Some("arn:aws:iam::aws:policy/PowerUserAccess".to_owned());
    let iam = stage.iam("b").await;
    assert_eq!((iam.boundary.clone(), iam.path.as_str()), (boundary.clone(), "/team/deploy/"));
    assert!(stage.aws.log().calls_of("PutUserPermissionsBoundary").is_empty(), "it comes with the user");
    for by_hand in [None, Some(EC2)] {
        let mark = stage.aws.log().mark();
        stage.aws.human().set_boundary("b", by_hand).await.expect("by hand");
        stage.until_iam("b", "limited again", |user| user.boundary == boundary).await;
        assert_eq!(stage.aws.log().mutating_calls_since(mark).len(), 1);
    }
    let told = stage.event("x", Reason::UserChanged).await;
    assert!(told.contains("permissions boundary"), "{told}");
}

pub(crate) async fn without_its_boundary_no_user_is_made() {
    let stage = Stage::new().await;
    let class =
        stage.class("limited", json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/missing"})).await;
    stage.apply("x", json!({"className": class, "userName": "b"})).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::BoundaryNotFound)).await;
    let told = message(&user, ConditionType::UserSynced);
    assert!(told.contains("policy/missing") && told.contains("permissionsBoundary in the class"), "{told}");
    assert!(stage.iam_opt("b").await.is_none());
    stage.delete("x").await;
    stage.gone("x").await;
}
