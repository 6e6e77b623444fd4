//! Workloads are restarted once for each new key, and the old key waits for them, for a while.

use super::*;
use crate::{
    api::user::{RestartTarget, WorkloadKind},
    domain::restart::{ObservedWorkload, RestartProgress, Rollout, Workload},
};

fn target(name: &str) -> RestartTarget {
    RestartTarget { kind: WorkloadKind::Deployment, name: name.into() }
}

fn found(restarted_for: Option<&str>, rollout: Rollout) -> ObservedWorkload {
    ObservedWorkload::Found(Workload { restarted_for: restarted_for.map(Into::into), rollout })
}

fn under_way() -> ObservedWorkload {
    found(Some("K2"), Rollout::UnderWay("1 of 3 pods are new".into()))
}

impl Case {
    /// `a` and `b` are declared.
    fn restarting(self) -> Self {
        self.declared_key(|key| key.restart = ["a", "b"].map(target).into())
    }

    fn progress(self, name: &str, progress: RestartProgress) -> Self {
        self.facts(|facts| _ = facts.restarts.insert(target(name), progress))
    }

    fn sees(self, name: &str, seen: ObservedWorkload) -> Self {
        self.current(|current| _ = current.workloads.insert(target(name), seen))
    }
}

/// K2 was published so long ago, K1 is in its overlap of a day, and nothing was restarted yet.
pub(super) fn owed(age: SignedDuration) -> Case {
    in_overlap()
        .published("K2", age)
        .restarting()
        .progress("a", RestartProgress::Pending)
        .progress("b", RestartProgress::Pending)
}

/// Both were restarted at once; `a` is rolled out, `b` is not.
fn half_done(age: SignedDuration) -> Case {
    in_overlap()
        .published("K2", age)
        .restarting()
        .progress("b", RestartProgress::RestartedAt(ago(age)))
        .sees("b", under_way())
}

fn waits_for(case: &Case, wait: SignedDuration, reason: Reason, part: &str) {
    case.waits(wait, reason);
    let message = case.plan().rotation.message;
    assert!(message.contains(part), "{message}");
}

#[test]
fn replaced_successor_does_not_renew_the_restart_hold() {
    let replaced = |age| {
        let case = idle().superseded("K1", age).key("K3", mins(1)).tagged("K3").published("K3", mins(1)).restarting();
        case.progress("b", RestartProgress::RestartedAt(ago(mins(1)))).sees("b", under_way())
    };
    let ends = |age| replaced(age).plan().deactivate_at["K1"];
    assert_eq!(ends(hours(30)), ago(hours(30)) + days(1) + replaced(hours(30)).settings.restart_hold);
    assert_eq!(ends(days(9)), ago(mins(1)) + replaced(days(9)).settings.consumer_switch_time());
}

#[test]
fn every_publication_but_the_first_requires_restarts() {
    let owed = |case: Case| super::super::required_restarts(&case.desired, &case.current).len();
    assert_eq!(owed(staged().restarting()), 2);
    assert_eq!(owed(staged()), 0, "none are declared");
    assert_eq!(owed(without_key().restarting().keyed("K1", secs(5))), 0, "no pod can have another key");
    // The Secret was deleted, but pods that were started from it still run.
    assert_eq!(owed(idle().no_secret().restarting()), 2);
    assert_eq!(owed(without_key().rotated_before(days(1)).restarting()), 2);
}

