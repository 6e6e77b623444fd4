//! The rules of an attempt that the journal tells of: bring it to its end, or give it up and clean up behind the fence.

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RetireReason, RotationInput, Step};
use crate::{
    api::Reason,
    domain::{
        current_state::{CurrentState, IamUser, JournalSecret},
        dates::{self, saturating_add},
        journal::{AttemptPhase, Journal},
    },
};

/// A key that was made later than this after its attempt began is not of this attempt: passes are
/// cut off earlier, and a writer that was paused for longer undoes its key when it finds the fence.
const CREATE_WINDOW: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn unknown_journal(scene: &RotationInput<'_>) -> Option<Step> {
    match &scene.current.journal {
        JournalSecret::Unknown(why) => Some(Step::Hold(Note::new(Reason::UnknownJournal, why.clone()))),
        JournalSecret::None | JournalSecret::Foreign(_) | JournalSecret::Attempt { .. } => None,
    }
}

pub(super) fn keep_published_orphan(scene: &RotationInput<'_>) -> Option<Step> {
    let orphans = scene.abandoned()?.1;
    let published = scene.current.published()?;
    (orphans.contains(&published.key_id) && !scene.user.is_tagged(&published.key_id))
        .then(|| Step::Do(Effect::TagKey(published.key_id.clone())))
}

pub(super) fn fence_publisher(scene: &RotationInput<'_>) -> Option<Step> {
    let (attempt, _) = scene.abandoned()?;
    let published = scene.current.published()?;
    (published.fence.as_deref() != Some(attempt)).then_some(Step::Do(Effect::TouchPublished))
}

pub(super) fn delete_orphans(scene: &RotationInput<'_>) -> Option<Step> {
    let (_, orphans) = scene.abandoned()?;
    let published = scene.current.published().map(|facts| facts.key_id.as_str());
    // Not looked up in IAM's list: it may lag, and deleting what is gone does no harm.
    let orphan =
        orphans.iter().find(|id| Some(id.as_str()) != published && !scene.current.deleted_keys.contains(*id))?;
    Some(Step::Do(Effect::DeleteKey(orphan.clone(), RetireReason::Orphan)))
}

pub(super) fn close_abandoned(scene: &RotationInput<'_>) -> Option<Step> {
    scene.abandoned().map(|_| Step::Do(Effect::CloseJournal))
}

pub(super) fn tag_published(scene: &RotationInput<'_>) -> Option<Step> {
    let published = scene.current.published()?;
    let tagged = scene.user.is_tagged(&published.key_id);
    let due = match scene.current.journal() {
        // Our own publication a moment ago: IAM's list may not show the key yet, the tag does no harm then.
        Some(journal) => {
            // A date of the future is anybody's: the tag would be of before it however often it is written.
            let published_at = published.published_at.min(scene.now);
            let of_before = |tagged_at| dates::is_earlier_publication(tagged_at, published_at);
            let late = !tagged || scene.user.tagged_at(&published.key_id).is_some_and(of_before);
            late && matches!(&journal.phase, AttemptPhase::Keyed { key_id, .. } if *key_id == published.key_id)
        }
        // Somebody took the tag away. The Secret proves that the key is ours.
        None => !tagged && published.intact && scene.user.key(&published.key_id).is_some(),
    };
    due.then(|| Step::Do(Effect::TagKey(published.key_id.clone())))
}

pub(super) fn close_finished(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    (scene.current.published()?.key_id == key_id && scene.user.is_tagged(key_id))
        .then_some(Step::Do(Effect::CloseJournal))
}

pub(super) fn give_up_revoked(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    let revoked = scene.user.key(key_id).is_some_and(|key| !key.active);
    (revoked && scene.suspended().is_none())
        .then(|| Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed: false }))
}

pub(super) fn publish(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    let first = scene.current.published().is_none();
    let accepted = scene.settings.verify_successes == 0
        || scene
            .current
            .verification
            .as_ref()
            .is_some_and(|seen| seen.key_id == key_id && seen.successes >= scene.settings.verify_successes);
    (accepted && scene.unwritable().is_none() && !scene.no_key_wanted() && (scene.user_ready || !first))
        .then(|| Step::Do(Effect::Publish { key_id: key_id.to_owned(), left_behind: scene.left_behind() }))
}

