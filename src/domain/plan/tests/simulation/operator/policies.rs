//! Managed policies of documents, as `reconcile/observe/policies.rs` and `reconcile/act/policies.rs` handle them.

use super::*;
use crate::domain::managed_policy::{self, CurrentPolicies, CurrentPolicy, PolicyOwner, PolicyRecords, RecordedPolicy};

/// The records of the status.
pub(super) fn records(cloud: &Cloud) -> PolicyRecords {
    cloud.resource.status.as_ref().map(|status| managed_policy::records(&status.policies)).unwrap_or_default()
}

/// Lists the policies if the resource has, declares or may have some.
pub(super) fn read_policies(cloud: &Cloud, desired: Option<&Desired>, iam: &CurrentUser) -> CurrentPolicies {
    let (records, mut policies) = (records(cloud), CurrentPolicies::default());
    let owner = cloud.target().owner;
    let found = matches!(iam, CurrentUser::Found(found) if owner.owns(&found.tags));
    let declares = desired.is_some_and(|desired| !desired.documents.is_empty()) && found;
    let attached = matches!(iam, CurrentUser::Found(found) if
        found.grants.iter().flat_map(|grants| &grants.attached).any(|arn| *arn == cloud.policy_arn()));
    let is_lost = account::recorded_user(&cloud.resource).is_none() && cloud.resource.metadata.finalizers.is_some();
    if !declares && !attached && !is_lost && records.is_empty() {
        return policies;
    }
    for (mut policy, tags) in cloud.list_policies() {
        let recorded = managed_policy::is_recorded(&records, &policy.arn, &policy.id);
        policy.owner = if recorded { PolicyOwner::Ours } else { PolicyOwner::classify(&owner, &tags) };
        let default = policy.default_version.clone();
        policy.documents.extend(cloud.read_version(&policy.arn, &default).map(|digest| (default, digest)));
        policies.found.insert(policy.arn.clone(), policy);
    }
    policies
}

/// Completes the records by what was observed, as the status does.
pub(super) fn report_policies(cloud: &mut Cloud, desired: Option<&Desired>, current: &CurrentState) {
    let mut records = current.hints.policies.clone();
    for policy in current.policies.ours() {
        let declared = desired.and_then(|desired| desired.documents.get(&policy.arn)).map(|document| document.digest);
        records.entry(policy.arn.clone()).or_default().observe(policy, declared);
    }
    if cloud.resource.status.is_some() || !records.is_empty() {
        cloud.resource.status.get_or_insert_default().policies = managed_policy::status([], &records);
    }
}

impl Reconciliation<'_> {
    fn policy(&mut self, arn: &str) -> &mut CurrentPolicy {
        self.seen.current.policies.found.get_mut(arn).expect("an observed policy")
    }

    fn record(&mut self, arn: &str) -> &mut RecordedPolicy {
        self.seen.current.hints.policies.entry(arn.to_owned()).or_default()
    }

    fn forget_version(&mut self, arn: &str, version: &str) {
        self.policy(arn).remove_version(version);
        self.record(arn).remove_version(version);
    }

    fn read_versions(&mut self, arn: &str) {
        let numbers = self.cloud.policies.get(arn).into_iter().flat_map(|policy| policy.versions.keys());
        let versions: Vec<String> = numbers.map(|number| format!("v{number}")).collect();
        self.record(arn).versions.retain(|version| versions.contains(version));
        for version in self.record(arn).versions.clone() {
            let digest = self.cloud.read_version(arn, &version);
            self.policy(arn).documents.extend(digest.map(|digest| (version, digest)));
        }
        self.policy(arn).versions = Some(versions);
    }

    /// `None` if there is no such policy.
    fn exists<T>(&mut self, call: impl FnOnce(&mut Cloud) -> Result<T, CallError>) -> Result<Option<T>, CallError> {
        match call(self.cloud) {
            Ok(found) => Ok(Some(found)),
            Err(CallError::NoSuchEntity) => Ok(None),
            Err(fail) => Err(fail),
        }
    }

    /// A list showed it: the record is kept until the lists agree.
    fn miss_policy(&mut self, arn: &str) {
        self.seen.current.policies.found.remove(arn);
        self.seen.current.policies_missing_since.get_or_insert(self.cloud.now);
    }

    pub(super) fn perform_on_policy(&mut self, effect: &Effect) -> Result<(), CallError> {
        let declared = |arn: &String| self.desired.as_ref().map(|desired| desired.documents[arn].clone());
        match effect {
            Effect::CreatePolicy(arn) => {
                let Some(declared) = declared(arn) else { panic!("{effect} declares nothing") };
                let policy = match self.cloud.create_policy(arn, &declared.document, self.target.owner.tags()) {
                    Ok(mut policy) => {
                        policy.owner = PolicyOwner::Ours;
                        policy.documents.insert(policy.default_version.clone(), declared.digest);
                        *self.record(arn) = RecordedPolicy { id: Some(policy.id.clone()), ..RecordedPolicy::default() };
                        self.record(arn).add_default(&policy.default_version);
                        policy
                    }
                    // Its response was lost.
                    Err(CallError::AlreadyExists) => {
                        let shown = read_policies(self.cloud, self.desired.as_ref(), &self.seen.current.iam);
                        shown.found.get(arn).cloned().ok_or(CallError::AlreadyExists)?
                    }
                    Err(fail) => return Err(fail),
                };
                self.seen.current.policies.found.insert(arn.clone(), policy);
            }
            Effect::CreatePolicyVersion(arn) => {
                let Some(declared) = declared(arn) else { panic!("{effect} declares nothing") };
                match self.cloud.create_policy_version(arn, &declared.document) {
                    Ok(version) => {
                        self.policy(arn).add_default(&version, declared.digest);
                        self.record(arn).add_default(&version);
                    }
                    Err(CallError::Limit) if self.policy(arn).versions.is_none() => self.read_versions(arn),
                    Err(fail) => return Err(fail),
                }
            }
            Effect::SetDefaultPolicyVersion(arn, version) => {
                if self.exists(|cloud| cloud.set_default_version(arn, version))?.unwrap_or_default() {
                    self.policy(arn).default_version.clone_from(version);
                    self.record(arn).add_default(version);
                } else {
                    self.forget_version(arn, version);
                }
            }
            Effect::DeletePolicyVersion(arn, version) => {
                self.exists(|cloud| cloud.delete_version(arn, version))?;
                self.forget_version(arn, version);
            }
            Effect::DeletePolicy(arn) => match self.cloud.delete_policy(arn) {
                Ok(()) => {
                    self.seen.current.policies.found.remove(arn);
                    self.seen.current.hints.policies.remove(arn);
                }
                Err(CallError::NoSuchEntity) => self.miss_policy(arn),
                Err(CallError::DeleteConflict) if self.policy(arn).versions.is_none() => {
                    self.read_versions(arn);
                    self.policy(arn).holders = Some(self.cloud.policy_holders(arn));
                }
                Err(fail) => return Err(fail),
            },
            Effect::UntagPolicy(arn) => {
                if self.exists(|cloud| cloud.untag_policy(arn))?.is_some() {
                    self.policy(arn).owner = PolicyOwner::Other("retained".to_owned());
                } else {
                    self.miss_policy(arn);
                }
            }
            Effect::ReadPolicyVersions(arn) => self.read_versions(arn),
            Effect::ReadPolicyHolders(arn) => self.policy(arn).holders = Some(self.cloud.policy_holders(arn)),
            Effect::ForgetPolicy(arn) => _ = self.seen.current.hints.policies.remove(arn),
            other => panic!("{other} is about no policy"),
        }
        Ok(())
    }
}