#[test]
fn each_workload_is_read_restarted_and_recorded_once() {
    let case = owed(secs(1));
    case.does("ReadWorkloads Deployment a, Deployment b");
    let case = case.sees("a", found(None, Rollout::Done)).sees("b", found(Some("K1"), Rollout::Done));
    case.does("RestartWorkload Deployment a for K2");
    let case = case.sees("a", under_way());
    case.does("RestartWorkload Deployment b for K2");
    let case = case.sees("b", under_way());
    case.does(r#"RecordRestarts {"Deployment/a":"2026-11-21T10:00:00Z","Deployment/b":"2026-11-21T10:00:00Z"}"#);
    // Cut off before it was written down: found again, not done again.
    owed(secs(9)).sees("a", under_way()).sees("b", under_way()).does_not("RestartWorkload Deployment a for K2");
}

#[test]
fn workload_is_restarted_once_per_key() {
    // The template was replaced by hand, without our annotation.
    let case = half_done(secs(30)).sees("b", found(None, Rollout::UnderWay("new".into())));
    case.waits(secs(10), Reason::Restarting);
    half_done(secs(30)).sees("b", found(None, Rollout::Done)).does("RecordRestarts all done");
}

#[test]
fn only_a_publication_with_restarts_restarts_workloads() {
    let declared_later = idle().restarting();
    declared_later.waits(declared_later.plan().requeue_at.map(|at| at.duration_since(now())), Reason::Scheduled);
    // Not declared any more.
    owed(secs(1)).declared_key(|key| key.restart.clear()).does("RecordRestarts all done");
    owed(secs(1)).credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    let dead = owed(secs(1)).inactive("K2");
    assert!(!next_effect(&dead.plan()).contains("Workloads"), "its successor is a reason, it is none");
}

#[test]
fn rollouts_are_checked_often_at_first_and_hold_the_old_key() {
    waits_for(&half_done(mins(1)), secs(10), Reason::Restarting, "Deployment b: 1 of 3 pods are new");
    half_done(mins(11)).waits(mins(1), Reason::Restarting);
    assert_eq!(
        half_done(mins(1)).plan().deactivate_at["K1"],
        now() + hours(48) - mins(1),
        "overlap and --restart-hold"
    );
    half_done(hours(1)).sees("b", found(Some("K2"), Rollout::Done)).does("RecordRestarts all done");
    let done = in_overlap().restarting();
    done.waits(hours(23), Reason::Overlap);
    waits_for(&half_done(hours(25)), mins(1), Reason::RolloutStuck, "access key K1, which stays Active for them until");
    in_overlap().published("K2", hours(25)).restarting().does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn rollout_hold_is_bounded_by_limit_and_next_rotation() {
    half_done(hours(48)).does("DeactivateKey K1 (RolloutTimedOut)");
    let gone = half_done(hours(49)).inactive_since("K1", mins(1));
    waits_for(
        &gone,
        mins(1),
        Reason::RolloutStuck,
        "The previous key is not Active any more: AWS refuses pods that still use it",
    );
    let early = spread_of(days(1) + hours(12));
    let due = days(1) + hours(12) - early;
    half_done(due - secs(5)).every(days(1) + hours(12)).waits(secs(5), Reason::RolloutStuck);
    half_done(due).every(days(1) + hours(12)).does("DeactivateKey K1 (RolloutTimedOut)");
    // A requested rotation needs the slot too, and waits; it hides nothing.
    half_done(hours(25)).requested().waits(mins(1), Reason::RolloutStuck);
    half_done(mins(5)).requested().waits(secs(10), Reason::RotationPending);
}

fn spread_of(interval: SignedDuration) -> SignedDuration {
    let due = RotationSchedule::Every(interval).due(now(), permille()).unwrap();
    interval - due.duration_since(now())
}

#[test]
fn stuck_rollout_is_reported_at_once() {
    let stuck = found(Some("K2"), Rollout::Stuck("progress deadline".into()));
    waits_for(&half_done(mins(11)).sees("b", stuck), mins(1), Reason::RolloutStuck, "progress deadline");
}

#[test]
fn missing_workload_is_reported_and_blocks_nothing() {
    let case = owed(secs(1)).sees("a", under_way()).sees("b", ObservedWorkload::Missing);
    case.does(r#"RecordRestarts {"Deployment/a":"2026-11-21T10:00:00Z","Deployment/b":"missing"}"#);
    let missing =
        in_overlap().restarting().progress("b", RestartProgress::Missing).sees("b", ObservedWorkload::Missing);
    waits_for(&missing, hours(23), Reason::RestartFailed, "Deployment b does not exist in namespace deploy");
    assert_eq!(missing.plan().deactivate_at["K1"], now() + hours(23));
    missing
        .clone()
        .published("K2", hours(24))
        .progress("b", RestartProgress::Missing)
        .does("DeactivateKey K1 (OverlapEnded)");
    // Created since: its pods have the new key.
    missing.sees("b", found(None, Rollout::UnderWay("new".into()))).does("RecordRestarts all done");
    half_done(secs(30)).sees("b", ObservedWorkload::Missing).does("RecordRestarts all done");
}

#[test]
fn forbidden_restart_keeps_old_key_and_blocks_no_other() {
    let case =
        owed(secs(1)).sees("a", ObservedWorkload::Forbidden("run this".into())).sees("b", found(None, Rollout::Done));
    case.does("RestartWorkload Deployment b for K2");
    let case = case.sees("b", under_way());
    case.does(r#"RecordRestarts {"Deployment/a":"pending","Deployment/b":"2026-11-21T10:00:00Z"}"#);
    let case = in_overlap()
        .restarting()
        .progress("a", RestartProgress::Pending)
        .sees("a", ObservedWorkload::Forbidden("run this".into()));
    waits_for(&case, mins(1), Reason::RestartFailed, "Deployment a: run this");
    assert_eq!(case.plan().deactivate_at["K1"], now() + hours(47));
    case.every(days(30)).requested().waits(mins(1), Reason::RestartFailed);
    let failed = in_overlap()
        .restarting()
        .progress("a", RestartProgress::Pending)
        .sees("a", ObservedWorkload::Failed("fault".into()));
    waits_for(&failed, mins(1), Reason::RestartFailed, "could not be restarted: fault");
}

#[test]
fn quarantine_does_not_wait_for_rollouts() {
    let quarantined =
        half_done(mins(1)).desired(|desired| desired.on_quarantine = desired::OnQuarantine::Rotate).user(|user| {
            let grants = user.grants.get_or_insert_default();
            grants.attached.insert("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3".into());
            user.tags.insert("awsdeploy.dev/quarantined-at".into(), ago(hours(2)).to_string());
        });
    quarantined.does("DeactivateKey K1 (Quarantined)");
}
