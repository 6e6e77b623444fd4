//! Log of calls to the API server, in order. Without bodies, because they contain secrets.

use std::{
    fmt,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;

use super::call::KubeCall;

/// One call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeRecord {
    /// 1 for the first call of this proxy.
    pub seq: u64,
    /// Time of receipt.
    pub started: Timestamp,
    /// Verb.
    pub verb: &'static str,
    /// Resource and subresource.
    pub resource: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Whether the call is mutating.
    pub mutating: bool,
    /// Whether the API server committed the change, regardless of the response to the caller.
    pub committed: bool,
    /// Status sent to the caller; `None` if the connection was closed or the call is pending.
    pub status: Option<u16>,
}

impl fmt::Display for KubeRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("*");
        write!(formatter, "#{} {} {}/{name}", self.seq, self.verb, self.resource)?;
        match self.status {
            Some(status) => write!(formatter, " -> {status}")?,
            None => formatter.write_str(" -> none")?,
        }
        if self.committed { formatter.write_str(" (committed)") } else { Ok(()) }
    }
}

/// The log of one proxy. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct KubeLog {
    records: Arc<Mutex<Vec<KubeRecord>>>,
}

impl KubeLog {
    /// All calls, in order of receipt.
    #[must_use]
    pub fn calls(&self) -> Vec<KubeRecord> {
        self.lock().clone()
    }

    /// The sequence number of the newest call.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.lock().last().map_or(0, |record| record.seq)
    }

    /// Mutating calls after a position.
    #[must_use]
    pub fn mutating_since(&self, position: u64) -> Vec<KubeRecord> {
        self.lock().iter().filter(|record| record.seq > position && record.mutating).cloned().collect()
    }

    /// The last calls, one per line.
    #[must_use]
    pub fn transcript(&self) -> String {
        const LINES: usize = 60;
        let records = self.lock();
        let mut text = String::new();
        for record in records.iter().skip(records.len().saturating_sub(LINES)) {
            let _ = write!(text, "\n  {record}");
        }
        text
    }

    pub(super) fn open(&self, call: &KubeCall) -> u64 {
        let mut records = self.lock();
        let seq = records.last().map_or(0, |record| record.seq) + 1;
        records.push(KubeRecord {
            seq,
            started: Timestamp::now(),
            verb: call.verb,
            resource: call.resource.clone(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            mutating: call.is_mutating(),
            committed: false,
            status: None,
        });
        seq
    }

    pub(super) fn note(&self, seq: u64, change: impl FnOnce(&mut KubeRecord)) {
        if let Some(record) = self.lock().iter_mut().rev().find(|record| record.seq == seq) {
            change(record);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KubeRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
