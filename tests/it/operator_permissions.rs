//! The third layer: AWS itself, by the IAM policy that the operator prints for its classes. It suffices, and it holds
//! when the first two layers have failed.

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

/// An operator that may do in AWS what the test's own classes need.
async fn env() -> TestEnv {
    let env_options =
        EnvOptions { arguments: vec!["--cluster-id=it"], own_classes_only: true, ..EnvOptions::default() };
    TestEnv::with(env_options).await
}

/// What `kubectl get aduc -o yaml | aws-deploy-user-operator iam-policy --class -` prints, with a file for the pipe.
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

fn refused_calls(env: &TestEnv) -> Vec<String> {
    let denied = env.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    denied.into_iter().map(|call| call.to_string()).collect()
}

/// Create, rotate, change, repair, delete: with nothing but what is printed for the two classes.
pub(crate) async fn printed_policy_suffices_for_the_users_of_its_classes() {
    let env = env().await;
    let narrow = json!({
        "users": {"path": "/narrow/"}, "permissionsBoundary": BOUNDARY, "groups": ["readers"],
        "policies": {"allowed": ["AmazonEC2FullAccess", "AmazonS3*"]},
    });
    let wide = json!({
        "users": {"path": "/wide/"}, "policies": {"allowed": ["*"], "inline": "Allow"}, "console": "Allow",
        "adoption": "Allow", "acknowledgeAdminEquivalent": true,
    });
    let (narrow, wide) = (env.class("narrow", narrow).await, env.class("wide", wide).await);
    env.enforce(&print_policy(&env, &[&narrow, &wide]).await);
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
    env.ready("n").await;
    let first = env.published("n").await;
    env.annotate("n", "awsdeploy.dev/rotate", "now").await;
    env.until_published("n", &first).await;
    env.until_iam("n", "without its first key", |user| user.key(&first).is_none()).await;
    env.apply("n", spec("AmazonS3FullAccess", "b")).await;
    env.until_iam("n", "changed", |user| user.attached == BTreeSet::from([S3.to_owned()]) && user.tags["team"] == "b")
        .await;
    manual_changes.set_boundary("n", None).await.expect("by hand");
    manual_changes.attach("n", EC2).await.expect("by hand");
    env.until_iam("n", "repaired", |user| user.boundary.is_some() && user.attached.len() == 1).await;
    assert_eq!(env.iam("n").await.groups, BTreeSet::from(["readers".to_owned()]));

    let create = Call::iam("CreateUser").with("UserName", "w").with("Path", "/wide/");
    let consent = format!("it/{}/w", env.namespace);
    manual_changes.call(&create.with_tags([(CONSENT, consent.as_str())])).await.expect("somebody's user");
    let document =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let spec = json!({
        "className": wide, "userName": "w", "adoption": "IfTagged", "console": {}, "accessKey": {},
        "policies": {"managed": ["AdministratorAccess"], "inline": [{"name": "own", "document": document}]},
    });
    env.apply("w", spec).await;
    env.ready("w").await;
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
            .expect("by hand");
        env.delete(name).await;
        env.gone(name).await;
        assert!(env.iam_opt(name).await.is_none());
    }
    // Made when its class had no boundary, and revoked by a class that has one: rights are taken whether or not it is there.
    let before = json!({"users": {"path": "/late/"}, "policies": {"allowed": ["AmazonS3*"]}});
    let late = env.class("late", before).await;
    env.apply("l", json!({"className": late, "userName": "l", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    env.ready("l").await;
    let after = json!({"users": {"path": "/late/"}, "permissionsBoundary": BOUNDARY, "onRevoked": "Delete"});
    env.class("late", after).await;
    env.enforce(&print_policy(&env, &[&narrow, &wide, &late]).await);
    env.until("l", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none())).await;
    assert!(env.iam_opt("l").await.is_none());
    assert_eq!(refused_calls(&env), Vec::<String>::new());
}

/// A class that the first two layers go by and AWS does not know: somebody has doctored it.
struct Doctored {
    name: &'static str,
    class: Value,
    spec: Value,
    /// How the action begins that AWS refuses.
    refused: &'static str,
}

fn doctored() -> Vec<Doctored> {
    let with = |change: Value| {
        let mut class = honest();
        for (field, value) in change.as_object().expect("an object") {
            class[field] = value.clone();
        }
        class
    };
    let statement = json!({"Effect": "Allow", "Action": "iam:*", "Resource": "*"});
    let inline = json!([{"name": "own", "document": {"Version": "2012-10-17", "Statement": [statement]}}]);
    let ec2 = json!({"policies": {"managed": ["AmazonEC2FullAccess"]}});
    let row = |name, class, spec, refused| Doctored { name, class, spec, refused };
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
            with(json!({"policies": {"inline": "Allow"}, "acknowledgeAdminEquivalent": true})),
            json!({"policies": {"inline": inline}}),
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
            // It cannot even look at what that user has.
            "List",
        ),
    ]
}

