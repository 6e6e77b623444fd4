//! The passes of the operator over the cloud in memory. Step for step what `reconcile` does: the
//! same order of reads, the same conditions on writes, the same things learned from them.

use super::{
    cloud::{Cloud, Fail, Held, OWNER, floor},
    *,
};
use crate::{
    api::well_known,
    domain::{
        backoff::{self, ErrorClass},
        console::ConsoleSecret,
        current_state::LastUse,
        owner::Ownership,
        schedule::spread_permille,
        secret::{self, KeyMaterial, Publication, SecretContent},
    },
};

/// How long IAM facts are believed.
pub(super) const RESYNC: SignedDuration = mins(10);
const MOST_EFFECTS: usize = 64;

/// What the process knows; lost with it.
#[derive(Clone, Default)]
pub(super) struct Operator {
    iam: Option<(CurrentUser, Timestamp, Option<i64>)>,
    verification: Option<Verification>,
    unseen_since: Option<Timestamp>,
    last_used: BTreeMap<String, LastUse>,
}

/// What status carries from pass to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    generation: Option<i64>,
    inactive_since: BTreeMap<String, Timestamp>,
    failed_attempts: u32,
    last_failure: Option<Timestamp>,
    last_rotation: Option<Timestamp>,
    secret_name: Option<String>,
    user_id: Option<String>,
    tag_keys: BTreeSet<String>,
}

/// How a pass ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// When there is something to do even if nothing happens.
    Wake(Timestamp),
    Crashed,
    Left,
}

/// The defaults, but for a slower verification, as its passes are all alike, and a shorter look back at uses, so that it
/// fits between two rotations.
pub(super) fn settings() -> Settings {
    Settings { verify_interval: secs(10), last_used_window: hours(5), ..Settings::default() }
}

struct Observed {
    current: CurrentState,
    held: Option<Held>,
    attempt: Option<Held>,
}

struct Pass<'a> {
    operator: &'a mut Operator,
    cloud: &'a mut Cloud,
    status: Status,
    target: Target,
    desired: Option<Desired>,
    seen: Observed,
    left: bool,
}

impl Operator {
    pub(super) fn pass(&mut self, cloud: &mut Cloud, status: &mut Status) -> End {
        let deleting = cloud.resource.metadata.deletion_timestamp.is_some();
        let desired = (!deleting).then(|| cloud.desired());
        let target = cloud.target();
        let seen = observe(self, cloud, status, desired.as_ref(), deleting);
        let mut pass = Pass { operator: self, cloud, status: status.clone(), target, desired, seen, left: false };
        let mut errors = Vec::new();
        let Some(plan) = pass.run(&mut errors) else {
            *self = Self::default();
            return End::Crashed;
        };
        if pass.left {
            return End::Left;
        }
        let Pass { cloud, seen, target, .. } = pass;
        report(status, cloud, &seen.current, &target, !errors.is_empty());
        // S7: nothing that is told holds a secret.
        let told = format!("{plan:?} {status:?}");
        if told.contains("SECRET-") {
            cloud.violated(format!("S7: key material in {told}"));
        }
        if plan.effects.is_empty() && plan.requeue_at.is_some_and(|at| at <= cloud.now) {
            cloud.violated(format!("busy loop: nothing to do and a wake-up in the past, {plan:?}"));
        }
        let permille = spread_permille(OWNER);
        let failures = status.failed_attempts.max(1);
        let retries = errors.iter().map(|fail| cloud.now + backoff::delay(class(*fail), failures, permille, RESYNC));
        End::Wake(plan.requeue_at.into_iter().chain(retries).min().unwrap_or(Timestamp::MAX))
    }

    /// The clock is set back. What the process times by a clock of its own goes on.
    pub(super) fn set_back(&mut self, by: SignedDuration) {
        self.iam.iter_mut().for_each(|(_, at, _)| *at -= by);
        self.unseen_since = self.unseen_since.map(|since| since - by);
    }

    /// The process ends.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn class(fail: Fail) -> ErrorClass {
    match fail {
        Fail::Crash | Fail::Lost | Fail::NotAccepted | Fail::NoSuchEntity => ErrorClass::Transient,
        Fail::AlreadyExists | Fail::Conflict | Fail::NotFound | Fail::Undone => ErrorClass::Conflict,
        Fail::Invalid | Fail::DeleteConflict => ErrorClass::Terminal,
        Fail::Limit => ErrorClass::Limit,
        Fail::Throttled => ErrorClass::Throttled,
    }
}

