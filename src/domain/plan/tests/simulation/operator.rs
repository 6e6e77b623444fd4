//! Reconciles against IAM and Kubernetes in memory. Step for step what `reconcile` does: the
//! same order of reads, the same conditions on writes, the same things learned from them.

mod keys;
mod observe;
mod outcome;
mod policies;

use keys::staged;
use observe::{observe, published, seen};
use outcome::{failure, report};
use policies::report_policies;

use super::{
    cloud::{CallError, Cloud, OWNER, StoredSecret, sealer},
    *,
};
use crate::{
    api::well_known,
    domain::{
        account,
        backoff::{Backoff, DelayInput, ErrorClass, RequeueInput, requeue_at},
        change_key::AttemptKey,
        conditions::{FailureScope, ReconcileFailure},
        console::ConsoleSecret,
        current_state::{LastUse, SecretRefusals},
        dates::floor,
        key_tag::tags_after_publication,
        managed_policy::CurrentPolicies,
        owner::Ownership,
        plan::Note,
        schedule::spread_permille,
        secret::{self, HonouredRequest, KeyMaterial, Publication, SecretContent},
    },
};

/// How long IAM state is cached.
pub(super) const RESYNC: SignedDuration = mins(10);
const MAX_EFFECTS: usize = 64;

/// In-memory state of the process.
#[derive(Clone, Default)]
pub(super) struct Operator {
    iam: Option<(CurrentUser, Timestamp, Option<i64>)>,
    policies: CurrentPolicies,
    policies_missing_since: Option<Timestamp>,
    verification: Option<Verification>,
    absent_since: Option<Timestamp>,
    missing_since: BTreeMap<String, Timestamp>,
    last_used: BTreeMap<String, LastUse>,
    backoff: Backoff,
    secret_refusals: Option<(u64, SecretRefusals)>,
    honoured: Option<HonouredRequest>,
}

/// What status carries from one reconcile to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    generation: Option<i64>,
    inactive_since: BTreeMap<String, Timestamp>,
    failing_since: Option<Timestamp>,
    last_rotation: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
    user_id: Option<String>,
    tag_keys: BTreeSet<String>,
    repairs: Option<KeyRepairs>,
}

impl Status {
    /// Times that nothing happened at.
    pub(super) fn forge(&mut self, keys: &[String], now: Timestamp) {
        self.inactive_since = keys.iter().map(|id| (id.clone(), Timestamp::MIN)).collect();
        (self.failing_since, self.last_rotation) = (Some(now + days(400)), Some(now + days(400)));
    }
}

/// How a reconcile ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// When there is something to do even if nothing happens.
    Requeue(Timestamp),
    Crashed,
    Finalized,
}

/// The defaults, but for a slower verification, as its reconciles are all alike, and a shorter window of uses, so that it
/// fits between two rotations.
pub(super) fn settings() -> Settings {
    Settings { verify_interval: secs(10), last_used_window: hours(5), ..Settings::default() }
}

struct Observed {
    current: CurrentState,
    stored: Option<StoredSecret>,
    attempt: Option<StoredSecret>,
}

struct Reconciliation<'a> {
    rules: &'a [Rule],
    operator: &'a mut Operator,
    cloud: &'a mut Cloud,
    status: Status,
    target: Target,
    desired: Option<Desired>,
    seen: Observed,
    finalized: bool,
}

