//! Effects on managed policies of documents. Each names a policy that was observed in this reconcile and belongs to the resource.

use std::collections::BTreeMap;

use super::Executor;
use crate::{
    api::{Reason, well_known},
    aws::{AwsError, AwsErrorKind},
    domain::{
        desired::ManagedDocument,
        managed_policy::{self, CurrentPolicy, DocumentDigest, PolicyOwner, PolicyRef, RecordedPolicy},
        plan::Effect,
    },
    reconcile::{error::ReconcileError, observe::policies::current_policy},
};

impl Executor<'_> {
    /// The policy that an effect writes to.
    ///
    /// # Errors
    /// When none of this ARN was observed, or it belongs to another owner: then nothing is called.
    pub(super) fn owned_policy(&self, effect: &Effect, arn: &str) -> Result<PolicyRef, ReconcileError> {
        let policy = self.observed.current.policies.owned(arn).and_then(CurrentPolicy::reference);
        policy.ok_or_else(|| ReconcileError::PolicyNotObserved(effect.verb(), arn.to_owned()))
    }

    /// A policy of a document is attached only if it is one of the resource and declared; any other by its name.
    pub(super) fn check_attachment(&self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        if managed_policy::is_of_a_document(arn) {
            self.owned_policy(effect, arn)?;
            self.declared_document(effect, arn)?;
        }
        Ok(())
    }

    fn declared_document(&self, effect: &Effect, arn: &str) -> Result<&ManagedDocument, ReconcileError> {
        let declared = self.desired.and_then(|desired| desired.documents.get(arn));
        declared.ok_or_else(|| ReconcileError::PolicyNotObserved(effect.verb(), arn.to_owned()))
    }

    fn policy(&mut self, arn: &str) -> Option<&mut CurrentPolicy> {
        self.observed.current.policies.found.get_mut(arn)
    }

    fn policy_record(&mut self, arn: &str) -> &mut RecordedPolicy {
        self.observed.current.hints.policies.entry(arn.to_owned()).or_default()
    }

    /// May leave a policy with the ownership tags: the next reconcile finds it by its name.
    pub(super) async fn create_policy(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        let (document, digest, name) = {
            let declared = self.declared_document(effect, arn)?;
            (declared.document.clone(), declared.digest, declared.name.clone())
        };
        let recorded = self.user.status.iter().flat_map(|status| &status.policies);
        if !recorded.into_iter().any(|policy| policy.arn.as_deref() == Some(arn)) {
            return Err(ReconcileError::PolicyNotObserved(effect.verb(), arn.to_owned()));
        }
        let path = managed_policy::path_of(arn).unwrap_or_default();
        let policy_name = managed_policy::name(&self.target.user_name, &name);
        let created = self.iam.create_policy(&policy_name, path, &document, &self.target.owner.tags()).await;
        let mut policy = match created {
            Ok(created) => current_policy(created, PolicyOwner::Ours),
            Err(error) if error.kind == AwsErrorKind::EntityAlreadyExists => {
                return self.find_policy(effect, arn, error).await;
            }
            Err(error) => return Err(ReconcileError::of_effect(error, effect.clone())),
        };
        policy.documents.insert(policy.default_version.clone(), digest);
        let version = policy.default_version.clone();
        *self.policy_record(arn) = RecordedPolicy { id: Some(policy.id.clone()), ..RecordedPolicy::default() };
        self.policy_record(arn).add_default(&version);
        self.observed.current.policies.found.insert(arn.to_owned(), policy);
        self.changed_policy(format!("created managed policy {arn}"));
        Ok(())
    }

    /// IAM has a policy of this name that its list did not show: the response to its creation was lost, or it has another owner.
    async fn find_policy(&mut self, effect: &Effect, arn: &str, taken: AwsError) -> Result<(), ReconcileError> {
        // At another path, or in another case, or not visible yet.
        let Some((found, tags)) = self.iam.get_policy(arn).await? else {
            return Err(ReconcileError::of_effect(taken, effect.clone()));
        };
        let mut policy = current_policy(found, PolicyOwner::classify(&self.target.owner, &tags));
        if policy.is_ours()
            && let Some(document) = self.iam.get_policy_version(arn, &policy.default_version).await?
        {
            policy.documents.insert(policy.default_version.clone(), DocumentDigest::of(&document));
        }
        let declared = self.declared_document(effect, arn)?.digest;
        if policy.is_ours() {
            self.policy_record(arn).observe(&policy, Some(declared));
        }
        self.observed.current.policies.found.insert(arn.to_owned(), policy);
        Ok(())
    }

    /// May leave a version with the declared document as the default: the next reconcile knows it by its document.
    pub(super) async fn create_policy_version(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        let (document, digest) = {
            let declared = self.declared_document(effect, arn)?;
            (declared.document.clone(), declared.digest)
        };
        let version = match self.iam.create_policy_version(&target, &document).await {
            Ok(version) => version,
            // People made versions, or responses were lost: read them, and continue with that.
            Err(error) if error.kind == AwsErrorKind::LimitExceeded && self.lacks_versions(arn) => {
                return self.read_policy_versions(effect, arn).await;
            }
            Err(error) => return Err(ReconcileError::of_effect(error, effect.clone())),
        };
        if let Some(policy) = self.policy(arn) {
            policy.add_default(&version, digest);
        }
        self.policy_record(arn).add_default(&version);
        self.changed_policy(format!("made version {version} of managed policy {arn}"));
        Ok(())
    }

    fn lacks_versions(&self, arn: &str) -> bool {
        self.observed.current.policies.found.get(arn).is_some_and(|policy| policy.versions.is_none())
    }

    pub(super) async fn set_default_policy_version(
        &mut self,
        effect: &Effect,
        arn: &str,
        version: &str,
    ) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        let is_set = self.iam.set_default_policy_version(&target, version).await;
        if !is_set.map_err(|error| ReconcileError::of_effect(error, effect.clone()))? {
            // Deleted by hand: it cannot become the default any more.
            self.forget_version(arn, version);
            return Ok(());
        }
        if let Some(policy) = self.policy(arn) {
            version.clone_into(&mut policy.default_version);
        }
        self.policy_record(arn).add_default(version);
        self.changed_policy(format!("made version {version} of managed policy {arn} the default again"));
        Ok(())
    }

    pub(super) async fn delete_policy_version(
        &mut self,
        effect: &Effect,
        arn: &str,
        version: &str,
    ) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        let deleted = self.iam.delete_policy_version(&target, version).await;
        deleted.map_err(|error| ReconcileError::of_effect(error, effect.clone()))?;
        tracing::info!(arn, version, "deleted version of managed policy");
        self.forget_version(arn, version);
        Ok(())
    }

    fn forget_version(&mut self, arn: &str, version: &str) {
        if let Some(policy) = self.policy(arn) {
            policy.remove_version(version);
        }
        self.policy_record(arn).remove_version(version);
    }

    pub(super) async fn delete_policy(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        match self.iam.delete_policy(&target).await {
            Ok(true) => {
                self.observed.current.policies.found.remove(arn);
                self.observed.current.hints.policies.remove(arn);
                self.changed_policy(format!("deleted managed policy {arn}"));
                Ok(())
            }
            Ok(false) => {
                self.miss_policy(arn);
                Ok(())
            }
            // It has more versions than are recorded, or others have it: read both, and continue with that.
            Err(error) if error.kind == AwsErrorKind::DeleteConflict && self.lacks_versions(arn) => {
                self.read_policy_versions(effect, arn).await?;
                self.read_policy_holders(effect, arn).await
            }
            Err(error) => Err(ReconcileError::of_effect(error, effect.clone())),
        }
    }

    /// IAM has no such policy, and listed it a moment ago: one of the two answers is stale. The record is kept until IAM shows which.
    fn miss_policy(&mut self, arn: &str) {
        self.observed.current.policies.found.remove(arn);
        let now = self.context.accounts.clock().now();
        self.observed.current.policies_missing_since.get_or_insert(now);
    }

    /// Takes over a policy of the resource from before it was restored from a backup.
    pub(super) async fn tag_policy(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        let tags = BTreeMap::from([(well_known::TAG_UID.to_owned(), self.target.owner.uid.clone())]);
        let tagged = self.iam.tag_policy(&target, &tags).await;
        tagged.map_err(|error| ReconcileError::of_effect(error, effect.clone()))?;
        if let Some(policy) = self.policy(arn) {
            policy.owner = PolicyOwner::Ours;
        }
        self.changed_policy(format!("tagged managed policy {arn}"));
        Ok(())
    }

    pub(super) async fn untag_policy(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        let target = self.owned_policy(effect, arn)?;
        let keys = self.target.owner.tags().into_keys().collect();
        let untagged = self.iam.untag_policy(&target, &keys).await;
        if !untagged.map_err(|error| ReconcileError::of_effect(error, effect.clone()))? {
            self.miss_policy(arn);
            return Ok(());
        }
        tracing::info!(arn, "retained managed policy without ownership tags");
        if let Some(policy) = self.policy(arn) {
            policy.owner = PolicyOwner::Other("it was retained".to_owned());
        }
        Ok(())
    }

    pub(super) async fn read_policy_versions(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        self.owned_policy(effect, arn)?;
        let versions = self.iam.list_policy_versions(arn).await?;
        // What is gone was deleted by hand.
        self.policy_record(arn).versions.retain(|version| versions.contains(version));
        let own = self.policy_record(arn).versions.clone();
        for version in own {
            let is_known = self.policy(arn).is_none_or(|policy| policy.documents.contains_key(&version));
            if !is_known && let Some(document) = self.iam.get_policy_version(arn, &version).await? {
                let digest = DocumentDigest::of(&document);
                if let Some(policy) = self.policy(arn) {
                    policy.documents.insert(version, digest);
                }
            }
        }
        if let Some(policy) = self.policy(arn) {
            policy.versions = Some(versions);
        }
        Ok(())
    }

    pub(super) async fn read_policy_holders(&mut self, effect: &Effect, arn: &str) -> Result<(), ReconcileError> {
        self.owned_policy(effect, arn)?;
        let own = format!("user {}", self.target.user_name);
        let mut holders = self.iam.list_policy_holders(arn).await?;
        // Detached or deleted a moment ago.
        holders.retain(|holder| !holder.eq_ignore_ascii_case(&own));
        if let Some(policy) = self.policy(arn) {
            policy.holders = Some(holders);
        }
        Ok(())
    }

    /// The user was attached to or detached from a policy of a document.
    pub(super) fn count_attachment(&mut self, arn: &str, change: i32) {
        if let Some(policy) = self.policy(arn) {
            policy.attachments = policy.attachments.saturating_add(change).max(0);
        }
    }

    fn changed_policy(&mut self, summary: String) {
        tracing::info!(user = self.target.user_name, change = summary, "changed managed policy");
        if self.desired.is_some() {
            self.record_event(Reason::UserChanged, summary);
        }
    }
}
