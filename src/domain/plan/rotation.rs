//! The rotation protocol: an ordered chain of small rules, the first that has something to say decides.
//!
//! `docs/rotation.md` tells the protocol as a story and what breaks without each rule.
//! The order is part of the protocol: an attempt that was begun is brought to its end
//! before anything else happens, and nothing is deleted before its fence is up.

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, Why};
use crate::{
    api::{Reason, duration::humanize},
    domain::{
        backoff::{self, ErrorClass},
        desired::Desired,
        journal::{Journal, Mode},
        owner::key_tag,
        schedule::spread_permille,
        settings::Settings,
        world::{AccessKey, IamUser, JournalSeen, Published, PublishedFacts, World},
    },
};

/// Access keys per user (IAM quota, cannot be raised; an Inactive key counts).
const SLOTS: usize = 2;

/// A key that was made later than this after its attempt began is not of this attempt: passes are
/// cut off earlier, and a writer that was paused for longer undoes its key when it finds the fence.
const CREATE_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// What the rules look at.
pub struct Scene<'a> {
    /// Declared.
    pub desired: &'a Desired,
    /// Found.
    pub world: &'a World,
    /// The user, which is ours.
    pub user: &'a IamUser,
    /// Now, on AWS's clock.
    pub now: Timestamp,
    /// Times and limits.
    pub settings: &'a Settings,
    /// Policies and tags are as declared; a first key is not handed out before.
    pub user_ready: bool,
    /// The Secret cannot be written.
    pub conflict: Option<Note>,
}

/// What a rule has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Do this.
    Do(Effect),
    /// Nothing before this time.
    Wait(Timestamp, Note),
    /// Nothing before something changes.
    Hold(Note),
    /// All is well.
    Idle,
}

/// The chain's verdict.
pub(super) struct Outlook {
    pub(super) effect: Option<Effect>,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) key: Option<Note>,
    pub(super) rotation: Note,
    pub(super) next_rotation: Option<Timestamp>,
}