impl Operator {
    pub(super) fn reconcile(&mut self, rules: &[Rule], cloud: &mut Cloud, status: &mut Status) -> End {
        let deleting = cloud.resource.metadata.deletion_timestamp.is_some();
        let desired = (!deleting).then(|| cloud.desired());
        let target = cloud.target();
        let attempt = AttemptKey::new(&cloud.resource);
        let same = status.generation == cloud.resource.metadata.generation;
        if status.failing_since.is_some() && self.backoff == Backoff::default() && same {
            self.backoff = Backoff::restore(attempt.clone(), status.failing_since, [], &delay_input(cloud));
        }
        self.backoff = std::mem::take(&mut self.backoff).for_attempt(attempt);
        let user_waits = !deleting && self.backoff.pending(FailureScope::User, &delay_input(cloud)).is_some();
        let mut seen = observe(self, cloud, status, desired.as_ref(), deleting);
        seen.current.user_sync_failed = user_waits;
        let mut reconciliation = Reconciliation {
            rules,
            operator: self,
            cloud,
            status: status.clone(),
            target,
            desired,
            seen,
            finalized: false,
        };
        let mut errors = Vec::new();
        let plan = reconciliation.run(&mut errors);
        // Written before the journal is deleted, so that it survives a crash.
        status.last_attempt = reconciliation.status.last_attempt;
        let Some(plan) = plan else {
            *self = Self::default();
            return End::Crashed;
        };
        if reconciliation.finalized {
            return End::Finalized;
        }
        let Reconciliation { operator, cloud, seen, desired, .. } = reconciliation;
        let key_waits = !deleting && seen.current.key_backoff.is_some_and(|backoff| plan.waits_for(backoff));
        let waited = [(FailureScope::User, user_waits), (FailureScope::Key, key_waits)];
        let waited: Vec<_> = waited.into_iter().filter(|(_, waits)| *waits).map(|(scope, _)| scope).collect();
        operator.backoff = std::mem::take(&mut operator.backoff).after(&errors, &waited, &delay_input(cloud));
        if let Some(facts) = seen.current.verified() {
            operator.honoured = Some(HonouredRequest(facts.rotate_honoured.clone()));
        }
        report(status, cloud, &seen.current, operator.backoff.since());
        report_policies(cloud, desired.as_ref(), &seen.current);
        // S7: nothing that is reported holds a secret.
        let reported = format!("{plan:?} {status:?}");
        if reported.contains("SECRET-") {
            cloud.report_violation(format!("S7: key material in {reported}"));
        }
        if plan.effects.is_empty() && plan.requeue_at.is_some_and(|at| at <= cloud.now) {
            cloud.report_violation(format!("busy loop: nothing to do and a requeue_at-up in the past, {plan:?}"));
        }
        End::Requeue(requeue_at(&RequeueInput {
            backoff: &operator.backoff,
            planned: plan.requeue_at,
            checks: &[],
            // The scenario decides how often everything is compared.
            resync: SignedDuration::MAX,
            floor: secs(1),
            delay: delay_input(cloud),
        }))
    }

    /// The clock is set back. What the process measures with its own clock continues.
    pub(super) fn set_back(&mut self, by: SignedDuration) {
        self.iam.iter_mut().for_each(|(_, at, _)| *at -= by);
        self.absent_since = self.absent_since.map(|since| since - by);
        self.policies_missing_since = self.policies_missing_since.map(|since| since - by);
    }

    /// The process ends.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

fn delay_input(cloud: &Cloud) -> DelayInput {
    DelayInput { now: cloud.now, permille: spread_permille(OWNER), slow_resync: RESYNC }
}

impl Reconciliation<'_> {
    /// `None` when the operator died.
    fn run(&mut self, errors: &mut Vec<ReconcileFailure>) -> Option<Plan> {
        for _ in 0..MAX_EFFECTS {
            let plan = self.plan();
            let Some(effect) = plan.effects.first() else { return Some(plan) };
            if !effect.can_run_on(&self.seen.current, &settings()) {
                let repairs = self.seen.current.hints.repairs;
                let records = self.seen.current.hints.policies.clone();
                let (failed, finalizer) = (self.seen.current.user_sync_failed, self.seen.current.finalizer);
                let removed =
                    self.seen.current.user_absence.filter(|user_absence| *user_absence == UserAbsence::Removed);
                self.seen = observe(self.operator, self.cloud, &self.status, self.desired.as_ref(), true);
                self.seen.current.user_sync_failed = failed;
                self.seen.current.finalizer = finalizer;
                self.seen.current.hints.repairs = repairs;
                self.seen.current.hints.policies = records;
                self.seen.current.user_absence = removed.or(self.seen.current.user_absence);
                continue;
            }
            if !matches!(effect, Effect::VerifyKey(_)) {
                self.cloud.note(effect);
            }
            let result = self.perform(effect);
            self.cloud.audit_moment();
            match (&result, &mut self.operator.iam) {
                (Ok(()), Some((iam, ..))) => {
                    iam.clone_from(&self.seen.current.iam);
                    self.operator.policies.clone_from(&self.seen.current.policies);
                }
                _ => self.operator.iam = None,
            }
            if self.finalized {
                return Some(plan);
            }
            match result {
                Ok(()) => {}
                Err(CallError::Crash) => return None,
                Err(fail) => {
                    self.cloud.note(format!("    {fail:?}"));
                    if effect.is_user_sync() && self.desired.is_some() {
                        errors.push(failure(fail, FailureScope::User));
                        self.seen.current.user_sync_failed = true;
                        continue;
                    }
                    let is_of_user = matches!(effect, Effect::RecordUser | Effect::CreateUser | Effect::DeleteUser);
                    errors.push(failure(fail, if is_of_user { FailureScope::User } else { FailureScope::Key }));
                    return Some(plan);
                }
            }
        }
        self.cloud.report_violation("a reconcile did not end");
        Some(self.plan())
    }

