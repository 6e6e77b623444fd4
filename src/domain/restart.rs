//! Restarts of workloads for a new key: their record in the Secret, and the progress of rollouts.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{user::RestartTarget, well_known};

/// Progress of the restarts for a published key. A workload without an entry needs no restart: it is rolled out, or was not
/// declared when the key was published.
pub type Restarts = BTreeMap<RestartTarget, RestartProgress>;

/// Progress of one restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartProgress {
    Pending,
    /// Restarted at this time; the rollout is not complete. The workload is not restarted again, even if its template is
    /// reverted.
    RestartedAt(Timestamp),
    /// The workload did not exist. If it is created, its pods start with the new key.
    Missing,
}

/// Workload as observed in a reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedWorkload {
    Missing,
    /// The operator may not read or restart it; the text contains the remedy.
    Forbidden(String),
    /// It could not be read or restarted.
    Failed(String),
    Found(Workload),
}

/// State of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Id of the key that this resource last restarted it for.
    pub restarted_for: Option<String>,
    pub rollout: Rollout,
}

/// Progress of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod has the newest template and is available.
    Done,
    /// In progress; the text says what is missing.
    UnderWay(String),
    /// Kubernetes reports no progress; the text says what is missing.
    Stuck(String),
}

/// Status of a workload, in terms of a Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// Desired number of pods.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods of any template.
    pub total: i32,
    /// Available pods.
    pub available: i32,
    /// Terminating pods, if Kubernetes reports them.
    pub terminating: i32,
    /// The rollout is paused by `spec.paused`.
    pub paused: bool,
    /// The progress deadline is exceeded.
    pub deadline_exceeded: bool,
    /// Old pods are kept until they are deleted manually: `updateStrategy` is `OnDelete` or has a `partition`.
    pub manual_update: bool,
}

/// Evaluates a rollout like `kubectl rollout status`, but requires every pod to be new even with a partition or `OnDelete`,
/// because old pods still use the previous key.
#[must_use]
pub fn evaluate_rollout(counts: &RolloutCounts) -> Rollout {
    let RolloutCounts { desired, updated, total, available, terminating, .. } = *counts;
    if counts.observed_generation < counts.generation {
        return Rollout::UnderWay("its controller has not observed the restart yet".to_owned());
    }
    let old = (total - updated).max(0);
    let missing = if updated < desired {
        format!("{updated} of {desired} pods are new")
    } else if old > 0 {
        format!("{old} old pods are still running")
    } else if available < updated.max(desired) {
        format!("{available} of {desired} new pods are available")
    } else if terminating > 0 {
        format!("{terminating} old pods are shutting down")
    } else {
        return Rollout::Done;
    };
    if counts.deadline_exceeded {
        Rollout::Stuck(format!("{missing}, and the progress deadline is exceeded"))
    } else if counts.paused {
        Rollout::Stuck(format!("{missing}, and it is paused (kubectl rollout resume)"))
    } else if counts.manual_update {
        Rollout::UnderWay(format!("{missing}; its update strategy keeps old pods until they are deleted manually"))
    } else {
        Rollout::UnderWay(missing)
    }
}

/// Annotation of a pod template that restarts a workload for the resource of this name. Kubernetes limits the part after the
/// prefix to 63 characters, while a resource name may have up to 253: longer names are truncated and hashed.
#[must_use]
pub fn pod_template_annotation(name: &str) -> String {
    const MAX_CHARACTERS: usize = 63;
    if name.len() <= MAX_CHARACTERS {
        return format!("{}{name}", well_known::POD_TEMPLATE_KEY_PREFIX);
    }
    // FNV-1a distinguishes names with a common prefix. Resource names are ASCII.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}{}-{hash:08x}", well_known::POD_TEMPLATE_KEY_PREFIX, name.get(..MAX_CHARACTERS - 9).unwrap_or_default())
}

/// Encodes the record for the annotation of the Secret: `{"Deployment/uploader": "pending"}`. `None` for an empty record.
#[must_use]
pub fn encode(restarts: &Restarts) -> Option<String> {
    let text = |progress: &RestartProgress| match progress {
        RestartProgress::Pending => "pending".to_owned(),
        RestartProgress::Missing => "missing".to_owned(),
        RestartProgress::RestartedAt(since) => since.to_string(),
    };
    let all: BTreeMap<String, String> = restarts
        .iter()
        .map(|(target, progress)| (format!("{}/{}", target.kind.as_str(), target.name), text(progress)))
        .collect();
    (!all.is_empty()).then(|| serde_json::to_string(&all).unwrap_or_default())
}

