//! A tenant that keeps a previous key beyond its overlap.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use awsdeploy::api::well_known;
use awsdeploy_testkit::aws_proxy::{KeyState, UserSnapshot};
use serde_json::{Value, json};

use crate::{
    arena::{Arena, class_for},
    tenant::{Kind, PAUSE},
    test_env::eventually,
};

/// The MAC of an earlier publication stays valid. Put back again and again, the Secret makes its key look published.
pub(crate) async fn secret_put_back_does_not_prolong_its_key() {
    const OVERLAP: Duration = Duration::from_secs(5);
    // The overlap, some reconciles, and a slow machine.
    const MAX_LIFE: Duration = Duration::from_secs(30);
    let arena = Arena::new().await;
    arena.create("a").await;
    let short = json!({"spec": {"accessKey": {"rotation": {"overlap": format!("{}s", OVERLAP.as_secs())}}}});
    arena.tenant.patch(Kind::User, "a", &short).await.expect("allowed by the class");
    let old = arena.env.secrets().get("a").await.expect("the Secret");
    let key = arena.env.published_key("a").await;
    arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, "now").await.expect("a request");
    arena.env.wait_published("a", &key).await;
    let superseded = Instant::now();
    let mut annotations = json!(old.metadata.annotations.expect("annotations"));
    annotations[well_known::ANNOTATION_ROTATE_HONOURED] = Value::Null;
    let text = |(name, bytes): (String, k8s_openapi::ByteString)| (name, String::from_utf8(bytes.0).expect("text"));
    let data: BTreeMap<String, String> = old.data.expect("data").into_iter().map(text).collect();
    let put_back = json!({"metadata": {"annotations": annotations}, "stringData": data});
    let name = arena.user_name("a");
    while superseded.elapsed() < MAX_LIFE {
        let _ = arena.tenant.patch(Kind::Secret, "a", &put_back).await;
        let user = arena.env.iam(&name).await;
        if user.key(&key).is_none_or(|key| key.state == KeyState::Inactive) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{key} is Active {MAX_LIFE:?} after it was superseded, overlap {OVERLAP:?}\n{}", arena.env.log());
}

/// A resource with a second key, whose first one is in its overlap. Returns the first one.
async fn rotated(arena: &Arena, resource: &str, overlap: Duration) -> String {
    arena.create(resource).await;
    let overlap = format!("{}s", overlap.as_secs());
    let change = json!({"spec": {"accessKey": {"rotation": {"overlap": overlap}}}});
    arena.tenant.patch(Kind::User, resource, &change).await.expect("allowed by the class");
    let key = arena.env.published_key(resource).await;
    arena.tenant.annotate(resource, well_known::ANNOTATION_ROTATE, "now").await.expect("a request");
    arena.env.wait_published(resource, &key).await;
    arena.env.wait_journal_deleted(resource).await;
    key
}

/// What follows a publication is decided already; a spec that is refused is no reason to keep a previous key.
pub(crate) async fn invalid_spec_does_not_prolong_a_previous_key() {
    let arena = Arena::new().await;
    let key = rotated(&arena, "a", Duration::from_secs(10)).await;
    let invalid = json!({"spec": {"accessKey": {"rotation": {"every": null, "schedule": "no schedule at all"}}}});
    arena.tenant.patch(Kind::User, "a", &invalid).await.expect("only the operator checks schedules");
    let is_inactive = |user: &UserSnapshot| !user.active_keys().contains(&key.as_str());
    arena.env.wait_for_iam(&arena.user_name("a"), "without its previous key", is_inactive).await;
}

/// Admission lets a resource pass that names a missing class, with any overlap.
pub(crate) async fn frozen_resource_does_not_prolong_its_overlap() {
    let arena = Arena::new().await;
    arena.env.apply_class("tenant", class_for(&[&arena.tenant.namespace], "Freeze")).await;
    let key = rotated(&arena, "a", Duration::from_secs(15)).await;
    arena.env.apply_class("tenant", class_for(&[], "Freeze")).await;
    let change = json!({"spec": {"className": "missing", "accessKey": {"rotation": {"overlap": "3650d"}}}});
    let passed = async || arena.tenant.patch(Kind::User, "a", &change).await.ok();
    eventually("the tenant names a missing class", passed, String::new).await;
    let is_inactive = |user: &UserSnapshot| !user.active_keys().contains(&key.as_str());
    arena.env.wait_for_iam(&arena.user_name("a"), "without its previous key", is_inactive).await;
}
