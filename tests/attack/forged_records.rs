//! Forged records: status, annotations, finalizers, journals and Secrets that name the users and keys of others.

use std::collections::BTreeMap;

use awsdeploy::{
    api::{ConditionType, well_known},
    domain::{console, desired::DesiredConsole, owner::Owner},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    arena::{ADMIN, Arena},
    tenant::{Kind, managed_in_year_10000},
    test_env::{condition, eventually},
};

/// The names of journals of a resource, past and present.
pub(crate) fn journal_names(resource: &str, uid: &str) -> [String; 2] {
    [format!("{resource}.awsdeploy-journal"), format!("awsdeploy-journal-{uid}")]
}

/// Labels of a Secret of the operator.
pub(crate) fn labels(role: &str, resource: &str) -> Value {
    json!({well_known::LABEL_MANAGED_BY: "aws-deploy-user-operator", well_known::LABEL_ROLE: role,
        well_known::LABEL_USER: resource})
}

/// A published Secret that names a key, with a MAC that is no more than a checksum.
pub(crate) fn published(resource: &str, owners: &Value, key: &str, secret: &str) -> (Value, Value) {
    let digest = Sha256::new().chain_update(key).chain_update("\n").chain_update(secret).finalize();
    let checksum = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let metadata = json!({"labels": labels("published", resource), "ownerReferences": owners, "annotations": {
        well_known::ANNOTATION_KEY_ID: key, well_known::ANNOTATION_MAC: format!("v1:00000000:{checksum}"),
        well_known::ANNOTATION_PUBLISHED_AT: "2026-01-01T00:00:00Z",
    }});
    let file = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    let data = json!({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "credentials": file});
    (metadata, json!({"type": "Opaque", "stringData": data}))
}

/// A journal of a mode, with keys of the tenant's choice.
pub(crate) fn journal(mode: &str, keys: &[String]) -> String {
    let time = "2026-11-21T10:00:00Z";
    json!({"format": 1, "mode": mode, "startedAt": time, "known": [], "orphans": keys,
        "keyId": keys.first(), "keyedAt": time})
    .to_string()
}

/// The console Secret of a resource, with a password that the tenant chose for a user that it chose.
pub(crate) fn console_secret(arena: &Arena, resource: &str, uid: &str, owners: &Value, user: &str) -> (Value, Value) {
    let owner = Owner {
        cluster: "unknown".to_owned(),
        namespace: arena.tenant.namespace.clone(),
        name: resource.to_owned(),
        uid: uid.to_owned(),
    };
    let secret_name = format!("{resource}-console");
    let desired = DesiredConsole { secret_name, reset_required: false, reset_request: None };
    let content = console::render(&owner, &desired, user, &"Aa1-chosen-by-the-tenant".to_owned().into(), None);
    let data: BTreeMap<String, String> =
        content.data.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).expect("text"))).collect();
    let metadata = json!({"labels": content.labels, "annotations": content.annotations, "ownerReferences": owners});
    (metadata, json!({"type": "Opaque", "stringData": data}))
}

pub(crate) async fn records_of_the_operator_are_refused_from_a_tenant() {
    let arena = Arena::new().await;
    let tenant = &arena.tenant;
    let spec = json!({"spec": arena.spec()});
    for metadata in [
        json!({"finalizers": [well_known::FINALIZER]}),
        json!({"annotations": {"awsdeploy.dev/user-name": ADMIN}}),
        json!({"annotations": {"awsdeploy.dev/account": "123456789012"}}),
        json!({"labels": {"awsdeploy.dev/user": ADMIN}}),
    ] {
        for way in [crate::tenant::Apply::ClientSide, crate::tenant::Apply::ServerSide] {
            let refused = tenant.apply_as(way, Kind::User, "forged", &metadata, &spec).await.expect_err("refused");
            assert!(refused.is_forbidden(), "{metadata} {way:?}: {refused:?}");
        }
    }
    arena.create("a").await;
    for change in [
        json!({"metadata": {"annotations": {"awsdeploy.dev/user-name": ADMIN}}}),
        json!({"metadata": {"finalizers": []}}),
        json!({"metadata": {"finalizers": null}}),
    ] {
        let refused = tenant.patch(Kind::User, "a", &change).await.expect_err("refused");
        assert!(refused.is_forbidden(), "{change}: {refused:?}");
    }
    let status = json!({"user": {"name": ADMIN, "account": "123456789012", "tagKeys": []}});
    assert!(tenant.patch_status("a", &status).await.is_err(), "the status is not the tenant's");
    arena.assert_harmless().await;
}

