//! The third layer: AWS itself, by the IAM policy that the operator prints for its classes. It suffices, and it holds
//! when the first two layers have failed.

use std::{collections::BTreeSet, process::Command};

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{Call, UserTruth};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::stage::{Stage, Wishes, condition, message};

const BOUNDARY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";
const CONSENT: &str = "awsdeploy.dev/adoptable-by";

/// An operator that may do in AWS what the test's own classes need.
async fn stage() -> Stage {
    let wishes = Wishes { arguments: vec!["--cluster-id=it"], own_classes_only: true, ..Wishes::default() };
    Stage::with(wishes).await
}

/// What `kubectl get aduc -o yaml | aws-deploy-user-operator iam-policy --class -` prints, with a file for the pipe.
async fn print_policy(stage: &Stage, classes: &[&str]) -> Value {
    let mut items = Vec::new();
    for class in classes {
        items.push(serde_json::to_value(stage.classes().get(class).await.expect("a class")).expect("JSON"));
    }
    let file = stage.directory.join("classes.yaml");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).expect("a file");
    let printed = Command::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"))
        .args(["iam-policy", "--account", stage.account.id(), "--class"])
        .arg(&file)
        .output()
        .expect("the operator runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).expect("a policy")
}

fn refused_calls(stage: &Stage) -> Vec<String> {
    let denied = stage.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    denied.into_iter().map(|call| call.to_string()).collect()
}

/// Create, rotate, change, repair, delete: with nothing but what is printed for the two classes.
pub(crate) async fn the_printed_policy_suffices_for_the_users_of_its_classes() {
    let stage = stage().await;
    let narrow = json!({
        "users": {"path": "/narrow/"}, "permissionsBoundary": BOUNDARY, "groups": ["readers"],
        "policies": {"allowed": ["AmazonEC2FullAccess", "AmazonS3*"]},
    });
    let wide = json!({
        "users": {"path": "/wide/"}, "policies": {"allowed": ["*"], "inline": "Allow"}, "console": "Allow",
        "adoption": "Allow", "acknowledgeAdminEquivalent": true,
    });
    let (narrow, wide) = (stage.class("narrow", narrow).await, stage.class("wide", wide).await);
    stage.enforce(&print_policy(&stage, &[&narrow, &wide]).await);
    let human = stage.aws.human();
    human.call(&Call::iam("CreateGroup").with("GroupName", "readers").with("Path", "/teams/")).await.expect("a group");

    let spec = |policy: &str, team: &str| {
        json!({"className": narrow, "userName": "n", "policies": {"managed": [policy]}, "groups": ["readers"],
            "tags": {"team": team}, "accessKey": {"rotation": {"every": "30d", "overlap": "1s", "holdWhileUsed": "1s"}}})
    };
    stage.apply("n", spec("AmazonEC2FullAccess", "a")).await;
    stage.ready("n").await;
    let first = stage.published("n").await;
    stage.annotate("n", "awsdeploy.dev/rotate", "now").await;
    stage.until_published("n", &first).await;
    stage.until_iam("n", "without its first key", |user| user.key(&first).is_none()).await;
    stage.apply("n", spec("AmazonS3FullAccess", "b")).await;
    stage
        .until_iam("n", "changed", |user| user.attached == BTreeSet::from([S3.to_owned()]) && user.tags["team"] == "b")
        .await;
    human.set_boundary("n", None).await.expect("by hand");
    human.attach("n", EC2).await.expect("by hand");
    stage.until_iam("n", "repaired", |user| user.boundary.is_some() && user.attached.len() == 1).await;
    assert_eq!(stage.iam("n").await.groups, BTreeSet::from(["readers".to_owned()]));

    let create = Call::iam("CreateUser").with("UserName", "w").with("Path", "/wide/");
    let consent = format!("it/{}/w", stage.namespace);
    human.call(&create.with_tags([(CONSENT, consent.as_str())])).await.expect("somebody's user");
    let document =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let spec = json!({
        "className": wide, "userName": "w", "adoption": "IfTagged", "console": {}, "accessKey": {},
        "policies": {"managed": ["AdministratorAccess"], "inline": [{"name": "own", "document": document}]},
    });
    stage.apply("w", spec).await;
    stage.ready("w").await;
    let iam = stage.iam("w").await;
    assert!(iam.login_profile.is_some() && iam.inline.contains_key("own"), "{iam:?}");

    for name in ["n", "w"] {
        human
            .call(
                &Call::iam("CreateServiceSpecificCredential")
                    .with("UserName", name)
                    .with("ServiceName", "codecommit.amazonaws.com"),
            )
            .await
            .expect("by hand");
        stage.delete(name).await;
        stage.gone(name).await;
        assert!(stage.iam_opt(name).await.is_none());
    }
    // Made when its class had no boundary, and revoked by a class that has one: rights are taken whether or not it is there.
    let before = json!({"users": {"path": "/late/"}, "policies": {"allowed": ["AmazonS3*"]}});
    let late = stage.class("late", before).await;
    stage
        .apply("l", json!({"className": late, "userName": "l", "policies": {"managed": ["AmazonS3FullAccess"]}}))
        .await;
    stage.ready("l").await;
    let after = json!({"users": {"path": "/late/"}, "permissionsBoundary": BOUNDARY, "onRevoked": "Delete"});
    stage.class("late", after).await;
    stage.enforce(&print_policy(&stage, &[&narrow, &wide, &late]).await);
    stage.until("l", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none())).await;
    assert!(stage.iam_opt("l").await.is_none());
    assert_eq!(refused_calls(&stage), Vec::<String>::new());
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