/// Decodes the record. Ignores invalid entries: a missing restart shows in the pods, a repeated restart is an outage.
#[must_use]
pub fn decode(text: &str) -> Restarts {
    let all: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    all.iter()
        .filter_map(|(target, progress)| {
            let (kind, name) = target.split_once('/')?;
            let kind = kind.parse().ok()?;
            let progress = match progress.as_str() {
                "pending" => RestartProgress::Pending,
                "missing" => RestartProgress::Missing,
                since => RestartProgress::RestartedAt(since.parse().ok()?),
            };
            Some((RestartTarget { kind, name: name.to_owned() }, progress))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::user::WorkloadKind;

    /// Three of three pods are new and available.
    fn done() -> RolloutCounts {
        RolloutCounts {
            generation: 2,
            observed_generation: 2,
            desired: 3,
            updated: 3,
            total: 3,
            available: 3,
            ..RolloutCounts::default()
        }
    }

    #[test]
    fn rollout_is_done_when_every_pod_is_new_and_available() {
        assert_eq!(evaluate_rollout(&done()), Rollout::Done);
        assert_eq!(
            evaluate_rollout(&RolloutCounts { desired: 0, updated: 0, total: 0, available: 0, ..done() }),
            Rollout::Done
        );
        for (counts, expected) in [
            (RolloutCounts { observed_generation: 1, ..done() }, "has not observed the restart"),
            (RolloutCounts { updated: 1, ..done() }, "1 of 3 pods are new"),
            (RolloutCounts { total: 4, ..done() }, "1 old pods are still running"),
            (RolloutCounts { available: 2, ..done() }, "2 of 3 new pods are available"),
            (RolloutCounts { terminating: 1, ..done() }, "1 old pods are shutting down"),
            (RolloutCounts { updated: 1, manual_update: true, ..done() }, "until they are deleted manually"),
        ] {
            let Rollout::UnderWay(text) = evaluate_rollout(&counts) else { panic!("{counts:?} is done") };
            assert!(text.contains(expected), "{text}");
        }
        for (counts, expected) in [
            (RolloutCounts { updated: 1, deadline_exceeded: true, ..done() }, "progress deadline"),
            (RolloutCounts { updated: 0, paused: true, ..done() }, "kubectl rollout resume"),
        ] {
            let Rollout::Stuck(text) = evaluate_rollout(&counts) else { panic!("{counts:?} goes on") };
            assert!(text.contains(expected), "{text}");
        }
        // The deadline belongs to an earlier rollout: the controller has not observed the restart.
        let early = RolloutCounts { observed_generation: 1, deadline_exceeded: true, ..done() };
        assert!(matches!(evaluate_rollout(&early), Rollout::UnderWay(_)));
        assert_eq!(
            evaluate_rollout(&RolloutCounts { paused: true, deadline_exceeded: true, manual_update: true, ..done() }),
            Rollout::Done
        );
    }

    #[test]
    fn record_round_trips_and_invalid_entries_are_ignored() {
        let target = |kind, name: &str| RestartTarget { kind, name: name.to_owned() };
        let restarts = Restarts::from([
            (target(WorkloadKind::Deployment, "a"), RestartProgress::Pending),
            (target(WorkloadKind::StatefulSet, "a.b"), RestartProgress::Missing),
            (
                target(WorkloadKind::DaemonSet, "c"),
                RestartProgress::RestartedAt("2026-11-22T04:00:00Z".parse().unwrap()),
            ),
        ]);
        assert_eq!(decode(&encode(&restarts).unwrap()), restarts);
        assert_eq!(encode(&Restarts::new()), None);
        for nonsense in ["", "[]", r#"{"Deployment": "pending", "Job/a": "pending", "Deployment/b": "soon"}"#] {
            assert_eq!(decode(nonsense), Restarts::new(), "{nonsense}");
        }
    }

    #[test]
    fn pod_template_annotations_are_valid_and_unique() {
        assert_eq!(pod_template_annotation("cycle"), "key.awsdeploy.dev/cycle");
        let long = ["a".repeat(253), format!("{}b", "a".repeat(252)), "a".repeat(64), "a".repeat(63)];
        let all: std::collections::BTreeSet<String> = long.iter().map(|name| pod_template_annotation(name)).collect();
        assert_eq!(all.len(), 4);
        for name in all {
            assert!(name.trim_start_matches("key.awsdeploy.dev/").len() <= 63, "{name}");
        }
    }
}
