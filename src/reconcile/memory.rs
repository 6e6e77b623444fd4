//! What the process remembers between two passes of a resource. Losing it costs calls, never safety.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

use super::error::PassError;
use crate::{
    api::AwsDeployUser,
    domain::world::{Iam, Verification},
};

/// What is remembered of one resource.
#[derive(Default)]
pub(super) struct Memory {
    /// Until then there is nothing to do unless the resource itself changes.
    pub(super) quiet: Option<(Fingerprint, Timestamp)>,
    /// IAM as last read, with our own writes since.
    pub(super) iam: Option<Remembered>,
    /// Progress of the STS check.
    pub(super) verification: Option<Verification>,
    /// A change of user or policies that failed, and when it may be tried again.
    pub(super) user_failure: Option<(PassError, Timestamp)>,
}

/// IAM facts with their age.
#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) iam: Iam,
    pub(super) read_at: Instant,
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
}

impl Fingerprint {
    pub(super) fn of(user: &AwsDeployUser) -> Self {
        Self {
            generation: user.metadata.generation,
            annotations: user.metadata.annotations.clone().unwrap_or_default(),
            deleting: user.metadata.deletion_timestamp.is_some(),
            finalizers: user.metadata.finalizers.clone().unwrap_or_default(),
        }
    }
}

/// Memories by UID.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Memory>>);

impl Memories {
    /// Takes the memory out; a pass that dies in between leaves none, and the next reads everything anew.
    pub(super) fn take(&self, uid: &str) -> Memory {
        self.lock().remove(uid).unwrap_or_default()
    }

    pub(super) fn put(&self, uid: &str, memory: Memory) {
        self.lock().insert(uid.to_owned(), memory);
    }

    /// Until when a resource that looks like this needs no pass.
    pub(super) fn quiet_until(&self, uid: &str, fingerprint: &Fingerprint) -> Option<Timestamp> {
        self.lock().get(uid)?.quiet.as_ref().filter(|(seen, _)| seen == fingerprint).map(|(_, until)| *until)
    }

    /// Forgets all resources but these: one that vanished without a last pass has left nothing to wait for.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
