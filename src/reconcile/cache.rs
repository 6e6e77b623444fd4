//! What the process remembers between two passes of a resource. Losing it costs calls, never safety.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::error::ReconcileError;
use crate::{
    api::AwsDeployUser,
    domain::current_state::{CurrentUser, LastUse, Verification},
};

/// What is remembered of one resource.
#[derive(Default)]
pub(super) struct ReconcileCache {
    /// The account that it is about.
    pub(super) room: String,
    /// Until then there is nothing to do unless the resource itself changes.
    pub(super) idle: Option<IdleUntil>,
    /// This process has looked at the resource before. What its status says is no news then.
    pub(super) looked: bool,
    /// IAM as last read, with our own writes since.
    pub(super) iam: Option<CachedIam>,
    /// When a deletion first found no user of ours.
    pub(super) unseen_since: Option<Instant>,
    /// Progress of the STS check.
    pub(super) verification: Option<Verification>,
    /// What AWS said of the last use of access keys.
    pub(super) last_used: BTreeMap<String, LastUse>,
    /// A change of user or policies that failed, and when it may be tried again.
    pub(super) user_failure: Option<(ReconcileError, Timestamp)>,
    /// Passes that failed and that the status could not be told of.
    pub(super) failed: Failed,
    /// The Secret of the last published key, where the status could not be told of it.
    pub(super) untold_secret: Option<String>,
    /// Times in a row that the status could not be written.
    pub(super) unwritten: u32,
}

/// Passes that failed one after the other. Pauses grow with them, and must do so too where no status can be written.
#[derive(Clone, Default)]
pub(super) struct Failed {
    generation: Option<i64>,
    pub(super) passes: u32,
    pub(super) last: Option<Timestamp>,
}

impl Failed {
    /// Of the resource as it is now: a change of its spec is a new chance.
    pub(super) fn of(&self, generation: Option<i64>) -> Self {
        if self.generation == generation { self.clone() } else { Self { generation, ..Self::default() } }
    }

    /// Once more, and no fewer times than the status would say.
    pub(super) fn once_more(self, told: u32, now: Timestamp) -> Self {
        Self { passes: self.passes.saturating_add(1).max(told), last: Some(now), ..self }
    }
}

impl ReconcileCache {
    /// What was seen in another account is not true in this one.
    pub(super) fn enter(&mut self, room: &str) {
        if self.room != room {
            *self = Self { room: room.to_owned(), looked: self.looked, ..Self::default() };
        }
    }
}

/// A time without need of a pass. Told by the process's own clock: AWS's may be set back, and the resource must not
/// be left alone until it has caught up.
pub(super) struct IdleUntil {
    pub(super) seen: Fingerprint,
    pub(super) until: Instant,
}

/// IAM facts with their age.
#[derive(Clone)]
pub(super) struct CachedIam {
    pub(super) iam: CurrentUser,
    /// When all of it but the keys was read; some of it may be younger.
    pub(super) read_at: Instant,
    /// When the keys were listed.
    pub(super) keys_read_at: Instant,
    /// When a write of ours changed it last.
    pub(super) changed_at: Option<Instant>,
    /// It comes out of the account's details or out of the status: good enough to see that there is nothing to do, and no
    /// more. Whatever there is to do is decided on what is read for it.
    pub(super) from_listing: bool,
    pub(super) generation: Option<i64>,
}

/// What of a resource may change what is to be done. Its status is not part of it: a pass must
/// not be woken by its own report.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    generation: Option<i64>,
    annotations: BTreeMap<String, String>,
    deleting: bool,
    finalizers: Vec<String>,
    /// Digest of what classes and namespace say, see `class_decision`.
    rules: u64,
}

impl Fingerprint {
    pub(super) fn of(user: &AwsDeployUser, rules: u64) -> Self {
        Self {
            generation: user.metadata.generation,
            annotations: user.metadata.annotations.clone().unwrap_or_default(),
            deleting: user.metadata.deletion_timestamp.is_some(),
            finalizers: user.metadata.finalizers.clone().unwrap_or_default(),
            rules,
        }
    }
}

/// ReconcileCaches by UID.
#[derive(Default)]
pub(super) struct ReconcileCaches(Mutex<HashMap<String, ReconcileCache>>);

impl ReconcileCaches {
    /// Takes the cache out; a pass that dies in between leaves none, and the next reads everything anew.
    pub(super) fn take(&self, uid: &str) -> ReconcileCache {
        self.lock().remove(uid).unwrap_or_default()
    }

    pub(super) fn put(&self, uid: &str, cache: ReconcileCache) {
        self.lock().insert(uid.to_owned(), cache);
    }

    /// Whether nothing is remembered: the process has not looked at the resource yet.
    pub(super) fn is_new(&self, uid: &str) -> bool {
        !self.lock().contains_key(uid)
    }

    /// How long a resource that looks like this still needs no pass.
    pub(super) fn idle_for(&self, uid: &str, fingerprint: &Fingerprint) -> Option<Duration> {
        let caches = self.lock();
        let idle = caches.get(uid)?.idle.as_ref().filter(|idle| idle.seen == *fingerprint)?;
        Some(idle.until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Forgets all resources but these: one that vanished without a last pass has left nothing to wait for.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ReconcileCache>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_time_ends_by_itself_and_with_any_change_of_the_resource() {
        let seen = |generation| Fingerprint {
            generation: Some(generation),
            annotations: BTreeMap::new(),
            deleting: false,
            finalizers: Vec::new(),
            rules: 0,
        };
        let caches = ReconcileCaches::default();
        let remember = |until| {
            caches.put(
                "u1",
                ReconcileCache { idle: Some(IdleUntil { seen: seen(1), until }), ..ReconcileCache::default() },
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
