//! Retires superseded keys: Inactive after the overlap, deleted after the deletion delay, then their tags are removed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RetireReason, RuleInput, Step, quarantine::MAX_CLOCK_SKEW};
use crate::{
    api::{Reason, duration::humanize, well_known},
    domain::{
        current_state::{AccessKey, JournalSecret, LastUse},
        dates::{floor, saturating_add, saturating_sub},
        owner::key_tag,
    },
};

pub(super) fn untag_deleted(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let published = input.current.published().map(|facts| facts.key_id.as_str());
    let mut tags = BTreeSet::new();
    for id in input.user.missing_keys() {
        // A key that was published a moment ago may be missing from IAM's list; without its tag it would count as foreign and
        // never be deleted.
        let reliable_at = |published_at| saturating_add(published_at, input.settings.recovery_delay);
        let young = input.user.tagged_at(id).is_some_and(|published_at| input.listed_at() < reliable_at(published_at));
        let is_new = input.current.newly_missing_keys.contains(id) && !input.current.deleted_keys.contains(id);
        if Some(id) != published && !young && !is_new {
            tags.insert(key_tag(id));
            // The AWS console keeps the description in a tag named by the bare key id, which is no tag of ours.
            let is_description = |other: &&String| other.as_str() == id && !id.starts_with(well_known::TAG_PREFIX);
            tags.extend(input.user.tags.keys().filter(is_description).cloned());
        }
    }
    (!tags.is_empty()).then_some(Step::Do(Effect::UntagUser(tags)))
}

/// Needs IAM only: neither the spec nor a Secret, which tenants write, keeps a key beyond what was announced. Reads the last
/// use of a key with `holdWhileUsed` before.
pub(super) fn deactivate(input: &RuleInput<'_>) -> Option<Step> {
    let unread = input.superseded().find(|key| key.active && input.needs_last_use(key));
    if let Some(key) = unread.filter(|_| !input.current.last_used_failed) {
        return Some(Step::Do(Effect::ReadLastUsed(vec![key.id.clone()])));
    }
    let (key, _) = input.retiring().find(|(_, at)| *at <= input.now)?;
    Some(Step::Do(Effect::DeactivateKey(key.id.clone(), input.retire_reason(key))))
}

/// A revocation keeps Inactive keys until a class allows the resource again.
pub(super) fn delete(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    let key = input.superseded().find(|key| !key.active && input.deletable_at(key) <= input.now)?;
    Some(Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::OverlapEnded)))
}

