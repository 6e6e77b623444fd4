//! The act step (IO): executes one effect and applies its result to what was observed.
//!
//! Every effect may be cut off at any await: the next reconcile continues from what it observes. The doc comment of an effect
//! says what it may leave behind.

mod console;
mod key;
mod policies;
mod published;
mod restart;
mod user;

use std::{sync::Arc, time::Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

use super::{Context, Reconciliation, cache::ReconcileCache, error::ReconcileError, observe::Observed};
use crate::{
    api::{
        AwsDeployUser, AwsDeployUserStatus, Reason,
        user::{ClassReference, DeletionPolicy, PolicyKind, UserStatus},
    },
    aws,
    cluster::{ClusterErrorKind, DeployUsers, PendingEvent, SecretSnapshot, Secrets},
    domain::{
        current_state::{CurrentUser, Grants, IamUser, PublishedSecret, UserRef},
        desired::Desired,
        managed_policy,
        plan::Effect,
        secret::{self, Sealer},
        target::Target,
    },
};
use user::{list, set_tags};

/// Executes effects.
pub(super) struct Executor<'a> {
    pub(super) context: &'a Context,
    /// The account of the resource.
    pub(super) iam: Arc<aws::IamClient>,
    pub(super) target: &'a Target,
    /// `None` during deletion and revocation, which need names only.
    pub(super) desired: Option<&'a Desired>,
    /// The class that allows the resource.
    class: Option<&'a ClassReference>,
    pub(super) user: AwsDeployUser,
    pub(super) observed: Observed,
    pub(super) events: Vec<PendingEvent>,
    /// The finalizer was removed: there is no resource to report on.
    pub(super) finalized: bool,
}

impl<'a> Executor<'a> {
    pub(super) fn new(
        reconciliation: &Reconciliation<'a>,
        desired: Option<&'a Desired>,
        user: AwsDeployUser,
        observed: Observed,
    ) -> Self {
        Self {
            context: reconciliation.context,
            iam: Arc::clone(&reconciliation.iam),
            target: reconciliation.target,
            desired,
            class: reconciliation.decision.allowing_class(),
            user,
            observed,
            events: Vec::new(),
            finalized: false,
        }
    }

    /// Executes one effect.
    pub(super) async fn execute(&mut self, effect: &Effect, cache: &mut ReconcileCache) -> Result<(), ReconcileError> {
        let result = Box::pin(self.perform(effect, cache)).await;
        cache.learn_documents(&self.observed.current.policies);
        match (&result, cache.iam.as_mut(), &self.observed.current.iam) {
            // The operator's own writes need not be read back.
            (Ok(()), Some(cached), iam) => {
                let policies = &self.observed.current.policies;
                if cached.iam != *iam || cached.policies != *policies {
                    cached.iam = iam.clone();
                    cached.policies = policies.clone();
                    cached.changed_at = Some(Instant::now());
                }
            }
            // A failed call may have had its effect: the next reconcile reads IAM.
            (Err(_), ..) => cache.iam = None,
            (Ok(()), None, _) => {}
        }
        result
    }

