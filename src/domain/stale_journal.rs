//! Which journals are left over: a resource that is removed by force, without its finalizer, leaves its journal.

use jiff::{SignedDuration, Timestamp};

/// A journal that began less than this ago is kept: a reconcile of its resource may still be under way.
pub const MIN_STALE_AGE: SignedDuration = SignedDuration::from_hours(1);

/// A journal Secret by its metadata. Texts are empty where it has no such annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    pub name: String,
    /// UID of the Secret.
    pub uid: String,
    pub resource_version: String,
    /// When the attempt began, else when the Secret was created.
    pub started_at: Option<Timestamp>,
    pub resource_namespace: String,
    pub resource_name: String,
    pub resource_uid: String,
    /// Id of the AWS account.
    pub account: String,
    /// Name of the IAM user.
    pub user_name: String,
}

impl JournalRecord {
    /// Whether the journal may be left over, so that its resource is looked up: it is old, names a resource in one of the
    /// `watched` namespaces (all if empty), and no `known` resource has the UID.
    #[must_use]
    pub fn is_suspect(&self, is_known: bool, watched: &[String], now: Timestamp) -> bool {
        let names_resource =
            !(self.resource_namespace.is_empty() || self.resource_name.is_empty() || self.resource_uid.is_empty());
        let is_watched = watched.is_empty() || watched.contains(&self.resource_namespace);
        let is_old = self.started_at.is_some_and(|started_at| now.duration_since(started_at) >= MIN_STALE_AGE);
        names_resource && is_watched && is_old && !is_known
    }

    /// Whether the journal is left over. `found`: UID of the resource with that namespace and name, read from the API server.
    #[must_use]
    pub fn is_stale(&self, found: Option<&str>) -> bool {
        found != Some(self.resource_uid.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> JournalRecord {
        JournalRecord {
            name: "awsdeploy-journal-u1".into(),
            uid: "s1".into(),
            resource_version: "7".into(),
            started_at: Some(Timestamp::UNIX_EPOCH),
            resource_namespace: "deploy".into(),
            resource_name: "cycle".into(),
            resource_uid: "u1".into(),
            account: "123456789012".into(),
            user_name: "deploy_cycle".into(),
        }
    }

    #[test]
    fn only_an_old_journal_of_an_unknown_resource_is_suspect() {
        let old = Timestamp::UNIX_EPOCH + MIN_STALE_AGE;
        let young = old - SignedDuration::from_secs(1);
        let elsewhere = ["other".to_owned()];
        let here = ["other".to_owned(), "deploy".to_owned()];
        assert!(record().is_suspect(false, &[], old));
        assert!(record().is_suspect(false, &here, old));
        assert!(!record().is_suspect(false, &elsewhere, old), "another operator watches the namespace");
        assert!(!record().is_suspect(true, &[], old), "the resource exists");
        assert!(!record().is_suspect(false, &[], young), "a reconcile may be under way");
        assert!(!JournalRecord { started_at: None, ..record() }.is_suspect(false, &[], old));
        for unnamed in [
            JournalRecord { resource_namespace: String::new(), ..record() },
            JournalRecord { resource_name: String::new(), ..record() },
            JournalRecord { resource_uid: String::new(), ..record() },
        ] {
            assert!(!unnamed.is_suspect(false, &[], old), "nothing can be looked up: {unnamed:?}");
        }
    }

    #[test]
    fn journal_is_stale_when_its_resource_is_gone_or_replaced() {
        assert!(record().is_stale(None));
        assert!(record().is_stale(Some("u2")), "another resource of that name");
        assert!(!record().is_stale(Some("u1")));
    }
}
