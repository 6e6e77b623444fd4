//! Kubernetes: Secrets, the status and the finalizer of the resource.

use super::*;

impl Cloud {
    pub(in super::super) fn create_secret(
        &mut self,
        name: &str,
        content: &SecretContent,
    ) -> Result<StoredSecret, CallError> {
        self.write(|cloud| {
            if cloud.secrets.contains_key(name) {
                return Err(CallError::AlreadyExists);
            }
            let version = cloud.next();
            let stored = StoredSecret {
                name: name.into(),
                uid: format!("uid{version}"),
                version,
                owner: Some(OWNER.into()),
                content: content.clone(),
                immutable: false,
            };
            cloud.put(stored.clone());
            Ok(stored)
        })
    }

    pub(in super::super) fn replace_secret(
        &mut self,
        stored: &StoredSecret,
        owner: Option<&str>,
        content: &SecretContent,
    ) -> Result<StoredSecret, CallError> {
        self.write(|cloud| {
            let found = cloud.secrets.get(&stored.name).ok_or(CallError::NotFound)?.clone();
            if (&found.uid, found.version) != (&stored.uid, stored.version) {
                return Err(CallError::Conflict);
            }
            if found.owner.as_deref() != Some(OWNER) {
                cloud.report_violation(format!("S4: Secret {} of another owner is written", stored.name));
            }
            if keeps_less(&found.content, content) {
                cloud.report_violation(format!("S4: an entry of others in Secret {} is removed", stored.name));
            }
            if found.immutable && found.content.data != content.data {
                return Err(CallError::Invalid);
            }
            let version = cloud.next();
            let owner = owner.map(str::to_owned);
            let written = StoredSecret { version, owner, content: content.clone(), ..found };
            cloud.put(written.clone());
            Ok(written)
        })
    }

    pub(in super::super) fn delete_secret(&mut self, stored: &StoredSecret) -> Result<(), CallError> {
        self.write(|cloud| {
            let Some(found) = cloud.secrets.get(&stored.name) else { return Ok(()) };
            if (&found.uid, found.version) != (&stored.uid, stored.version) {
                return Err(CallError::Conflict);
            }
            if found.owner.as_deref() != Some(OWNER) {
                cloud.report_violation(format!("S4: Secret {} of another owner is deleted", stored.name));
            }
            cloud.secrets.remove(&stored.name);
            Ok(())
        })
    }

    pub(in super::super) fn record_user(
        &mut self,
        tag_keys: &BTreeSet<String>,
        policies: &PolicyRecords,
    ) -> Result<(), CallError> {
        self.write(|cloud| {
            let tag_keys = tag_keys.iter().cloned().collect();
            let account = "123456789012".into();
            let user = UserStatus { name: USER.into(), account, tag_keys, ..UserStatus::default() };
            let status = cloud.resource.status.get_or_insert_default();
            status.user = Some(user);
            status.policies = managed_policy::status([], policies);
            Ok(())
        })
    }

    pub(in super::super) fn set_finalizer(&mut self, present: bool) -> Result<(), CallError> {
        self.write(|cloud| {
            if !present && cloud.is_our_user() {
                cloud.report_violation("S8: the finalizer is removed while the user exists and is ours");
            }
            let deletes = cloud.resource.spec.deletion_policy != DeletionPolicy::Retain;
            if !present && deletes && cloud.policies.values().any(CloudPolicy::is_ours) {
                cloud.report_violation("S8: the finalizer is removed while a policy exists and is ours");
            }
            // No garbage collector deletes it.
            if !present && cloud.secrets.contains_key(&cloud.target().journal_name) {
                cloud.report_violation("S8: the finalizer is removed while a journal exists");
            }
            let finalizers = present.then(|| vec![crate::api::well_known::FINALIZER.to_owned()]);
            cloud.resource.metadata.finalizers = finalizers;
            Ok(())
        })
    }

    fn put(&mut self, stored: StoredSecret) {
        self.audit_secret(&stored);
        self.secrets.insert(stored.name.clone(), stored);
    }
}

/// Whether the entries of others are in the first content and not in the second.
fn keeps_less(before: &SecretContent, after: &SecretContent) -> bool {
    before.labels.contains_key(FOREIGN_ENTRY) && !after.labels.contains_key(FOREIGN_ENTRY)
        || before.annotations.contains_key(FOREIGN_ENTRY) && !after.annotations.contains_key(FOREIGN_ENTRY)
        || before.data.contains_key(FOREIGN_ENTRY) && !after.data.contains_key(FOREIGN_ENTRY)
}