fn has_nothing(user: &UserTruth) -> bool {
    user.attached.is_empty()
        && user.inline.is_empty()
        && user.groups.is_empty()
        && user.keys.is_empty()
        && user.login_profile.is_none()
        && user.boundary.as_deref() == Some(BOUNDARY)
}

pub(crate) async fn a_hostile_resource_that_got_past_everything_else_is_refused_by_aws() {
    let stage = stage().await;
    let class = stage.class("honest", honest()).await;
    stage.enforce(&print_policy(&stage, &[&class]).await);
    let human = stage.aws.human();
    human.create_group("admins").await.expect("a group");
    let consent = format!("it/{}/ci-admin", stage.namespace);
    let create = Call::iam("CreateUser").with("UserName", "ci-admin").with_tags([(CONSENT, consent.as_str())]);
    human.call(&create).await.expect("somebody's user");
    let admin = stage.iam("ci-admin").await;
    // One who had its boundary taken away, under a class that no longer asks for one.
    stage.apply("freed", json!({"className": class, "userName": "freed", "policies": {"managed": []}})).await;
    stage.ready("freed").await;

    let rows = doctored();
    for row in &rows {
        let class = stage.try_class_without_rights(row.name, row.class.clone()).await.expect("a class").name_any();
        let mut spec = row.spec.clone();
        spec["className"] = json!(class);
        if spec["userName"].is_null() {
            spec["userName"] = json!(row.name);
        }
        stage.apply(row.name, spec).await;
    }
    for row in &rows {
        let user = stage.until_condition(row.name, ConditionType::Ready, "False", Some(Reason::AccessDenied)).await;
        assert_eq!(condition(&user, ConditionType::Authorized).expect("Authorized").status, "True", "{}", row.name);
        let told = message(&user, ConditionType::Ready);
        assert!(told.contains(&format!("iam:{}", row.refused)), "{}: {told}", row.name);
        assert!(stage.secret(row.name).await.is_none(), "{}", row.name);
        match stage.iam_opt(row.name).await {
            Some(found) if row.name == "ci-admin" => assert_eq!(found, admin, "as it was"),
            found => assert!(found.iter().all(has_nothing), "{}: {found:?}", row.name),
        }
    }

    human.set_boundary("freed", None).await.expect("by hand");
    let mut free = honest();
    free["permissionsBoundary"] = Value::Null;
    stage.try_class_without_rights("honest", free).await.expect("a class");
    stage
        .apply(
            "freed",
            json!({"className": class, "userName": "freed", "policies": {"managed": ["AmazonEC2FullAccess"]}}),
        )
        .await;
    let user = stage.until_condition("freed", ConditionType::UserSynced, "False", Some(Reason::AccessDenied)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("iam:AttachUserPolicy"));
    assert!(stage.iam("freed").await.attached.is_empty());

    let denied = stage.aws.log().select(|call| call.error.as_deref() == Some("AccessDenied"));
    for call in denied {
        assert!(rows.iter().any(|row| call.action.starts_with(row.refused)), "and nothing else was: {call}");
    }
}
