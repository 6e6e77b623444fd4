//! Classes: what a cluster admin allows, and what follows when it is no longer allowed.

use std::collections::BTreeSet;

use awsdeploy::api::{AwsDeployUser, AwsDeployUserClass, AwsDeployUserClassStatus, ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use crate::test_env::{EnvOptions, OPERATOR_NAMESPACE, TIMEOUT, TestEnv, condition, eventually, message};

const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";

pub(crate) async fn nothing_is_allowed_without_a_class() {
    let env = TestEnv::new().await;
    env.apply("x", json!({"className": "missing", "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("AwsDeployUserClass missing does not exist"), "{text}");
    assert!(env.aws.log().calls().is_empty(), "AWS is not called");
    assert_eq!(user.metadata.finalizers, None, "there is nothing to clean up");
    env.delete("x").await;
    env.wait_deleted("x").await;
}

pub(crate) async fn class_sets_name_path_limits_tags_and_defaults() {
    let mut env = TestEnv::new().await;
    let class = json!({
        "users": {"path": "/team/", "nameTemplate": "deploy-{name}-{hash}", "namePattern": "deploy-.*"},
        "policies": {"allowed": ["AmazonS3FullAccess"], "default": ["AmazonS3FullAccess"]},
        "permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess",
        "rotation": {"default": {"every": "30d", "overlap": "12h"}},
        "tags": {"cost-center": "42"}, "tagKeys": ["own"],
    });
    let class = env.apply_class("team", class).await;
    env.apply("x", json!({"className": class, "tags": {"own": "tag"}})).await;
    let user = env.wait_ready("x").await;
    let status = user.status.clone().expect("a status");
    let name = status.user.expect("a user").name;
    let hash = name.strip_prefix("deploy-x-").expect("the template of the class");
    assert!(hash.len() == 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    let iam = env.iam(&name).await;
    assert_eq!(iam.path, "/team/");
    assert_eq!(iam.attached, BTreeSet::from([S3.to_owned()]));
    assert_eq!(iam.boundary.as_deref(), Some("arn:aws:iam::aws:policy/PowerUserAccess"));
    assert_eq!((iam.tags["cost-center"].as_str(), iam.tags["own"].as_str()), ("42", "tag"));
    let (last, next) = (status.last_rotation_time.expect("a key"), status.next_rotation_time.expect("a rotation"));
    assert_eq!(next.duration_since(last).as_hours() / 24, 29, "30 days, spread a little early");
    assert_eq!(status.class.map(|class| class.name), Some(class.clone()));
    env.assert_restart_writes_nothing("x").await;

    // A changed name template applies to new users only, a changed tag to all.
    let changed = json!({
        "users": {"path": "/team/", "nameTemplate": "other-{name}", "namePattern": ".*"},
        "policies": {"allowed": ["AmazonS3FullAccess"], "default": ["AmazonS3FullAccess"]},
        "permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess", "tags": {"stage": "prod"}, "tagKeys": ["own"],
    });
    env.apply_class("team", changed).await;
    let iam = env.wait_for_iam(&name, "with the new tag", |user| user.tags.contains_key("stage")).await;
    assert!(!iam.tags.contains_key("cost-center"), "a tag removed from the class is removed");
    assert!(env.iam_opt("other-x").await.is_none());
    env.apply("y", json!({"className": class})).await;
    env.wait_ready("y").await;
    assert!(env.iam_opt("other-y").await.is_some());
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt(&name).await.is_none(), "deleted under its original name");
}

pub(crate) async fn denied_spec_is_reported_without_aws_calls() {
    let env = TestEnv::new().await;
    let class = json!({
        "policies": {"allowed": ["AmazonEC2*", "AdministratorAccess"]}, "groups": ["readers"],
        "users": {"namePattern": "ok-.*"}, "tags": {"team": "a"}, "rotation": {"minEvery": "7d", "maxEvery": "30d"},
    });
    let class = env.apply_class("narrow", class).await;
    let spec = json!({
        "className": class, "userName": "ci-admin", "groups": ["admins"], "console": {},
        "tags": {"team": "b", "Department": "finance-admin"},
        "policies": {
            "managed": ["AmazonS3FullAccess", "AdministratorAccess"],
            "documents": [{"name": "own", "document": {"Version": "2012-10-17", "Statement": []}}],
        },
        "accessKey": {"rotation": {"every": "Never"}, "secret": {"labels": {"argocd.argoproj.io/secret-type": "cluster"}}},
    });
    env.apply("x", spec).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    for part in [
        "does not allow AmazonS3FullAccess; it allows: AmazonEC2*, AdministratorAccess",
        "AdministratorAccess makes the holder of the key an administrator",
        "does not allow policy documents, but own is declared",
        "does not allow the group admins; it allows: readers",
        "does not allow access to the console",
        "it must match ok-.*",
        "sets the tag team to \"a\"",
        "does not allow the tag Department; it allows: none",
        "does not allow the label argocd.argoproj.io/secret-type",
        "every: Never is not allowed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(env.aws.log().calls().is_empty(), "AWS is not called");
    env.wait_for_event("x", Reason::NotAllowed).await;
    env.apply(
        "y",
        json!({"className": class, "userName": "ok-1", "groups": [], "policies": {"managed": ["AmazonEC2FullAccess"]}}),
    )
    .await;
    let user = env.wait_ready("y").await;
    assert_eq!(
        condition(&user, ConditionType::Authorized).expect("Authorized").message,
        format!("class {class} allows it")
    );
}

pub(crate) async fn tightened_class_freezes_the_user_and_keeps_its_key() {
    let mut env = TestEnv::new().await;
    let class = env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    env.apply("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let position = env.aws.log().position();
    env.apply_class("c", json!({"policies": {"allowed": ["AmazonEC2FullAccess"]}})).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(
        text.contains("frozen, because the class does not allow") && text.contains("the published key stays valid"),
        "{text}"
    );
    assert_eq!(condition(&user, ConditionType::KeyPublished).expect("KeyPublished").status, "True");
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::Frozen)).await;

    // A frozen user gets no new key, neither by the annotation nor by deleting the Secret.
    env.annotate("x", "awsdeploy.dev/rotate", "now").await;
    env.secrets().delete("x", &DeleteParams::default()).await.expect("the Secret is deleted");
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Frozen)).await;
    env.operator.restart().await.expect("the operator restarts");
    env.aws
        .log()
        .wait_since(position, "a new read", TIMEOUT, |call| call.action == "ListGroupsForUser")
        .await
        .expect("a read");
    assert!(env.aws.log().mutating_calls_since(position).is_empty(), "{}", env.aws.log().transcript());
    assert_eq!(env.iam("u").await.active_keys(), [key.as_str()]);

    env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    env.wait_ready("x").await;
    assert_ne!(env.published_key("x").await, key, "the Secret is recreated with another key");
}

pub(crate) async fn namespace_without_its_label_loses_its_keys() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({"deploy": "yes"})).await;
    let spec = json!({"namespaces": {"selector": {"matchLabels": {"deploy": "yes"}}}, "onRevoked": "Deactivate",
        "console": "Allow", "policies": {"allowed": ["AmazonS3FullAccess"]}});
    let class = env.apply_class("c", spec).await;
    env.apply(
        "x",
        json!({"className": class, "userName": "u", "accessKey": {}, "console": {"passwordResetRequired": false},
            "policies": {"managed": ["AmazonS3FullAccess"]}}),
    )
    .await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let own = env.aws.manual_changes().create_key("u").await.expect("a key that the user makes for itself");
    env.label_namespace(json!({"deploy": null})).await;
    let user = env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Revoked)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains("does not serve namespace"), "{text}");
    let iam = env.iam("u").await;
    assert_eq!(iam.active_keys(), [own.id.as_str()], "a foreign key is not changed");
    assert!(iam.attached.is_empty(), "and allows nothing: {iam:?}");
    assert!(iam.login_profile.is_none(), "the password is deleted too");
    env.aws.manual_changes().delete_key("u", &own.id).await.expect("a person deletes it");
    env.wait_for_event("x", Reason::KeyDeactivated).await;
    env.label_namespace(json!({"deploy": "yes"})).await;
    env.wait_ready("x").await;
    let other = env.published_key("x").await;
    assert_ne!(other, key);
    let iam = env.iam("u").await;
    assert_eq!((iam.active_keys(), iam.attached.len()), (vec![other.as_str()], 1));
}

