//! Journals are in the operator's namespace, and one operator serves a resource.

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{Rule, UserSnapshot};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{OPERATOR_NAMESPACE, TIMEOUT, TestEnv, eventually};

fn spec() -> Value {
    json!({"userName": "u", "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})
}

fn journal(name: &str, annotations: &Value, content: &Value) -> Secret {
    let secret = json!({
        "metadata": {"name": name, "annotations": annotations, "labels": {
            "app.kubernetes.io/managed-by": "aws-deploy-user-operator", "awsdeploy.dev/role": "journal",
        }},
        "type": "Opaque", "stringData": {"journal": content.to_string()},
    });
    serde_json::from_value(secret).expect("a Secret")
}

async fn create(secrets: Api<Secret>, secret: &Secret) -> Secret {
    secrets.create(&PostParams::default(), secret).await.expect("the Secret is created")
}

pub(crate) async fn forged_journal_of_a_tenant_is_not_read() {
    let env = TestEnv::new().await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let (first, user) = (env.published_key("x").await, env.user("x").await);
    let uid = user.uid().expect("a UID");
    // It asks for the deletion of a key that a person made.
    let foreign = env.aws.manual_changes().create_key("u").await.expect("a key");
    let content =
        json!({"format": 1, "mode": "Abandoned", "startedAt": "2026-11-21T10:00:00Z", "orphans": [foreign.id]});
    let annotations = json!({"awsdeploy.dev/resource-uid": uid});
    let mut forged = Vec::new();
    for name in ["x.awsdeploy-journal".to_owned(), format!("{}{uid}", well_known::JOURNAL_PREFIX)] {
        let mut secret = journal(&name, &annotations, &content);
        secret.metadata.owner_references = user.controller_owner_ref(&()).map(|owner| vec![owner]);
        forged.push(create(env.secrets(), &secret).await);
    }
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "False", Some(Reason::KeyQuotaExceeded)).await;
    assert!(env.iam("u").await.key(&foreign.id).is_some(), "the key of a person is kept");
    env.aws.manual_changes().delete_key("u", &foreign.id).await.expect("the person deletes it");
    env.wait_published("x", &first).await;
    env.wait_journal_deleted("x").await;
    for secret in forged {
        let found = env.secrets().get(&secret.name_any()).await.expect("the Secret of the tenant");
        assert_eq!(found.resource_version(), secret.resource_version(), "it is not written");
    }
}

pub(crate) async fn journal_names_its_resource_and_needs_no_owner() {
    let env = TestEnv::new().await;
    let staged = env.aws.rules().pause(Rule::on("GetCallerIdentity").from(2).before());
    let user = env.apply("x", spec()).await;
    assert!(staged.wait_until_held(TIMEOUT).await, "the staged key is being verified");
    let journal = env.journal_secret("x").await.expect("the journal");
    assert_eq!(journal.name_any(), format!("awsdeploy-journal-{}", user.uid().expect("a UID")));
    assert!(journal.owner_references().is_empty(), "an owner of another namespace would have it deleted");
    assert_eq!(journal.annotations()[well_known::ANNOTATION_USER_NAME], "u");
    assert_eq!(journal.annotations()[well_known::ANNOTATION_ACCOUNT], env.account.id());
    let published = env.user("x").await.status.and_then(|status| status.operator_namespace);
    assert_eq!(published.as_deref(), Some(OPERATOR_NAMESPACE), "the resource is claimed before its user is created");
    staged.release();
    env.wait_ready("x").await;
    env.wait_journal_deleted("x").await;
}

pub(crate) async fn stale_journal_is_deleted_and_a_live_one_is_kept() {
    let mut env = TestEnv::new().await;
    let user = env.apply("x", spec()).await;
    env.wait_ready("x").await;
    env.operator.kill().await;
    let content = json!({"format": 1, "mode": "Intent", "startedAt": "2026-11-21T10:00:00Z"});
    let annotations = |namespace: &str, name: &str, uid: &str, started_at: &str| {
        json!({
            "awsdeploy.dev/resource-namespace": namespace, "awsdeploy.dev/resource-name": name,
            "awsdeploy.dev/resource-uid": uid, "awsdeploy.dev/account": env.account.id(),
            "awsdeploy.dev/iam-user": format!("user-of-{name}"), "awsdeploy.dev/started-at": started_at,
        })
    };
    let (old, young) = ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
    let (namespace, uid) = (env.namespace.clone(), user.uid().expect("a UID"));
    let name = |id: &str| format!("awsdeploy-journal-{namespace}-{id}");
    for (id, annotations) in [
        ("gone", annotations(&namespace, "gone", "u-gone", old)),
        ("replaced", annotations(&namespace, "x", "u-earlier", old)),
        ("young", annotations(&namespace, "gone", "u-young", young)),
        ("elsewhere", annotations("another", "gone", "u-elsewhere", old)),
        ("alive", annotations(&namespace, "x", &uid, old)),
    ] {
        create(env.operator_secrets(), &journal(&name(id), &annotations, &content)).await;
    }
    env.operator.restart().await.expect("the operator restarts");
    for id in ["gone", "replaced"] {
        let deleted = async || env.operator_secrets().get_opt(&name(id)).await.ok()?.is_none().then_some(());
        eventually("the stale journal is deleted", deleted, || env.log()).await;
    }
    assert!(env.log().contains("user-of-gone"), "the user whose key may be left is named: {}", env.log());
    for id in ["young", "elsewhere", "alive"] {
        let kept = env.operator_secrets().delete(&name(id), &kube::api::DeleteParams::default()).await;
        kept.expect("the journal is kept");
    }
}

pub(crate) async fn second_installation_changes_nothing_until_released() {
    let env = TestEnv::new().await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let first = env.published_key("x").await;
    env.operator.kill().await;
    let position = env.aws.log().position();
    let other = env.namespace.clone();
    let _second = env.start_other_installation().await;
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    let note = env.wait_for_event("x", Reason::ServedElsewhere).await;
    assert!(note.contains(OPERATOR_NAMESPACE) && note.contains(&other), "{note}");
    let tagged = json!({"userName": "u", "tags": {"team": "a"}, "accessKey": spec()["accessKey"]});
    env.apply("x", tagged).await;
    // Another resource, which is served, ends after all of this.
    env.apply("y", json!({"userName": "y"})).await;
    env.wait_ready("y").await;
    let calls = env.aws.log().calls_since(position);
    assert!(calls.iter().all(|call| call.user.as_deref() != Some("u")), "{}", env.aws.log().transcript());
    assert_eq!(env.iam("u").await.active_keys(), [first.as_str()]);
    assert_eq!(claim(&env.user("x").await), Some(OPERATOR_NAMESPACE.to_owned()), "no status is written");

    let release = json!({"status": {"operatorNamespace": null}});
    let patched = env.users().patch_status("x", &PatchParams::default(), &Patch::Merge(&release)).await;
    patched.expect("a cluster admin releases the resource");
    env.wait_until("x", "claimed by the second", |user| claim(user).as_deref() == Some(&other)).await;
    env.wait_ready("x").await;
    // Without the MAC key of the first one, its request counts as carried out.
    env.annotate("x", well_known::ANNOTATION_ROTATE, "again").await;
    env.wait_published("x", &first).await;
}

/// The operator that the claim names may not exist any more.
pub(crate) async fn second_installation_takes_credentials_away() {
    let env = TestEnv::new().await;
    for (name, user) in [("x", "u"), ("kept", "v")] {
        env.apply(name, json!({"userName": user, "accessKey": spec()["accessKey"]})).await;
        env.wait_ready(name).await;
    }
    env.operator.kill().await;
    let _second = env.start_other_installation().await;
    env.wait_for_event("x", Reason::ServedElsewhere).await;
    let before = env.user("x").await.status;
    let position = env.aws.log().position();
    env.apply(
        "x",
        json!({"userName": "u", "credentials": "Revoked", "tags": {"team": "a"}, "accessKey": spec()["accessKey"]}),
    )
    .await;
    env.wait_for_iam("u", "revoked", |user: &UserSnapshot| user.active_keys().is_empty()).await;
    let changes = env.aws.log().mutating_calls_since(position);
    assert!(changes.iter().all(|call| call.action == "UpdateAccessKey"), "{}", env.aws.log().transcript());
    assert_eq!(env.user("x").await.status, before, "the status is that of the other operator");

    // A key that the other operator has staged is unknown here, so it keeps the user, and the report names it.
    let staged = env.aws.manual_changes().create_key("u").await.expect("a key");
    env.delete("x").await;
    let note = env.wait_for_event("x", Reason::ForeignKeys).await;
    assert!(note.contains(&staged.id), "{note}");
    assert!(env.iam("u").await.key(&staged.id).is_some());
    env.aws.manual_changes().delete_key("u", &staged.id).await.expect("its operator, or a person, deletes it");
    env.request_retry("x", "the key is deleted").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());

    // Retaining a user keeps what only the journal of the other operator knows.
    let position = env.aws.log().position();
    let retained = json!({"userName": "v", "deletionPolicy": "Retain", "accessKey": spec()["accessKey"]});
    env.apply("kept", retained).await;
    env.delete("kept").await;
    env.apply("y", json!({"userName": "y"})).await;
    env.wait_ready("y").await;
    let calls = env.aws.log().calls_since(position);
    assert!(calls.iter().all(|call| call.user.as_deref() != Some("v")), "{}", env.aws.log().transcript());
}

fn claim(user: &AwsDeployUser) -> Option<String> {
    user.status.as_ref()?.operator_namespace.clone()
}
