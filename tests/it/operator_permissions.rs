//! The third layer of enforcement: the IAM policy that the operator prints for its classes. It suffices for them, and
//! AWS refuses the rest if admission and operator fail.

use std::{collections::BTreeSet, process::Command};

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{Call, UserSnapshot};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TestEnv, condition, message};

const BOUNDARY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";
const CONSENT: &str = "awsdeploy.dev/adoptable-by";

/// Starts an operator whose IAM policy covers the classes of the test only.
async fn start_env() -> TestEnv {
    let env_options =
        EnvOptions { arguments: vec!["--cluster-id=it"], own_classes_only: true, ..EnvOptions::default() };
    TestEnv::with_options(env_options).await
}

/// Runs `kubectl get aduc -o yaml | aws-deploy-user-operator iam-policy --class -`, with a file instead of the pipe.
async fn print_policy(env: &TestEnv, classes: &[&str]) -> Value {
    let mut items = Vec::new();
    for class in classes {
        items.push(serde_json::to_value(env.classes().get(class).await.expect("a class")).expect("JSON"));
    }
    let file = env.directory.join("classes.yaml");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).expect("a file");
    let printed = Command::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"))
        .args(["iam-policy", "--account", env.account.id(), "--class"])
        .arg(&file)
        .output()
        .expect("the operator runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).expect("a policy")
}

fn denied_calls(env: &TestEnv) -> Vec<String> {
    let denied = env.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    denied.into_iter().map(|call| call.to_string()).collect()
}