pub(crate) async fn deleted_class_deletes_its_users() {
    let env = TestEnv::new().await;
    let class =
        env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    env.apply("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    env.wait_ready("x").await;
    env.classes().delete(&class, &DeleteParams::default()).await.expect("the class is deleted");
    env.wait_until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none()))
        .await;
    assert!(env.iam_opt("u").await.is_none());
    assert!(env.secret_data("x").await.is_none());
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(
        text.contains(&format!("AwsDeployUserClass {class} does not exist")) && text.contains("onRevoked: Delete"),
        "{text}"
    );

    // Allowed again and denied again: a foreign key blocks the deletion of the user, which has lost its policies.
    env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    env.wait_ready("x").await;
    let foreign = env.aws.manual_changes().create_key("u").await.expect("a key created manually");
    env.apply_class("c", json!({"onRevoked": "Delete"})).await;
    env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::ForeignKeys)).await;
    let iam = env.iam("u").await;
    assert!(iam.attached.is_empty(), "{iam:?}");
    assert_eq!(iam.active_keys(), [foreign.id.as_str()]);
    env.aws.manual_changes().delete_key("u", &foreign.id).await.expect("its owner deletes it");
    env.wait_until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none()))
        .await;
    env.delete("x").await;
    env.wait_deleted("x").await;
}