/// IAM first, then the published Secret, then the journal.
fn observe(operator: &mut Operator, cloud: &Cloud, status: &Status, desired: Option<&Desired>, live: bool) -> Observed {
    let target = cloud.target();
    let generation = cloud.resource.metadata.generation;
    let remembered =
        operator.iam.take().filter(|(_, at, of)| !live && *of == generation && cloud.now.duration_since(*at) < RESYNC);
    let keys_read_at = remembered.is_none().then_some(cloud.now);
    let remembered = remembered.unwrap_or_else(|| (cloud.read_iam(), cloud.now, generation));
    let iam = remembered.0.clone();
    operator.iam = Some(remembered);
    let held = cloud.secrets.get(&target.secret_name).cloned();
    let attempt = cloud.secrets.get(&target.journal_name).cloned();
    let foreign = |held: &Held| (held.owner.as_deref() != Some(OWNER)).then(|| "somebody's".to_owned());
    let (published, held) = match held {
        None => (PublishedSecret::Missing, None),
        Some(held) => match foreign(&held) {
            Some(whose) => (PublishedSecret::Foreign(whose), None),
            None => (published(Some(&held), desired), Some(held)),
        },
    };
    let same = status.generation == generation;
    let hints = StatusHints {
        inactive_since: status.inactive_since.clone(),
        failed_attempts: if same { status.failed_attempts } else { 0 },
        last_failure: status.last_failure.filter(|_| same),
        last_rotation: status.last_rotation,
        secret_name: status.secret_name.clone(),
        user_id: status.user_id.clone(),
        tag_keys: status.tag_keys.clone(),
    };
    let finalizer = cloud.resource.metadata.finalizers.is_some();
    let ours = matches!(&iam, CurrentUser::Found(found) if target.owner.classify(&found.tags) == Ownership::Ours);
    let unseen = !ours && cloud.resource.metadata.deletion_timestamp.is_some();
    operator.unseen_since = unseen.then(|| operator.unseen_since.unwrap_or(cloud.now));
    let user_absence = operator.unseen_since.map(|since| UserAbsence::NotObserved { since });
    let current = CurrentState {
        iam,
        keys_read_at,
        grants_live: keys_read_at.is_some(),
        published,
        journal: attempt.as_ref().map_or(JournalSecret::None, seen),
        verification: operator.verification.clone(),
        console: ConsoleSecret::Missing,
        last_used: operator.last_used.clone(),
        last_used_failed: false,
        workloads: BTreeMap::new(),
        deleted_keys: BTreeSet::new(),
        hints,
        finalizer,
        user_sync_failed: false,
        user_absence,
    };
    Observed { current, held, attempt }
}

fn published(held: Option<&Held>, desired: Option<&Desired>) -> PublishedSecret {
    let facts = |held: &Held| secret::read_facts(&held.content, held.immutable, desired.map(|desired| &desired.secret));
    held.map_or(PublishedSecret::Missing, |held| PublishedSecret::Ours(facts(held)))
}

fn seen(attempt: &Held) -> JournalSecret {
    match Journal::decode(&attempt.content.data["journal"]) {
        Ok(journal) => JournalSecret::Attempt { attempt: attempt.uid.clone(), journal },
        Err(error) => JournalSecret::Unknown(error.to_string()),
    }
}

fn staged(attempt: Option<&Held>, key_id: &str) -> Option<KeyMaterial> {
    let secret = String::from_utf8(attempt?.content.data.get("secretAccessKey")?.clone()).ok()?;
    Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
}

fn journal_content(journal: &Journal, key: Option<&KeyMaterial>) -> SecretContent {
    use secrecy::ExposeSecret;
    let mut content = SecretContent::default();
    content.data.insert("journal".into(), journal.encode());
    if let Some(key) = key {
        content.data.insert("secretAccessKey".into(), key.secret.expose_secret().as_bytes().to_vec());
    }
    content
}