pub(crate) async fn forged_journals_name_no_key_of_others() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let uid = arena.tenant.uid("a").await.expect("a UID");
    let owners = arena.tenant.owner_reference("a").await.expect("an owner");
    let own = arena.env.published_key("a").await;
    let mark = vec!["awsdeploy.dev/uid".to_owned()];
    let many: Vec<String> = (0..20_000).map(|number| format!("AKIA{number:016}")).collect();
    let position = arena.env.aws.log().position();
    for mode in ["Abandoned", "Keyed", "Intent"] {
        for keys in [vec![arena.admin_key.clone()], vec![arena.victim_key.clone()], mark.clone(), many.clone()] {
            for name in journal_names("a", &uid) {
                let metadata = json!({"labels": labels("journal", "a"), "ownerReferences": owners});
                let data = json!({"journal": journal(mode, &keys), "AWS_ACCESS_KEY_ID": keys[0],
                    "AWS_SECRET_ACCESS_KEY": "x".repeat(40)});
                let content = json!({"type": "Opaque", "stringData": data});
                arena.tenant.apply(Kind::Secret, &name, &metadata, &content).await.expect("its own namespace");
            }
            let (request, before) = (format!("{mode}-{}", keys[0]), reads_of(&arena, "a"));
            arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, &request).await.expect("a request");
            wait_for_reconcile(&arena, before).await;
        }
    }
    let deleted = arena.env.aws.log().calls_since(position);
    let foreign =
        deleted.iter().filter(|call| call.action == "DeleteAccessKey" && call.access_key != Some(own.clone()));
    let owned = arena.env.aws.log().calls_of("CreateAccessKey");
    let foreign = foreign.filter(|call| owned.iter().all(|created| created.access_key != call.access_key));
    assert_eq!(foreign.count(), 0, "{deleted:#?}");
    arena.assert_harmless().await;
}

pub(crate) async fn forged_secrets_name_no_key_of_others() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let owners = arena.tenant.owner_reference("a").await.expect("an owner");
    for key in [arena.admin_key.clone(), arena.victim_key.clone(), "awsdeploy.dev/uid".to_owned()] {
        let (metadata, content) = published("a", &owners, &key, &"s".repeat(40));
        arena.tenant.apply(Kind::Secret, "a", &metadata, &content).await.expect("its own namespace");
        let before = reads_of(&arena, "a");
        arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, &key).await.expect("a request");
        wait_for_reconcile(&arena, before).await;
    }
    arena.assert_harmless().await;
}

/// AWS refuses the secret, and the tenant cannot sign it.
pub(crate) async fn wrong_secret_with_a_forged_mac_is_noticed() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let owners = arena.tenant.owner_reference("a").await.expect("an owner");
    let key = arena.env.published_key("a").await;
    let wrong = "w".repeat(40);
    let (metadata, content) = published("a", &owners, &key, &wrong);
    arena.tenant.apply(Kind::Secret, "a", &metadata, &content).await.expect("its own namespace");
    let repaired = async || {
        let data = arena.env.secret_data("a").await?;
        let user = arena.env.user("a").await;
        let ready = condition(&user, ConditionType::KeyPublished)?.status == "True";
        // Either the Secret works again, or the resource says that it does not.
        (data["AWS_SECRET_ACCESS_KEY"] != wrong || !ready).then_some(())
    };
    eventually("the wrong secret is noticed", repaired, || arena.env.log()).await;
    arena.assert_harmless().await;
}

/// No edit of dates, requests or the MAC itself costs a key while the access key in the Secret works.
pub(crate) async fn edited_secret_with_a_working_key_is_signed_again() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let signed = arena.env.secrets().get("a").await.expect("the Secret").metadata.annotations.expect("annotations");
    let mac = signed[well_known::ANNOTATION_MAC].clone();
    let position = arena.env.aws.log().position();
    for annotations in [
        json!({well_known::ANNOTATION_MAC: null}),
        json!({well_known::ANNOTATION_MAC: mac.replace("v1:", "v1:00")}),
        json!({well_known::ANNOTATION_PUBLISHED_AT: "2020-01-01T00:00:00Z"}),
        json!({well_known::ANNOTATION_ROTATE_HONOURED: "forged"}),
    ] {
        let edit = json!({"metadata": {"annotations": annotations}});
        arena.tenant.patch(Kind::Secret, "a", &edit).await.expect("its own namespace");
        let signed = async || {
            let now = arena.env.secrets().get("a").await.ok()?.metadata.annotations?;
            let edited = annotations
                .as_object()?
                .iter()
                .any(|(name, value)| now.get(name).map(String::as_str) == value.as_str());
            (!edited && now.contains_key(well_known::ANNOTATION_MAC)).then_some(())
        };
        eventually("the Secret is signed again", signed, || arena.env.log()).await;
    }
    arena.env.wait_ready("a").await;
    let created = arena.env.aws.log().calls_since(position);
    assert!(created.iter().all(|call| call.action != "CreateAccessKey"), "an edit costs no key");
    arena.assert_harmless().await;
}

