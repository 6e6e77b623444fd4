//! Classes: what a cluster admin allows, and what happens when it is no longer allowed.

use std::collections::BTreeSet;

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use kube::{Api, api::DeleteParams, runtime::wait::await_condition};
use serde_json::json;

use crate::stage::{SOON, Stage, Wishes, condition, eventually, message};

const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";

pub(crate) async fn without_a_class_nothing_is_allowed() {
    let stage = Stage::new().await;
    stage.apply("x", json!({"className": "nobody-made-it", "userName": "u"})).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("there is no AwsDeployUserClass nobody-made-it"), "{told}");
    assert!(stage.aws.log().calls().is_empty(), "AWS is not asked anything");
    assert_eq!(user.metadata.finalizers, None, "there is nothing to clean up");
    stage.delete("x").await;
    stage.gone("x").await;
}

pub(crate) async fn a_class_decides_on_name_path_limits_tags_and_defaults() {
    let mut stage = Stage::new().await;
    let class = json!({
        "users": {"path": "/team/", "nameTemplate": "deploy-{name}-{hash}", "namePattern": "deploy-.*"},
        "policies": {"allowed": ["AmazonS3FullAccess"], "default": ["AmazonS3FullAccess"]},
        "permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess",
        "rotation": {"default": {"every": "30d", "overlap": "12h"}},
        "tags": {"cost-center": "42"},
    });
    let class = stage.class("team", class).await;
    stage.apply("x", json!({"className": class, "tags": {"own": "tag"}})).await;
    let user = stage.ready("x").await;
    let status = user.status.clone().expect("a status");
    let name = status.user.expect("a user").name;
    let hash = name.strip_prefix("deploy-x-").expect("the template of the class");
    assert!(hash.len() == 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    let iam = stage.iam(&name).await;
    assert_eq!(iam.path, "/team/");
    assert_eq!(iam.attached, BTreeSet::from([S3.to_owned()]));
    assert_eq!(iam.boundary.as_deref(), Some("arn:aws:iam::aws:policy/PowerUserAccess"));
    assert_eq!((iam.tags["cost-center"].as_str(), iam.tags["own"].as_str()), ("42", "tag"));
    let (last, next) = (status.last_rotation_time.expect("a key"), status.next_rotation_time.expect("a rotation"));
    assert_eq!(next.duration_since(last).as_hours() / 24, 29, "30 days, spread a little early");
    assert_eq!(status.class.map(|class| class.name), Some(class.clone()));
    stage.assert_a_fresh_look_writes_nothing("x").await;

    // Another template is for those that come later; another tag is for all.
    let changed = json!({
        "users": {"path": "/team/", "nameTemplate": "other-{name}", "namePattern": ".*"},
        "policies": {"allowed": ["AmazonS3FullAccess"], "default": ["AmazonS3FullAccess"]},
        "permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess", "tags": {"stage": "prod"},
    });
    stage.class("team", changed).await;
    let iam = stage.until_iam(&name, "tagged anew", |user| user.tags.contains_key("stage")).await;
    assert!(!iam.tags.contains_key("cost-center"), "a tag that the class has dropped goes");
    assert!(stage.iam_opt("other-x").await.is_none());
    stage.apply("y", json!({"className": class})).await;
    stage.ready("y").await;
    assert!(stage.iam_opt("other-y").await.is_some());
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt(&name).await.is_none(), "found under the name it was made with");
}