fn report(status: &mut Status, cloud: &Cloud, current: &CurrentState, target: &Target, failed: bool) {
    status.generation = cloud.resource.metadata.generation;
    let published = current.published();
    if let Some(user) = current.user() {
        status.user_id = Some(user.id.clone());
        status.tag_keys = cloud.resource.spec.tags.keys().filter(|key| user.tags.contains_key(*key)).cloned().collect();
        let inactive = user.keys.iter().filter(|key| !key.active);
        let since = |id: &String| status.inactive_since.get(id).copied().unwrap_or(floor(cloud.now));
        status.inactive_since = inactive.map(|key| (key.id.clone(), since(&key.id))).collect();
    }
    if published.is_some() || status.secret_name.is_none() {
        status.secret_name = published.map(|_| target.secret_name.clone());
    }
    status.last_rotation = published.map(|facts| facts.published_at).or(status.last_rotation);
    if failed {
        status.failed_attempts += 1;
        status.last_failure = Some(floor(cloud.now));
    } else {
        status.failed_attempts = 0;
    }
}

impl Pass<'_> {
    /// `None` when the operator died.
    fn run(&mut self, errors: &mut Vec<Fail>) -> Option<Plan> {
        for _ in 0..MOST_EFFECTS {
            let plan = self.plan();
            let Some(effect) = plan.effects.first() else { return Some(plan) };
            if !effect.can_run_on(&self.seen.current, &settings()) {
                let (failed, finalizer) = (self.seen.current.user_sync_failed, self.seen.current.finalizer);
                let removed =
                    self.seen.current.user_absence.filter(|user_absence| *user_absence == UserAbsence::Removed);
                self.seen = observe(self.operator, self.cloud, &self.status, self.desired.as_ref(), true);
                self.seen.current.user_sync_failed = failed;
                self.seen.current.finalizer = finalizer;
                self.seen.current.user_absence = removed.or(self.seen.current.user_absence);
                continue;
            }
            if !matches!(effect, Effect::VerifyKey(_)) {
                self.cloud.note(effect);
            }
            let result = self.perform(effect);
            self.cloud.audit_moment();
            match (&result, &mut self.operator.iam) {
                (Ok(()), Some((iam, ..))) => iam.clone_from(&self.seen.current.iam),
                _ => self.operator.iam = None,
            }
            if self.left {
                return Some(plan);
            }
            match result {
                Ok(()) => {}
                Err(Fail::Crash) => return None,
                Err(fail) => {
                    self.cloud.note(format!("    {fail:?}"));
                    errors.push(fail);
                    if effect.is_user_sync() && self.desired.is_some() {
                        self.seen.current.user_sync_failed = true;
                        continue;
                    }
                    return Some(plan);
                }
            }
        }
        self.cloud.violated("a pass did not come to rest");
        Some(self.plan())
    }

    fn plan(&self) -> Plan {
        let (current, now, settings) = (&self.seen.current, self.cloud.now, settings());
        if let Some(desired) = &self.desired {
            plan(desired, current, now, &settings)
        } else {
            let policy = self.cloud.resource.spec.deletion_policy;
            plan_cleanup(&self.target, policy, current, now, &settings)
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table: one arm an effect, as in reconcile/act/mod.rs")]
    fn perform(&mut self, effect: &Effect) -> Result<(), Fail> {
        match effect {
            Effect::AddFinalizer => {
                self.cloud.set_finalizer(true)?;
                self.seen.current.finalizer = true;
            }
            Effect::CreateUser => {
                let tags = self.desired.as_ref().map(|desired| desired.tags.clone()).unwrap_or_default();
                self.seen.current.iam = CurrentUser::Found(self.cloud.create_user(&tags)?);
            }
            Effect::TagUser(tags) => {
                self.cloud.change_user(|user| user.tags.extend(tags.clone()))?;
                self.changed(|user| user.tags.extend(tags.clone()));
            }
            Effect::UntagUser(keys) => {
                self.cloud.change_user(|user| user.tags.retain(|key, _| !keys.contains(key)))?;
                self.changed(|user| user.tags.retain(|key, _| !keys.contains(key)));
                if self.desired.is_none() {
                    (self.seen.current.iam, self.seen.current.user_absence) =
                        (CurrentUser::Absent, Some(UserAbsence::Removed));
                }
            }
            Effect::DetachPolicy(arn) if arn == QUARANTINE && self.desired.is_some() => {
                self.cloud.violated("a quarantine is detached");
            }
            Effect::AttachPolicy(_)
            | Effect::DetachPolicy(_)
            | Effect::PutInlinePolicy(..)
            | Effect::DeleteInlinePolicy(_) => {
                self.cloud.change_user(|user| change_grants(effect, &mut user.grants))?;
                self.changed(|user| change_grants(effect, user.grants.get_or_insert_with(Grants::default)));
            }
            // The simulated resource declares none of these; a plan that asks for one is wrong.
            Effect::AddToGroup(_)
            | Effect::RemoveFromGroup(_)
            | Effect::PutBoundary(_)
            | Effect::WritePassword
            | Effect::ApplyPassword
            | Effect::RemovePassword
            | Effect::DeleteConsoleSecret
            | Effect::ReleaseConsoleSecret
            | Effect::AdoptUser(_)
            | Effect::ReadWorkloads(_)
            | Effect::RestartWorkload(..)
            | Effect::RecordRestarts(_)
            | Effect::RemoveDeletionBlocker(_) => panic!("nobody declared what {effect} is for"),
            Effect::CreateKey { known, previous_secret } => {
                self.mint(known, previous_secret.as_ref())?;
                self.operator.verification = None;
            }
            Effect::VerifyKey(id) => {
                let Some(key) = staged(self.seen.attempt.as_ref(), id) else {
                    return self.abandon(std::slice::from_ref(id));
                };
                let known = self.operator.verification.take().filter(|seen| seen.key_id == *id);
                let before = known.map_or(0, |seen| seen.successes);
                let successes = if self.cloud.accepts(&key) { before + 1 } else { 0 };
                let verification = Verification { key_id: id.clone(), successes, last_at: self.cloud.now };
                self.operator.verification = Some(verification.clone());
                self.seen.current.verification = Some(verification);
            }
            Effect::Publish { key_id, left_behind } => {
                self.publish(key_id, left_behind.as_ref())?;
                self.operator.verification = None;
            }
            Effect::TagKey(id) => {
                let since = self.cloud.now.strftime("%FT%TZ").to_string();
                self.cloud.change_user(|user| _ = user.tags.insert(key_tag(id), since.clone()))?;
                self.changed(|user| _ = user.tags.insert(key_tag(id), since));
            }
            Effect::AbandonAttempt { orphans, failed } => {
                self.abandon(orphans)?;
                self.operator.verification = None;
                if *failed {
                    return Err(Fail::NotAccepted);
                }
            }
            Effect::RecordQuarantine(at) => {
                let date = |user: &mut BTreeMap<String, String>| {
                    user.insert(well_known::TAG_QUARANTINED_AT.to_owned(), at.to_string());
                };
                self.cloud.change_user(|user| date(&mut user.tags))?;
                self.changed(|user| date(&mut user.tags));
            }
            Effect::ClearQuarantine => {
                self.cloud.change_user(|user| _ = user.tags.remove(well_known::TAG_QUARANTINED_AT))?;
                self.changed(|user| _ = user.tags.remove(well_known::TAG_QUARANTINED_AT));
            }
            Effect::TouchPublished => {
                if let (Some(held), Some(attempt)) = (self.seen.held.clone(), &self.seen.attempt) {
                    let mut content = held.content.clone();
                    content.annotations.insert(well_known::ANNOTATION_FENCE.to_owned(), attempt.uid.clone());
                    let written = self.cloud.replace_secret(&held, Some(OWNER), &content)?;
                    self.hold(Some(written));
                }
            }
            Effect::CloseJournal => {
                if let Some(attempt) = &self.seen.attempt {
                    self.cloud.delete_secret(attempt)?;
                }
                self.seen.attempt = None;
                self.seen.current.journal = JournalSecret::None;
            }
            Effect::DeactivateKey(id, why) => {
                let there = self.cloud.deactivate(id, *why)?;
                self.changed(|user| {
                    user.keys.retain(|key| there || key.id != *id);
                    user.keys.iter_mut().filter(|key| key.id == *id).for_each(|key| key.active = false);
                });
            }
            Effect::DeleteKey(id, why) => {
                self.cloud.delete_key(id, *why)?;
                self.seen.current.deleted_keys.insert(id.clone());
                self.changed(|user| user.keys.retain(|key| key.id != *id));
            }
            Effect::RewriteSecret => {
                let Some(held) = self.seen.held.clone() else { return Ok(()) };
                let Some(key) = secret::read_key(&held.content) else { return Ok(()) };
                self.write_secret(&key, &secret::read_publication(&held.content))?;
            }
            Effect::DeletePreviousSecret(name) => self.delete_previous(name)?,
            Effect::ReadLastUsed(ids) => {
                for id in ids {
                    let used_at = self.cloud.keys.get(id).and_then(|life| life.used_at);
                    let answer = LastUse { used_at, asked_at: self.cloud.now };
                    self.operator.last_used.insert(id.clone(), answer);
                }
                self.seen.current.last_used.clone_from(&self.operator.last_used);
            }
            Effect::ReadGrants => {
                let grants = self.cloud.user.as_ref().map(|user| user.grants.clone());
                self.changed(|user| user.grants = grants);
            }
            Effect::DeleteUser => match self.cloud.delete_user() {
                Ok(()) => {
                    (self.seen.current.iam, self.seen.current.user_absence) =
                        (CurrentUser::Absent, Some(UserAbsence::Removed))
                }
                Err(Fail::DeleteConflict) => {
                    let grants = self.cloud.user.as_ref().map(|user| user.grants.clone());
                    if grants == Some(Grants::default()) {
                        return Err(Fail::DeleteConflict);
                    }
                    self.changed(|user| user.grants = grants);
                }
                Err(fail) => return Err(fail),
            },
            Effect::ReleaseSecret => {
                if let Some(held) = self.seen.held.clone() {
                    self.cloud.replace_secret(&held, None, &held.content)?;
                }
                self.hold(None);
            }
            Effect::DeleteSecret => {
                if let Some(held) = &self.seen.held {
                    self.cloud.delete_secret(held)?;
                }
                self.hold(None);
            }
            Effect::RemoveFinalizer => {
                self.cloud.set_finalizer(false)?;
                self.left = true;
            }
        }
        Ok(())
    }

    fn mint(&mut self, known: &[String], previous_secret: Option<&(String, String)>) -> Result<(), Fail> {
        let mut journal = Journal {
            started_at: floor(self.cloud.now),
            rotate_request: self.desired.as_ref().and_then(|desired| desired.key.as_ref()?.rotate_request.clone()),
            previous_secret: previous_secret.cloned(),
            phase: AttemptPhase::Intent { known: known.to_vec() },
        };
        let attempt = self.cloud.create_secret(&self.target.journal_name, &journal_content(&journal, None))?;
        let (key, created_at) = match self.cloud.create_access_key(&attempt.uid) {
            Ok(made) => made,
            Err(fail) => {
                if !matches!(fail, Fail::Lost | Fail::Crash) && self.cloud.delete_secret(&attempt) == Err(Fail::Crash) {
                    return Err(Fail::Crash);
                }
                return Err(fail);
            }
        };
        journal.phase = AttemptPhase::Keyed { key_id: key.id.clone(), keyed_at: self.cloud.now };
        let attempt = self.stage(&attempt, &journal, &key)?;
        self.seen.current.journal = seen(&attempt);
        self.seen.attempt = Some(attempt);
        self.changed(|user| user.keys.push(AccessKey { id: key.id, active: true, created_at }));
        Ok(())
    }

    fn stage(&mut self, attempt: &Held, journal: &Journal, key: &KeyMaterial) -> Result<Held, Fail> {
        for tries in 1..=5 {
            match self.cloud.replace_secret(attempt, Some(OWNER), &journal_content(journal, Some(key))) {
                Ok(staged) => return Ok(staged),
                Err(Fail::Crash) => return Err(Fail::Crash),
                // Kubernetes at its limit is not an answer to the write.
                Err(Fail::Lost | Fail::Throttled) => {}
                Err(fail) => {
                    let now = self.cloud.secrets.get(&attempt.name).filter(|now| now.uid == attempt.uid);
                    let decoded = now.and_then(|now| Journal::decode(&now.content.data["journal"]).ok());
                    let tagged = self.cloud.user.as_ref().is_some_and(|user| user.tags.contains_key(&key_tag(&key.id)));
                    match decoded.filter(|seen| tries > 1 && seen.references_key(&key.id)) {
                        Some(Journal { phase: AttemptPhase::Keyed { .. }, .. }) => {
                            return now.cloned().ok_or(Fail::NotFound);
                        }
                        Some(_) => return Err(fail),
                        None if tries > 1 && tagged => return Err(fail),
                        None => {}
                    }
                    self.cloud.delete_key(&key.id, RetireReason::Orphan)?;
                    return Err(Fail::Undone);
                }
            }
        }
        Err(Fail::Lost)
    }

    fn publish(&mut self, key_id: &str, left_behind: Option<&(String, String)>) -> Result<(), Fail> {
        let Some(key) = staged(self.seen.attempt.as_ref(), key_id) else { return self.abandon(&[key_id.to_owned()]) };
        let before = self.seen.held.as_ref().map(|held| secret::read_publication(&held.content)).unwrap_or_default();
        let journal = self.seen.current.journal().cloned();
        let mut publication = Publication {
            published_at: floor(self.cloud.now) + secs(1),
            rotate_honoured: journal.as_ref().and_then(|journal| journal.rotate_request.clone()),
            fence: before.fence,
            previous: before.previous,
            restarts: BTreeMap::new(),
        };
        let noted = journal.as_ref().and_then(|journal| journal.previous_secret.as_ref());
        for left_behind in noted.into_iter().chain(left_behind) {
            let left = self.cloud.secrets.get(&left_behind.0).map(|left| secret::read_publication(&left.content));
            publication.record_previous_secret(left_behind, left);
        }
        publication.previous.remove(&self.target.secret_name);
        self.write_secret(&key, &publication)
    }

    fn write_secret(&mut self, key: &KeyMaterial, publication: &Publication) -> Result<(), Fail> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        let written = if let Some(held) = self.seen.held.clone() {
            let content = secret::render(&desired.secret, key, publication, &held.content);
            self.cloud.replace_secret(&held, Some(OWNER), &content)?
        } else {
            let content = secret::render(&desired.secret, key, publication, &SecretContent::default());
            self.cloud.create_secret(&self.target.secret_name, &content)?
        };
        self.hold(Some(written));
        Ok(())
    }

    fn abandon(&mut self, orphans: &[String]) -> Result<(), Fail> {
        let (Some(attempt), Some(journal)) = (&self.seen.attempt, self.seen.current.journal()) else { return Ok(()) };
        let journal = Journal { phase: AttemptPhase::Abandoned { orphans: orphans.to_vec() }, ..journal.clone() };
        let attempt = self.cloud.replace_secret(attempt, Some(OWNER), &journal_content(&journal, None))?;
        self.seen.current.journal = seen(&attempt);
        self.seen.attempt = Some(attempt);
        Ok(())
    }

    fn delete_previous(&mut self, name: &str) -> Result<(), Fail> {
        if let Some(old) = self.cloud.secrets.get(name).filter(|old| old.owner.as_deref() == Some(OWNER)).cloned() {
            self.cloud.delete_secret(&old)?;
        }
        let Some(held) = self.seen.held.clone() else { return Ok(()) };
        let Some(key) = secret::read_key(&held.content) else { return Ok(()) };
        let mut publication = secret::read_publication(&held.content);
        publication.previous.remove(name);
        self.write_secret(&key, &publication)
    }

    fn changed(&mut self, learn: impl FnOnce(&mut IamUser)) {
        if let CurrentUser::Found(user) = &mut self.seen.current.iam {
            learn(user);
        }
    }

    fn hold(&mut self, held: Option<Held>) {
        self.seen.current.published = published(held.as_ref(), self.desired.as_ref());
        self.seen.held = held;
    }
}

fn change_grants(effect: &Effect, grants: &mut Grants) {
    match effect {
        Effect::AttachPolicy(arn) => _ = grants.attached.insert(arn.clone()),
        Effect::DetachPolicy(arn) => _ = grants.attached.remove(arn),
        Effect::PutInlinePolicy(name, document) => _ = grants.inline.insert(name.clone(), document.clone()),
        Effect::DeleteInlinePolicy(name) => _ = grants.inline.remove(name),
        other => unreachable!("{other} is no grant"),
    }
}
