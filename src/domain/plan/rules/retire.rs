//! Retires superseded keys: Inactive after the overlap, deleted after the deletion delay, then their tags are removed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RetireReason, RuleInput, Step};
use crate::{
    api::{Reason, duration::humanize, well_known},
    domain::{current_state::AccessKey, dates::saturating_add, owner::key_tag},
};

pub(super) fn untag_deleted(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.current.published().map(|facts| facts.key_id.as_str());
    let mut tags = BTreeSet::new();
    for (tag, since) in &input.user.tags {
        let Some(id) = tag.strip_prefix(&key_tag("")) else { continue };
        // The value is the time of tagging. A key that was published a moment ago may be missing from IAM's list; without
        // its tag it would count as foreign and never be deleted.
        let young = since
            .parse::<Timestamp>()
            .is_ok_and(|since| input.listed_at() < saturating_add(since, input.settings.recovery_delay));
        if Some(id) != published && input.user.key(id).is_none() && !young {
            tags.insert(tag.clone());
            // The AWS console keeps the description in a tag named by the bare key id, which is no tag of ours.
            let is_description = |other: &&String| other.as_str() == id && !id.starts_with(well_known::TAG_PREFIX);
            tags.extend(input.user.tags.keys().filter(is_description).cloned());
        }
    }
    (!tags.is_empty()).then_some(Step::Do(Effect::UntagUser(tags)))
}

/// Reads the last use of a key with `holdWhileUsed` before the key is retired.
pub(super) fn retire(input: &RuleInput<'_>) -> Option<Step> {
    let unread = input.superseded().find(|key| key.active && input.needs_last_use(key));
    if let Some(key) = unread.filter(|_| !input.current.last_used_failed) {
        return Some(Step::Do(Effect::ReadLastUsed(vec![key.id.clone()])));
    }
    input.superseded().find_map(|key| {
        if key.active {
            (input.now >= input.retires_at(key)?)
                .then(|| Step::Do(Effect::DeactivateKey(key.id.clone(), input.retire_reason(key))))
        } else {
            (input.now >= input.deletable_at(key))
                .then(|| Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::OverlapEnded)))
        }
    })
}

