//! Managed policies of documents.

use serde_json::Value;

use super::*;
use crate::domain::managed_policy::{CurrentPolicy, DocumentDigest, MAX_VERSIONS, PolicyOwner};

/// Name of the document of the resource.
pub(in super::super) const DOCUMENT: &str = "own";

#[derive(Clone)]
pub(in super::super) struct CloudPolicy {
    pub(in super::super) id: String,
    tags: BTreeMap<String, String>,
    /// Documents by number of the version, and whether the operator made it.
    pub(in super::super) versions: BTreeMap<u64, (Value, bool)>,
    pub(in super::super) default: u64,
    next: u64,
    /// A person attached it to a role.
    pub(in super::super) is_held: bool,
    pub(super) made_at: Timestamp,
}

impl CloudPolicy {
    fn new(id: String, tags: BTreeMap<String, String>, document: &Value, made_at: Timestamp) -> Self {
        let versions = BTreeMap::from([(1, (document.clone(), true))]);
        Self { id, tags, versions, default: 1, next: 2, is_held: false, made_at }
    }

    pub(in super::super) fn is_ours(&self) -> bool {
        self.tags.get(crate::api::well_known::TAG_UID).is_some_and(|uid| uid == OWNER)
    }

    fn document(&self) -> Option<&Value> {
        self.versions.get(&self.default).map(|(document, _)| document)
    }

    /// Adds a version and makes it the default.
    pub(in super::super) fn add(&mut self, document: &Value, ours: bool) -> u64 {
        let number = self.next;
        self.versions.insert(number, (document.clone(), ours));
        (self.default, self.next) = (number, number + 1);
        number
    }
}

fn version(number: u64) -> String {
    format!("v{number}")
}

impl Cloud {
    /// The ARN of the policy for the document of the resource.
    pub(in super::super) fn policy_arn(&self) -> String {
        let target = self.target();
        let path = managed_policy::path("/awsdeploy/", &target.user_name);
        managed_policy::arn("aws", "123456789012", &path, &target.user_name, DOCUMENT)
    }

    /// Whether the user has the document in one form or the other.
    pub(super) fn has_document(&self) -> bool {
        let Some(user) = &self.user else { return false };
        let arn = self.policy_arn();
        let attached = user.grants.attached.contains(&arn) && self.policies.contains_key(&arn);
        attached || user.grants.inline.contains_key(DOCUMENT)
    }

    /// No write of the operator takes a right away that is declared.
    pub(super) fn audit_document(&mut self, had: bool) {
        let is_declared = !self.resource.spec.policies.documents.is_empty();
        let is_live = self.resource.metadata.deletion_timestamp.is_none();
        if had && is_declared && is_live && self.user.is_some() && !self.has_document() {
            self.report_violation("document: a declared right is missing for a moment");
        }
    }

    /// The policies at the path of the user that IAM shows, with their tags: new ones are missing, and deleted ones are there.
    pub(in super::super) fn list_policies(&self) -> Vec<(CurrentPolicy, BTreeMap<String, String>)> {
        let deleted = self
            .deleted_policies
            .iter()
            .filter(|(arn, (at, _))| !self.policies.contains_key(*arn) && self.now < *at + self.lag);
        let deleted = deleted.map(|(arn, (_, policy))| (arn, policy));
        let shown = self.policies.iter().filter(|(arn, _)| self.shows_policy(arn)).chain(deleted);
        shown.map(|(arn, policy)| (self.shown_policy(arn, policy), policy.tags.clone())).collect()
    }

    fn shows_policy(&self, arn: &str) -> bool {
        self.policies.get(arn).is_some_and(|policy| self.now >= policy.made_at + self.lag)
    }

    fn shown_policy(&self, arn: &str, policy: &CloudPolicy) -> CurrentPolicy {
        let is_attached = self.user.as_ref().is_some_and(|user| user.grants.attached.contains(arn));
        CurrentPolicy {
            arn: arn.to_owned(),
            id: policy.id.clone(),
            owner: PolicyOwner::Other(String::new()),
            default_version: version(policy.default),
            documents: BTreeMap::new(),
            content: None,
            attachments: i32::from(is_attached) + i32::from(policy.is_held),
            versions: None,
            holders: None,
        }
    }

    pub(in super::super) fn read_version(&self, arn: &str, version: &str) -> Option<DocumentDigest> {
        let number = managed_policy::version_number(version);
        let policy = self.policies.get(arn).filter(|_| self.shows_policy(arn))?;
        policy.versions.get(&number).map(|(document, _)| DocumentDigest::of(document))
    }