impl RuleInput<'_> {
    /// Our keys that a newer one has replaced.
    pub(super) fn superseded(&self) -> impl Iterator<Item = &AccessKey> {
        self.tagged().filter(|key| self.successor(key).is_some())
    }

    /// The keys that were published: a key is tagged after its publication, and only then.
    fn tagged(&self) -> impl Iterator<Item = &AccessKey> {
        self.user.keys.iter().filter(|key| self.user.is_tagged(&key.id))
    }

    /// The newer key, if it is Active: otherwise the older one may be all that a consumer has.
    pub(super) fn successor(&self, key: &AccessKey) -> Option<&AccessKey> {
        self.tagged().find(|other| other.active && self.recency(other) > self.recency(key))
    }

    fn recency<'a>(&self, key: &'a AccessKey) -> (Timestamp, Timestamp, Timestamp, &'a str) {
        let superseded_at = self.user.key_tag(&key.id).and_then(|tag| tag.superseded_at);
        (superseded_at.unwrap_or(Timestamp::MAX), self.published_at(key), key.created_at, &key.id)
    }

    /// By its tag. A date in the future, from a clock that was ahead, counts as none.
    fn published_at(&self, key: &AccessKey) -> Timestamp {
        let latest = saturating_add(self.now, MAX_CLOCK_SKEW);
        let tagged_at = self.user.tagged_at(&key.id).filter(|at| *at <= latest);
        tagged_at.map_or(key.created_at, |at| at.max(key.created_at))
    }

    /// Since when a key is superseded. The first date stays: an earlier Secret that is put back makes no key newer.
    fn superseded_at(&self, key: &AccessKey) -> Option<Timestamp> {
        let recorded = self.user.key_tag(&key.id).and_then(|tag| tag.superseded_at);
        recorded.or_else(|| self.successor(key).map(|newer| self.published_at(newer)))
    }

    /// The working key, if it is superseded: an earlier Secret came back, from a backup or by hand.
    fn restored(&self) -> Option<&AccessKey> {
        let key = self.user.key(&self.working()?.key_id)?;
        self.user.key_tag(&key.id)?.superseded_at.map(|_| key)
    }

    /// When a restored key is replaced: in time for consumers to read the new one before it ends. Until then, its newer key
    /// keeps its slot, because consumers may have that one. Never after its overlap: a Secret that is put back again and again
    /// would keep the key.
    pub(super) fn restored_until(&self) -> Option<Timestamp> {
        let ends = self.first_overlap_ends(self.restored()?).filter(|ends| self.now < *ends)?;
        let needed = self.settings.verify_timeout.saturating_add(self.settings.consumer_switch_time());
        Some(saturating_sub(ends, needed))
    }

    pub(super) fn restored_note(&self) -> Option<Note> {
        let (key, until) = (self.restored()?, self.restored_until()?);
        let (id, secret) = (&key.id, &self.target.secret_name);
        Some(Note::new(
            Reason::RotationPending,
            format!(
                "Secret {secret} holds access key {id} again, which was superseded before; it is replaced at {until}"
            ),
        ))
    }

    pub(super) fn hold_while_used(&self) -> Option<SignedDuration> {
        self.desired_key()?.hold_while_used
    }

    /// When the overlap of a superseded key ends.
    pub(super) fn overlap_ends(&self, key: &AccessKey) -> Option<Timestamp> {
        let (overlap, ends) = (self.overlap()?, self.first_overlap_ends(key)?);
        // The first newer key was lost and replaced: consumers need time to read this one.
        let switch = self.settings.consumer_switch_time().min(overlap);
        let newer = self.successor(key).map(|newer| saturating_add(self.published_at(newer), switch));
        Some(newer.map_or(ends, |switched| switched.max(ends)))
    }

    /// As it was announced when the key was superseded.
    fn first_overlap_ends(&self, key: &AccessKey) -> Option<Timestamp> {
        Some(saturating_add(self.superseded_at(key)?, self.overlap()?))
    }

    /// When a superseded or leaked key is set Inactive, as far as is known now.
    pub(super) fn retires_at(&self, key: &AccessKey) -> Option<Timestamp> {
        if self.retires_at_once(key) {
            return Some(self.now);
        }
        // Without a Secret for it there is no successor, which a tenant can cause.
        let is_blocked = self.current.secrets_unread || self.unwritable().is_some();
        let abandoned = self.first_overlap_ends(key).filter(|_| is_blocked);
        [self.unneeded_at(key), abandoned, self.leaked_until(key, is_blocked)].into_iter().flatten().min()
    }

    /// A leaked key that cannot be replaced, for whatever reason, has at most its overlap, and an hour at least.
    fn leaked_until(&self, key: &AccessKey, is_blocked: bool) -> Option<Timestamp> {
        let is_unknown = matches!(self.current.journal, JournalSecret::Unknown(_));
        let is_stuck = is_blocked || is_unknown || self.current.key_backoff.is_some();
        let since = self.compromised_until().filter(|_| is_stuck && self.is_compromised(key))?;
        self.overlap().map(|overlap| saturating_add(since, overlap.max(SignedDuration::from_hours(1))))
    }

    fn unneeded_at(&self, key: &AccessKey) -> Option<Timestamp> {
        self.successor(key)?;
        let ends = self.overlap_ends(key)?;
        // They run at the same time.
        let extensions = [self.restart_limit(key), self.handover_limit(key)];
        Some(extensions.into_iter().flatten().fold(self.unused_after(key, ends), Timestamp::max))
    }

    /// The end of an extension of the overlap of a key. Never into the next rotation, which needs the slot.
    pub(super) fn extended(&self, key: &AccessKey, extension: SignedDuration) -> Option<Timestamp> {
        Some(self.before_next_rotation(self.overlap_ends(key)?, self.extended_at_most(key, extension)?))
    }

    pub(super) fn before_next_rotation(&self, overlap_ends: Timestamp, limit: Timestamp) -> Timestamp {
        self.next_rotation().map_or(limit, |next| limit.min(next)).max(overlap_ends)
    }

    /// As it was announced when the key was superseded: newer keys that are lost again and again do not extend it.
    fn extended_at_most(&self, key: &AccessKey, extension: SignedDuration) -> Option<Timestamp> {
        Some(saturating_add(self.first_overlap_ends(key)?, extension))
    }

    /// Until when a superseded key that is used is held.
    pub(super) fn hold_limit(&self, key: &AccessKey) -> Option<Timestamp> {
        Some(self.extended_at_most(key, self.hold_while_used()?)?.max(self.overlap_ends(key)?))
    }

    /// When a superseded key has been unused for long enough after its overlap, or the hold ends.
    fn unused_after(&self, key: &AccessKey, ends: Timestamp) -> Timestamp {
        let Some(limit) = self.hold_limit(key) else { return ends };
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
        let (Some(ends), Some(limit)) = (self.overlap_ends(key), self.hold_limit(key)) else { return false };
        let answered = self.current.last_used.get(&key.id).map(|answer| answer.asked_at);
        let stale = |asked_at| asked_at < ends || self.unused_at(key).is_some_and(|at| asked_at < at && at <= self.now);
        self.now >= ends && self.now < limit && !self.retires_at_once(key) && answered.is_none_or(stale)
    }

    /// The use of a superseded key long after consumers could have read the new one.
    pub(super) fn late_use(&self, key: &AccessKey) -> Option<&LastUse> {
        let moved = saturating_add(self.superseded_at(key)?, self.settings.consumer_switch_time());
        self.current.last_used.get(&key.id).filter(|answer| answer.used_at.is_some_and(|used_at| used_at > moved))
    }

    /// Why a key stays Active beyond its overlap.
    pub(super) fn hold_note(&self) -> Option<Note> {
        self.superseded().filter(|key| key.active).find_map(|key| {
            self.overlap_ends(key).filter(|ends| *ends <= self.now)?;
            let (id, limit, window) = (&key.id, self.hold_limit(key)?, humanize(self.settings.last_used_window));
            let used = self.late_use(key).and_then(|answer| Some((answer.used_at?, &answer.service)));
            Some(match used {
                Some((used_at, service)) => {
                    let service = service.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
                    Note::new(
                        self.ending(key).unwrap_or(Reason::StillUsed),
                        format!(
                            "access key {id} was used at {used_at}{service}, although the new one has been in the Secret since {}. It stays Active until AWS has not reported a use for {window}, at most until {limit}; after that AWS refuses it. Find the consumer that does not read Secret {} again: a pod with environment variables or a subPath mount, or a copy elsewhere",
                            self.superseded_at(key)?,
                            self.target.secret_name
                        ),
                    )
                }
                None => Note::new(
                    Reason::Overlap,
                    format!("the overlap of access key {id} is over; it stays Active until AWS would have reported a use, at most until {limit}"),
                ),
            })
        })
    }

    /// What becomes of a superseded key.
    pub(super) fn overlap_note(&self) -> Option<Note> {
        let active = self.retiring().min_by_key(|(_, at)| *at);
        let valid = active.map(|(_, until)| {
            format!("the previous key is valid until {until} so that consumers can switch to the new one")
        });
        let message = valid.or_else(|| {
            let (key, at) = self.deleted_later().min_by_key(|(_, at)| *at)?;
            Some(format!("the previous key {} is Inactive, and is deleted at {}", key.id, floor(at)))
        })?;
        Some(Note::new(Reason::Overlap, message))
    }

    /// Superseded keys that are Inactive, with the time of their deletion.
    fn deleted_later(&self) -> impl Iterator<Item = (&AccessKey, Timestamp)> {
        let inactive = self.superseded().filter(|key| !key.active && self.desired().is_some());
        inactive.map(|key| (key, self.deletable_at(key)))
    }

    fn retire_reason(&self, key: &AccessKey) -> RetireReason {
        if self.is_compromised(key) {
            return RetireReason::Quarantined;
        }
        if self.retires_during_rollout(key) {
            return RetireReason::RolloutTimedOut;
        }
        if self.retires_during_handover(key) {
            return RetireReason::HandoverExpired;
        }
        let limit = self.hold_limit(key);
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

    /// Active keys that are set Inactive at a known time.
    fn retiring(&self) -> impl Iterator<Item = (&AccessKey, Timestamp)> {
        self.tagged().filter(|key| key.active).filter_map(|key| Some((key, self.retires_at(key)?)))
    }

    /// When superseded keys are set Inactive or deleted, or a restored one replaced.
    pub(in crate::domain::plan) fn retirements(&self) -> impl Iterator<Item = Timestamp> {
        self.retiring().chain(self.deleted_later()).map(|(_, at)| at).chain(self.restored_until())
    }

    /// When superseded keys are set Inactive, by their ids.
    pub(in crate::domain::plan) fn deactivate_at(&self) -> BTreeMap<String, Timestamp> {
        self.retiring().map(|(key, at)| (key.id.clone(), at)).collect()
    }
}