    #[allow(clippy::too_many_lines, reason = "a table with one arm for each effect")]
    async fn perform(&mut self, effect: &Effect, cache: &mut ReconcileCache) -> Result<(), ReconcileError> {
        let iam = &Arc::clone(&self.iam);
        let aws = |error| ReconcileError::of_effect(error, effect.clone());
        match effect {
            Effect::RecordUser => self.record_user().await?,
            Effect::AddFinalizer => {
                self.user = self.users().add_finalizer(&self.user).await?;
                self.observed.current.finalizer = true;
            }
            Effect::CreateUser => self.create_user().await?,
            Effect::AdoptUser(losses) => self.adopt(losses).await?,
            Effect::TagUser(tags) => {
                iam.tag_user(&self.owned_user(effect)?, tags).await.map_err(aws)?;
                let changed = format!("set tags {}", list(tags.keys()));
                self.apply_change(changed, |user| set_tags(user, tags));
            }
            Effect::UntagUser(keys) => self.untag_user(&self.owned_user(effect)?, keys).await.map_err(aws)?,
            Effect::AttachPolicy(arn) => {
                self.check_attachment(effect, arn)?;
                iam.attach_policy(&self.owned_user(effect)?, arn).await.map_err(aws)?;
                self.count_attachment(arn, 1);
                self.apply_grants_change(format!("attached {arn}"), |grants| _ = grants.attached.insert(arn.clone()));
            }
            Effect::DetachPolicy(arn) => {
                iam.detach_policy(&self.owned_user(effect)?, arn).await.map_err(aws)?;
                self.count_attachment(arn, -1);
                self.apply_grants_change(format!("detached {arn}"), |grants| _ = grants.attached.remove(arn));
            }
            Effect::PutInlinePolicy(policy, document) => {
                iam.put_inline_policy(&self.owned_user(effect)?, policy, document).await.map_err(aws)?;
                let insert = |grants: &mut Grants| _ = grants.inline.insert(policy.clone(), document.clone());
                self.apply_grants_change(format!("wrote inline policy {policy}"), insert);
            }
            Effect::DeleteInlinePolicy(policy) => {
                iam.delete_inline_policy(&self.owned_user(effect)?, policy).await.map_err(aws)?;
                self.apply_grants_change(format!("removed inline policy {policy}"), |grants| {
                    _ = grants.inline.remove(policy);
                });
            }
            Effect::AddToGroup(group) => {
                iam.add_to_group(&self.owned_user(effect)?, group).await.map_err(aws)?;
                self.apply_grants_change(format!("added to group {group}"), |grants| {
                    _ = grants.groups.insert(group.clone());
                });
            }
            Effect::RemoveFromGroup(group) => {
                iam.remove_from_group(&self.owned_user(effect)?, group).await.map_err(aws)?;
                self.apply_grants_change(format!("removed from group {group}"), |grants| {
                    _ = grants.groups.remove(group);
                });
            }
            Effect::PutBoundary(arn) => {
                iam.put_boundary(&self.owned_user(effect)?, arn).await.map_err(aws)?;
                self.apply_change(format!("set permissions boundary {arn}"), |user| user.boundary = Some(arn.clone()));
            }
            Effect::CreatePolicy(arn) => self.create_policy(effect, arn).await?,
            Effect::CreatePolicyVersion(arn) => self.create_policy_version(effect, arn).await?,
            Effect::SetDefaultPolicyVersion(arn, version) => {
                self.set_default_policy_version(effect, arn, version).await?;
            }
            Effect::DeletePolicyVersion(arn, version) => self.delete_policy_version(effect, arn, version).await?,
            Effect::DeletePolicy(arn) => self.delete_policy(effect, arn).await?,
            Effect::TagPolicy(arn) => self.tag_policy(effect, arn).await?,
            Effect::UntagPolicy(arn) => self.untag_policy(effect, arn).await?,
            Effect::ReadPolicyVersions(arn) => self.read_policy_versions(effect, arn).await?,
            Effect::ReadPolicyHolders(arn) => self.read_policy_holders(effect, arn).await?,
            Effect::ForgetPolicy(arn) => _ = self.observed.current.hints.policies.remove(arn),
            Effect::WritePassword => self.write_password().await?,
            Effect::ApplyPassword => self.apply_password().await?,
            Effect::RemovePassword => self.remove_password().await?,
            Effect::DeleteConsoleSecret => self.delete_console_secret().await?,
            Effect::ReleaseConsoleSecret => self.release_console_secret().await?,
            Effect::CreateKey { known, repairs } => {
                self.create_key(known, *repairs).await?;
                cache.verification = None;
            }
            Effect::VerifyKey(id) => self.verify(id, cache).await?,
            Effect::Publish(key_id) => {
                self.publish(key_id).await?;
                cache.verification = None;
            }
            Effect::TagKey(id) => self.tag_key(&self.owned_user(effect)?, id).await.map_err(aws)?,
            Effect::AbandonAttempt { orphans, failed } => {
                self.abandon(orphans).await?;
                cache.verification = None;
                if *failed {
                    return Err(ReconcileError::KeyNotAccepted(orphans.join(", ")));
                }
            }
            Effect::RecordQuarantine(at) => self.date_quarantine(&self.owned_user(effect)?, *at).await.map_err(aws)?,
            Effect::ClearQuarantine => self.undate_quarantine(&self.owned_user(effect)?).await.map_err(aws)?,
            Effect::TouchPublished => self.touch().await?,
            Effect::CloseJournal => self.close_journal().await?,
            Effect::DeactivateKey(id, why) => {
                self.deactivate_key(&self.owned_user(effect)?, id, *why).await.map_err(aws)?;
            }
            Effect::DeleteKey(id, why) => self.delete_key(&self.owned_user(effect)?, id, *why).await.map_err(aws)?,
            Effect::ConfirmSecret(id) => self.confirm_secret(id, cache).await?,
            Effect::RewriteSecret => self.rewrite().await?,
            Effect::ReadLastUsed(ids) => self.read_last_used(ids, cache).await?,
            Effect::ReadWorkloads(targets) => self.read_workloads(targets).await,
            Effect::RestartWorkload(target, key_id) => self.restart(target, key_id).await?,
            Effect::RecordRestarts(restarts) => self.note_restarts(restarts).await?,
            Effect::ReadGrants => Box::pin(self.read_grants(&self.owned_user(effect)?)).await?,
            Effect::RemoveDeletionBlocker(blocker) => {
                self.remove_deletion_blocker(&self.owned_user(effect)?, blocker).await.map_err(aws)?;
            }
            Effect::DeleteUser => self.delete_user().await?,
            Effect::ReleaseSecret if self.desired.is_some() => self.release_secrets().await?,
            Effect::ReleaseSecret => self.release_secret().await?,
            Effect::DeleteSecret => self.delete_secret().await?,
            Effect::RemoveFinalizer => {
                self.users().remove_finalizer(&self.user).await?;
                self.observed.current.finalizer = false;
                self.finalized = true;
            }
        }
        Ok(())
    }