    fn plan(&self) -> Plan {
        let (current, now, settings) = (&self.seen.current, self.cloud.now, settings());
        if let Some(desired) = &self.desired {
            plan_by(self.rules, desired, current, now, &settings)
        } else {
            let policy = self.cloud.resource.spec.deletion_policy;
            plan_cleanup(&self.target, policy, current, now, &settings)
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table: one arm per effect, as in reconcile/act/mod.rs")]
    fn perform(&mut self, effect: &Effect) -> Result<(), CallError> {
        match effect {
            Effect::RecordUser => {
                let declared = self.desired.iter().flat_map(Desired::declared_tag_keys).cloned();
                self.seen.current.hints.tag_keys.extend(declared);
                for policy in self.seen.current.policies.ours() {
                    let declared = self.desired.as_ref().and_then(|desired| desired.documents.get(&policy.arn));
                    let record = self.seen.current.hints.policies.entry(policy.arn.clone()).or_default();
                    record.observe(policy, declared.map(|document| document.digest));
                }
                let documents = self.desired.iter().flat_map(|desired| desired.documents.keys().cloned());
                for arn in documents {
                    self.seen.current.hints.policies.entry(arn).or_default();
                }
                let hints = &self.seen.current.hints;
                self.cloud.record_user(&hints.tag_keys, &hints.policies)?;
                self.seen.current.user_recorded = true;
            }
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
                self.cloud.report_violation("a quarantine is detached");
            }
            Effect::AttachPolicy(_)
            | Effect::DetachPolicy(_)
            | Effect::PutInlinePolicy(..)
            | Effect::DeleteInlinePolicy(_) => {
                if let Effect::AttachPolicy(arn) = effect {
                    self.cloud.attach_policy(arn)?;
                } else {
                    self.cloud.change_user(|user| change_grants(effect, &mut user.grants))?;
                }
                if let Effect::AttachPolicy(arn) | Effect::DetachPolicy(arn) = effect
                    && let Some(policy) = self.seen.current.policies.found.get_mut(arn)
                {
                    policy.attachments += if matches!(effect, Effect::AttachPolicy(_)) { 1 } else { -1 };
                }
                self.changed(|user| change_grants(effect, user.grants.get_or_insert_with(Grants::default)));
            }
            Effect::CreatePolicy(_)
            | Effect::CreatePolicyVersion(_)
            | Effect::SetDefaultPolicyVersion(..)
            | Effect::DeletePolicyVersion(..)
            | Effect::DeletePolicy(_)
            | Effect::UntagPolicy(_)
            | Effect::ReadPolicyVersions(_)
            | Effect::ReadPolicyHolders(_)
            | Effect::ForgetPolicy(_) => self.perform_on_policy(effect)?,
            // The simulated resource declares none of these; a plan that contains one is wrong.
            Effect::AddToGroup(_)
            | Effect::RemoveFromGroup(_)
            | Effect::PutBoundary(_)
            | Effect::WritePassword
            | Effect::ApplyPassword
            | Effect::RemovePassword
            | Effect::DeleteConsoleSecret
            | Effect::ReleaseConsoleSecret
            | Effect::AdoptUser(_)
            | Effect::TagPolicy(_)
            | Effect::ReadWorkloads(_)
            | Effect::RestartWorkload(..)
            | Effect::RecordRestarts(_)
            | Effect::RemoveDeletionBlocker(_) => panic!("{effect} is for nothing that is declared"),
            Effect::CreateKey { known, repairs } => {
                self.create_key(known, *repairs)?;
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
            Effect::Publish(key_id) => {
                self.publish(key_id)?;
                self.operator.verification = None;
            }
            Effect::TagKey(id) => {
                let found = self.seen.current.user().cloned().unwrap_or_default();
                let tags = tags_after_publication(&found, id, self.cloud.now);
                self.cloud.change_user(|user| user.tags.extend(tags.clone()))?;
                self.changed(|user| user.tags.extend(tags));
            }
            Effect::AbandonAttempt { orphans, failed } => {
                self.abandon(orphans)?;
                self.operator.verification = None;
                if *failed {
                    return Err(CallError::NotAccepted);
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
                if let (Some(stored), Some(attempt)) = (self.seen.stored.clone(), &self.seen.attempt) {
                    let content = secret::with_fence(stored.content.clone(), &attempt.uid, sealer());
                    let written = self.cloud.replace_secret(&stored, Some(OWNER), &content)?;
                    self.hold(Some(written));
                }
            }
            Effect::CloseJournal => {
                self.status.last_attempt = self.seen.current.last_attempt();
                self.seen.current.hints.last_attempt = self.status.last_attempt;
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
            Effect::ConfirmSecret(id) => {
                let Some(stored) = self.seen.stored.clone() else { return Ok(()) };
                let key = secret::read_unverified_key(&stored.content).filter(|key| key.id == *id);
                let Some(key) = key.filter(|key| self.cloud.accepts(key)) else {
                    let refusals = SecretRefusals::with(self.seen.current.secret_refusals, self.cloud.now);
                    self.operator.secret_refusals = Some((stored.version, refusals));
                    self.seen.current.secret_refusals = Some(refusals);
                    return Ok(());
                };
                let user = self.seen.current.user();
                let requested = self.desired.as_ref().and_then(|desired| desired.key.as_ref()?.rotate_request.clone());
                let publication = Publication {
                    published_at: user.and_then(|user| user.tagged_at(id)).unwrap_or_default() + secs(1),
                    rotate_honoured: self
                        .operator
                        .honoured
                        .clone()
                        .map_or(requested, |HonouredRequest(request)| request),
                    ..Publication::default()
                };
                self.write_secret(&key, &publication)?;
            }
            Effect::RewriteSecret => {
                let Some(stored) = self.seen.stored.clone() else { return Ok(()) };
                let Some(key) = secret::read_key(&stored.content, sealer()) else { return Ok(()) };
                self.write_secret(&key, &secret::read_publication(&stored.content))?;
            }
            Effect::ReadLastUsed(ids) => {
                for id in ids {
                    let used_at = self.cloud.keys.get(id).and_then(|record| record.used_at);
                    let answer = LastUse { used_at, service: None, asked_at: self.cloud.now };
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
                        (CurrentUser::Absent, Some(UserAbsence::Removed));
                }
                Err(CallError::DeleteConflict) => {
                    let grants = self.cloud.user.as_ref().map(|user| user.grants.clone());
                    if grants == Some(Grants::default()) {
                        return Err(CallError::DeleteConflict);
                    }
                    self.changed(|user| user.grants = grants);
                }
                Err(fail) => return Err(fail),
            },
            Effect::ReleaseSecret => {
                if let Some(stored) = self.seen.stored.clone() {
                    self.cloud.replace_secret(&stored, None, &stored.content)?;
                }
                self.hold(None);
            }
            Effect::DeleteSecret => {
                if let Some(stored) = &self.seen.stored {
                    self.cloud.delete_secret(stored)?;
                }
                self.hold(None);
            }
            Effect::RemoveFinalizer => {
                self.cloud.set_finalizer(false)?;
                self.finalized = true;
            }
        }
        Ok(())
    }

    fn changed(&mut self, learn: impl FnOnce(&mut IamUser)) {
        if let CurrentUser::Found(user) = &mut self.seen.current.iam {
            learn(user);
        }
    }

    fn hold(&mut self, stored: Option<StoredSecret>) {
        self.seen.current.published = published(stored.as_ref(), self.desired.as_ref());
        self.seen.current.secret_refusals = None;
        self.seen.stored = stored;
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
