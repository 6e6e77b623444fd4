//! What counts as a change of a resource.

use super::handover;
use crate::api::{AwsDeployUser, well_known};

/// Annotations of a resource that request something of the operator.
const REQUESTS: [&str; 3] =
    [well_known::ANNOTATION_ROTATE, well_known::ANNOTATION_RESET_PASSWORD, well_known::ANNOTATION_RETRY];

/// What of a resource decides what is to be done. A resource with an equal key needs no reconcile before its time.
///
/// Everything else that a write may change is left out: a reconcile must not be triggered by its own write, nor by what others
/// store in the metadata. Both the watched resource and the one that a write returned give the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeKey {
    attempt: AttemptKey,
    requests: [Option<String>; 2],
    paused: bool,
    /// Of declared consumers, in the order of the spec.
    confirmations: Vec<Option<String>>,
    deleting: bool,
    /// Digest of what classes and namespace decide.
    decision: u64,
}

/// What ends a back-off before its time: a changed spec, a deletion, or a request to retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptKey {
    generation: Option<i64>,
    retry_request: Option<String>,
}

impl ChangeKey {
    #[must_use]
    pub fn new(user: &AwsDeployUser, decision: u64) -> Self {
        let [rotate, reset_password, _] = requests(user);
        Self {
            attempt: AttemptKey::new(user),
            requests: [rotate, reset_password],
            paused: is_paused(user),
            confirmations: handover::confirmations(user).map(|(_, key_id)| key_id.map(str::to_owned)).collect(),
            deleting: user.metadata.deletion_timestamp.is_some(),
            decision,
        }
    }
}

impl AttemptKey {
    #[must_use]
    pub fn new(user: &AwsDeployUser) -> Self {
        let [.., retry_request] = requests(user);
        Self { generation: user.metadata.generation, retry_request }
    }
}

/// Whether the author has paused the resource.
#[must_use]
pub fn is_paused(user: &AwsDeployUser) -> bool {
    let annotations = user.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(well_known::ANNOTATION_PAUSED)).is_some_and(|value| value == "true")
}

fn requests(user: &AwsDeployUser) -> [Option<String>; 3] {
    REQUESTS.map(|name| user.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(change: impl FnOnce(&mut Value)) -> ChangeKey {
        let mut user = json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "spec": {"accessKey": {"handover": [{"name": "hub", "within": "1d"}]}},
            "metadata": {
                "name": "cycle", "namespace": "deploy", "uid": "u1", "generation": 1, "resourceVersion": "7",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"spec\":{}}\n"},
                "finalizers": ["awsdeploy.dev/iam-user"],
            },
        });
        change(&mut user);
        ChangeKey::new(&serde_json::from_value(user).unwrap(), 0)
    }

    #[test]
    fn what_others_or_status_writes_change_is_no_change() {
        let before = key(|_| {});
        let metadata = |field: &'static str, value: Value| key(move |user| user["metadata"][field] = value);
        let finalizers = json!(["awsdeploy.dev/iam-user", "example.com/other"]);
        for (what, after) in [
            ("resource version", metadata("resourceVersion", json!("8"))),
            ("managed fields", metadata("managedFields", json!([{"manager": "kubectl", "operation": "Apply"}]))),
            ("labels", metadata("labels", json!({"team": "a"}))),
            ("owner", metadata("ownerReferences", json!([]))),
            ("finalizer of another", metadata("finalizers", finalizers)),
            ("own finalizer, which a late event lacks", metadata("finalizers", Value::Null)),
            ("last-applied left out by the watch", metadata("annotations", Value::Null)),
            ("pause that is none", metadata("annotations", json!({"awsdeploy.dev/paused": "false"}))),
            ("annotation of another", metadata("annotations", json!({"example.com/touched": "1"}))),
            ("undeclared consumer", metadata("annotations", json!({"handover.awsdeploy.dev/other": "K1"}))),
            ("status", key(|user| user["status"] = json!({"observedGeneration": 1}))),
        ] {
            assert_eq!(after, before, "{what}");
        }
    }

    #[test]
    fn spec_deletion_requests_and_class_are_changes() {
        let before = key(|_| {});
        let metadata = |field: &'static str, value: Value| key(move |user| user["metadata"][field] = value);
        for (what, after) in [
            ("spec", metadata("generation", json!(2))),
            ("deletion", metadata("deletionTimestamp", json!("2026-11-21T10:00:00Z"))),
            ("rotation", metadata("annotations", json!({"awsdeploy.dev/rotate": "1"}))),
            ("password", metadata("annotations", json!({"awsdeploy.dev/reset-password": "1"}))),
            ("pause", metadata("annotations", json!({"awsdeploy.dev/paused": "true"}))),
            ("retry", metadata("annotations", json!({"awsdeploy.dev/retry": "1"}))),
            ("confirmation", metadata("annotations", json!({"handover.awsdeploy.dev/hub": "K1"}))),
        ] {
            assert_ne!(after, before, "{what}");
        }
        assert_ne!(ChangeKey { decision: 1, ..before.clone() }, before);
    }
}