type Rule = fn(&Scene<'_>) -> Option<Step>;

/// The chain. Read it as the protocol's specification.
pub const RULES: &[(&str, Rule)] = &[
    ("a journal of unknown format is left alone", unknown_journal),
    ("suspended keys are Inactive", suspend),
    ("the published key of an abandoned attempt stays", keep_published_orphan),
    ("a paused publisher of an abandoned key is fenced off", fence_publisher),
    ("orphans are deleted behind the fence", delete_orphans),
    ("an abandoned attempt is closed", close_abandoned),
    ("a published key is tagged, never before it is published", tag_published),
    ("a finished attempt is closed", close_finished),
    ("a staged key that was revoked is given up", give_up_revoked),
    ("a staged key that AWS accepts is published", publish),
    ("a staged key that cannot be published in time is given up", give_up_staged),
    ("a staged key is verified", verify),
    ("an intent without an answer is abandoned after the dwell", abandon_intent),
    ("a suspended user gets no key", hold_suspended),
    ("a Secret that is not ours is not written", hold_conflict),
    ("tags of keys that are gone are removed", untag_gone),
    ("a superseded key is retired after its overlap", retire),
    ("a key that is due is replaced", replace),
    ("an earlier target Secret goes with its key", drop_previous_secret),
    ("the Secret is as declared", rewrite),
];

/// Runs the chain.
pub(super) fn decide(scene: &Scene<'_>) -> Outlook {
    let step = RULES.iter().find_map(|(_, rule)| rule(scene)).unwrap_or(Step::Idle);
    let next_rotation = scene.next_rotation();
    let mut outlook = Outlook {
        effect: None,
        wake_at: None,
        key: scene.key_note(),
        rotation: scene.at_rest(next_rotation),
        next_rotation,
    };
    match step {
        Step::Do(effect) => {
            if scene.world.journal().is_some() {
                outlook.rotation = Note::new(Reason::Verifying, "a new access key is under way");
            }
            outlook.effect = Some(effect);
        }
        Step::Wait(until, note) => {
            outlook.wake_at = Some(until);
            outlook.rotation = note;
        }
        Step::Hold(note) => {
            // A retirement that is held up too is no reason to come back at once, again and again.
            outlook.wake_at = scene.retirement().filter(|at| *at > scene.now);
            outlook.rotation = note;
        }
        Step::Idle => outlook.wake_at = [scene.retirement(), next_rotation].into_iter().flatten().min(),
    }
    outlook
}

// --- the rules, in the order of the chain ---------------------------------------------------

fn unknown_journal(scene: &Scene<'_>) -> Option<Step> {
    match &scene.world.journal {
        JournalSeen::Unknown(why) => Some(Step::Hold(Note::new(Reason::UnknownJournal, why.clone()))),
        JournalSeen::None | JournalSeen::Foreign(_) | JournalSeen::Attempt { .. } => None,
    }
}

fn suspend(scene: &Scene<'_>) -> Option<Step> {
    if !scene.desired.suspend {
        return None;
    }
    let active = scene.user.keys.iter().find(|key| key.active && scene.world.is_ours(&key.id))?;
    Some(Step::Do(Effect::DeactivateKey(active.id.clone(), Why::Suspended)))
}

fn keep_published_orphan(scene: &Scene<'_>) -> Option<Step> {
    let orphans = scene.abandoned()?.1;
    let published = scene.world.published()?;
    (orphans.contains(&published.key_id) && !scene.user.is_tagged(&published.key_id))
        .then(|| Step::Do(Effect::TagKey(published.key_id.clone())))
}

fn fence_publisher(scene: &Scene<'_>) -> Option<Step> {
    let (attempt, _) = scene.abandoned()?;
    let published = scene.world.published()?;
    (published.fence.as_deref() != Some(attempt)).then_some(Step::Do(Effect::TouchPublished))
}

fn delete_orphans(scene: &Scene<'_>) -> Option<Step> {
    let (_, orphans) = scene.abandoned()?;
    let published = scene.world.published().map(|facts| facts.key_id.as_str());
    // Not looked up in IAM's list: it may lag, and deleting what is gone does no harm.
    let orphan = orphans.iter().find(|id| Some(id.as_str()) != published && !scene.world.gone.contains(*id))?;
    Some(Step::Do(Effect::DeleteKey(orphan.clone(), Why::Orphan)))
}

fn close_abandoned(scene: &Scene<'_>) -> Option<Step> {
    scene.abandoned().map(|_| Step::Do(Effect::CloseJournal))
}

fn tag_published(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published()?;
    if scene.user.is_tagged(&published.key_id) {
        return None;
    }
    let due = match scene.world.journal() {
        // Our own publication a moment ago: IAM's list may not show the key yet, the tag does no harm then.
        Some(journal) => matches!(&journal.mode, Mode::Keyed { key_id, .. } if *key_id == published.key_id),
        // Somebody took the tag away. The Secret proves that the key is ours.
        None => published.intact && scene.user.key(&published.key_id).is_some(),
    };
    due.then(|| Step::Do(Effect::TagKey(published.key_id.clone())))
}

fn close_finished(scene: &Scene<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    (scene.world.published()?.key_id == key_id && scene.user.is_tagged(key_id))
        .then_some(Step::Do(Effect::CloseJournal))
}

fn give_up_revoked(scene: &Scene<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    let revoked = scene.user.key(key_id).is_some_and(|key| !key.active);
    (revoked && !scene.desired.suspend)
        .then(|| Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed: false }))
}

fn publish(scene: &Scene<'_>) -> Option<Step> {
    let (key_id, ..) = scene.keyed()?;
    let first = scene.world.published().is_none();
    let accepted = scene.settings.verify_successes == 0
        || scene
            .world
            .verification
            .as_ref()
            .is_some_and(|seen| seen.key_id == key_id && seen.successes >= scene.settings.verify_successes);
    (accepted && scene.unwritable().is_none() && !scene.desired.suspend && (scene.user_ready || !first))
        .then(|| Step::Do(Effect::Publish(key_id.to_owned())))
}

