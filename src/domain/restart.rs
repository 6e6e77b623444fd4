//! Restarts of workloads for a new key: what is written down of them, and how far a rollout is.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{
    user::{RestartTarget, WorkloadKind},
    well_known,
};

/// How far the restarts are that a published key asks for. A workload that is not named is owed nothing: it was rolled
/// out, or not declared when the key was published.
pub type Restarts = BTreeMap<RestartTarget, RestartProgress>;

/// How far one restart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartProgress {
    /// Not restarted yet.
    Pending,
    /// Restarted at this time; the rollout is not over. It is not restarted again, whatever becomes of its template.
    RestartedAt(Timestamp),
    /// There was no such workload. If one is made, its pods start with the new key.
    Missing,
}

/// A workload as a pass has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedWorkload {
    /// The API server says that there is none.
    Missing,
    /// The operator may not read or restart it; the text says what grants it.
    Forbidden(String),
    /// It could not be read or restarted.
    Failed(String),
    /// It is there.
    Found(Workload),
}

/// Facts of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Id of the key that it was restarted for last, by this resource.
    pub restarted_for: Option<String>,
    /// How far its rollout is.
    pub rollout: Rollout,
}

/// How far the rollout of a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod is of the newest template and available.
    Done,
    /// Not yet; the text says what is missing.
    UnderWay(String),
    /// Kubernetes says that it makes no progress; the text says what is missing.
    Stuck(String),
}

/// What the status of a workload says, in the terms of a Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// Pods that there should be.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods of any template.
    pub total: i32,
    /// Pods that are available.
    pub available: i32,
    /// Pods that are shutting down, where Kubernetes counts them.
    pub terminating: i32,
    /// The rollout is paused by `spec.paused`.
    pub paused: bool,
    /// It has passed its progress deadline.
    pub deadline_exceeded: bool,
    /// Old pods stay until a person deletes them: `updateStrategy` is `OnDelete`, or has a `partition`.
    pub manual_update: bool,
}

/// How far a rollout is, as `kubectl rollout status` decides; but every pod has to be a new one, also where a partition
/// or `OnDelete` keeps old ones, because it is the old ones that hold the old key.
#[must_use]
pub fn evaluate_rollout(counts: &RolloutCounts) -> Rollout {
    let RolloutCounts { desired, updated, total, available, terminating, .. } = *counts;
    if counts.observed_generation < counts.generation {
        return Rollout::UnderWay("its controller has not seen the restart yet".to_owned());
    }
    let old = (total - updated).max(0);
    let missing = if updated < desired {
        format!("{updated} of {desired} pods are new")
    } else if old > 0 {
        format!("{old} old pods are still there")
    } else if available < updated.max(desired) {
        format!("{available} of {desired} new pods are available")
    } else if terminating > 0 {
        format!("{terminating} old pods are shutting down")
    } else {
        return Rollout::Done;
    };
    if counts.deadline_exceeded {
        Rollout::Stuck(format!("{missing}, and it has passed its progress deadline"))
    } else if counts.paused {
        Rollout::Stuck(format!("{missing}, and it is paused (kubectl rollout resume)"))
    } else if counts.manual_update {
        Rollout::UnderWay(format!("{missing}; by its update strategy old pods stay until somebody deletes them"))
    } else {
        Rollout::UnderWay(missing)
    }
}

/// The annotation of a pod template by which a resource of this name has its workloads restarted. The part after the
/// prefix may have 63 characters, a name has up to 253.
#[must_use]
pub fn pod_template_annotation(name: &str) -> String {
    const MOST: usize = 63;
    if name.len() <= MOST {
        return format!("{}{name}", well_known::POD_TEMPLATE_KEY_PREFIX);
    }
    // FNV-1a, for names that begin alike; names of resources are ASCII.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}{}-{hash:08x}", well_known::POD_TEMPLATE_KEY_PREFIX, name.get(..MOST - 9).unwrap_or_default())
}

