//! The rules of an attempt: finish it, or abandon it and clean up behind the fence.

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Mode, Note, RetireReason, RuleInput, Step};
use crate::{
    api::{Reason, user::DeletionPolicy},
    domain::{
        current_state::{JournalSecret, Verification},
        dates::{self, saturating_add},
        journal::{AttemptPhase, Journal},
    },
};

/// A key that was created later than this after its attempt began does not belong to the attempt: a reconcile is cut off
/// earlier, and a writer that was paused for longer deletes its key again when it finds the fence.
const MAX_CREATE_DELAY: SignedDuration = SignedDuration::from_mins(5);

/// Only a live user depends on the journal: a revocation or deletion must not be blocked by it.
pub(super) fn hold_unknown_journal(input: &RuleInput<'_>) -> Option<Step> {
    input.desired()?;
    match &input.current.journal {
        JournalSecret::Unknown(why) => Some(Step::Hold(Note::new(Reason::UnknownJournal, why.clone()))),
        JournalSecret::None | JournalSecret::Attempt { .. } => None,
    }
}

/// A key that was published although its attempt is abandoned is kept: the response of its publication was lost.
pub(super) fn tag_published(input: &RuleInput<'_>) -> Option<Step> {
    let published = input.current.published()?;
    let key_id = &published.key_id;
    let tagged = input.user.is_tagged(key_id);
    // The date of a tag matters only to the retirement of a live user's keys.
    let live = input.desired().is_some();
    let due = match input.attempt().map(|(_, journal)| &journal.phase) {
        // The key was published a moment ago: IAM's list may not show it yet, and the tag does no harm then.
        Some(AttemptPhase::Keyed { key_id: staged, .. }) => {
            // Against a date in the future the tag would look old however often it is written.
            let published_at = published.published_at.min(input.now);
            let is_old = |tagged_at| dates::is_earlier_publication(tagged_at, published_at);
            let outdated = live && input.user.tagged_at(key_id).is_some_and(is_old);
            published.is_verified() && staged == key_id && (!tagged || outdated)
        }
        // The journal proves that the key is ours, whatever was done to the Secret since.
        Some(AttemptPhase::Abandoned { orphans }) => !tagged && orphans.contains(key_id),
        Some(AttemptPhase::Intent { .. }) => false,
        // The tag was removed by hand. The MAC proves that the key is ours.
        None => published.is_verified() && live && !tagged && input.user.key(key_id).is_some(),
    };
    due.then(|| Step::Do(Effect::TagKey(key_id.clone())))
}

pub(super) fn fence_publisher(input: &RuleInput<'_>) -> Option<Step> {
    let (attempt, _) = input.abandoned()?;
    let published = input.current.published()?;
    (published.fence.as_deref() != Some(attempt)).then_some(Step::Do(Effect::TouchPublished))
}

pub(super) fn delete_orphans(input: &RuleInput<'_>) -> Option<Step> {
    let (_, orphans) = input.abandoned()?;
    let published = input.current.published().map(|facts| facts.key_id.as_str());
    // Not looked up in IAM's list, which may lag: deleting a key that does not exist does no harm.
    let current = input.current;
    let tried = |id: &String| current.deleted_keys.contains(id) || current.unknown_keys.contains(id);
    let orphan = orphans.iter().find(|id| Some(id.as_str()) != published && !tried(id))?;
    Some(Step::Do(Effect::DeleteKey(orphan.clone(), RetireReason::Orphan)))
}

/// A published attempt is over when its key is tagged, an abandoned one when its orphans are deleted.
pub(super) fn close(input: &RuleInput<'_>) -> Option<Step> {
    let (_, journal) = input.attempt()?;
    match &journal.phase {
        AttemptPhase::Intent { .. } => return None,
        AttemptPhase::Keyed { key_id, .. } => {
            let published = input.current.verified()?;
            if published.key_id != *key_id || !input.user.is_tagged(key_id) {
                return None;
            }
        }
        AttemptPhase::Abandoned { orphans } => {
            let visible_at = saturating_add(journal.started_at, input.settings.recovery_delay);
            // Without the journal, a key that appears later would be foreign and stay Active.
            if input.now < visible_at && orphans.iter().any(|id| input.current.unknown_keys.contains(id)) {
                let message = "IAM does not know the key of an abandoned attempt yet; it is deleted once IAM's answers are reliable";
                return Some(Step::Wait(visible_at, Note::new(Reason::Recovering, message)));
            }
        }
    }
    Some(Step::Do(Effect::CloseJournal))
}

pub(super) fn publish(input: &RuleInput<'_>) -> Option<Step> {
    let (key_id, ..) = input.keyed()?;
    let first = input.current.published().is_none();
    let wanted = input.wants_key() && !input.is_inactive(key_id);
    (wanted && input.is_accepted(key_id) && input.unwritable().is_none() && (input.user_ready() || !first))
        .then(|| Step::Do(Effect::Publish(key_id.to_owned())))
}

/// Gives up an attempt without a result, and one whose key is not wanted, Inactive, or not published in time.
pub(super) fn abandon(input: &RuleInput<'_>) -> Option<Step> {
    let (_, journal) = input.attempt()?;
    match &journal.phase {
        AttemptPhase::Intent { known } => Some(abandon_intent(input, known, journal.started_at)),
        AttemptPhase::Keyed { key_id, keyed_at } => abandon_staged(input, key_id, *keyed_at),
        AttemptPhase::Abandoned { .. } => None,
    }
}