pub(crate) async fn what_a_class_does_not_allow_is_told_and_never_asked_of_aws() {
    let stage = Stage::new().await;
    let class = json!({
        "policies": {"allowed": ["AmazonEC2*", "AdministratorAccess"]}, "groups": ["readers"],
        "users": {"namePattern": "ok-.*"}, "tags": {"team": "a"}, "rotation": {"minEvery": "7d", "maxEvery": "30d"},
    });
    let class = stage.class("narrow", class).await;
    let spec = json!({
        "className": class, "userName": "ci-admin", "groups": ["admins"], "console": {}, "tags": {"team": "b"},
        "policies": {
            "managed": ["AmazonS3FullAccess", "AdministratorAccess"],
            "inline": [{"name": "own", "document": {"Version": "2012-10-17", "Statement": []}}],
        },
        "accessKey": {"rotation": {"every": "Never"}},
    });
    stage.apply("x", spec).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    for part in [
        "does not allow AmazonS3FullAccess; it allows: AmazonEC2*, AdministratorAccess",
        "AdministratorAccess makes whoever has the key an administrator",
        "does not allow inline policies, and own is one",
        "does not allow the group admins; it allows: readers",
        "does not allow access to the console",
        "it has to fit ok-.*",
        "sets the tag team to \"a\"",
        "so Never is not allowed",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(stage.aws.log().calls().is_empty(), "AWS is not asked anything");
    stage.event("x", Reason::NotAllowed).await;
    stage.apply("y", json!({"className": class, "userName": "ok-1", "groups": [], "policies": {"managed": ["AmazonEC2FullAccess"]}})).await;
    let user = stage.ready("y").await;
    assert_eq!(
        condition(&user, ConditionType::Authorized).expect("Authorized").message,
        format!("class {class} allows it")
    );
}

pub(crate) async fn a_tightened_class_freezes_the_user_and_its_key_lives_on() {
    let mut stage = Stage::new().await;
    let class = stage.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    stage
        .apply("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}}))
        .await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    let mark = stage.aws.log().mark();
    stage.class("c", json!({"policies": {"allowed": ["AmazonEC2FullAccess"]}})).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(
        told.contains("frozen, because the class does not allow") && told.contains("the key stays valid"),
        "{told}"
    );
    assert_eq!(condition(&user, ConditionType::KeyPublished).expect("KeyPublished").status, "True");
    stage.until_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;

    // Whoever asks for another key gets none, not even by taking the Secret away.
    stage.annotate("x", "awsdeploy.dev/rotate", "now").await;
    stage.secrets().delete("x", &DeleteParams::default()).await.expect("the Secret is deleted");
    stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Frozen)).await;
    stage.operator.restart().await.expect("the operator restarts");
    stage
        .aws
        .log()
        .wait_since(mark, "a fresh look", SOON, |call| call.action == "ListGroupsForUser")
        .await
        .expect("a look");
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty(), "{}", stage.aws.log().transcript());
    assert_eq!(stage.iam("u").await.active_keys(), [key.as_str()]);

    stage.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    stage.ready("x").await;
    assert_ne!(stage.published("x").await, key, "the Secret is back with another key");
}

pub(crate) async fn a_namespace_without_its_label_loses_its_keys() {
    let stage = Stage::new().await;
    stage.label_namespace(json!({"deploy": "yes"})).await;
    let spec = json!({"namespaces": {"selector": {"matchLabels": {"deploy": "yes"}}}, "onRevoked": "Deactivate", "console": "Allow"});
    let class = stage.class("c", spec).await;
    stage
        .apply(
            "x",
            json!({"className": class, "userName": "u", "accessKey": {}, "console": {"passwordResetRequired": false}}),
        )
        .await;
    stage.ready("x").await;
    let key = stage.published("x").await;
    stage.label_namespace(json!({"deploy": null})).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Revoked)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(told.contains("does not serve namespace"), "{told}");
    let iam = stage.iam("u").await;
    assert!(iam.active_keys().is_empty(), "{iam:?}");
    assert!(iam.login_profile.is_none(), "the password is gone too");
    stage.event("x", Reason::KeyDeactivated).await;
    stage.label_namespace(json!({"deploy": "yes"})).await;
    stage.ready("x").await;
    let other = stage.published("x").await;
    assert_ne!(other, key);
    assert_eq!(stage.iam("u").await.active_keys(), [other.as_str()]);
}