pub(crate) async fn class_deleted_before_iam_lists_its_user_leaves_no_key() {
    let mut env = TestEnv::with_arguments(&["--recovery-delay=10s"]).await;
    let class = env.apply_class("c", json!({"onRevoked": "Delete"})).await;
    let pause = env.aws.rules().pause(Rule::on("GetCallerIdentity").from(3).before());
    env.apply("x", json!({"className": class, "userName": "u", "accessKey": {}})).await;
    // The third call belongs to the second reconcile; the first has recorded the class in the status.
    assert!(pause.wait_until_held(TIMEOUT).await, "the journal holds the only copy of a working key");
    env.operator.kill().await;
    pause.abort();
    env.aws.rules().clear();
    assert_eq!(env.iam("u").await.active_keys().len(), 1);
    env.classes().delete(&class, &DeleteParams::default()).await.expect("the class is deleted");

    let unseen = AwsError::new(404, "NoSuchEntity", "The user with name u cannot be found.");
    let unseen = env.aws.rules().add(Rule::on("GetUser").first(1).respond_with(unseen));
    env.operator.restart().await.expect("the operator restarts");
    let removed = async || env.iam_opt("u").await.is_none().then_some(());
    let context = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    eventually("the user is deleted with its key", removed, context).await;
    assert_eq!(env.aws.rules().hits(unseen).acted, 1, "the first read did not return the user");
    let without_user = |user: &AwsDeployUser| user.status.as_ref().is_some_and(|status| status.user.is_none());
    env.wait_until("x", "without a user", without_user).await;
    env.wait_journal_deleted("x").await;
    assert!(env.secret_data("x").await.is_none());
}

pub(crate) async fn denied_change_is_not_applied_and_revocation_works() {
    let env = TestEnv::new().await;
    let class =
        env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}, "onRevoked": "Delete"})).await;
    let spec = |policy: &str, credentials: &str| json!({"className": class, "userName": "u", "policies": {"managed": [policy]}, "credentials": credentials});
    env.apply("x", spec("AmazonS3FullAccess", "Active")).await;
    env.wait_ready("x").await;
    let position = env.aws.log().position();
    env.apply("x", spec("AmazonEC2FullAccess", "Active")).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    assert!(message(&user, ConditionType::Authorized).contains("the published key stays valid"));
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
    assert_eq!(env.iam("u").await.attached, BTreeSet::from([S3.to_owned()]));
    env.apply("x", spec("AmazonEC2FullAccess", "Revoked")).await;
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    env.apply("x", spec("AmazonS3FullAccess", "Active")).await;
    env.wait_ready("x").await;
}

pub(crate) async fn user_over_the_class_quota_waits() {
    let env = TestEnv::new().await;
    let class = env.apply_class("c", json!({"users": {"maxPerNamespace": 1}})).await;
    env.apply("first", json!({"className": class})).await;
    env.wait_ready("first").await;
    env.apply("second", json!({"className": class})).await;
    let user = env.wait_for_condition("second", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains("allows 1 users per namespace"), "{text}");
    assert!(env.iam_opt(&format!("{}_second", env.namespace)).await.is_none());
    env.delete("first").await;
    env.wait_ready("second").await;
    env.wait_deleted("first").await;
}

pub(crate) async fn user_of_another_class_waits_for_quota_too() {
    let env = TestEnv::new().await;
    let wide = env.apply_class("wide", json!({})).await;
    let narrow = env.apply_class("narrow", json!({"users": {"maxPerNamespace": 1}})).await;
    env.apply("first", json!({"className": narrow})).await;
    env.wait_ready("first").await;
    env.apply("second", json!({"className": wide})).await;
    env.wait_ready("second").await;
    let position = env.aws.log().position();
    env.apply("second", json!({"className": narrow})).await;
    let user = env.wait_for_condition("second", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains("allows 1 users per namespace"), "{text}");
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
    env.delete("first").await;
    env.wait_ready("second").await;
    env.wait_deleted("first").await;
}

