//! Restarts the workloads that read the key only at their start when a new key is published. The superseded key stays
//! Active until they are rolled out, for a bounded time.

use jiff::Timestamp;

use super::{Effect, Note, RuleInput, Step};
use crate::{
    api::{Reason, user::RestartTarget},
    domain::{
        current_state::{AccessKey, CurrentState},
        dates::{floor, saturating_add},
        desired::Desired,
        restart::{ObservedWorkload, RestartProgress, Restarts, Rollout},
    },
};

/// A rollout is checked often for this long; after that it needs a person.
const FREQUENT_CHECKS: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
/// Factor of the check interval afterwards.
const RARE_CHECK_FACTOR: i32 = 6;

/// The restarts that a publication needs: all that are declared, but none for the first key, because no pod can have
/// started with an earlier one.
#[must_use]
pub fn required_restarts(desired: &Desired, current: &CurrentState) -> Restarts {
    if current.published().is_none() && !current.was_published() {
        return Restarts::new();
    }
    let declared = desired.key.iter().flat_map(|key| &key.restart);
    declared.map(|target| (target.clone(), RestartProgress::Pending)).collect()
}

/// Reads the workloads, restarts them and records the progress; never waits. A workload that cannot be restarted does not
/// block the others.
pub(super) fn restart(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    // A key that does not work needs no restarts; its successor does.
    let published = input.working()?;
    let seen = |target: &RestartTarget| input.current.workloads.get(target);
    let unseen: Vec<RestartTarget> =
        input.restarts().filter(|(target, _)| seen(target).is_none()).map(|(target, _)| target.clone()).collect();
    if !unseen.is_empty() {
        return Some(Step::Do(Effect::ReadWorkloads(unseen)));
    }
    let restarted = |target: &RestartTarget| matches!(seen(target), Some(ObservedWorkload::Found(found)) if found.restarted_for.as_ref() == Some(&published.key_id));
    let next = input.restarts().find(|(target, progress)| {
        *progress == RestartProgress::Pending
            && matches!(seen(target), Some(ObservedWorkload::Found(_)))
            && !restarted(target)
    });
    if let Some((target, _)) = next {
        return Some(Step::Do(Effect::RestartWorkload(target.clone(), published.key_id.clone())));
    }
    let second = floor(input.now);
    let after: Restarts = input
        .restarts()
        .filter_map(|(target, progress)| {
            let progress = match (progress, seen(target)?) {
                (RestartProgress::Pending, ObservedWorkload::Found(_)) => RestartProgress::RestartedAt(second),
                (RestartProgress::Pending | RestartProgress::Missing, ObservedWorkload::Missing) => {
                    RestartProgress::Missing
                }
                // Created since: its pods have started with the new key.
                (RestartProgress::Missing, ObservedWorkload::Found(_))
                | (RestartProgress::RestartedAt(_), ObservedWorkload::Missing) => return None,
                (RestartProgress::RestartedAt(_), ObservedWorkload::Found(found)) if found.rollout == Rollout::Done => {
                    return None;
                }
                (progress, _) => progress,
            };
            Some((target.clone(), progress))
        })
        .collect();
    (after != published.restarts && !published.immutable).then_some(Step::Do(Effect::RecordRestarts(after)))
}

impl RuleInput<'_> {
    /// The restarts that the published key needs and that are still declared.
    fn restarts(&self) -> impl Iterator<Item = (&RestartTarget, RestartProgress)> {
        let declared = self.desired_key().map(|key| &key.restart);
        let restarts = self.working().map(|published| &published.restarts);
        restarts
            .into_iter()
            .flatten()
            .filter(move |(target, _)| declared.is_some_and(|declared| declared.contains(*target)))
            .map(|(target, progress)| (target, *progress))
    }

    /// Those that the superseded key waits for. A workload that does not exist has no pods.
    fn rolling_out(&self) -> impl Iterator<Item = (&RestartTarget, RestartProgress)> {
        self.restarts().filter(|(_, progress)| *progress != RestartProgress::Missing)
    }

    /// Until when a superseded key waits at most for workloads that are not rolled out.
    pub(super) fn restart_limit(&self, key: &AccessKey) -> Option<Timestamp> {
        self.rolling_out().next()?;
        self.extended(key, self.settings.restart_hold)
    }

    /// When the workloads are read again.
    pub(in crate::domain::plan) fn next_restart_check(&self) -> Option<Timestamp> {
        let frequent = |progress| match progress {
            RestartProgress::RestartedAt(since) => {
                since <= self.now && self.now < saturating_add(since, FREQUENT_CHECKS)
            }
            RestartProgress::Pending | RestartProgress::Missing => false,
        };
        let check = self.settings.restart_check_interval;
        let rare = check.saturating_mul(RARE_CHECK_FACTOR);
        self.rolling_out()
            .map(|(_, progress)| saturating_add(self.now, if frequent(progress) { check } else { rare }))
            .min()
    }

    /// The state of restarts that are not finished.
    pub(super) fn restart_note(&self) -> Option<Note> {
        let published = self.working()?;
        let superseded = self.superseded().find(|key| key.active);
        let late = superseded.is_none_or(|key| self.overlap_ends(key).is_some_and(|ends| ends <= self.now));
        let mut unfinished: Vec<(Reason, String)> = Vec::new();
        for (target, progress) in self.restarts() {
            let waits = if late { Reason::RolloutStuck } else { Reason::Restarting };
            unfinished.push(match (self.current.workloads.get(target), progress) {
                (Some(ObservedWorkload::Missing), _) | (None, RestartProgress::Missing) => (
                    Reason::RestartFailed,
                    format!(
                        "{target} does not exist in namespace {}: create it, or correct spec.accessKey.restart",
                        self.target.owner.namespace
                    ),
                ),
                (Some(ObservedWorkload::Forbidden(why)), _) => (Reason::RestartFailed, format!("{target}: {why}")),
                (Some(ObservedWorkload::Failed(why)), RestartProgress::Pending) => {
                    (Reason::RestartFailed, format!("{target} could not be restarted: {why}"))
                }
                (Some(ObservedWorkload::Failed(why)), _) => (waits, format!("{target} could not be read: {why}")),
                (Some(ObservedWorkload::Found(found)), _) => match &found.rollout {
                    Rollout::Stuck(why) => (Reason::RolloutStuck, format!("{target}: {why}")),
                    Rollout::UnderWay(why) => (waits, format!("{target}: {why}")),
                    Rollout::Done => continue,
                },
                (None, _) => (waits, format!("{target} is about to be restarted")),
            });
        }
        let worst = [Reason::RestartFailed, Reason::RolloutStuck, Reason::Restarting];
        let reason = worst.into_iter().find(|reason| unfinished.iter().any(|(other, _)| other == reason))?;
        let what = unfinished.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ");
        let end = match superseded.and_then(|key| Some((key, self.retires_at(key)?))) {
            Some((key, until)) if self.rolling_out().next().is_some() => format!(
                "Pods that are not replaced keep using access key {}, which stays Active for them until {until} at most",
                key.id
            ),
            Some((key, until)) => format!("Access key {} stays Active until {until}", key.id),
            None => "The previous key is not Active any more: AWS refuses pods that still use it".to_owned(),
        };
        Some(Note::new(reason, format!("not rolled out with access key {} yet: {what}. {end}", published.key_id)))
    }

    /// Whether the key retires although workloads may still use it.
    pub(super) fn retires_during_rollout(&self, key: &AccessKey) -> bool {
        self.restart_limit(key).is_some()
    }
}