pub(crate) async fn a_deleted_class_takes_its_users_with_it() {
    let stage = Stage::new().await;
    let class = stage.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    stage
        .apply("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}}))
        .await;
    stage.ready("x").await;
    stage.classes().delete(&class, &DeleteParams::default()).await.expect("the class is deleted");
    stage.until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none())).await;
    assert!(stage.iam_opt("u").await.is_none());
    assert!(stage.secret("x").await.is_none());
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("there is no AwsDeployUserClass") && told.contains("onRevoked: Delete"), "{told}");

    // A class of that name allows it anew, and a key of somebody else keeps the user when that ends: without a policy.
    stage.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    stage.ready("x").await;
    let foreign = stage.aws.human().create_key("u").await.expect("a key by hand");
    stage.class("c", json!({"onRevoked": "Delete"})).await;
    stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::ForeignKeys)).await;
    let iam = stage.iam("u").await;
    assert!(iam.attached.is_empty(), "{iam:?}");
    assert_eq!(iam.active_keys(), [foreign.id.as_str()]);
    stage.aws.human().delete_key("u", &foreign.id).await.expect("its maker removes it");
    stage.until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none())).await;
    stage.delete("x").await;
    stage.gone("x").await;
}

pub(crate) async fn a_class_that_goes_before_iam_shows_its_user_leaves_no_key_behind() {
    let mut stage = Stage::with_arguments(&["--intent-dwell=10s"]).await;
    let class = stage.class("c", json!({"onRevoked": "Delete"})).await;
    let pause = stage.aws.rules().pause(Rule::on("GetCallerIdentity").from(3).before());
    stage.apply("x", json!({"className": class, "userName": "u", "accessKey": {}})).await;
    // The third one is of the second pass: the first has told which class allows it.
    assert!(pause.paused(SOON).await, "the journal has the only copy of a key that works");
    stage.operator.kill().await;
    pause.abort();
    stage.aws.rules().clear();
    assert_eq!(stage.iam("u").await.active_keys().len(), 1);
    stage.classes().delete(&class, &DeleteParams::default()).await.expect("the class is deleted");

    let unseen = AwsError::new(404, "NoSuchEntity", "The user with name u cannot be found.");
    let unseen = stage.aws.rules().add(Rule::on("GetUser").first(1).answer(unseen));
    stage.operator.restart().await.expect("the operator comes back");
    let removed = async || stage.iam_opt("u").await.is_none().then_some(());
    let context = || format!("{}\n{}", stage.aws.log().transcript(), stage.log());
    eventually("the user is removed with its key", removed, context).await;
    assert_eq!(stage.aws.rules().hits(unseen).acted, 1, "IAM did not show the user at first");
    let gone = |user: &AwsDeployUser| user.status.as_ref().is_some_and(|status| status.user.is_none());
    stage.until("x", "without a user", gone).await;
    let left = async || stage.secret("x.awsdeploy-journal").await.is_none().then_some(());
    eventually("the journal is closed", left, || stage.log()).await;
    assert!(stage.secret("x").await.is_none());
}

pub(crate) async fn a_forbidden_change_costs_nothing_and_suspend_still_works() {
    let stage = Stage::new().await;
    let class = stage.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    let spec = |policy: &str, suspend: bool| json!({"className": class, "userName": "u", "policies": {"managed": [policy]}, "suspend": suspend});
    stage.apply("x", spec("AmazonS3FullAccess", false)).await;
    stage.ready("x").await;
    let mark = stage.aws.log().mark();
    stage.apply("x", spec("AmazonEC2FullAccess", false)).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    assert!(message(&user, ConditionType::Authorized).contains("the key stays valid"));
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty());
    assert_eq!(stage.iam("u").await.attached, BTreeSet::from([S3.to_owned()]));
    stage.apply("x", spec("AmazonEC2FullAccess", true)).await;
    stage.until_iam("u", "suspended", |user| user.active_keys().is_empty()).await;
    stage.apply("x", spec("AmazonS3FullAccess", false)).await;
    stage.ready("x").await;
}

