//! The act step (IO): one effect at a time, and what was learned from it.
//!
//! Every effect is safe to cut off at any await: the next pass goes on from what it finds. What
//! each may leave behind is told beside it.

mod console;
mod key;
mod published;
mod restart;
mod user;

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

use super::{Context, cache::ReconcileCache, error::ReconcileError, observe::Observed};
use crate::{
    api::{AwsDeployUser, Reason},
    aws,
    cluster::{ClusterError, ClusterErrorKind, DeployUsers, PendingEvent, SecretSnapshot, Secrets},
    domain::{
        current_state::{CurrentUser, Grants, IamUser, PublishedSecret},
        desired::Desired,
        plan::Effect,
        secret,
        target::Target,
    },
};
use user::{list, set_tags};

/// Who acts, on what.
pub(super) struct Actor<'a> {
    pub(super) context: &'a Context,
    /// The account of the resource.
    pub(super) iam: Arc<aws::IamClient>,
    pub(super) target: &'a Target,
    /// Absent during deletion, which needs no more than the names.
    pub(super) desired: Option<&'a Desired>,
    pub(super) user: AwsDeployUser,
    pub(super) observed: Observed,
    pub(super) news: Vec<PendingEvent>,
    /// The resource is gone from Kubernetes: there is nothing left to report on.
    pub(super) left: bool,
}