pub(super) fn give_up_staged(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, keyed_at) = scene.keyed()?;
    (scene.suspended().is_none() && scene.now >= saturating_add(keyed_at, scene.settings.verify_timeout))
        .then(|| Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed: true }))
}

pub(super) fn verify(scene: &RotationInput<'_>) -> Option<Step> {
    let (key_id, keyed_at) = scene.keyed()?;
    if scene.no_key_wanted() {
        return None;
    }
    let wanted = scene.settings.verify_successes;
    let progress = scene.current.verification.as_ref().filter(|seen| seen.key_id == key_id);
    let successes = progress.map_or(0, |seen| seen.successes);
    let until_timeout = saturating_add(keyed_at, scene.settings.verify_timeout);
    if successes >= wanted {
        // Accepted, and something else stands in the way of the Secret: that is told, and waited for.
        let note = scene.unwritable().unwrap_or_else(|| {
            Note::new(Reason::Pending, "a new access key is ready; policies and tags of the user have to be as declared before it is handed out")
        });
        return Some(Step::Wait(until_timeout, note));
    }
    let next_check = progress.map_or(scene.now, |seen| saturating_add(seen.last_at, scene.settings.verify_interval));
    if scene.now >= next_check {
        return Some(Step::Do(Effect::VerifyKey(key_id.to_owned())));
    }
    let note = Note::new(
        Reason::Verifying,
        format!("a new access key was made; AWS has accepted it {successes} of {wanted} times in a row"),
    );
    Some(Step::Wait(next_check.min(until_timeout), note))
}

pub(super) fn abandon_intent(scene: &RotationInput<'_>) -> Option<Step> {
    let journal = scene.current.journal()?;
    let AttemptPhase::Intent { known } = &journal.phase else { return None };
    let due = saturating_add(journal.started_at, scene.settings.recovery_delay);
    if scene.now < due {
        let note = Note::new(
            Reason::Recovering,
            "an attempt to make an access key was cut off; after a safe waiting time its key is looked for and removed",
        );
        return Some(Step::Wait(due, note));
    }
    let orphans = orphans(scene.current, scene.user, known, journal.started_at);
    Some(Step::Do(Effect::AbandonAttempt { orphans, failed: false }))
}

/// The key that an attempt without an answer may have left in IAM.
///
/// A person may have made a key meanwhile. Two things tell it from ours: an attempt makes its key
/// soon or never, and it makes only one. Where that does not decide, no key is taken for an orphan:
/// a key that is left over is reported as foreign, a foreign key that was deleted is gone.
pub(in crate::domain::plan) fn orphans(
    current: &CurrentState,
    user: &IamUser,
    known: &[String],
    started_at: Timestamp,
) -> Vec<String> {
    let published = current.published().map(|facts| facts.key_id.as_str());
    let candidates: Vec<String> = user
        .keys
        .iter()
        .filter(|key| !known.contains(&key.id) && !user.is_tagged(&key.id) && published != Some(&key.id))
        .filter(|key| key.created_at >= started_at && key.created_at <= saturating_add(started_at, CREATE_WINDOW))
        .map(|key| key.id.clone())
        .collect();
    if candidates.len() > 1 { Vec::new() } else { candidates }
}

impl RotationInput<'_> {
    pub(super) fn abandoned(&self) -> Option<(&str, &[String])> {
        match &self.current.journal {
            JournalSecret::Attempt { attempt, journal: Journal { phase: AttemptPhase::Abandoned { orphans }, .. } } => {
                Some((attempt, orphans))
            }
            _ => None,
        }
    }

    pub(super) fn keyed(&self) -> Option<(&str, Timestamp)> {
        match &self.current.journal()?.phase {
            AttemptPhase::Keyed { key_id, keyed_at } => Some((key_id, *keyed_at)),
            AttemptPhase::Intent { .. } | AttemptPhase::Abandoned { .. } => None,
        }
    }
}