impl RuleInput<'_> {
    /// Our keys that a newer, working key has replaced. None while no key works: then an old key may be all that a consumer
    /// has. A revocation keeps Inactive keys until a class allows the resource again.
    pub(super) fn superseded(&self) -> impl Iterator<Item = &AccessKey> {
        let working = self.working().map(|facts| facts.key_id.clone());
        let deletes = self.desired().is_some();
        self.user.keys.iter().filter(move |key| {
            working.as_ref().is_some_and(|published| *published != key.id)
                && self.user.is_tagged(&key.id)
                && (key.active || deletes)
        })
    }

    /// Since when a key is superseded. It is newer than the published one if an earlier Secret came back from a backup; then it
    /// is what consumers have.
    fn superseded_at(&self, key: &AccessKey) -> Option<Timestamp> {
        self.publication_time().map(|published_at| published_at.max(key.created_at))
    }

    fn hold_while_used(&self) -> Option<SignedDuration> {
        self.desired_key()?.hold_while_used
    }

    /// When the overlap of a superseded key ends.
    pub(super) fn overlap_ends(&self, key: &AccessKey) -> Option<Timestamp> {
        let overlap = self.overlap()?;
        self.superseded_at(key).map(|since| saturating_add(since, overlap))
    }

    /// When a superseded key is set Inactive, as far as is known now.
    pub(super) fn retires_at(&self, key: &AccessKey) -> Option<Timestamp> {
        if self.retires_at_once(key) {
            return self.publication_time().map(|published_at| published_at.min(self.now));
        }
        let ends = self.overlap_ends(key)?;
        let unused = self.unused_after(key, ends);
        Some(self.restart_limit(ends).map_or(unused, |limit| limit.max(unused)))
    }

    /// When a superseded key has been unused for long enough after its overlap, or the hold ends.
    fn unused_after(&self, key: &AccessKey, ends: Timestamp) -> Timestamp {
        let Some(hold) = self.hold_while_used() else { return ends };
        let limit = saturating_add(ends, hold);
        // Neither a failed read nor an answer from before the window proves that the key is unused.
        let answer = self.unused_at(key).filter(|_| !self.needs_last_use(key));
        answer.map_or(if self.now < ends { ends } else { limit }, |unused_at| unused_at.clamp(ends, limit))
    }

    /// When a superseded key will have been unused for long enough, if it is not used again. AWS reports uses late: one just
    /// after the publication may not be reported yet.
    fn unused_at(&self, key: &AccessKey) -> Option<Timestamp> {
        let since = self.superseded_at(key)?;
        let answer = self.current.last_used.get(&key.id)?;
        let used_at = answer.used_at.map_or(since, |used_at| used_at.clamp(since, answer.asked_at.max(since)));
        Some(saturating_add(used_at, self.settings.last_used_window))
    }

    /// Whether the last use of a superseded key must be read: its overlap is over, and the answer, if any, is too old.
    fn needs_last_use(&self, key: &AccessKey) -> bool {
        let (Some(ends), Some(hold)) = (self.overlap_ends(key), self.hold_while_used()) else { return false };
        let answered = self.current.last_used.get(&key.id).map(|answer| answer.asked_at);
        let stale = |asked_at| asked_at < ends || self.unused_at(key).is_some_and(|at| asked_at < at && at <= self.now);
        self.now >= ends
            && self.now < saturating_add(ends, hold)
            && !self.retires_at_once(key)
            && answered.is_none_or(stale)
    }

    /// The use of a superseded key long after consumers could have read the new one.
    fn late_use(&self, key: &AccessKey) -> Option<Timestamp> {
        let moved = saturating_add(self.superseded_at(key)?, self.settings.consumer_switch_time());
        self.current.last_used.get(&key.id)?.used_at.filter(|used_at| *used_at > moved)
    }

    /// Why a key stays Active beyond its overlap.
    pub(super) fn hold_note(&self) -> Option<Note> {
        let hold = self.hold_while_used()?;
        self.superseded().filter(|key| key.active).find_map(|key| {
            let ends = self.overlap_ends(key).filter(|ends| *ends <= self.now)?;
            let (id, limit, window) = (&key.id, saturating_add(ends, hold), humanize(self.settings.last_used_window));
            Some(match self.late_use(key) {
                Some(used_at) => Note::new(
                    Reason::StillUsed,
                    format!(
                        "access key {id} was used at {used_at}, although the new one has been in the Secret since {}. It stays Active until AWS has not reported a use for {window}, at most until {limit}; after that AWS refuses it. Find the consumer that does not read Secret {} again: a pod with environment variables or a subPath mount, or a copy elsewhere",
                        self.superseded_at(key)?,
                        self.target.secret_name
                    ),
                ),
                None => Note::new(
                    Reason::Overlap,
                    format!("the overlap of access key {id} is over; it stays Active until AWS would have reported a use, at most until {limit}"),
                ),
            })
        })
    }

    fn retire_reason(&self, key: &AccessKey) -> RetireReason {
        if self.retires_at_once(key) {
            return RetireReason::Quarantined;
        }
        if self.retires_during_rollout(key) {
            return RetireReason::RolloutTimedOut;
        }
        let limit = self.overlap_ends(key).zip(self.hold_while_used()).map(|(ends, hold)| saturating_add(ends, hold));
        let unused = self.unused_at(key).is_some_and(|at| at <= self.now);
        if limit.is_some_and(|limit| limit <= self.now) && !unused {
            RetireReason::HoldExpired
        } else {
            RetireReason::OverlapEnded
        }
    }

    /// When an Inactive key may be deleted. If the status has lost the time of its deactivation, the delay starts again. A key
    /// that a person sets Inactive during its overlap can be set Active again until the overlap ends.
    pub(super) fn deletable_at(&self, key: &AccessKey) -> Timestamp {
        let since = self.current.hints.inactive_since.get(&key.id).copied().unwrap_or(self.now).min(self.now);
        let deletable = saturating_add(since, self.settings.deletion_delay);
        let was_in_overlap = !self.retires_at_once(key) && self.superseded_at(key).is_some_and(|at| since >= at);
        self.overlap_ends(key).filter(|_| was_in_overlap).map_or(deletable, |ends| ends.max(deletable))
    }

    /// When the next superseded key is set Inactive or deleted.
    pub(in crate::domain::plan) fn retirement(&self) -> Option<Timestamp> {
        self.superseded()
            .filter_map(|key| if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) })
            .min()
    }

    /// When superseded keys are set Inactive, by their ids.
    pub(in crate::domain::plan) fn deactivate_at(&self) -> BTreeMap<String, Timestamp> {
        self.superseded()
            .filter(|key| key.active)
            .filter_map(|key| Some((key.id.clone(), self.retires_at(key)?)))
            .collect()
    }
}
