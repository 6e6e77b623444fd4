//! What the process keeps between two reconciles of a resource. Losing it costs calls, never safety.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::{class_decision::ClassDecision, priority::RevocationCauses};
use crate::{
    api::AwsDeployUser,
    domain::{
        backoff::Backoff,
        change_key::ChangeKey,
        current_state::{CurrentUser, LastUse, SecretRefusals, Verification},
        fair_queue::Priority,
        managed_policy::{CurrentPolicies, DocumentDigest},
        policy_document,
        reconcile_rate::ReconcileRate,
        secret::HonouredRequest,
    },
};

/// The cache of one resource.
#[derive(Default)]
pub(super) struct ReconcileCache {
    /// The account that its facts are of.
    pub(super) account: String,
    /// Until then nothing has to be done unless the resource itself changes.
    pub(super) idle: Option<IdleUntil>,
    /// Reconciles that changes of the resource caused.
    pub(super) rate: ReconcileRate,
    /// Why the resource was to lose its credentials in the last reconcile.
    pub(super) causes: RevocationCauses,
    /// This process has observed the resource; before that, its status is the best knowledge of it.
    pub(super) observed_before: bool,
    /// IAM as last read, with the operator's own writes since.
    pub(super) iam: Option<CachedIam>,
    /// Since when IAM's lists lack access keys that are tagged as the operator's.
    pub(super) missing_keys: BTreeMap<String, Instant>,
    /// When a deletion first found no user of the resource.
    pub(super) user_absent_since: Option<Instant>,
    /// When IAM was first found not to list a recorded policy that is to be removed.
    pub(super) policies_missing_since: Option<Instant>,
    /// Digests of documents by id of the policy and version, which never change.
    pub(super) documents: BTreeMap<(String, String), DocumentDigest>,
    /// Warnings about the documents of the resource, with the digest of these: finding them takes time.
    pub(super) policy_warnings: Option<(u64, Vec<String>)>,
    /// When the class that allowed the resource was first observed missing.
    pub(super) class_missing_since: Option<Timestamp>,
    /// Progress of the STS check.
    pub(super) verification: Option<Verification>,
    /// Refusals of the key in a published Secret without a valid MAC, with the `resourceVersion` of the Secret.
    pub(super) secret_refusals: Option<(String, SecretRefusals)>,
    /// The rotate request that the published Secret named as carried out when its MAC was last valid.
    pub(super) honoured: Option<HonouredRequest>,
    /// When the resource may get its first key, see [`FirstKeys`](super::first_keys::FirstKeys).
    pub(super) first_key_at: Option<Instant>,
    /// Last use of access keys, as AWS answered.
    pub(super) last_used: BTreeMap<String, LastUse>,
    /// What failed, and when it is tried again.
    pub(super) backoff: Backoff,
}

impl ReconcileCache {
    /// Facts of one account are none of another.
    pub(super) fn reset_for_account(&mut self, account: &str) {
        if self.account != account {
            *self = Self {
                account: account.to_owned(),
                observed_before: self.observed_before,
                idle: self.idle.take(),
                rate: self.rate,
                causes: self.causes,
                class_missing_since: self.class_missing_since,
                first_key_at: self.first_key_at,
                ..Self::default()
            };
        }
    }

    /// Remembers the documents of policies, so that each is read once.
    pub(super) fn learn_documents(&mut self, policies: &CurrentPolicies) {
        if policies.found.is_empty() {
            return;
        }
        let id = |id: &String, version: &String| (id.clone(), version.clone());
        let known = policies.found.values().flat_map(|policy| {
            policy.documents.iter().map(move |(version, digest)| (id(&policy.id, version), *digest))
        });
        self.documents = known.collect();
    }

    /// Warnings about the documents of the resource. Finding them takes longer than all else that is computed for a status, so
    /// that it is done once for each text.
    pub(super) fn policy_warnings<'a>(
        &mut self,
        documents: impl Iterator<Item = (&'a String, &'a Value)> + Clone,
    ) -> Vec<String> {
        let mut hasher = DefaultHasher::new();
        for (name, document) in documents.clone() {
            (name, document.to_string()).hash(&mut hasher);
        }
        let digest = hasher.finish();
        if self.policy_warnings.as_ref().is_none_or(|(of, _)| *of != digest) {
            let texts = policy_document::describe_warnings(documents);
            self.policy_warnings = Some((digest, texts));
        }
        self.policy_warnings.iter().flat_map(|(_, texts)| texts.iter().cloned()).collect()
    }

    /// The cache at the end of a reconcile. A wait beyond all range ends with a change of the resource.
    pub(super) fn idle_after(
        self,
        user: &AwsDeployUser,
        decision: &ClassDecision,
        wait: Duration,
        priority: Priority,
    ) -> Self {
        let until = Instant::now().checked_add(wait);
        let key = ChangeKey::new(user, decision.digest);
        Self { idle: until.map(|until| IdleUntil { key, until, priority }), ..self }
    }

    /// Counts a reconcile that was caused by a change of the resource, if this one was.
    pub(super) fn count_change(&mut self, user: &AwsDeployUser, decision: &ClassDecision) {
        if self.idle.as_ref().is_none_or(|idle| idle.key != ChangeKey::new(user, decision.digest)) {
            self.rate.count(Instant::now());
        }
    }
}

/// No reconcile is needed until then. Measured by the monotonic clock: AWS's may be set back.
pub(super) struct IdleUntil {
    pub(super) key: ChangeKey,
    pub(super) until: Instant,
    /// Priority of the reconcile that follows.
    pub(super) priority: Priority,
}