fn give_up_staged(scene: &Scene<'_>) -> Option<Step> {
    let (key_id, keyed_at) = scene.keyed()?;
    (!scene.desired.suspend && scene.now >= keyed_at + scene.settings.verify_timeout)
        .then(|| Step::Do(Effect::AbandonAttempt { orphans: vec![key_id.to_owned()], failed: true }))
}

fn verify(scene: &Scene<'_>) -> Option<Step> {
    let (key_id, keyed_at) = scene.keyed()?;
    if scene.desired.suspend {
        return None;
    }
    let wanted = scene.settings.verify_successes;
    let progress = scene.world.verification.as_ref().filter(|seen| seen.key_id == key_id);
    let successes = progress.map_or(0, |seen| seen.successes);
    let until_timeout = keyed_at + scene.settings.verify_timeout;
    if successes >= wanted {
        // Accepted, and something else stands in the way of the Secret: that is told, and waited for.
        let note = scene.unwritable().unwrap_or_else(|| {
            Note::new(Reason::Pending, "a new access key is ready; policies and tags of the user have to be as declared before it is handed out")
        });
        return Some(Step::Wait(until_timeout, note));
    }
    let next_check = progress.map_or(scene.now, |seen| seen.last_at + scene.settings.verify_interval);
    if scene.now >= next_check {
        return Some(Step::Do(Effect::VerifyKey(key_id.to_owned())));
    }
    let note = Note::new(
        Reason::Verifying,
        format!("a new access key was made; AWS has accepted it {successes} of {wanted} times in a row"),
    );
    Some(Step::Wait(next_check.min(until_timeout), note))
}

fn abandon_intent(scene: &Scene<'_>) -> Option<Step> {
    let journal = scene.world.journal()?;
    let Mode::Intent { known } = &journal.mode else { return None };
    let due = journal.started_at + scene.settings.intent_dwell;
    if scene.now < due {
        let note = Note::new(
            Reason::Recovering,
            "an attempt to make an access key was cut off; after a safe waiting time its key is looked for and removed",
        );
        return Some(Step::Wait(due, note));
    }
    let orphans = orphans(scene.world, scene.user, known, journal.started_at);
    Some(Step::Do(Effect::AbandonAttempt { orphans, failed: false }))
}

fn hold_suspended(scene: &Scene<'_>) -> Option<Step> {
    scene.desired.suspend.then(|| {
        Step::Hold(Note::new(
            Reason::Suspended,
            "spec.suspend is true: all access keys of this operator on the user are Inactive and kept. Set it to false for a new key",
        ))
    })
}

fn hold_conflict(scene: &Scene<'_>) -> Option<Step> {
    scene.conflict.clone().map(Step::Hold)
}

fn untag_gone(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published().map(|facts| facts.key_id.as_str());
    let mut gone = std::collections::BTreeSet::new();
    for (tag, since) in &scene.user.tags {
        let Some(id) = tag.strip_prefix(&key_tag("")) else { continue };
        // The value is the time of tagging. A key that was published a moment ago may be missing from
        // IAM's list; without its tag it would be taken for foreign, and stay for ever.
        let young =
            since.parse::<Timestamp>().is_ok_and(|since| scene.listed_at() < since + scene.settings.intent_dwell);
        if Some(id) != published && scene.user.key(id).is_none() && !young {
            gone.insert(tag.clone());
            // The description has the bare key id as its name; it went with the key.
            gone.extend(scene.user.tags.keys().filter(|other| other.as_str() == id).cloned());
        }
    }
    (!gone.is_empty()).then_some(Step::Do(Effect::UntagUser(gone)))
}

fn retire(scene: &Scene<'_>) -> Option<Step> {
    scene.superseded().find_map(|key| {
        if key.active {
            (scene.now >= scene.retires_at(key)?).then(|| Step::Do(Effect::DeactivateKey(key.id.clone(), Why::Retired)))
        } else {
            (scene.now >= scene.deletable_at(key)).then(|| Step::Do(Effect::DeleteKey(key.id.clone(), Why::Retired)))
        }
    })
}