/// What the operator's IAM policy is made from.
fn honest() -> Value {
    json!({
        "users": {"path": "/awsdeploy/"}, "permissionsBoundary": BOUNDARY, "groups": ["readers"],
        "policies": {"allowed": ["AmazonEC2FullAccess"]},
    })
}

fn has_nothing(user: &UserSnapshot) -> bool {
    user.attached.is_empty()
        && user.inline.is_empty()
        && user.groups.is_empty()
        && user.keys.is_empty()
        && user.login_profile.is_none()
        && user.boundary.as_deref() == Some(BOUNDARY)
}

pub(crate) async fn aws_refuses_a_resource_that_passed_every_other_check() {
    let env = env().await;
    let class = env.class("honest", honest()).await;
    env.enforce(&print_policy(&env, &[&class]).await);
    let manual_changes = env.aws.manual_changes();
    manual_changes.create_group("admins").await.expect("a group");
    let consent = format!("it/{}/ci-admin", env.namespace);
    let create = Call::iam("CreateUser").with("UserName", "ci-admin").with_tags([(CONSENT, consent.as_str())]);
    manual_changes.call(&create).await.expect("somebody's user");
    let admin = env.iam("ci-admin").await;
    // One who had its boundary taken away, under a class that no longer asks for one.
    env.apply("freed", json!({"className": class, "userName": "freed", "policies": {"managed": []}})).await;
    env.ready("freed").await;

    let rows = doctored();
    for row in &rows {
        let class = env.try_class_without_rights(row.name, row.class.clone()).await.expect("a class").name_any();
        let mut spec = row.spec.clone();
        spec["className"] = json!(class);
        if spec["userName"].is_null() {
            spec["userName"] = json!(row.name);
        }
        env.apply(row.name, spec).await;
    }
    for row in &rows {
        let user = env.until_condition(row.name, ConditionType::Ready, "False", Some(Reason::AccessDenied)).await;
        assert_eq!(condition(&user, ConditionType::Authorized).expect("Authorized").status, "True", "{}", row.name);
        let told = message(&user, ConditionType::Ready);
        assert!(told.contains(&format!("iam:{}", row.refused)), "{}: {told}", row.name);
        assert!(env.secret(row.name).await.is_none(), "{}", row.name);
        match env.iam_opt(row.name).await {
            Some(found) if row.name == "ci-admin" => assert_eq!(found, admin, "as it was"),
            found => assert!(found.iter().all(has_nothing), "{}: {found:?}", row.name),
        }
    }

    manual_changes.set_boundary("freed", None).await.expect("by hand");
    let mut free = honest();
    free["permissionsBoundary"] = Value::Null;
    env.try_class_without_rights("honest", free).await.expect("a class");
    env.apply(
        "freed",
        json!({"className": class, "userName": "freed", "policies": {"managed": ["AmazonEC2FullAccess"]}}),
    )
    .await;
    let user = env.until_condition("freed", ConditionType::UserSynced, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("iam:AttachUserPolicy"));
    assert!(env.iam("freed").await.attached.is_empty());

    let denied = env.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    for call in denied {
        assert!(rows.iter().any(|row| call.action.starts_with(row.refused)), "and nothing else was: {call}");
    }
}