impl Actor<'_> {
    /// Does one effect and learns its result.
    pub(super) async fn act(&mut self, effect: &Effect, cache: &mut ReconcileCache) -> Result<(), ReconcileError> {
        let result = Box::pin(self.perform(effect, cache)).await;
        match (&result, cache.iam.as_mut(), &self.observed.current.iam) {
            // Our own writes are known; they need not be read back.
            (Ok(()), Some(remembered), iam) => {
                if remembered.iam != *iam {
                    remembered.iam = iam.clone();
                    remembered.changed_at = Some(Instant::now());
                }
            }
            // Whatever failed may have had its effect: the next pass looks for itself.
            (Err(_), ..) => cache.iam = None,
            (Ok(()), None, _) => {}
        }
        result
    }

    #[allow(clippy::too_many_lines, reason = "a table: one arm an effect, read from top to bottom")]
    async fn perform(&mut self, effect: &Effect, cache: &mut ReconcileCache) -> Result<(), ReconcileError> {
        let iam = &Arc::clone(&self.iam);
        let name = &self.target.user_name.clone();
        let aws = |error| ReconcileError::Aws { error, effect: Some(effect.clone()) };
        match effect {
            Effect::AddFinalizer => self.add_finalizer().await?,
            Effect::CreateUser => self.create_user().await?,
            Effect::AdoptUser(losses) => self.adopt(losses).await?,
            Effect::TagUser(tags) => {
                iam.tag_user(name, tags).await.map_err(aws)?;
                let changed = format!("tags set: {}", list(tags.keys()));
                self.changed(changed, |user| set_tags(user, tags));
            }
            Effect::UntagUser(keys) => self.untag_user(keys).await.map_err(aws)?,
            Effect::AttachPolicy(arn) => {
                iam.attach_policy(name, arn).await.map_err(aws)?;
                self.changed_grants(format!("attached {arn}"), |grants| _ = grants.attached.insert(arn.clone()));
            }
            Effect::DetachPolicy(arn) => {
                iam.detach_policy(name, arn).await.map_err(aws)?;
                self.changed_grants(format!("detached {arn}"), |grants| _ = grants.attached.remove(arn));
            }
            Effect::PutInlinePolicy(policy, document) => {
                iam.put_inline_policy(name, policy, document).await.map_err(aws)?;
                let insert = |grants: &mut Grants| _ = grants.inline.insert(policy.clone(), document.clone());
                self.changed_grants(format!("wrote inline policy {policy}"), insert);
            }
            Effect::DeleteInlinePolicy(policy) => {
                iam.delete_inline_policy(name, policy).await.map_err(aws)?;
                self.changed_grants(format!("removed inline policy {policy}"), |grants| {
                    _ = grants.inline.remove(policy);
                });
            }
            Effect::AddToGroup(group) => {
                iam.add_to_group(name, group).await.map_err(aws)?;
                self.changed_grants(format!("put into group {group}"), |grants| {
                    _ = grants.groups.insert(group.clone());
                });
            }
            Effect::RemoveFromGroup(group) => {
                iam.remove_from_group(name, group).await.map_err(aws)?;
                self.changed_grants(format!("taken out of group {group}"), |grants| _ = grants.groups.remove(group));
            }
            Effect::PutBoundary(arn) => {
                iam.put_boundary(name, arn).await.map_err(aws)?;
                self.changed(format!("set permissions boundary {arn}"), |user| user.boundary = Some(arn.clone()));
            }
            Effect::WritePassword => self.write_password().await?,
            Effect::ApplyPassword => self.apply_password().await?,
            Effect::RemovePassword => self.remove_password().await?,
            Effect::DeleteConsoleSecret => self.delete_console_secret().await?,
            Effect::ReleaseConsoleSecret => self.release_console_secret().await?,
            Effect::CreateKey { known, previous_secret } => {
                self.mint(known, previous_secret.as_ref()).await?;
                cache.verification = None;
            }
            Effect::VerifyKey(id) => self.verify(id, cache).await?,
            Effect::Publish { key_id, left_behind } => {
                self.publish(key_id, left_behind.as_ref()).await?;
                cache.verification = None;
            }
            Effect::TagKey(id) => self.tag_key(id).await.map_err(aws)?,
            Effect::AbandonAttempt { orphans, failed } => {
                self.abandon(orphans).await?;
                cache.verification = None;
                if *failed {
                    return Err(ReconcileError::KeyNotAccepted(orphans.join(", ")));
                }
            }
            Effect::RecordQuarantine(at) => self.date_quarantine(*at).await.map_err(aws)?,
            Effect::ClearQuarantine => self.undate_quarantine().await.map_err(aws)?,
            Effect::TouchPublished => self.touch().await?,
            Effect::CloseJournal => self.close_journal().await?,
            Effect::DeactivateKey(id, why) => self.deactivate_key(id, *why).await.map_err(aws)?,
            Effect::DeleteKey(id, why) => self.delete_key(id, *why).await.map_err(aws)?,
            Effect::RewriteSecret => self.rewrite().await?,
            Effect::DeletePreviousSecret(secret) => self.delete_previous(secret).await?,
            Effect::ReadLastUsed(ids) => self.read_last_used(ids, cache).await?,
            Effect::ReadWorkloads(targets) => self.read_workloads(targets).await,
            Effect::RestartWorkload(target, key_id) => self.restart(target, key_id).await?,
            Effect::RecordRestarts(restarts) => self.note_restarts(restarts).await?,
            Effect::ReadGrants => Box::pin(self.read_grants()).await?,
            Effect::RemoveDeletionBlocker(leftover) => self.remove_deletion_blocker(leftover).await.map_err(aws)?,
            Effect::DeleteUser => self.delete_user().await?,
            Effect::ReleaseSecret => self.release_secret().await?,
            Effect::DeleteSecret => self.delete_secret().await?,
            Effect::RemoveFinalizer => {
                self.users().remove_finalizer(&self.user).await.or_else(gone)?;
                self.observed.current.finalizer = false;
                self.left = true;
            }
        }
        Ok(())
    }

    async fn add_finalizer(&mut self) -> Result<(), ReconcileError> {
        // Known since the pass began.
        let identity = self.iam.caller_identity().await?;
        let (name, account) = (&self.target.user_name, &identity.account.id);
        self.user = self.users().add_finalizer(&self.user, name, account).await?;
        self.observed.current.finalizer = true;
        Ok(())
    }

    async fn check_secret_access(&self) -> Result<(), ReconcileError> {
        let namespace = &self.target.owner.namespace;
        self.context.access.check(namespace).await.map_err(|error| match error.kind {
            ClusterErrorKind::Forbidden => ReconcileError::SecretAccess(error),
            _ => ReconcileError::Cluster(error),
        })
    }

    // --- what was learned ---------------------------------------------------------------------

    fn changed(&mut self, what: String, learn: impl FnOnce(&mut IamUser)) {
        if let CurrentUser::Found(user) = &mut self.observed.current.iam {
            learn(user);
        }
        if !what.is_empty() && self.desired.is_some() {
            self.tell(Reason::UserChanged, what);
        }
    }

    fn changed_grants(&mut self, what: String, learn: impl FnOnce(&mut Grants)) {
        self.changed(what, |user| learn(user.grants.get_or_insert_with(Grants::default)));
    }

    fn hold(&mut self, held: Option<SecretSnapshot>) {
        let secret = self.desired.map(|desired| &desired.secret);
        self.observed.current.published = held.as_ref().map_or(PublishedSecret::Missing, |held| {
            PublishedSecret::Ours(secret::read_facts(&held.content(), held.is_immutable(), secret))
        });
        self.observed.held = held;
    }

    fn tell(&mut self, reason: Reason, note: String) {
        self.news.push(PendingEvent { reason, note, warning: false });
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    fn users(&self) -> DeployUsers {
        DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    fn owner_reference(&self) -> OwnerReference {
        // Name and UID are there: `Target::from_resource` has asked for them.
        self.user.controller_owner_ref(&()).unwrap_or_default()
    }
}

fn gone<T: Default>(error: ClusterError) -> Result<T, ClusterError> {
    if error.kind == ClusterErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

/// Whole seconds, as IAM and our annotations have them.
fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