fn replace(scene: &Scene<'_>) -> Option<Step> {
    let due = scene.due()?;
    // A key that cannot be handed out would be given up, and the next one, and the next.
    if let Some(note) = scene.unwritable() {
        return Some(Step::Hold(note));
    }
    if let Some((until, note)) = scene.held_back(due) {
        return Some(Step::Wait(until, note));
    }
    if scene.user.keys.len() < SLOTS {
        // Nobody gets a first key of a user that is not yet what it should be.
        if !scene.user_ready && scene.world.published().is_none() {
            return Some(Step::Hold(Note::new(
                Reason::Pending,
                "the access key is made once the user's policies and tags are as declared",
            )));
        }
        return Some(Step::Do(Effect::MintKey {
            known: scene.user.keys.iter().map(|key| key.id.clone()).collect(),
            previous_secret: scene.left_behind(),
        }));
    }
    Some(scene.make_room(due))
}

fn drop_previous_secret(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published()?;
    let (name, _) =
        published.previous.iter().find(|(_, key_id)| !scene.user.key(key_id).is_some_and(|key| key.active))?;
    Some(Step::Do(Effect::DeletePreviousSecret(name.clone())))
}

fn rewrite(scene: &Scene<'_>) -> Option<Step> {
    let published = scene.world.published()?;
    (published.intact && !published.as_declared && !published.immutable).then_some(Step::Do(Effect::RewriteSecret))
}

// --- what the rules ask of the scene --------------------------------------------------------

/// The key that an attempt without an answer may have left in IAM.
///
/// A person may have made a key meanwhile. Two things tell it from ours: an attempt makes its key
/// soon or never, and it makes only one. Where that does not decide, no key is taken for an orphan:
/// a key that is left over is reported as foreign, a foreign key that was deleted is gone.
pub(super) fn orphans(world: &World, user: &IamUser, known: &[String], started_at: Timestamp) -> Vec<String> {
    let published = world.published().map(|facts| facts.key_id.as_str());
    let candidates: Vec<String> = user
        .keys
        .iter()
        .filter(|key| !known.contains(&key.id) && !user.is_tagged(&key.id) && published != Some(&key.id))
        .filter(|key| key.created_at >= started_at && key.created_at <= started_at + CREATE_WINDOW)
        .map(|key| key.id.clone())
        .collect();
    if candidates.len() > 1 { Vec::new() } else { candidates }
}

/// Why a key is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// There never was one.
    First,
    /// The Secret is gone, was edited, or was renamed: nobody holds the value any more.
    Lost,
    /// The key in the Secret is gone from IAM or Inactive.
    Dead,
    /// Somebody asked.
    Requested,
    /// It is time.
    Scheduled,
}

impl Due {
    /// Consumers have no working key, or will not have one after their next start.
    fn is_urgent(self) -> bool {
        matches!(self, Self::First | Self::Lost | Self::Dead)
    }
}