fn abandon_intent(input: &RuleInput<'_>, known: &[String], started_at: Timestamp) -> Step {
    let due = saturating_add(started_at, input.settings.recovery_delay);
    if input.now < due {
        let note = Note::new(
            Reason::Recovering,
            "an attempt to create an access key was interrupted; once IAM's list is reliable, its key is looked for and deleted",
        );
        return Step::Wait(due, note);
    }
    Step::Do(Effect::AbandonAttempt { orphans: orphans(input, known, started_at), failed: false })
}

/// Applies also where IAM's list does not show the key yet. While its credentials are revoked its staged key is kept.
fn abandon_staged(input: &RuleInput<'_>, key_id: &str, keyed_at: Timestamp) -> Option<Step> {
    if input.keyless_reason().is_some() {
        return None;
    }
    let abandon = |failed| Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed });
    if !input.wants_key() || input.is_inactive(key_id) {
        return Some(abandon(false));
    }
    let timeout = saturating_add(keyed_at, input.settings.verify_timeout);
    if input.now < timeout {
        return None;
    }
    // A key that AWS has accepted is not abandoned as refused, and none before AWS was asked at the end of its time: a
    // restarted process does not know what AWS answered to the one before.
    let is_accepted = input.is_accepted(key_id);
    let is_refused = input.verification(key_id).is_some_and(|seen| seen.successes == 0 && seen.last_at >= timeout);
    (is_accepted || is_refused).then(|| abandon(!is_accepted))
}

pub(super) fn verify(input: &RuleInput<'_>) -> Option<Step> {
    let (key_id, keyed_at) = input.keyed()?;
    if !input.wants_key() {
        return None;
    }
    let wanted = input.settings.verify_successes;
    let progress = input.verification(key_id);
    let successes = progress.map_or(0, |seen| seen.successes);
    let until_timeout = saturating_add(keyed_at, input.settings.verify_timeout);
    if input.is_accepted(key_id) {
        // AWS has accepted the key, but the Secret cannot be written yet.
        let note = input.unwritable().unwrap_or_else(|| {
            Note::new(
                Reason::Pending,
                "a new access key is ready; it is published once the user's policies and tags match the spec",
            )
        });
        return Some(Step::Wait(until_timeout, note));
    }
    // Ignore a check in the future (the clock was set back).
    let progress = progress.filter(|seen| seen.last_at <= input.now);
    let next_check = progress.map_or(input.now, |seen| saturating_add(seen.last_at, input.settings.verify_interval));
    if input.now >= next_check {
        return Some(Step::Do(Effect::VerifyKey(key_id.to_owned())));
    }
    let note = Note::new(
        Reason::Verifying,
        format!("a new access key was created; AWS has accepted it {successes} of {wanted} times in a row"),
    );
    Some(Step::Wait(if input.now < until_timeout { next_check.min(until_timeout) } else { next_check }, note))
}

/// The key that an attempt without a result may have left in IAM.
///
/// A person may have created a key meanwhile. Two facts distinguish it: an attempt creates its key soon or never, and it
/// creates only one. Where they do not decide, no key is an orphan: a key that is left over is reported as foreign, but a
/// foreign key that was deleted is lost.
fn orphans(input: &RuleInput<'_>, known: &[String], started_at: Timestamp) -> Vec<String> {
    let published = input.current.published().map(|facts| facts.key_id.as_str());
    let candidates: Vec<String> = input
        .user
        .keys
        .iter()
        .filter(|key| !known.contains(&key.id) && !input.user.is_tagged(&key.id) && published != Some(&key.id))
        .filter(|key| key.created_at >= started_at && key.created_at <= saturating_add(started_at, MAX_CREATE_DELAY))
        .map(|key| key.id.clone())
        .collect();
    if candidates.len() > 1 { Vec::new() } else { candidates }
}

impl RuleInput<'_> {
    /// The attempt in the journal with its id. A forced deletion deletes every key of the user anyway and waits for none.
    pub(super) fn attempt(&self) -> Option<(&str, &Journal)> {
        match &self.current.journal {
            JournalSecret::Attempt { attempt, journal }
                if !matches!(self.mode, Mode::Deleting(DeletionPolicy::Force)) =>
            {
                Some((attempt, journal))
            }
            _ => None,
        }
    }

    /// What AWS has answered about the key, as far as this process knows.
    fn verification(&self, key_id: &str) -> Option<&Verification> {
        self.current.verification.as_ref().filter(|seen| seen.key_id == key_id)
    }

    fn is_inactive(&self, key_id: &str) -> bool {
        self.user.key(key_id).is_some_and(|key| !key.active)
    }

    fn is_accepted(&self, key_id: &str) -> bool {
        self.verification(key_id).map_or(0, |seen| seen.successes) >= self.settings.verify_successes
    }

    pub(super) fn abandoned(&self) -> Option<(&str, &[String])> {
        match self.attempt()? {
            (attempt, Journal { phase: AttemptPhase::Abandoned { orphans }, .. }) => Some((attempt, orphans)),
            _ => None,
        }
    }

    pub(super) fn keyed(&self) -> Option<(&str, Timestamp)> {
        match &self.attempt()?.1.phase {
            AttemptPhase::Keyed { key_id, keyed_at } => Some((key_id, *keyed_at)),
            AttemptPhase::Intent { .. } | AttemptPhase::Abandoned { .. } => None,
        }
    }
}