/// The IAM user with the age of what is known of it.
#[derive(Clone)]
pub(super) struct CachedIam {
    pub(super) iam: CurrentUser,
    pub(super) policies: CurrentPolicies,
    /// The name that was looked up.
    pub(super) user_name: String,
    /// When all of it but the keys was read; parts may be newer.
    pub(super) read_at: Instant,
    /// When the keys were listed.
    pub(super) keys_read_at: Instant,
    /// When a write of the operator changed it last.
    pub(super) changed_at: Option<Instant>,
    /// It comes from the listing of the whole account or from the status: enough to see that nothing is to be done. Effects
    /// are decided on facts that were read for them.
    pub(super) from_listing: bool,
    /// It is used until then although it has expired: AWS throttles the listing.
    pub(super) extended_until: Option<Instant>,
    pub(super) generation: Option<i64>,
}

/// The caches by UID of their resource.
#[derive(Default)]
pub(super) struct ReconcileCaches(Mutex<HashMap<String, ReconcileCache>>);

impl ReconcileCaches {
    /// Takes the cache out: a reconcile that is cut off leaves none, and the next one reads everything.
    pub(super) fn take(&self, uid: &str) -> ReconcileCache {
        self.0.lock().remove(uid).unwrap_or_default()
    }

    pub(super) fn put(&self, uid: &str, cache: ReconcileCache) {
        self.0.lock().insert(uid.to_owned(), cache);
    }

    /// Whether there is no cache: this process has not reconciled the resource yet.
    pub(super) fn is_new(&self, uid: &str) -> bool {
        !self.0.lock().contains_key(uid)
    }

    /// How long a resource with this key needs no reconcile.
    pub(super) fn idle_for(&self, uid: &str, key: &ChangeKey) -> Option<Duration> {
        let caches = self.0.lock();
        let idle = caches.get(uid)?.idle.as_ref().filter(|idle| idle.key == *key)?;
        Some(idle.until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// The priority of the next reconcile. `None`: this process has not reconciled the resource yet.
    pub(super) fn priority(&self, uid: &str, causes: RevocationCauses, key: &ChangeKey) -> Option<Priority> {
        let caches = self.0.lock();
        let cache = caches.get(uid)?;
        let unchanged = cache.idle.as_ref().filter(|idle| idle.key == *key);
        Some(if causes.adds_to(cache.causes) {
            Priority::Urgent
        } else {
            unchanged.map_or(Priority::Due, |idle| idle.priority)
        })
    }

    /// How long a change of the resource has to wait because there were too many.
    pub(super) fn change_wait(&self, uid: &str) -> Option<Duration> {
        self.0.lock().get(uid)?.rate.wait(Instant::now())
    }

    /// Causes that the last reconcile has served.
    pub(super) fn served_causes(&self, uid: &str) -> RevocationCauses {
        self.0.lock().get(uid).map(|cache| cache.causes).unwrap_or_default()
    }

    /// Whether the last reconcile has seen the resource as it is.
    pub(super) fn is_unchanged(&self, uid: &str, key: &ChangeKey) -> bool {
        let caches = self.0.lock();
        let idle = caches.get(uid).and_then(|cache| cache.idle.as_ref());
        idle.is_some_and(|idle| idle.key == *key)
    }

    /// How long the resource needs no reconcile if it does not change.
    pub(super) fn remaining_idle(&self, uid: &str) -> Option<Duration> {
        let caches = self.0.lock();
        Some(caches.get(uid)?.idle.as_ref()?.until.saturating_duration_since(Instant::now()))
    }

    /// Drops the caches of all other resources, some of which were deleted without a last reconcile.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_checked_once_for_each_text() {
        let document = |action| json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}});
        let of_action = |action| BTreeMap::from([("s3".to_owned(), document(action))]);
        let (wrong, right) = (of_action("s3:GetObjct"), of_action("s3:GetObject"));
        let mut cache = ReconcileCache::default();
        let [warning] = &cache.policy_warnings(wrong.iter())[..] else { panic!("no warning") };
        assert!(warning.contains("GetObjct"), "{warning}");
        cache.policy_warnings.as_mut().unwrap().1 = vec!["as it was found".to_owned()];
        assert_eq!(cache.policy_warnings(wrong.iter()), ["as it was found"]);
        assert_eq!(cache.policy_warnings(right.iter()), [""; 0]);
        assert_eq!(cache.policy_warnings(BTreeMap::new().iter()), [""; 0]);
    }

    #[test]
    fn idle_time_ends_by_itself_and_with_any_change() {
        let seen = |generation| {
            let mut user = AwsDeployUser::default();
            user.metadata.generation = Some(generation);
            ChangeKey::new(&user, 0)
        };
        let caches = ReconcileCaches::default();
        let remember = |until| {
            caches.put(
                "u1",
                ReconcileCache {
                    idle: Some(IdleUntil { key: seen(1), until, priority: Priority::Background }),
                    ..ReconcileCache::default()
                },
            );
        };
        remember(Instant::now() + Duration::from_mins(1));
        assert!(caches.idle_for("u1", &seen(1)).is_some());
        assert!(caches.idle_for("u1", &seen(2)).is_none());
        assert!(caches.idle_for("u2", &seen(1)).is_none());
        remember(Instant::now());
        assert!(caches.idle_for("u1", &seen(1)).is_none(), "whatever AWS's clock says");
    }
}