    /// Binds the resource to its user and to this operator: from then on name and account come from the status, which tenants
    /// cannot write, and an operator of another namespace does not act on it. Also records the keys of the declared tags, and the
    /// managed policies of documents.
    async fn record_user(&mut self) -> Result<(), ReconcileError> {
        // Resolved by the validate step.
        let account = self.iam.caller_identity().await?.account.id.clone();
        let before = self.user.status.clone().unwrap_or_default();
        // A user that was found by its ownership tags may have another name than the class would give it now.
        let found = self.observed.current.owned_user(&self.target.owner);
        let name = found.map_or_else(|| self.target.user_name.clone(), |user| user.name.clone());
        let new = || UserStatus { name, account, ..UserStatus::default() };
        let mut user = before.user.unwrap_or_else(new);
        let tag_keys = &mut self.observed.current.hints.tag_keys;
        tag_keys.extend(self.desired.iter().flat_map(|desired| desired.declared_tag_keys()).cloned());
        user.tag_keys = tag_keys.iter().cloned().collect();
        let user = Some(user);
        let policies = &mut self.observed.current.hints.policies;
        for policy in self.observed.current.policies.ours() {
            let declared = self.desired.and_then(|desired| desired.documents.get(&policy.arn));
            let record = policies.entry(policy.arn.clone()).or_default();
            record.observe(policy, declared.map(|document| document.digest));
        }
        if let Some(desired) = self.desired.filter(|desired| !desired.is_full(policies)) {
            for arn in desired.documents.keys() {
                policies.entry(arn.clone()).or_default();
            }
        }
        let inline = before.policies.iter().filter(|policy| policy.kind == PolicyKind::Inline);
        let policies = managed_policy::status(inline.map(|policy| &policy.name), policies);
        let class = self.class.cloned().or(before.class);
        let operator_namespace = Some(self.context.namespace.clone());
        let status = AwsDeployUserStatus { class, operator_namespace, user, policies, ..before };
        self.user = self.users().write_status(&self.user, status).await?;
        self.observed.current.user_recorded = true;
        Ok(())
    }

    /// The user that an effect writes to.
    ///
    /// # Errors
    /// When no user with the ownership tags of this resource was observed: then nothing is called.
    fn owned_user(&self, effect: &Effect) -> Result<UserRef, ReconcileError> {
        let user = self.observed.current.owned_user(&self.target.owner).map(IamUser::reference);
        user.ok_or_else(|| ReconcileError::UserNotObserved(effect.verb()))
    }

    async fn check_secret_access(&self) -> Result<(), ReconcileError> {
        let namespace = &self.target.owner.namespace;
        self.context.access.check(namespace).await.map_err(|error| match error.kind {
            ClusterErrorKind::Forbidden => ReconcileError::SecretAccess(error),
            _ => ReconcileError::Cluster(error),
        })
    }

    fn apply_change(&mut self, summary: String, change: impl FnOnce(&mut IamUser)) {
        if let CurrentUser::Found(user) = &mut self.observed.current.iam {
            change(user);
        }
        if !summary.is_empty() && self.desired.is_some() {
            self.record_event(Reason::UserChanged, summary);
        }
    }

    fn apply_grants_change(&mut self, summary: String, change: impl FnOnce(&mut Grants)) {
        self.apply_change(summary, |user| change(user.grants.get_or_insert_with(Grants::default)));
    }

    fn set_published(&mut self, secret: Option<SecretSnapshot>) {
        let declared = self.desired.map(|desired| &desired.secret);
        self.observed.current.published = secret.as_ref().map_or(PublishedSecret::Missing, |secret| {
            PublishedSecret::Ours(secret::read_facts(&secret.content(), secret.is_immutable(), declared, self.sealer()))
        });
        self.observed.current.secret_refusals = None;
        self.observed.published = secret;
    }

    fn sealer(&self) -> Sealer<'a> {
        Sealer { keys: &self.context.mac_keys, uid: &self.target.owner.uid }
    }

    fn record_event(&mut self, reason: Reason, note: String) {
        self.events.push(PendingEvent { reason, note, warning: false });
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    fn users(&self) -> DeployUsers {
        DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    /// The owner reference of new Secrets; none where they outlive the resource.
    fn owner_reference(&self) -> Option<OwnerReference> {
        // `Target::from_resource` requires name and UID.
        self.user.controller_owner_ref(&()).filter(|_| self.user.spec.deletion_policy != DeletionPolicy::Retain)
    }
}
