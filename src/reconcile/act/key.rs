//! Effects on access keys and on the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{Executor, user::set_tags};
use crate::{
    api::{AwsDeployUserStatus, Reason, user::KeyRepairs, well_known},
    aws::{AwsError, KeyVerification},
    cluster::{ClusterError, JournalSnapshot, JournalStore, PendingEvent},
    domain::{
        account::account_in_arn,
        current_state::{AccessKey, JournalSecret, UserRef, Verification},
        dates::floor,
        journal::{AttemptPhase, Journal},
        key_tag::tags_after_publication,
        plan::{Effect, RetireReason},
        secret::KeyMaterial,
    },
    reconcile::{cache::ReconcileCache, error::ReconcileError, observe},
};

/// Attempts to store a new key, which exists nowhere else, before the reconcile fails.
const JOURNAL_WRITES: u32 = 5;
/// Pause before the second attempt; doubles.
const JOURNAL_PAUSE: Duration = Duration::from_millis(500);

impl Executor<'_> {
    /// Calls `CreateAccessKey` once: it is not idempotent. May leave an `Intent` journal with or without an orphan in IAM, which
    /// is deleted after the recovery delay.
    pub(super) async fn create_key(&mut self, known: &[String], repairs: Option<u32>) -> Result<(), ReconcileError> {
        self.check_secret_access().await?;
        self.check_publishable().await?;
        let effect = Effect::CreateKey { known: known.to_vec(), repairs };
        let (iam, user) = (&self.iam, &self.owned_user(&effect)?);
        let journals = self.context.journals(self.target);
        let mut journal = Journal {
            // `CreateDate` has whole seconds.
            started_at: floor(iam.clock().now()),
            rotate_request: self.desired.and_then(|desired| desired.key.as_ref()?.rotate_request.clone()),
            phase: AttemptPhase::Intent { known: known.to_vec() },
        };
        let account = account_in_arn(user.arn()).unwrap_or_default();
        let attempt = journals.begin(&journal, account).await?;
        let (key, created_at) = match iam.create_access_key(user).await {
            Ok(made) => made,
            Err(error) => {
                if error.kind.is_definite() {
                    // AWS refused, so that there is no orphan to wait for.
                    if let Err(error) = journals.close(&attempt).await {
                        tracing::warn!(%error, "failed to delete the journal of a refused attempt; it is deleted after the recovery delay");
                    }
                }
                return Err(ReconcileError::of_effect(error, effect));
            }
        };
        if let Some(count) = repairs {
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            self.observed.current.hints.repairs = Some(KeyRepairs { count, last_time: created_at });
        }
        journal.phase = AttemptPhase::Keyed { key_id: key.id.clone(), keyed_at: iam.clock().now() };
        let attempt = self.stage(user, &journals, &attempt, &journal, &key).await?;
        tracing::info!(key_id = key.id, "created access key");
        self.observed.current.journal = observe::read_journal(&attempt, self.iam.clock().now());
        self.observed.journal = Some(attempt);
        let made = AccessKey { id: key.id, active: true, created_at };
        self.apply_change(String::new(), |user| user.keys.push(made));
        Ok(())
    }

    /// Stores the key in the journal. If another operator replaced the journal (the fence), the new key is deleted. If the
    /// response is lost, the key is recovered from the journal.
    async fn stage(
        &self,
        user: &UserRef,
        journals: &JournalStore<'_>,
        attempt: &JournalSnapshot,
        journal: &Journal,
        key: &KeyMaterial,
    ) -> Result<JournalSnapshot, ReconcileError> {
        let mut pause = JOURNAL_PAUSE;
        for tries in 1.. {
            let error = match journals.replace(attempt, journal, Some(key)).await {
                Ok(staged) => return Ok(staged),
                Err(error) => error,
            };
            if error.kind.is_definite() {
                // An earlier write, whose response was lost, may have caused the conflict.
                if tries > 1
                    && let Some(now) = self.written_down(user, journals, attempt, &key.id, &error).await?
                {
                    return Ok(now);
                }
                tracing::warn!(%error, key_id = key.id, "journal was replaced; deleting the new access key");
                self.undo(user, &key.id).await?;
                return Err(ReconcileError::Undone(key.id.clone()));
            }
            if tries >= JOURNAL_WRITES {
                return Err(error.into());
            }
            tracing::warn!(%error, tries, "failed to store the new access key; retrying");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    /// The journal if an earlier write, whose response was lost, stored the key. Another replica may have published the key since:
    /// then it must not be deleted.
    ///
    /// # Errors
    /// The conflict, when another replica has the key or when that cannot be determined.
    async fn written_down(
        &self,
        user: &UserRef,
        journals: &JournalStore<'_>,
        attempt: &JournalSnapshot,
        key_id: &str,
        refusal: &ClusterError,
    ) -> Result<Option<JournalSnapshot>, ReconcileError> {
        if let Some(now) = journals.get().await?.filter(|now| now.id() == attempt.id()) {
            return match now.journal.as_ref().map(|seen| (seen.references_key(key_id), &seen.phase)) {
                Ok((true, AttemptPhase::Keyed { .. })) => Ok(Some(now)),
                Ok((false, _)) => Ok(None),
                Ok((true, _)) | Err(_) => Err(refusal.clone().into()),
            };
        }
        // The attempt ended. A published key was tagged before that.
        let found = self.iam.get_user(user.name()).await?;
        if found.is_some_and(|user| user.is_tagged(key_id)) { Err(refusal.clone().into()) } else { Ok(None) }
    }

    async fn undo(&self, user: &UserRef, key_id: &str) -> Result<(), ReconcileError> {
        let mut pause = JOURNAL_PAUSE;
        for tries in 1.. {
            let last = tries >= JOURNAL_WRITES;
            match self.iam.delete_access_key(user, key_id).await {
                Ok(true) => return Ok(()),
                // It was created seconds ago: not every server of IAM may know it. The owner of the journal lists the keys later
                // than this, and deletes it as an orphan.
                Ok(false) if last => return Err(ReconcileError::NotVisible(key_id.to_owned())),
                Ok(false) => {
                    tracing::warn!(tries, key_id, "IAM does not know the unpublished access key yet; retrying");
                }
                Err(error) if last => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, tries, key_id, "failed to delete the unpublished access key; retrying");
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    pub(super) async fn verify(&mut self, key_id: &str, cache: &mut ReconcileCache) -> Result<(), ReconcileError> {
        let Some(key) = self.observed.journal.as_ref().and_then(|attempt| attempt.staged_key(key_id)) else {
            // The journal lacks the key that it names.
            return self.abandon(&[key_id.to_owned()]).await;
        };
        let (iam, user) = (&self.iam, self.owned_user(&Effect::VerifyKey(key_id.to_owned()))?);
        let (answer, arn) = (iam.verify_key(&key).await?, user.arn());
        let accepted = matches!(&answer, KeyVerification::Accepted(bearer) if bearer == arn);
        if let KeyVerification::Accepted(bearer) = &answer
            && !accepted
        {
            tracing::warn!(key_id, bearer, arn, "STS returned another caller identity for the new access key");
        }
        let before = cache.verification.take().filter(|seen| seen.key_id == key_id).map_or(0, |seen| seen.successes);
        let successes = if accepted { before + 1 } else { 0 };
        cache.verification = Some(Verification { key_id: key_id.to_owned(), successes, last_at: iam.clock().now() });
        self.observed.current.verification.clone_from(&cache.verification);
        Ok(())
    }

    pub(super) async fn tag_key(&mut self, user: &UserRef, id: &str) -> Result<(), AwsError> {
        let now = self.iam.clock().now();
        let found = self.observed.current.user();
        let mut tags = found.map(|found| tags_after_publication(found, id, now)).unwrap_or_default();
        if let Some(description) = self.desired.and_then(|desired| desired.key.as_ref()?.description.clone()) {
            tags.insert(id.to_owned(), description);
        }
        self.iam.tag_user(user, &tags).await?;
        self.apply_change(String::new(), |user| set_tags(user, &tags));
        Ok(())
    }

    pub(super) async fn deactivate_key(&mut self, user: &UserRef, id: &str, why: RetireReason) -> Result<(), AwsError> {
        // IAM has listed the key: if it does not know it now, one of the two answers is stale, and the key may work.
        self.iam.deactivate_access_key(user, id).await?;
        self.apply_change(String::new(), |user| {
            user.keys.iter_mut().filter(|key| key.id == id).for_each(|key| key.active = false);
        });
        if why != RetireReason::Cleanup {
            let unconfirmed = self.unconfirmed_by().filter(|_| why == RetireReason::HandoverExpired);
            let consumers = unconfirmed.map(|names| format!(": {names}")).unwrap_or_default();
            let note = format!("access key {id} was set Inactive ({}{consumers})", because(why));
            self.events.push(PendingEvent {
                reason: Reason::KeyDeactivated,
                note,
                warning: matches!(
                    why,
                    RetireReason::HoldExpired | RetireReason::RolloutTimedOut | RetireReason::HandoverExpired
                ),
            });
        }
        Ok(())
    }

    /// Consumers that have not confirmed the published key.
    fn unconfirmed_by(&self) -> Option<String> {
        let published = self.observed.current.published()?;
        let consumers = self.desired?.key.as_ref()?.unconfirmed(&published.key_id);
        Some(consumers.map(|consumer| consumer.name.as_str()).collect::<Vec<_>>().join(", "))
    }

    pub(super) async fn delete_key(&mut self, user: &UserRef, id: &str, why: RetireReason) -> Result<(), AwsError> {
        let is_deleted = self.iam.delete_access_key(user, id).await?;
        self.apply_change(String::new(), |user| user.keys.retain(|key| key.id != id));
        if !is_deleted {
            self.observed.current.unknown_keys.insert(id.to_owned());
            return Ok(());
        }
        self.observed.current.deleted_keys.insert(id.to_owned());
        let reason = if why == RetireReason::Orphan { Reason::OrphanDeleted } else { Reason::KeyDeleted };
        self.record_event(reason, format!("access key {id} was deleted ({})", because(why)));
        Ok(())
    }

    pub(super) async fn abandon(&mut self, orphans: &[String]) -> Result<(), ReconcileError> {
        let (Some(attempt), Some(journal)) = (&self.observed.journal, self.observed.current.journal()) else {
            return Ok(());
        };
        let journals = self.context.journals(self.target);
        let journal = Journal { phase: AttemptPhase::Abandoned { orphans: orphans.to_vec() }, ..journal.clone() };
        let attempt = journals.replace(attempt, &journal, None).await?;
        self.observed.current.journal = observe::read_journal(&attempt, self.iam.clock().now());
        self.observed.journal = Some(attempt);
        Ok(())
    }

    pub(super) async fn close_journal(&mut self) -> Result<(), ReconcileError> {
        self.record_attempt().await?;
        if let Some(attempt) = &self.observed.journal {
            self.context.journals(self.target).close(attempt).await?;
        }
        self.observed.journal = None;
        self.observed.current.journal = JournalSecret::None;
        Ok(())
    }

    /// The pace of keys needs to know when the attempt began. Until it ends, the journal records that; after a reconcile that
    /// ended in between, the status does too.
    async fn record_attempt(&mut self) -> Result<(), ReconcileError> {
        let last_attempt = self.observed.current.last_attempt();
        let recorded = self.user.status.as_ref().and_then(|status| status.last_key_attempt_time);
        if recorded < last_attempt && self.user.metadata.deletion_timestamp.is_none() {
            let repairs = self.observed.current.hints.repairs;
            let record =
                |status| AwsDeployUserStatus { last_key_attempt_time: last_attempt, key_repairs: repairs, ..status };
            self.user = self.users().update_status(&self.user, record).await?;
        }
        self.observed.current.hints.last_attempt = last_attempt;
        Ok(())
    }

    pub(super) async fn read_last_used(
        &mut self,
        ids: &[String],
        cache: &mut ReconcileCache,
    ) -> Result<(), ReconcileError> {
        let iam = &self.iam;
        for id in ids {
            let answer = iam.get_last_used(id).await?;
            cache.last_used.insert(id.clone(), answer);
        }
        let user = self.observed.current.user();
        cache.last_used.retain(|id, _| user.is_some_and(|user| user.key(id).is_some()));
        self.observed.current.last_used.clone_from(&cache.last_used);
        Ok(())
    }

    pub(super) async fn date_quarantine(&mut self, user: &UserRef, at: Timestamp) -> Result<(), AwsError> {
        let tags = BTreeMap::from([(well_known::TAG_QUARANTINED_AT.to_owned(), at.to_string())]);
        self.iam.tag_user(user, &tags).await?;
        self.apply_change(String::new(), |user| set_tags(user, &tags));
        Ok(())
    }

    pub(super) async fn undate_quarantine(&mut self, user: &UserRef) -> Result<(), AwsError> {
        let tag = BTreeSet::from([well_known::TAG_QUARANTINED_AT.to_owned()]);
        self.iam.untag_user(user, &tag).await?;
        self.apply_change(String::new(), |user| _ = user.tags.remove(well_known::TAG_QUARANTINED_AT));
        Ok(())
    }
}

fn because(why: RetireReason) -> &'static str {
    match why {
        RetireReason::OverlapEnded => "its overlap is over",
        RetireReason::HoldExpired => {
            "overlap and holdWhileUsed are over; AWS still sees it used, or does not say. Programs that still use it are refused from now on and have to read the Secret again"
        }
        RetireReason::RolloutTimedOut => {
            "its overlap and the operator's --restart-hold are over, or the next rotation is due; workloads of accessKey.restart are not rolled out with the new key, and pods that still use this one are refused from now on"
        }
        RetireReason::HandoverExpired => {
            "its overlap and the time of accessKey.handover are over, or the next rotation is due; consumers that have not confirmed the new key are refused from now on"
        }
        RetireReason::Quarantined => "AWS quarantines the user: others may know the key",
        RetireReason::FreesSlot => "its secret is lost and its slot is needed",
        RetireReason::CredentialsRevoked => "spec.credentials is Revoked",
        RetireReason::RemovedFromSpec => "the spec declares no access key",
        RetireReason::Orphan => "it belonged to an interrupted attempt and was never published",
        RetireReason::Cleanup => "the resource is being deleted",
        RetireReason::Revoked => "no class allows the resource",
    }
}