/// The record as the annotation of the Secret holds it: `{"Deployment/uploader": "owed"}`. `None` when nothing is owed.
#[must_use]
pub fn encode(restarts: &Restarts) -> Option<String> {
    let text = |progress: &RestartProgress| match progress {
        RestartProgress::Pending => "owed".to_owned(),
        RestartProgress::Missing => "missing".to_owned(),
        RestartProgress::RestartedAt(since) => since.to_string(),
    };
    let all: BTreeMap<String, String> = restarts
        .iter()
        .map(|(target, progress)| (format!("{}/{}", target.kind.as_str(), target.name), text(progress)))
        .collect();
    (!all.is_empty()).then(|| serde_json::to_string(&all).unwrap_or_default())
}

/// Reads the record back. What cannot be read is owed to nobody: a restart too few is told by its pods, a restart again and
/// again by an outage.
#[must_use]
pub fn decode(text: &str) -> Restarts {
    let all: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    all.iter()
        .filter_map(|(target, progress)| {
            let (kind, name) = target.split_once('/')?;
            let kind = WorkloadKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            let progress = match progress.as_str() {
                "owed" => RestartProgress::Pending,
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
    fn a_rollout_is_done_when_every_pod_is_new_and_available() {
        assert_eq!(evaluate_rollout(&done()), Rollout::Done);
        assert_eq!(
            evaluate_rollout(&RolloutCounts { desired: 0, updated: 0, total: 0, available: 0, ..done() }),
            Rollout::Done
        );
        for (counts, told) in [
            (RolloutCounts { observed_generation: 1, ..done() }, "has not seen the restart"),
            (RolloutCounts { updated: 1, ..done() }, "1 of 3 pods are new"),
            (RolloutCounts { total: 4, ..done() }, "1 old pods are still there"),
            (RolloutCounts { available: 2, ..done() }, "2 of 3 new pods are available"),
            (RolloutCounts { terminating: 1, ..done() }, "1 old pods are shutting down"),
            (RolloutCounts { updated: 1, manual_update: true, ..done() }, "until somebody deletes them"),
        ] {
            let Rollout::UnderWay(text) = evaluate_rollout(&counts) else { panic!("{counts:?} is done") };
            assert!(text.contains(told), "{text}");
        }
        for (counts, told) in [
            (RolloutCounts { updated: 1, deadline_exceeded: true, ..done() }, "progress deadline"),
            (RolloutCounts { updated: 0, paused: true, ..done() }, "kubectl rollout resume"),
        ] {
            let Rollout::Stuck(text) = evaluate_rollout(&counts) else { panic!("{counts:?} goes on") };
            assert!(text.contains(told), "{text}");
        }
        // A deadline of an earlier rollout, seen before the controller has looked.
        let early = RolloutCounts { observed_generation: 1, deadline_exceeded: true, ..done() };
        assert!(matches!(evaluate_rollout(&early), Rollout::UnderWay(_)));
        assert_eq!(
            evaluate_rollout(&RolloutCounts { paused: true, deadline_exceeded: true, manual_update: true, ..done() }),
            Rollout::Done
        );
    }

    #[test]
    fn the_record_is_read_as_it_was_written_and_nonsense_owes_nothing() {
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
        for nonsense in ["", "[]", r#"{"Deployment": "owed", "Job/a": "owed", "Deployment/b": "soon"}"#] {
            assert_eq!(decode(nonsense), Restarts::new(), "{nonsense}");
        }
    }

    #[test]
    fn every_name_makes_an_annotation_that_kubernetes_takes_and_no_two_the_same() {
        assert_eq!(pod_template_annotation("cycle"), "key.awsdeploy.dev/cycle");
        let long = ["a".repeat(253), format!("{}b", "a".repeat(252)), "a".repeat(64), "a".repeat(63)];
        let all: std::collections::BTreeSet<String> = long.iter().map(|name| pod_template_annotation(name)).collect();
        assert_eq!(all.len(), 4);
        for name in all {
            assert!(name.trim_start_matches("key.awsdeploy.dev/").len() <= 63, "{name}");
        }
    }
}