pub(crate) async fn who_comes_too_late_waits_for_room() {
    let stage = Stage::new().await;
    let class = stage.class("c", json!({"users": {"maxPerNamespace": 1}})).await;
    stage.apply("first", json!({"className": class})).await;
    stage.ready("first").await;
    stage.apply("second", json!({"className": class})).await;
    let user = stage.until_condition("second", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(told.contains("allows 1 users in a namespace"), "{told}");
    assert!(stage.iam_opt(&format!("{}-second", stage.namespace)).await.is_none());
    stage.delete("first").await;
    stage.ready("second").await;
    stage.gone("first").await;
}

pub(crate) async fn whoever_comes_from_another_class_waits_for_room_too() {
    let stage = Stage::new().await;
    let wide = stage.class("wide", json!({})).await;
    let narrow = stage.class("narrow", json!({"users": {"maxPerNamespace": 1}})).await;
    stage.apply("first", json!({"className": narrow})).await;
    stage.ready("first").await;
    stage.apply("second", json!({"className": wide})).await;
    stage.ready("second").await;
    let mark = stage.aws.log().mark();
    stage.apply("second", json!({"className": narrow})).await;
    let user = stage.until_condition("second", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(told.contains("allows 1 users in a namespace"), "{told}");
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty());
    stage.delete("first").await;
    stage.ready("second").await;
    stage.gone("first").await;
}

pub(crate) async fn another_account_than_the_class_asks_for_is_not_written_to() {
    let stage = Stage::new().await;
    let class = stage.class("c", json!({"account": {"id": "000000000001"}})).await;
    stage.apply("x", json!({"className": class, "userName": "u"})).await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::WrongAccount)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("for AWS account 000000000001"), "{told}");
    let calls = stage.aws.log().calls();
    assert!(calls.iter().all(|call| call.action == "GetCallerIdentity"), "{calls:#?}");
}

pub(crate) async fn another_class_does_not_move_a_user() {
    let stage = Stage::new().await;
    let here = stage.class("here", json!({"users": {"path": "/here/"}})).await;
    let there = stage.class("there", json!({"users": {"path": "/there/"}, "onRevoked": "Delete"})).await;
    stage.apply("x", json!({"className": here, "userName": "u"})).await;
    stage.ready("x").await;
    let mark = stage.aws.log().mark();
    stage.apply("x", json!({"className": there, "userName": "u"})).await;
    let user = stage.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(told.contains("a user that exists is not moved") && told.contains("the key stays valid"), "{told}");
    assert!(stage.aws.log().mutating_calls_since(mark).is_empty());
    stage.apply("x", json!({"className": here, "userName": "u"})).await;
    stage.ready("x").await;
}

pub(crate) async fn a_class_says_how_it_stands() {
    let stage = Stage::with(Wishes { arguments: vec!["--report-classes=true"], ..Wishes::default() }).await;
    let broken = json!([{"name": "t", "document": {"Statement": {"Effect": "{effect}"}}}]);
    let missing =
        json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/missing", "policies": {"templates": broken}});
    let class = stage.class("c", missing).await;
    let status = |wanted: &'static [&'static str], users: i64| {
        let classes: Api<awsdeploy::api::AwsDeployUserClass> = stage.classes();
        let class = class.clone();
        async move {
            let fits = |found: Option<&awsdeploy::api::AwsDeployUserClass>| {
                found.and_then(|found| found.status.as_ref()).is_some_and(|status| {
                    let reasons: Vec<&str> = status.conditions.iter().map(|found| found.reason.as_str()).collect();
                    reasons == wanted && status.users == users
                })
            };
            match tokio::time::timeout(SOON, await_condition(classes.clone(), &class, fits)).await {
                Ok(Ok(Some(found))) => found.status.expect("a status"),
                other => panic!("{wanted:?} {users}: {other:?} {:?}", classes.get(&class).await),
            }
        }
    };
    let found = status(&["AsDeclared", "AsDeclared", "BoundaryNotFound", "InvalidSpec"], 0).await;
    assert!(found.conditions[3].message.contains("template t: {effect}"), "{:?}", found.conditions[3]);
    assert_eq!(found.account.as_deref(), Some(stage.account.id()));
    stage.apply("x", json!({"className": class})).await;
    stage.class("c", json!({"permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess"})).await;
    status(&["AsDeclared", "AsDeclared", "AsDeclared", "AsDeclared"], 1).await;
    stage.ready("x").await;
}
