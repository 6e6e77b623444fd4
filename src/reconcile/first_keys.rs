//! When a new resource may get its first key: the pace of each namespace.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::{Context, cache::ReconcileCache};
use crate::{
    api::AwsDeployUser,
    domain::{account, dates::saturating_add, first_key_pace::FirstKeyPace},
};

/// Paces by namespace. In memory: a restart forgets the deletions before it.
#[derive(Default)]
pub(super) struct FirstKeys(Mutex<HashMap<String, FirstKeyPace>>);

impl FirstKeys {
    /// How long the resource of this cache has to wait for its first key; `None`: not at all.
    fn wait(&self, namespace: &str, cache: &mut ReconcileCache, now: Instant) -> Option<Duration> {
        let reserve = || self.0.lock().get_mut(namespace).map_or(now, |pace| pace.reserve(now));
        let at = *cache.first_key_at.get_or_insert_with(reserve);
        at.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Counts the end of a resource. Without a recorded user it has had no key.
    pub(super) fn count_deletion(&self, user: &AwsDeployUser) {
        let (Some(namespace), Some(_)) = (&user.metadata.namespace, account::recorded_user(user)) else { return };
        let now = Instant::now();
        let mut paces = self.0.lock();
        paces.retain(|_, pace| pace.is_in_use(now));
        paces.entry(namespace.clone()).or_default().count_deletion(now);
    }
}

impl Context {
    /// When the resource of this cache may get its first key; `None`: now.
    pub(super) fn first_key_at(
        &self,
        namespace: &str,
        cache: &mut ReconcileCache,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let wait = self.first_keys.wait(namespace, cache, Instant::now())?;
        Some(saturating_add(now, SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deleted(namespace: &str, status: &serde_json::Value) -> AwsDeployUser {
        let metadata = json!({"name": "cycle", "namespace": namespace});
        serde_json::from_value(json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "spec": {},
            "metadata": metadata, "status": status}))
        .unwrap()
    }

    #[test]
    fn recreated_resources_share_the_pace_of_a_namespace() {
        let keys = FirstKeys::default();
        let recorded = json!({"user": {"name": "u", "account": "123456789012"}});
        (0..300).for_each(|_| keys.count_deletion(&deleted("churn", &recorded)));
        (0..300).for_each(|_| keys.count_deletion(&deleted("denied", &json!({}))));
        let now = Instant::now();
        let waiting = |namespace: &str| {
            let new = |_| keys.wait(namespace, &mut ReconcileCache::default(), now);
            (0..200).filter_map(new).count()
        };
        assert_eq!((waiting("churn"), waiting("denied"), waiting("other")), (100, 0, 0));
        let mut cache = ReconcileCache::default();
        let first = keys.wait("churn", &mut cache, now).unwrap();
        assert_eq!(keys.wait("churn", &mut cache, now), Some(first), "a resource has one place");
        assert_eq!(keys.wait("churn", &mut cache, now + first), None);
    }
}