/// Creates, rotates, changes, repairs and deletes with the printed policy only.
pub(crate) async fn printed_policy_suffices_for_the_users_of_its_classes() {
    let env = start_env().await;
    let narrow = json!({
        "users": {"path": "/narrow/"}, "permissionsBoundary": BOUNDARY, "groups": ["readers"], "tagKeys": ["team"],
        "policies": {"allowed": ["AmazonEC2FullAccess", "AmazonS3*"]},
    });
    let wide = json!({
        "users": {"path": "/wide/"}, "policies": {"allowed": ["*"], "documents": "Allow"}, "console": "Allow",
        "adoption": "Allow", "acknowledgeAdminEquivalent": true,
    });
    let (narrow, wide) = (env.apply_class("narrow", narrow).await, env.apply_class("wide", wide).await);
    env.set_iam_policy(&print_policy(&env, &[&narrow, &wide]).await);
    let manual_changes = env.aws.manual_changes();
    manual_changes
        .call(&Call::iam("CreateGroup").with("GroupName", "readers").with("Path", "/teams/"))
        .await
        .expect("a group");

    let spec = |policy: &str, team: &str| {
        json!({"className": narrow, "userName": "n", "policies": {"managed": [policy]}, "groups": ["readers"],
            "tags": {"team": team}, "accessKey": {"rotation": {"every": "30d", "overlap": "1s", "holdWhileUsed": "1s"}}})
    };
    env.apply("n", spec("AmazonEC2FullAccess", "a")).await;
    env.wait_ready("n").await;
    let first = env.published_key("n").await;
    env.annotate("n", "awsdeploy.dev/rotate", "now").await;
    env.wait_published("n", &first).await;
    env.wait_for_iam("n", "without its first key", |user| user.key(&first).is_none()).await;
    env.apply("n", spec("AmazonS3FullAccess", "b")).await;
    env.wait_for_iam("n", "changed", |user| {
        user.attached == BTreeSet::from([S3.to_owned()]) && user.tags["team"] == "b"
    })
    .await;
    manual_changes.set_boundary("n", None).await.expect("manually");
    manual_changes.attach("n", EC2).await.expect("manually");
    env.wait_for_iam("n", "repaired", |user| user.boundary.is_some() && user.attached.len() == 1).await;
    assert_eq!(env.iam("n").await.groups, BTreeSet::from(["readers".to_owned()]));

    let create = Call::iam("CreateUser").with("UserName", "w").with("Path", "/wide/");
    let consent = format!("it/{}/w", env.namespace);
    manual_changes.call(&create.with_tags([(CONSENT, consent.as_str())])).await.expect("an unmanaged user");
    let document =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let spec = json!({
        "className": wide, "userName": "w", "adoption": "IfTagged", "console": {}, "accessKey": {},
        "policies": {"managed": ["AdministratorAccess"], "documents": [{"name": "own", "document": document}]},
    });
    env.apply("w", spec).await;
    env.wait_ready("w").await;
    let iam = env.iam("w").await;
    assert!(iam.login_profile.is_some() && iam.inline.contains_key("own"), "{iam:?}");

    for name in ["n", "w"] {
        manual_changes
            .call(
                &Call::iam("CreateServiceSpecificCredential")
                    .with("UserName", name)
                    .with("ServiceName", "codecommit.amazonaws.com"),
            )
            .await
            .expect("manually");
        env.delete(name).await;
        env.wait_deleted(name).await;
        assert!(env.iam_opt(name).await.is_none());
    }
    // Created without a boundary and revoked by a class with one: revocation must not depend on the boundary.
    let before = json!({"users": {"path": "/late/"}, "policies": {"allowed": ["AmazonS3*"]}});
    let late = env.apply_class("late", before).await;
    env.apply("l", json!({"className": late, "userName": "l", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    env.wait_ready("l").await;
    let after = json!({"users": {"path": "/late/"}, "permissionsBoundary": BOUNDARY, "onRevoked": "Delete"});
    env.apply_class("late", after).await;
    env.set_iam_policy(&print_policy(&env, &[&narrow, &wide, &late]).await);
    env.wait_until("l", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none()))
        .await;
    assert!(env.iam_opt("l").await.is_none());
    assert_eq!(denied_calls(&env), Vec::<String>::new());
}

/// A tampered class: admission and operator follow it, the IAM policy does not include it.
struct TamperedClass {
    name: &'static str,
    class: Value,
    spec: Value,
    /// Prefix of the action that AWS refuses.
    refused: &'static str,
}

fn tampered_classes() -> Vec<TamperedClass> {
    let with = |change: Value| {
        let mut class = granted_class();
        for (field, value) in change.as_object().expect("an object") {
            class[field] = value.clone();
        }
        class
    };
    let statement = json!({"Effect": "Allow", "Action": "iam:*", "Resource": "*"});
    let inline = json!([{"name": "own", "document": {"Version": "2012-10-17", "Statement": [statement]}}]);
    let ec2 = json!({"policies": {"managed": ["AmazonEC2FullAccess"]}});
    let row = |name, class, spec, refused| TamperedClass { name, class, spec, refused };
    vec![
        row("elsewhere", with(json!({"users": {"path": "/"}})), ec2.clone(), "CreateUser"),
        row("unlimited", with(json!({"permissionsBoundary": null})), ec2.clone(), "CreateUser"),
        row("otherwise-limited", with(json!({"permissionsBoundary": EC2})), ec2, "CreateUser"),
        row(
            "administrator",
            with(json!({"policies": {"allowed": ["*"]}, "acknowledgeAdminEquivalent": true})),
            json!({"policies": {"managed": ["AdministratorAccess"]}}),
            "AttachUserPolicy",
        ),
        row(
            "writer",
            with(json!({"policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true})),
            json!({"policies": {"documents": inline}}),
            "PutUserPolicy",
        ),
        row("member", with(json!({"groups": ["*"]})), json!({"groups": ["admins"]}), "AddUserToGroup"),
        row(
            "person",
            with(json!({"console": "Allow"})),
            json!({"console": {"passwordResetRequired": false}}),
            "CreateLoginProfile",
        ),
        row(
            "ci-admin",
            with(json!({"users": {"path": "/"}, "adoption": "Allow", "permissionsBoundary": null})),
            json!({"userName": "ci-admin", "adoption": "IfTagged"}),
            // Even reads of that user are refused.
            "List",
        ),
    ]
}

/// The class that the operator's IAM policy is printed for.
fn granted_class() -> Value {
    json!({
        "users": {"path": "/awsdeploy/"}, "permissionsBoundary": BOUNDARY, "groups": ["readers"],
        "policies": {"allowed": ["AmazonEC2FullAccess"]},
    })
}

fn has_no_permissions(user: &UserSnapshot) -> bool {
    user.attached.is_empty()
        && user.inline.is_empty()
        && user.groups.is_empty()
        && user.keys.is_empty()
        && user.login_profile.is_none()
        && user.boundary.as_deref() == Some(BOUNDARY)
}

pub(crate) async fn aws_refuses_a_resource_that_passed_every_other_check() {
    let mut env = start_env().await;
    let class = env.apply_class("honest", granted_class()).await;
    env.set_iam_policy(&print_policy(&env, &[&class]).await);
    let manual_changes = env.aws.manual_changes();
    manual_changes.create_group("admins").await.expect("a group");
    let consent = format!("it/{}/ci-admin", env.namespace);
    let create = Call::iam("CreateUser").with("UserName", "ci-admin").with_tags([(CONSENT, consent.as_str())]);
    manual_changes.call(&create).await.expect("an unmanaged user");
    let admin = env.iam("ci-admin").await;
    // A user that loses its boundary, in a class that no longer requires one.
    env.apply("freed", json!({"className": class, "userName": "freed", "policies": {"managed": []}})).await;
    env.wait_ready("freed").await;

    let rows = tampered_classes();
    for row in &rows {
        let class =
            env.try_apply_class_without_permissions(row.name, row.class.clone()).await.expect("a class").name_any();
        let mut spec = row.spec.clone();
        spec["className"] = json!(class);
        if spec["userName"].is_null() {
            spec["userName"] = json!(row.name);
        }
        env.apply(row.name, spec).await;
    }
    for row in &rows {
        let user = env.wait_for_condition(row.name, ConditionType::Ready, "False", Some(Reason::AccessDenied)).await;
        assert_eq!(condition(&user, ConditionType::Authorized).expect("Authorized").status, "True", "{}", row.name);
        let text = message(&user, ConditionType::Ready);
        assert!(text.contains(&format!("iam:{}", row.refused)), "{}: {text}", row.name);
        assert!(env.secret_data(row.name).await.is_none(), "{}", row.name);
        match env.iam_opt(row.name).await {
            Some(found) if row.name == "ci-admin" => assert_eq!(found, admin, "unchanged"),
            found => assert!(found.iter().all(has_no_permissions), "{}: {found:?}", row.name),
        }
    }

    // It would set the boundary again before it knows the changed class.
    env.operator.kill().await;
    env.aws.manual_changes().set_boundary("freed", None).await.expect("manually");
    let mut free = granted_class();
    free["permissionsBoundary"] = Value::Null;
    env.try_apply_class_without_permissions("honest", free).await.expect("a class");
    env.apply(
        "freed",
        json!({"className": class, "userName": "freed", "policies": {"managed": ["AmazonEC2FullAccess"]}}),
    )
    .await;
    env.operator.restart().await.expect("the operator starts");
    let user = env.wait_for_condition("freed", ConditionType::UserSynced, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("iam:AttachUserPolicy"));
    assert!(env.iam("freed").await.attached.is_empty());

    let denied = env.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    for call in denied {
        assert!(rows.iter().any(|row| call.action.starts_with(row.refused)), "no other call was denied: {call}");
    }
}
