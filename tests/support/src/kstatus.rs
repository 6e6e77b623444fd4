//! The status of a custom resource by the rules of kstatus (sigs.k8s.io/cli-utils), with which `helm install --wait`, Flux and
//! other clients wait.

use serde_json::Value;

/// What a client that waits concludes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// Waits.
    InProgress(String),
    /// Ends with an error.
    Failed(String),
    /// Ends well.
    Current,
    /// The object is being deleted.
    Terminating,
}

/// `Compute` of kstatus for a kind that it does not know: deletion, generation, `Reconciling` and `Stalled`, then `Ready`. An
/// object without any of them is Current.
#[must_use]
pub fn compute(object: &Value) -> WaitStatus {
    if object["metadata"]["deletionTimestamp"].as_str().is_some_and(|time| !time.is_empty()) {
        return WaitStatus::Terminating;
    }
    let generation = object["metadata"]["generation"].as_i64();
    let observed = object["status"]["observedGeneration"].as_i64();
    if let (Some(generation), Some(observed)) = (generation, observed)
        && generation != observed
    {
        return WaitStatus::InProgress(format!(
            "generation is {generation}, but latest observed generation is {observed}"
        ));
    }
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let message = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
    for condition in conditions.iter().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return WaitStatus::InProgress(message(condition)),
            Some("Stalled") => return WaitStatus::Failed(message(condition)),
            _ => {}
        }
    }
    match conditions.iter().find(|condition| condition["type"] == "Ready") {
        Some(ready) if ready["status"] != "True" => WaitStatus::InProgress(message(ready)),
        _ => WaitStatus::Current,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(observed: Option<i64>, conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status, "message": format!("of {kind}")}))
            .collect();
        json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}})
    }

    /// The cases of the tests of kstatus.
    #[test]
    fn status_follows_the_rules_of_kstatus() {
        let (progress, failed) = (WaitStatus::InProgress, WaitStatus::Failed);
        let ready = [("Ready", "True")];
        for (observed, conditions, expected) in [
            (None, &[][..], WaitStatus::Current),
            (Some(2), &[], WaitStatus::Current),
            (Some(2), &ready, WaitStatus::Current),
            (Some(1), &ready, progress("generation is 2, but latest observed generation is 1".to_owned())),
            (Some(-1), &[], progress("generation is 2, but latest observed generation is -1".to_owned())),
            (Some(2), &[("Ready", "False")], progress("of Ready".to_owned())),
            (Some(2), &[("Ready", "Unknown")], progress("of Ready".to_owned())),
            (Some(2), &[("Ready", "False"), ("Stalled", "True")], failed("of Stalled".to_owned())),
            (Some(2), &[("Ready", "False"), ("Stalled", "False")], progress("of Ready".to_owned())),
            (Some(2), &[("Ready", "True"), ("Reconciling", "True")], progress("of Reconciling".to_owned())),
        ] {
            assert_eq!(compute(&object(observed, conditions)), expected, "{observed:?} {conditions:?}");
        }
        let mut deleted = object(Some(2), &ready);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
        assert_eq!(compute(&deleted), WaitStatus::Terminating);
    }
}
