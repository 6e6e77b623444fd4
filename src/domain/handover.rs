//! Confirmations of consumers outside the cluster that they use a key.

use jiff::SignedDuration;

use crate::api::{AwsDeployUser, user::HandoverConsumer, well_known};

/// IAM's limit for the id of an access key. A longer value confirms none.
const MAX_KEY_ID_CHARACTERS: usize = 128;

/// Consumer of a key with its confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub name: String,
    /// Longest extension of the overlap for it.
    pub within: SignedDuration,
    /// Id of the key that it confirmed last.
    pub confirmed: Option<String>,
}

/// Declared consumers with the ids of the keys that they confirmed, in the order of the spec. Annotations of other consumers count
/// for nothing.
pub fn confirmations(user: &AwsDeployUser) -> impl Iterator<Item = (&HandoverConsumer, Option<&str>)> {
    let declared = user.spec.effective_access_key().into_iter().flat_map(|key| &key.handover);
    declared.map(|consumer| (consumer, confirmed(user, &consumer.name)))
}

fn confirmed<'a>(user: &'a AwsDeployUser, name: &str) -> Option<&'a str> {
    let key_id = user.metadata.annotations.as_ref()?.get(&annotation(name))?;
    (key_id.len() <= MAX_KEY_ID_CHARACTERS).then_some(key_id)
}

/// Annotation of a resource by which this consumer confirms a key.
#[must_use]
pub fn annotation(name: &str) -> String {
    format!("{}{name}", well_known::ANNOTATION_HANDOVER_PREFIX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_declared_consumers_confirm_keys() {
        let consumers = ["a", "b", "c"].map(|name| json!({"name": name, "within": "1d"}));
        let user: AwsDeployUser = serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": "x", "annotations": {
                "handover.awsdeploy.dev/a": "K1", "handover.awsdeploy.dev/c": "K".repeat(129), "handover.awsdeploy.dev/other": "K1",
            }},
            "spec": {"accessKey": {"handover": consumers}},
        }))
        .unwrap();
        let found: Vec<_> = confirmations(&user).map(|(consumer, key_id)| (consumer.name.as_str(), key_id)).collect();
        assert_eq!(found, [("a", Some("K1")), ("b", None), ("c", None)]);
    }
}
