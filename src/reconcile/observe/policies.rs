//! Managed policies of documents: listed by their path, only for resources that have or declare some.

use std::collections::{BTreeMap, BTreeSet};

use super::iam::IamReader;
use crate::{
    aws::{self, ListedPolicy},
    domain::{
        account,
        current_state::{CurrentUser, IamUser},
        managed_policy::{self, CurrentPolicies, CurrentPolicy, DocumentDigest, PolicyOwner, PolicyRecords},
    },
    reconcile::{ReconcileError, has_finalizer},
};

impl IamReader<'_> {
    /// The policies that the status records.
    pub(super) fn policy_records(&self) -> PolicyRecords {
        self.user.status.as_ref().map(|status| managed_policy::records(&status.policies)).unwrap_or_default()
    }

    /// The paths of the policies, if the resource has or declares some: one, unless its class has changed. `found` is the user, if
    /// it is the resource's.
    fn policy_paths(&self, found: Option<&IamUser>) -> BTreeSet<String> {
        let records = self.policy_records();
        // A user with other policies of documents got them from outside: they are not the resource's.
        let own = |user: &IamUser| user.path().map(|path| managed_policy::path(path, &user.name));
        let is_attached = |path: &String| {
            let attached = found.iter().filter_map(|user| user.grants.as_ref()).flat_map(|grants| &grants.attached);
            attached.into_iter().any(|arn| managed_policy::path_of(arn) == Some(path.as_str()))
        };
        let mut paths: BTreeSet<String> =
            records.keys().filter_map(|arn| managed_policy::path_of(arn)).map(str::to_owned).collect();
        let own_path = self.desired.map(|desired| desired.policy_path.clone()).or_else(|| found.and_then(own));
        let declares = self.desired.is_some_and(|desired| !desired.documents.is_empty()) && found.is_some();
        // Restored from a backup without its status, or it was edited: inline policies are in it too.
        let is_unreported = !self.user.spec.policies.documents.is_empty()
            && self.user.status.as_ref().is_none_or(|status| status.policies.is_empty());
        let is_lost = has_finalizer(self.user)
            && (account::recorded_user(self.user).is_none() || self.desired.is_none() && is_unreported);
        paths.extend(own_path.filter(|path| declares || is_attached(path) || is_lost));
        paths
    }

    fn own_user<'a>(&self, iam: &'a CurrentUser) -> Option<&'a IamUser> {
        match iam {
            CurrentUser::Found(found) => Some(found).filter(|found| self.target.owner.owns(&found.tags)),
            CurrentUser::Absent => None,
        }
    }

    /// Whether the resource has, declares or may have policies, so that they have to be read.
    pub(super) fn has_policies(&self, iam: &CurrentUser) -> bool {
        !self.policy_paths(self.own_user(iam)).is_empty()
    }

    /// Whether the resource is about to lose its access keys whatever policies it has.
    pub(super) fn ends_keys(&self) -> bool {
        self.user.metadata.deletion_timestamp.is_some()
            || self.desired.is_some_and(|desired| desired.credentials_revoked)
    }

    /// Reads the policies with what is needed of their documents. `known` saves a call for each document that was read before.
    pub(super) async fn read_policies(
        &self,
        iam: &CurrentUser,
        known: &BTreeMap<(String, String), DocumentDigest>,
    ) -> Result<CurrentPolicies, ReconcileError> {
        let found = self.own_user(iam);
        let records = self.policy_records();
        let mut policies = CurrentPolicies::default();
        for path in self.policy_paths(found) {
            self.read_policies_at(&path, &records, known, &mut policies).await?;
        }
        if self.user.metadata.deletion_timestamp.is_none() {
            let attached = found.and_then(|user| user.grants.as_ref()).map(|grants| &grants.attached);
            let is_unlisted = |arn: &&String| records.contains_key(*arn) && !policies.found.contains_key(*arn);
            let unlisted: Vec<&String> = attached.into_iter().flatten().filter(is_unlisted).collect();
            for arn in unlisted {
                // It exists, because it is attached: the list is older.
                let (listed, tags) =
                    self.iam.get_policy(arn).await?.ok_or_else(|| ReconcileError::OutdatedPolicy(arn.clone()))?;
                let owner = if managed_policy::is_recorded(&records, &listed.arn, &listed.id) {
                    PolicyOwner::Ours
                } else {
                    PolicyOwner::classify(&self.target.owner, &tags)
                };
                self.add_policy(current_policy(listed, owner), known, &mut policies).await?;
            }
        }
        Ok(policies)
    }

    async fn read_policies_at(
        &self,
        path: &str,
        records: &PolicyRecords,
        known: &BTreeMap<(String, String), DocumentDigest>,
        policies: &mut CurrentPolicies,
    ) -> Result<(), ReconcileError> {
        for listed in self.iam.list_policies(path).await? {
            // A path includes all below it.
            let is_own = managed_policy::path_of(&listed.arn) == Some(path);
            if !is_own || !managed_policy::is_of_a_document(&listed.arn) {
                continue;
            }
            let owner = if managed_policy::is_recorded(records, &listed.arn, &listed.id) {
                PolicyOwner::Ours
            } else {
                // Lists have no tags.
                match self.iam.get_policy(&listed.arn).await? {
                    Some((_, tags)) => PolicyOwner::classify(&self.target.owner, &tags),
                    None => continue,
                }
            };
            self.add_policy(current_policy(listed, owner), known, policies).await?;
        }
        Ok(())
    }

    /// Adds a policy with what is needed of its documents.
    async fn add_policy(
        &self,
        mut policy: CurrentPolicy,
        known: &BTreeMap<(String, String), DocumentDigest>,
        policies: &mut CurrentPolicies,
    ) -> Result<(), ReconcileError> {
        let of_policy = known.iter().filter(|((id, _), _)| *id == policy.id);
        policy.documents = of_policy.map(|((_, version), digest)| (version.clone(), *digest)).collect();
        self.read_document(&mut policy).await?;
        policies.found.insert(policy.arn.clone(), policy);
        Ok(())
    }

    /// Reads the document that applies, where it decides something and is not known.
    async fn read_document(&self, policy: &mut CurrentPolicy) -> Result<(), ReconcileError> {
        let declared = self.desired.map(|desired| desired.documents.contains_key(&policy.arn));
        let is_deleted = self.user.metadata.deletion_timestamp.is_some();
        let is_needed = match declared {
            Some(declared) => declared && policy.digest().is_none(),
            None => !is_deleted,
        };
        if !is_needed || !policy.is_ours() {
            return Ok(());
        }
        // `None`: the version was deleted since the list was read.
        let Some(document) = self.iam.get_policy_version(&policy.arn, &policy.default_version).await? else {
            // Whether the user may keep it depends on the document.
            return declared.map(|_| ()).ok_or_else(|| ReconcileError::OutdatedPolicy(policy.arn.clone()));
        };
        policy.documents.insert(policy.default_version.clone(), DocumentDigest::of(&document));
        policy.content = Some(document).filter(|_| declared.is_none());
        Ok(())
    }

    /// The policies as the listing of the account has them. `None` if it does not say all that is needed.
    pub(super) fn listed_policies(&self, details: &aws::AccountDetails, found: &IamUser) -> Option<CurrentPolicies> {
        let records = self.policy_records();
        let mut policies = CurrentPolicies::default();
        for path in self.policy_paths(Some(found)) {
            for policy in details.policies_at(&path)? {
                // The listing has no tags: a policy is known by its recorded id only.
                managed_policy::is_recorded(&records, &policy.arn, &policy.id).then_some(())?;
                policies.found.insert(policy.arn.clone(), CurrentPolicy { owner: PolicyOwner::Ours, ..policy.clone() });
            }
        }
        Some(policies)
    }
}

/// A policy without its documents.
pub(in crate::reconcile) fn current_policy(policy: ListedPolicy, owner: PolicyOwner) -> CurrentPolicy {
    let ListedPolicy { arn, id, default_version, attachments } = policy;
    CurrentPolicy {
        arn,
        id,
        owner,
        default_version,
        documents: BTreeMap::new(),
        content: None,
        attachments,
        versions: None,
        holders: None,
    }
}
