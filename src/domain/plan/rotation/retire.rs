//! How keys go that newer ones have replaced, and their tags.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Effect, Scene, Step, Why};
use crate::domain::{owner::key_tag, world::AccessKey};

pub(super) fn untag_gone(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published().map(|facts| facts.key_id.as_str());
    let mut gone = BTreeSet::new();
    for (tag, since) in &scene.user.tags {
        let Some(id) = tag.strip_prefix(&key_tag("")) else { continue };
        // The value is the time of tagging. A key that was published a moment ago may be missing from
        // IAM's list; without its tag it would be taken for foreign, and stay for ever.
        let young = since.parse::<Timestamp>().is_ok_and(|since| scene.now < since + scene.settings.intent_dwell);
        if Some(id) != published && scene.user.key(id).is_none() && !young {
            gone.insert(tag.clone());
            // The description has the bare key id as its name; it went with the key.
            gone.extend(scene.user.tags.keys().filter(|other| other.as_str() == id).cloned());
        }
    }
    (!gone.is_empty()).then_some(Step::Do(Effect::UntagUser(gone)))
}

pub(super) fn retire(scene: &Scene<'_>) -> Option<Step> {
    scene.superseded().find_map(|key| {
        if key.active {
            (scene.now >= scene.retires_at(key)?).then(|| Step::Do(Effect::DeactivateKey(key.id.clone(), Why::Retired)))
        } else {
            (scene.now >= scene.deletable_at(key)).then(|| Step::Do(Effect::DeleteKey(key.id.clone(), Why::Retired)))
        }
    })
}

impl Scene<'_> {
    /// Our keys that a newer, working key has replaced. None while there is no working one: then
    /// an old key may be all that a consumer has.
    pub(super) fn superseded(&self) -> impl Iterator<Item = &AccessKey> {
        let working = self.working().map(|facts| facts.key_id.clone());
        self.user.keys.iter().filter(move |key| {
            working.as_ref().is_some_and(|published| *published != key.id) && self.user.is_tagged(&key.id)
        })
    }

    /// When the overlap of a superseded key ends. It is newer than the published one if an earlier
    /// Secret came back, by a rename to and fro or from a backup; then it is what consumers hold.
    pub(super) fn retires_at(&self, key: &AccessKey) -> Option<Timestamp> {
        self.working().map(|facts| facts.published_at.max(key.created_at) + self.desired.key.overlap)
    }

    /// When an Inactive key may be deleted. A lost note of its deactivation starts the dwell anew.
    pub(super) fn deletable_at(&self, key: &AccessKey) -> Timestamp {
        let since = self.world.reported.inactive_since.get(&key.id).copied().unwrap_or(self.now);
        since.min(self.now) + self.settings.retire_dwell
    }

    /// When the next superseded key has to be dealt with.
    pub(super) fn retirement(&self) -> Option<Timestamp> {
        self.superseded()
            .filter_map(|key| if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) })
            .min()
    }
}