    /// Attaches a policy of AWS, or one that IAM shows.
    pub(in super::super) fn attach_policy(&mut self, arn: &str) -> Result<(), CallError> {
        if managed_policy::is_of_a_document(arn) && !self.shows_policy(arn) {
            return self.write(|_| Err(CallError::NoSuchEntity));
        }
        self.change_user(|user| _ = user.grants.attached.insert(arn.to_owned()))
    }

    pub(in super::super) fn create_policy(
        &mut self,
        arn: &str,
        document: &Value,
        tags: BTreeMap<String, String>,
    ) -> Result<CurrentPolicy, CallError> {
        self.write(|cloud| {
            let recorded = cloud.resource.status.iter().flat_map(|status| &status.policies);
            if !recorded.into_iter().any(|policy| policy.arn.as_deref() == Some(arn)) {
                cloud.report_violation("S4: a policy is created that the status does not record");
            }
            if cloud.policies.contains_key(arn) {
                return Err(CallError::AlreadyExists);
            }
            let id = format!("ANPA{}", cloud.next());
            let policy = CloudPolicy::new(id, tags, document, cloud.now);
            let shown = cloud.shown_policy(arn, &policy);
            cloud.policies.insert(arn.to_owned(), policy);
            Ok(shown)
        })
    }

    /// A write on a policy. S4: never on one that is not ours.
    pub(in super::super) fn change_policy<T>(
        &mut self,
        arn: &str,
        change: impl FnOnce(&mut Self, &mut CloudPolicy) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.write(|cloud| {
            let shown = cloud.policies.get(arn).filter(|_| cloud.shows_policy(arn));
            let mut policy = shown.cloned().ok_or(CallError::NoSuchEntity)?;
            if !policy.is_ours() && cloud.resource.metadata.deletion_timestamp.is_none() {
                cloud.report_violation("S4: a policy of another owner is written");
            }
            let changed = change(cloud, &mut policy)?;
            cloud.policies.insert(arn.to_owned(), policy);
            Ok(changed)
        })
    }

    pub(in super::super) fn create_policy_version(&mut self, arn: &str, document: &Value) -> Result<String, CallError> {
        self.change_policy(arn, |cloud, policy| {
            if policy.versions.len() >= MAX_VERSIONS {
                return Err(CallError::Limit);
            }
            if policy.document() == Some(document) {
                cloud.report_violation("document: a second version has the same document");
            }
            Ok(version(policy.add(document, true)))
        })
    }

    pub(in super::super) fn set_default_version(&mut self, arn: &str, version: &str) -> Result<bool, CallError> {
        let number = managed_policy::version_number(version);
        self.change_policy(arn, |_, policy| {
            let exists = policy.versions.contains_key(&number);
            policy.default = if exists { number } else { policy.default };
            Ok(exists)
        })
    }

    pub(in super::super) fn delete_version(&mut self, arn: &str, version: &str) -> Result<(), CallError> {
        let number = managed_policy::version_number(version);
        self.change_policy(arn, |cloud, policy| {
            if policy.default == number {
                return Err(CallError::DeleteConflict);
            }
            let is_declared =
                cloud.resource.metadata.deletion_timestamp.is_none() && cloud.desired().documents.contains_key(arn);
            if is_declared && policy.versions.get(&number).is_some_and(|(_, ours)| !ours) {
                cloud.report_violation("document: a version that a person made is deleted");
            }
            policy.versions.remove(&number);
            Ok(())
        })
    }

    pub(in super::super) fn delete_policy(&mut self, arn: &str) -> Result<(), CallError> {
        self.write(|cloud| {
            let attached = cloud.user.as_ref().is_some_and(|user| user.grants.attached.contains(arn));
            let policy = cloud.policies.get(arn).ok_or(CallError::NoSuchEntity)?;
            let (ours, is_blocked) = (policy.is_ours(), attached || policy.is_held || policy.versions.len() > 1);
            if !ours {
                cloud.report_violation("S4: a policy of another owner is deleted");
            }
            if is_blocked {
                return Err(CallError::DeleteConflict);
            }
            let now = cloud.now;
            cloud.deleted_policies.extend(cloud.policies.remove_entry(arn).map(|(arn, policy)| (arn, (now, policy))));
            Ok(())
        })
    }

    pub(in super::super) fn untag_policy(&mut self, arn: &str) -> Result<(), CallError> {
        self.change_policy(arn, |_, policy| {
            policy.tags.clear();
            Ok(())
        })
    }

    pub(in super::super) fn policy_holders(&self, arn: &str) -> Vec<String> {
        let is_held = self.policies.get(arn).is_some_and(|policy| policy.is_held);
        is_held.then(|| "role ops".to_owned()).into_iter().collect()
    }
}
