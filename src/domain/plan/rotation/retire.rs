//! How keys go that newer ones have replaced, and their tags.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RetireReason, RotationInput, Step};
use crate::{
    api::{Reason, duration::humanize},
    domain::{current_state::AccessKey, dates::saturating_add, owner::key_tag},
};

pub(super) fn untag_gone(scene: &RotationInput<'_>) -> Option<Step> {
    let published = scene.current.published().map(|facts| facts.key_id.as_str());
    let mut gone = BTreeSet::new();
    for (tag, since) in &scene.user.tags {
        let Some(id) = tag.strip_prefix(&key_tag("")) else { continue };
        // The value is the time of tagging. A key that was published a moment ago may be missing from
        // IAM's list; without its tag it would be taken for foreign, and stay for ever.
        let young = since
            .parse::<Timestamp>()
            .is_ok_and(|since| scene.listed_at() < saturating_add(since, scene.settings.recovery_delay));
        if Some(id) != published && scene.user.key(id).is_none() && !young {
            gone.insert(tag.clone());
            // The description has the bare key id as its name; it went with the key.
            gone.extend(scene.user.tags.keys().filter(|other| other.as_str() == id).cloned());
        }
    }
    (!gone.is_empty()).then_some(Step::Do(Effect::UntagUser(gone)))
}

pub(super) fn ask(scene: &RotationInput<'_>) -> Option<Step> {
    let wanted = scene.superseded().find(|key| key.active && scene.has_to_ask(key))?;
    (!scene.current.last_used_failed).then(|| Step::Do(Effect::ReadLastUsed(vec![wanted.id.clone()])))
}

pub(super) fn retire(scene: &RotationInput<'_>) -> Option<Step> {
    scene.superseded().find_map(|key| {
        if key.active {
            (scene.now >= scene.retires_at(key)?)
                .then(|| Step::Do(Effect::DeactivateKey(key.id.clone(), scene.retire_reason(key))))
        } else {
            (scene.now >= scene.deletable_at(key))
                .then(|| Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::OverlapEnded)))
        }
    })
}