impl Scene<'_> {
    /// Why no other key can be written into the Secret. An immutable one is no conflict before that is wanted.
    fn unwritable(&self) -> Option<Note> {
        let immutable = self.world.published().is_some_and(|facts| facts.immutable);
        self.conflict.clone().or_else(|| immutable.then(|| super::immutable(self.desired)))
    }

    /// When IAM's list was made. What is missing from it is judged by this, not by now: a pass may have been slow.
    fn listed_at(&self) -> Timestamp {
        self.world.iam_read_at.unwrap_or(self.now)
    }

    fn abandoned(&self) -> Option<(&str, &[String])> {
        match &self.world.journal {
            JournalSeen::Attempt { attempt, journal: Journal { mode: Mode::Abandoned { orphans }, .. } } => {
                Some((attempt, orphans))
            }
            _ => None,
        }
    }

    fn keyed(&self) -> Option<(&str, Timestamp)> {
        match &self.world.journal()?.mode {
            Mode::Keyed { key_id, keyed_at } => Some((key_id, *keyed_at)),
            Mode::Intent { .. } | Mode::Abandoned { .. } => None,
        }
    }

    /// The published Secret, if AWS knows its key as Active. A key that was published a moment
    /// ago may not be in IAM's lists yet.
    fn working(&self) -> Option<&PublishedFacts> {
        let published = self.world.published()?;
        let (at, dwell) = (published.published_at, self.settings.intent_dwell);
        // A time in the future is none to count from: the clock was set back since.
        let too_young_to_be_listed = self.listed_at() < at + dwell && at < self.now + dwell;
        let alive = self.user.key(&published.key_id).map_or(too_young_to_be_listed, |key| key.active);
        (alive && published.intact).then_some(published)
    }

    /// Our keys that a newer, working key has replaced. None while there is no working one: then
    /// an old key may be all that a consumer has.
    fn superseded(&self) -> impl Iterator<Item = &AccessKey> {
        let working = self.working().map(|facts| facts.key_id.clone());
        self.user.keys.iter().filter(move |key| {
            working.as_ref().is_some_and(|published| *published != key.id) && self.user.is_tagged(&key.id)
        })
    }

    /// When the overlap of a superseded key ends. It is newer than the published one if an earlier
    /// Secret came back, by a rename to and fro or from a backup; then it is what consumers hold.
    fn retires_at(&self, key: &AccessKey) -> Option<Timestamp> {
        self.working().map(|facts| facts.published_at.max(key.created_at) + self.desired.key.overlap)
    }

    /// When an Inactive key may be deleted. A lost note of its deactivation starts the dwell anew.
    fn deletable_at(&self, key: &AccessKey) -> Timestamp {
        let since = self.world.reported.inactive_since.get(&key.id).copied().unwrap_or(self.now);
        since.min(self.now) + self.settings.retire_dwell
    }

    /// When the next superseded key has to be dealt with.
    fn retirement(&self) -> Option<Timestamp> {
        self.superseded()
            .filter_map(|key| if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) })
            .min()
    }

    fn permille(&self) -> i32 {
        spread_permille(&self.desired.target.owner.uid)
    }

    fn next_rotation(&self) -> Option<Timestamp> {
        self.desired.key.rhythm.due(self.world.published()?.published_at, self.permille())
    }

    fn due(&self) -> Option<Due> {
        let Published::Ours(published) = &self.world.published else {
            let before = self.world.reported.last_rotation.is_some()
                || self.user.tags.keys().any(|tag| tag.starts_with(&key_tag("")));
            return Some(if before { Due::Lost } else { Due::First });
        };
        if !published.intact {
            return Some(Due::Lost);
        }
        if self.working().is_none() {
            return Some(Due::Dead);
        }
        let request = &self.desired.key.rotate_request;
        if request.is_some() && *request != published.rotate_honoured {
            return Some(Due::Requested);
        }
        self.next_rotation().is_some_and(|due| due <= self.now).then_some(Due::Scheduled)
    }

    /// Reasons to wait although a key is due: failures before, or a key made a moment ago.
    fn held_back(&self, due: Due) -> Option<(Timestamp, Note)> {
        let reported = &self.world.reported;
        if let (Some(failed), 1..) = (reported.last_failure, reported.failed_attempts) {
            let until = failed
                + backoff::delay(
                    ErrorClass::Transient,
                    reported.failed_attempts,
                    self.permille(),
                    SignedDuration::ZERO,
                );
            if self.now < until {
                return Some((
                    until,
                    Note::new(Reason::RotationWaits, "the last attempt failed; the next one follows after a pause"),
                ));
            }
        }
        if matches!(due, Due::First | Due::Scheduled) {
            return None;
        }
        let ours = self.user.keys.iter().filter(|key| self.world.is_ours(&key.id)).map(|key| key.created_at);
        let newest = ours.chain(reported.last_rotation).max()?;
        let until = newest.min(self.now) + self.settings.repair_interval();
        (self.now < until).then(|| {
            let pause = humanize(self.settings.repair_interval());
            (
                until,
                Note::new(
                    Reason::RotationWaits,
                    format!("a key was made less than {pause} ago; the next one follows after this pause"),
                ),
            )
        })
    }

    /// The Secret that a new key leaves behind because the target was renamed.
    fn left_behind(&self) -> Option<(String, String)> {
        let name = self.world.reported.secret_name.as_ref().filter(|name| **name != self.desired.target.secret_name)?;
        // The key in it is the newest one that was ever published.
        let key = self.user.keys.iter().filter(|key| self.user.is_tagged(&key.id)).max_by_key(|key| key.created_at);
        Some((name.clone(), key.map(|key| key.id.clone()).unwrap_or_default()))
    }

    /// Both slots are in use and a key is due.
    fn make_room(&self, due: Due) -> Step {
        let working = self.working().map(|facts| facts.key_id.as_str());
        let spare: Vec<&AccessKey> = self
            .user
            .keys
            .iter()
            .filter(|key| Some(key.id.as_str()) != working && self.world.is_ours(&key.id))
            .collect();
        if due.is_urgent() {
            let published = self.world.published().map(|facts| facts.key_id.as_str());
            let dead =
                spare.iter().filter(|key| !key.active).min_by_key(|key| (published == Some(&key.id), key.created_at));
            if let Some(dead) = dead {
                return Step::Do(Effect::DeleteKey(dead.id.clone(), Why::MakesRoom));
            }
            // Both are ours and nobody holds a value of them in a Secret of ours: the one that was not used for longest goes.
            if spare.len() >= SLOTS {
                return self.world.last_used.as_ref().map_or(Step::Do(Effect::ReadLastUsed), |last_used| {
                    let idle = |key: &&&AccessKey| last_used.get(&key.id).copied().flatten().unwrap_or(Timestamp::MIN);
                    let oldest = spare.iter().min_by_key(|key| (idle(key), key.created_at));
                    oldest.map_or(Step::Idle, |key| Step::Do(Effect::DeactivateKey(key.id.clone(), Why::MakesRoom)))
                });
            }
        }
        let Some(key) = spare.first() else { return Step::Hold(self.slot_taken()) };
        // Without a working key there is no publication to count from: its slot is kept, and the other is not ours.
        let until = if key.active { self.retires_at(key) } else { Some(self.deletable_at(key)) };
        let Some(until) = until else { return Step::Hold(self.slot_taken()) };
        let message =
            format!("a rotation is due; both key slots of the user are in use until the overlap of {} ends", key.id);
        Step::Wait(until, Note::new(Reason::RotationWaits, message))
    }

    fn slot_taken(&self) -> Note {
        let foreign: Vec<&str> = self.foreign().map(|key| key.id.as_str()).collect();
        Note::new(
            Reason::SlotTaken,
            format!(
                "a rotation is due, but IAM allows two access keys per user and {} not made by this operator: {}. Delete one in AWS; the operator never touches them",
                if foreign.len() == 1 { "one was" } else { "both were" },
                foreign.join(", ")
            ),
        )
    }

    fn foreign(&self) -> impl Iterator<Item = &AccessKey> {
        self.user.keys.iter().filter(|key| !self.world.is_ours(&key.id))
    }

    fn key_note(&self) -> Option<Note> {
        if let Some(conflict) = &self.conflict {
            return Some(conflict.clone());
        }
        if self.desired.suspend {
            return Some(Note::new(Reason::Suspended, "spec.suspend is true: the key in the Secret is Inactive"));
        }
        if self.working().is_some() {
            return None;
        }
        Some(match self.world.published() {
            None => Note::new(Reason::Pending, "no access key is published yet"),
            Some(facts) if !facts.intact => {
                Note::new(Reason::Pending, "the Secret was edited by hand; a new key is on its way")
            }
            Some(facts) => Note::new(
                Reason::Pending,
                format!("AWS does not know {} as an Active key; a new one is on its way", facts.key_id),
            ),
        })
    }

    fn at_rest(&self, next: Option<Timestamp>) -> Note {
        match (self.retirement(), next) {
            (Some(until), _) => Note::new(
                Reason::Overlap,
                format!("the key before is valid until {until} so that consumers can move over"),
            ),
            (None, Some(_)) => Note::new(Reason::Scheduled, "the next rotation is scheduled"),
            (None, None) => {
                Note::new(Reason::ManualOnly, "keys are rotated on request only (annotation awsdeploy.dev/rotate)")
            }
        }
    }
}
