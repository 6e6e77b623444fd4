use kube::{
    CustomResourceExt,
    core::{ObjectList, WatchEvent},
};

use super::*;
use crate::api::well_known;

type User = Guarded<AwsDeployUser>;

/// A text that must appear in no error.
const CANARY: &str = "canary-4711";

/// The JSON of a resource, as the API server sends it.
fn resource(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"awsdeploy.dev/v1alpha1","kind":"AwsDeployUser","metadata":{{"name":"{name}","namespace":"deploy","uid":"uid-{name}","resourceVersion":"7","generation":3{metadata}}},"spec":{spec}}}"#
    )
}

fn normal() -> String {
    resource("normal", "", r#"{"userName":"u","tags":{"team":"a"}}"#)
}

fn with_document(name: &str, document: &str) -> String {
    let spec = format!(
        r#"{{"deletionPolicy":"Retain","policies":{{"documents":[{{"name":"own","document":{document}}}]}},"credentials": "Revoked"}}"#
    );
    resource(name, r#","finalizers":["awsdeploy.dev/iam-user"]"#, &spec)
}

/// An object of that many levels, with the canary inside.
fn nested(levels: usize) -> String {
    format!(r#"{}"{CANARY}"{}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

/// A managed field of the year 10000, which the API server stores and k8s-openapi does not accept.
fn year_10000() -> &'static str {
    r#","managedFields":[{"manager":"odd","operation":"Update","apiVersion":"v1","time":"10000-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{}}}]"#
}

fn large(bytes: usize) -> String {
    format!(r#"{{"Version":"{CANARY}{}"}}"#, "x".repeat(bytes))
}

fn list(items: &[String]) -> ObjectList<User> {
    let text = format!(
        r#"{{"apiVersion":"awsdeploy.dev/v1alpha1","kind":"AwsDeployUserList","metadata":{{"resourceVersion":"9","continue":"next"}},"items":[{}]}}"#,
        items.join(",")
    );
    serde_json::from_str(&text).expect("a list")
}

fn watched(object: &str) -> User {
    let event = serde_json::from_str(&format!(r#"{{"type":"MODIFIED","object":{object}}}"#)).expect("an event");
    let WatchEvent::Modified(object) = event else { panic!("another event") };
    object
}

fn name(user: &User) -> &str {
    user.meta().name.as_deref().unwrap_or_default()
}

#[test]
fn hostile_objects_do_not_affect_others_of_a_list() {
    let list = list(&[
        with_document("deep", &nested(140)),
        with_document("deeper", &nested(100_000)),
        with_document("large", &large(300 * 1024)),
        resource("late", year_10000(), "{}"),
        resource("typed", "", r#"{"credentials":"canary-4711"}"#),
        resource("scalar", "", r#""canary-4711""#),
        normal(),
    ]);
    assert_eq!(list.metadata.resource_version.as_deref(), Some("9"));
    assert_eq!(list.metadata.continue_.as_deref(), Some("next"));
    let readable: Vec<&str> = list.items.iter().filter(|item| item.complete().is_ok()).map(name).collect();
    assert_eq!(readable, ["late", "normal"]);
    let spec = &list.items[6].object().expect("an object").spec;
    assert_eq!((spec.user_name.as_deref(), spec.tags.len()), (Some("u"), 1));
    for item in &list.items {
        assert_eq!(item.meta().uid, Some(format!("uid-{}", name(item))));
        assert_eq!((item.meta().resource_version.as_deref(), item.meta().generation), (Some("7"), Some(3)));
        assert!(!format!("{item:?}").contains(CANARY), "{item:?}");
    }
}

#[test]
fn hostile_objects_do_not_end_a_watch() {
    for (object, error) in [
        (with_document("deep", &nested(140)), Some("spec.policies is nested deeper than 32 levels")),
        (with_document("large", &large(300 * 1024)), Some("spec.policies is larger than 128 KiB")),
        (
            with_document("wide", &format!("{{\"a\":[{}1]}}", "1,".repeat(3_000))),
            Some("spec.policies is larger than 128 KiB"),
        ),
        (
            resource("typed", "", r#"{"credentials":"canary-4711"}"#),
            Some("spec.credentials has a value that this version of the operator does not know"),
        ),
        (resource("late", year_10000(), "{}"), None),
        (normal(), None),
    ] {
        assert_eq!(watched(&object).error(), error);
    }
}

#[test]
fn unreadable_field_leaves_what_revocation_needs() {
    let user = watched(&with_document("deep", &nested(140)));
    let object = user.object().expect("an incomplete object");
    assert!(
        object.spec.credentials_revoked() && object.spec.deletion_policy == crate::api::user::DeletionPolicy::Retain
    );
    assert_eq!(object.spec.policies.documents.len(), 0);
    assert_eq!(object.metadata.finalizers.as_deref(), Some(&[well_known::FINALIZER.to_owned()][..]));
}

/// A newer CRD knows values that this version does not. None of them stops a revocation.
#[test]
fn unknown_values_leave_what_revocation_needs() {
    let spec = r#"{"credentials": "Revoked","deletionPolicy":"Archive","className":{"name":"canary-4711"},"adoption":7,"tags":{"team":"a"}}"#;
    let status = r#"{"user":{"name":"u","account":"1"},"accessKeys":[{"id":"A","state":"Odd"}]}"#;
    let user = watched(&resource("newer", "", &format!(r#"{spec},"status":{status}"#)));
    let object = user.object().expect("an incomplete object");
    assert!(object.spec.credentials_revoked() && object.spec.class_name.is_none());
    assert_eq!(object.spec.tags.len(), 1, "what is known is kept");
    assert_eq!(
        object.status.as_ref().and_then(|status| status.user.as_ref()).map(|user| user.name.as_str()),
        Some("u")
    );
    assert!(user.lacks(DELETION_POLICY) && user.lacks("status.accessKeys") && !user.lacks("spec.tags"));
    let error = user.error().expect("an error");
    assert!(
        error.starts_with("spec.") && error.ends_with("has a value that this version of the operator does not know")
    );
    assert!(user.complete().is_err());
}

#[test]
fn unknown_record_leaves_no_object_to_act_on() {
    for status in [r#"{"user":{"arn":"canary-4711"}}"#, r#"{"class":7}"#, r#"{"revocation":"Erase"}"#] {
        let user = watched(&resource("newer", "", &format!(r#"{{}},"status":{status}"#)));
        assert!(user.object().is_none(), "{status}");
        assert!(user.error().is_some_and(|error| error.starts_with("status.")), "{status}");
        assert_eq!(name(&user), "newer");
    }
}

/// A newer CRD has more fields, and the name of a field that no version knows is text of a tenant.
#[test]
fn unknown_fields_are_skipped_and_not_quoted() {
    for value in [nested(140), large(300 * 1024), "7".to_owned()] {
        let spec = format!(r#"{{"{CANARY}":{value},"tags":{{"team":"a"}}}},"status":{{"{CANARY}":{value}}}"#);
        let user = watched(&resource("newer", "", &spec));
        assert_eq!(user.error(), None);
        assert_eq!(user.complete().expect("a complete object").spec.tags.len(), 1);
    }
    let class = format!(r#"{{"metadata":{{"name":"c"}},"spec":{{"{CANARY}":{}}}}}"#, large(2 * 1024 * 1024));
    let class: Guarded<AwsDeployUserClass> = serde_json::from_str(&class).expect("a class");
    assert_eq!(class.error(), None);
}

/// A field that is missing in the schema would never be read.
#[test]
fn every_field_of_a_full_object_is_known() {
    for kind in [AwsDeployUser::crd(), AwsDeployUserClass::crd()] {
        let known = match kind.spec.names.kind.as_str() {
            "AwsDeployUser" => AwsDeployUser::known_fields(),
            _ => AwsDeployUserClass::known_fields(),
        };
        let schema = kind.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.clone());
        let sections = schema.and_then(|schema| schema.properties).expect("a schema");
        for section in ["spec", "status"] {
            let fields = sections[section].properties.as_ref().expect("fields");
            for field in fields.keys().map(|field| format!("{section}.{field}")) {
                assert!(known.contains(&field), "{field}");
            }
        }
    }
}

#[test]
fn policy_document_of_usual_depth_is_kept() {
    let document = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":"*","Condition":{"StringEquals":{"aws:x":["a",1,-1,1.5,true,null]}}}]}"#;
    let user = watched(&with_document("usual", document));
    let expected: Value = serde_json::from_str(document).expect("a document");
    assert_eq!(user.complete().expect("a complete object").spec.policies.documents[0].document, Some(expected));
}

#[test]
fn finalizer_is_found_among_too_many_others() {
    let others = r#""example.com/x","#.repeat(2_000);
    let metadata = format!(r#","finalizers":[{others}"awsdeploy.dev/iam-user"]"#);
    let user = watched(&resource("x", &metadata, "{}"));
    assert_eq!(user.error(), Some("metadata.finalizers is larger than 64 KiB"));
    let finalizers = user.meta().finalizers.as_deref().unwrap_or_default();
    assert!(finalizers.len() < 2_000 && finalizers.iter().any(|one| one == well_known::FINALIZER));
}

#[test]
fn last_applied_manifest_and_managed_fields_are_dropped() {
    let manifest = "x".repeat(200 * 1024);
    let metadata = format!(r#","annotations":{{"a":"b","{LAST_APPLIED}":"{manifest}"}}{}"#, year_10000());
    let user = watched(&resource("x", &metadata, "{}"));
    assert_eq!(user.error(), None);
    assert_eq!(user.meta().annotations, Some([("a".to_owned(), "b".to_owned())].into()));
    assert_eq!(user.meta().managed_fields, None);
}

#[test]
fn namespace_of_the_year_10000_keeps_its_labels() {
    type GuardedNamespace = Guarded<PartialObjectMeta<Namespace>>;
    let text = format!(
        r#"{{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{{"name":"deploy","labels":{{"team":"a"}},"creationTimestamp":"10000-01-01T00:00:00Z"{}}}}}"#,
        year_10000()
    );
    let namespace: GuardedNamespace = serde_json::from_str(&text).expect("a namespace");
    assert_eq!(namespace.meta().labels, Some([("team".to_owned(), "a".to_owned())].into()));
    assert!(namespace.complete().is_ok() && GuardedNamespace::metadata_api());
}

#[test]
fn lists_are_read_in_small_pages_from_etcd() {
    let config = watch_config();
    assert_eq!(config.page_size, Some(LIST_PAGE_SIZE));
    assert_eq!(config.list_semantic, watcher::ListSemantic::MostRecent);
}