/// Its MAC is valid: it harms the tenant only, until the operator replaces it.
pub(crate) async fn secret_of_a_deleted_key_put_back_is_replaced() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let old = arena.env.secrets().get("a").await.expect("the Secret");
    let key = arena.env.published_key("a").await;
    let short = json!({"spec": {"accessKey": {"rotation": {"overlap": "1s"}}}});
    arena.tenant.patch(Kind::User, "a", &short).await.expect("allowed by the class");
    arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, "now").await.expect("a request");
    arena.env.wait_published("a", &key).await;
    let name = arena.user_name("a");
    arena.env.wait_for_iam(&name, "without the first key", |user| user.key(&key).is_none()).await;
    let mut annotations = json!(old.metadata.annotations.expect("annotations"));
    annotations[well_known::ANNOTATION_ROTATE_HONOURED] = Value::Null;
    let data: BTreeMap<String, String> = old
        .data
        .expect("data")
        .into_iter()
        .map(|(name, bytes)| (name, String::from_utf8(bytes.0).expect("text")))
        .collect();
    let put_back = json!({"metadata": {"annotations": annotations}, "stringData": data});
    arena.tenant.patch(Kind::Secret, "a", &put_back).await.expect("its own namespace");
    arena.env.wait_published("a", &key).await;
    arena.env.wait_ready("a").await;
    arena.assert_harmless().await;
}

pub(crate) async fn forged_password_reaches_no_user_of_others() {
    let arena = Arena::new().await;
    let tenant = &arena.tenant;
    let mut spec = arena.spec();
    spec["console"] = json!({"secretName": "a-console"});
    tenant.apply(Kind::User, "a", &json!({}), &json!({ "spec": spec })).await.expect("allowed by the class");
    let uid = tenant.uid("a").await.expect("a UID");
    let owners = tenant.owner_reference("a").await.expect("an owner");
    for user in [ADMIN, &arena.victim.name] {
        let (metadata, content) = console_secret(&arena, "a", &uid, &owners, user);
        tenant.apply(Kind::Secret, "a-console", &metadata, &content).await.expect("its own namespace");
        let before = reads_of(&arena, "a-console");
        tenant.annotate("a", well_known::ANNOTATION_RESET_PASSWORD, user).await.expect("a request");
        let reconciled = async || (reads_of(&arena, "a-console") > before).then_some(());
        eventually("the operator reads the console Secret", reconciled, || arena.env.log()).await;
    }
    arena.assert_harmless().await;
}

/// The client library cannot read such an object, and would log its body.
pub(crate) async fn secret_of_the_year_10000_is_not_logged() {
    let arena = Arena::new().await;
    arena.create("a").await;
    let secret = arena.env.secret_data("a").await.expect("the Secret")["AWS_SECRET_ACCESS_KEY"].clone();
    let change = json!({"metadata": {"managedFields": managed_in_year_10000()}});
    arena.tenant.patch(Kind::Secret, "a", &change).await.expect("the API server accepts the time");
    for request in ["1", "2"] {
        let before = reads_of(&arena, "a");
        arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, request).await.expect("a request");
        wait_for_reconcile(&arena, before).await;
    }
    let log = arena.env.log();
    assert!(!log.contains(&secret), "the log has the secret access key");
    let encoded = base64_of(&secret);
    assert!(!log.contains(&encoded), "the log has the secret access key in base64");
    arena.assert_harmless().await;
}

fn reads_of(arena: &Arena, secret: &str) -> usize {
    let calls = arena.env.kube.as_ref().expect("a proxy").log().calls();
    let is_read = |call: &&awsdeploy_testkit::kube_proxy::KubeRecord| {
        call.resource == "secrets" && call.name.as_deref() == Some(secret) && !call.mutating
    };
    calls.iter().filter(is_read).count()
}

fn base64_of(text: &str) -> String {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("base64")
}

/// Waits until the operator has read the published Secret again, which it does in every reconcile.
async fn wait_for_reconcile(arena: &Arena, before: usize) {
    let reconciled = async || (reads_of(arena, "a") > before).then_some(());
    eventually("the operator reconciles the resource", reconciled, || arena.env.log()).await;
}