impl RotationInput<'_> {
    /// Our keys that a newer, working key has replaced. None while there is no working one: then
    /// an old key may be all that a consumer has.
    pub(super) fn superseded(&self) -> impl Iterator<Item = &AccessKey> {
        let working = self.working().map(|facts| facts.key_id.clone());
        self.user.keys.iter().filter(move |key| {
            working.as_ref().is_some_and(|published| *published != key.id) && self.user.is_tagged(&key.id)
        })
    }

    /// Since when a superseded key is that. It is newer than the published one if an earlier
    /// Secret came back, by a rename to and fro or from a backup; then it is what consumers hold.
    fn superseded_at(&self, key: &AccessKey) -> Option<Timestamp> {
        self.publication_time().map(|publication_time| publication_time.max(key.created_at))
    }

    fn hold_while_used(&self) -> Option<SignedDuration> {
        self.desired.key.as_ref()?.hold_while_used
    }

    /// When the overlap of a superseded key ends.
    pub(super) fn overlap_ends(&self, key: &AccessKey) -> Option<Timestamp> {
        let overlap = self.desired.key.as_ref()?.overlap;
        self.superseded_at(key).map(|since| saturating_add(since, overlap))
    }

    /// When a superseded key is set Inactive, as far as is known now.
    pub(super) fn retires_at(&self, key: &AccessKey) -> Option<Timestamp> {
        if self.goes_at_once(key) {
            return self.publication_time().map(|publication_time| publication_time.min(self.now));
        }
        let ends = self.overlap_ends(key)?;
        let quiet = self.quiet_after(key, ends);
        Some(self.restart_limit(ends).map_or(quiet, |limit| limit.max(quiet)))
    }

    /// When a superseded key is out of use after the end of its overlap, as far as anybody waits for that.
    fn quiet_after(&self, key: &AccessKey, ends: Timestamp) -> Timestamp {
        let Some(hold) = self.hold_while_used() else { return ends };
        let limit = saturating_add(ends, hold);
        // No answer is no leave: neither one that AWS did not give, nor one from before the key was quiet for long.
        let answer = self.quiet_at(key).filter(|_| !self.has_to_ask(key));
        answer.map_or(if self.now < ends { ends } else { limit }, |quiet_at| quiet_at.clamp(ends, limit))
    }

    /// When a superseded key will have been out of use for long enough, if it is not used again. AWS learns of uses
    /// late, so that one that was not reported yet may have come just after the publication.
    fn quiet_at(&self, key: &AccessKey) -> Option<Timestamp> {
        let since = self.superseded_at(key)?;
        let answer = self.current.last_used.get(&key.id)?;
        let used_at = answer.used_at.map_or(since, |used_at| used_at.clamp(since, answer.asked_at.max(since)));
        Some(saturating_add(used_at, self.settings.last_used_window))
    }

    /// AWS has to be asked about the last use of a superseded key: its overlap is over, and the answer there is, if
    /// any, is too old to tell.
    fn has_to_ask(&self, key: &AccessKey) -> bool {
        let (Some(ends), Some(hold)) = (self.overlap_ends(key), self.hold_while_used()) else { return false };
        let answered = self.current.last_used.get(&key.id).map(|answer| answer.asked_at);
        let stale = |asked_at| asked_at < ends || self.quiet_at(key).is_some_and(|at| asked_at < at && at <= self.now);
        self.now >= ends
            && self.now < saturating_add(ends, hold)
            && !self.goes_at_once(key)
            && answered.is_none_or(stale)
    }

    /// The use of a superseded key that keeps it from retiring, long after the new key was there to be read.
    fn late_use(&self, key: &AccessKey) -> Option<Timestamp> {
        let moved = saturating_add(self.superseded_at(key)?, self.settings.consumer_switch_time());
        self.current.last_used.get(&key.id)?.used_at.filter(|used_at| *used_at > moved)
    }

    /// What is told while a key is held beyond its overlap.
    pub(super) fn held(&self) -> Option<Note> {
        let hold = self.hold_while_used()?;
        self.superseded().filter(|key| key.active).find_map(|key| {
            let ends = self.overlap_ends(key).filter(|ends| *ends <= self.now)?;
            let (id, limit, window) = (&key.id, saturating_add(ends, hold), humanize(self.settings.last_used_window));
            Some(match self.late_use(key) {
                Some(used_at) => Note::new(
                    Reason::StillUsed,
                    format!(
                        "access key {id} was used at {used_at}, although the new one can be read since {}. It stays Active until AWS has not seen it used for {window}, at the longest until {limit}; then whoever uses it is refused. Find out who does not read Secret {} anew: a pod with environment variables or a subPath mount, a copy elsewhere",
                        self.superseded_at(key)?,
                        self.desired.target.secret_name
                    ),
                ),
                None => Note::new(
                    Reason::Overlap,
                    format!("the overlap of access key {id} is over; it stays Active until AWS would have told of a use, at the longest until {limit}"),
                ),
            })
        })
    }

    fn retire_reason(&self, key: &AccessKey) -> RetireReason {
        if self.goes_at_once(key) {
            return RetireReason::Quarantined;
        }
        if self.retires_unrolled(key) {
            return RetireReason::RolloutTimedOut;
        }
        let limit = self.overlap_ends(key).zip(self.hold_while_used()).map(|(ends, hold)| saturating_add(ends, hold));
        let quiet = self.quiet_at(key).is_some_and(|at| at <= self.now);
        if limit.is_some_and(|limit| limit <= self.now) && !quiet {
            RetireReason::HoldExpired
        } else {
            RetireReason::OverlapEnded
        }
    }

    /// When an Inactive key may be deleted. A lost note of its deactivation starts the dwell anew.
    pub(super) fn deletable_at(&self, key: &AccessKey) -> Timestamp {
        let since = self.current.hints.inactive_since.get(&key.id).copied().unwrap_or(self.now);
        saturating_add(since.min(self.now), self.settings.deletion_delay)
    }

    /// When the next superseded key has to be dealt with.
    pub(super) fn retirement(&self) -> Option<Timestamp> {
        self.superseded()
            .filter_map(|key| if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) })
            .min()
    }

    /// When superseded keys are set Inactive, by their ids.
    pub(super) fn deactivate_at(&self) -> BTreeMap<String, Timestamp> {
        self.superseded()
            .filter(|key| key.active)
            .filter_map(|key| Some((key.id.clone(), self.retires_at(key)?)))
            .collect()
    }
}