pub(crate) async fn account_other_than_the_class_account_is_not_written() {
    let env = TestEnv::new().await;
    let class = env.apply_class("c", json!({"account": {"id": "000000000001"}})).await;
    env.apply("x", json!({"className": class, "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::WrongAccount)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("for AWS account 000000000001"), "{text}");
    let calls = env.aws.log().calls();
    assert!(calls.iter().all(|call| call.action == "GetCallerIdentity"), "{calls:#?}");
}

pub(crate) async fn changed_class_does_not_move_a_user() {
    let env = TestEnv::new().await;
    let here = env.apply_class("here", json!({"users": {"path": "/here/"}})).await;
    let there = env.apply_class("there", json!({"users": {"path": "/there/"}, "onRevoked": "Delete"})).await;
    env.apply("x", json!({"className": here, "userName": "u"})).await;
    env.wait_ready("x").await;
    let position = env.aws.log().position();
    env.apply("x", json!({"className": there, "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains("existing users are not moved") && text.contains("the published key stays valid"), "{text}");
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
    env.apply("x", json!({"className": here, "userName": "u"})).await;
    env.wait_ready("x").await;
}

pub(crate) async fn class_status_reports_account_users_and_credentials() {
    let env =
        TestEnv::with_options(EnvOptions { arguments: vec!["--class-status=true"], ..EnvOptions::default() }).await;
    let broken = json!([{"name": "t", "document": {"Statement": {"Effect": "{effect}"}}}]);
    let missing =
        json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/missing", "policies": {"templates": broken}});
    let class = env.apply_class("c", missing).await;
    let status = |wanted: &'static [&'static str], users: i64| {
        let classes: Api<awsdeploy::api::AwsDeployUserClass> = env.classes();
        let class = class.clone();
        async move {
            let fits = |found: Option<&awsdeploy::api::AwsDeployUserClass>| {
                found.and_then(|found| found.status.as_ref()).is_some_and(|status| {
                    let reasons: Vec<&str> = status.conditions.iter().map(|found| found.reason.as_str()).collect();
                    reasons == wanted && status.users == users
                })
            };
            match tokio::time::timeout(TIMEOUT, await_condition(classes.clone(), &class, fits)).await {
                Ok(Ok(Some(found))) => found.status.expect("a status"),
                other => panic!("{wanted:?} {users}: {other:?} {:?}", classes.get(&class).await),
            }
        }
    };
    let found = status(&["BoundaryNotFound", "Reconciled", "Reconciled", "BoundaryNotFound", "InvalidSpec"], 0).await;
    assert!(found.conditions[4].message.contains("template t: {effect}"), "{:?}", found.conditions[4]);
    assert_eq!(found.boundary.as_deref(), Some("missing"));
    assert_eq!(found.account.as_deref(), Some(env.account.id()));
    env.apply("x", json!({"className": class})).await;
    env.apply_class("c", json!({"permissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess"})).await;
    let found = status(&["Reconciled"; 5], 1).await;
    assert_eq!(found.operator_namespace.as_deref(), Some(OPERATOR_NAMESPACE));
    env.wait_ready("x").await;
}

pub(crate) async fn class_of_another_operator_is_reported_once_it_is_outdated() {
    let env =
        TestEnv::with_options(EnvOptions { arguments: vec!["--class-status=true"], ..EnvOptions::default() }).await;
    let (classes, name) = (env.classes(), env.apply_class("c", json!({})).await);
    let observed = async |name: &str, what: &str, fits: fn(&AwsDeployUserClassStatus) -> bool| {
        let fits = |found: Option<&AwsDeployUserClass>| found.and_then(|found| found.status.as_ref()).is_some_and(fits);
        match tokio::time::timeout(TIMEOUT, await_condition(classes.clone(), name, fits)).await {
            Ok(Ok(Some(found))) => found,
            other => panic!("{what}: {other:?} {:?}", classes.get(name).await),
        }
    };
    let generation = observed(&name, "observed", |status| !status.conditions.is_empty()).await.metadata.generation;
    let theirs = json!({"status": {
        "operatorNamespace": "elsewhere", "users": 77, "observedGeneration": generation, "conditions": [],
    }});
    classes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&theirs)).await.expect("a status");
    // Every class is reconciled again for a user.
    env.apply("x", json!({"className": name})).await;
    env.wait_ready("x").await;
    let other = env.apply_class("other", json!({})).await;
    observed(&other, "another class", |status| !status.conditions.is_empty()).await;
    let status = classes.get(&name).await.expect("the class").status.expect("a status");
    assert_eq!((status.users, status.conditions.len()), (77, 0), "written by another operator");
    env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let taken = observed(&name, "taken over", |status| !status.conditions.is_empty()).await;
    let status = taken.status.expect("a status");
    assert_eq!(status.operator_namespace.as_deref(), Some(OPERATOR_NAMESPACE));
    assert_eq!(status.observed_generation, taken.metadata.generation);
}
