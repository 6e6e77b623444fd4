//! The call log: every call with its outcome, in the order of arrival.
//!
//! It contains names, ids and codes, never secrets, passwords or signatures: parameters are redacted by
//! [`Call::public_params`], and of a response only status and error code are logged.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::call::Call;

/// A position in the log: the sequence number of the newest call at that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogPosition(u64);

/// Outcome of a call for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// The call is being processed, or held by a rule.
    Pending,
    /// A response was sent.
    Answered,
    /// The connection was closed without a response.
    Dropped,
}

/// A logged call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// Sequence number; 1 for the first call of this proxy.
    pub seq: u64,
    /// Time of arrival.
    pub started: Timestamp,
    /// Time from the last byte of the request to the response, including injected delays.
    pub latency: Option<Duration>,
    /// Service name, `iam` or `sts`.
    pub service: &'static str,
    /// The `Action`.
    pub action: String,
    /// The user named in the call, or the owner of the named key, or the calling user.
    pub user: Option<String>,
    /// The access key named in the call; for `CreateAccessKey` the created one.
    pub access_key: Option<String>,
    /// The access key id of the signature; `None` for unsigned calls.
    pub caller_key: Option<String>,
    /// Whether the action changes IAM.
    pub mutating: bool,
    /// Whether AWS performed the change, whatever response the caller got.
    pub committed: bool,
    /// Outcome for the caller.
    pub outcome: CallOutcome,
    /// HTTP status of the response.
    pub status: Option<u16>,
    /// Error code of the response.
    pub error: Option<String>,
    /// Ids of the fault rules that acted on the call.
    pub rules: Vec<u64>,
    /// Parameters, with sensitive values redacted.
    pub params: BTreeMap<String, String>,
}

impl CallRecord {
    /// Whether the call reads the attached policies of one user or of all users. Every drift check starts with such a
    /// call.
    #[must_use]
    pub fn reads_policies(&self) -> bool {
        self.lists_all_users() || self.action == "ListAttachedUserPolicies"
    }

    /// Whether the call reads all users of the account.
    #[must_use]
    pub fn lists_all_users(&self) -> bool {
        self.action == "GetAccountAuthorizationDetails"
    }
}

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}:{}", self.seq, self.service, self.action)?;
        if let Some(user) = &self.user {
            write!(f, " {user}")?;
        }
        if let Some(key) = &self.access_key {
            write!(f, " {key}")?;
        }
        match (self.outcome, self.status, &self.error) {
            (CallOutcome::Pending, ..) => f.write_str(" -> open")?,
            (CallOutcome::Dropped, ..) => f.write_str(" -> dropped")?,
            (CallOutcome::Answered, Some(status), Some(error)) => write!(f, " -> {status} {error}")?,
            (CallOutcome::Answered, Some(status), None) => write!(f, " -> {status}")?,
            (CallOutcome::Answered, None, _) => {}
        }
        if self.mutating && self.committed { f.write_str(" (committed)") } else { Ok(()) }
    }
}

/// The expected call did not arrive in time. The message lists the last calls.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {expected}; the calls so far:{seen}")]
pub struct WaitError {
    waited: Duration,
    expected: String,
    seen: String,
}

/// The call log of one proxy. Clones share it.
#[derive(Clone, Debug)]
pub struct CallLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    calls: Mutex<Calls>,
    // Incremented on every change, so that a waiter misses none and does not poll.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Calls {
    newest: u64,
    records: Vec<CallRecord>,
}

impl Calls {
    fn since(&self, position: LogPosition) -> &[CallRecord] {
        after(&self.records, position)
    }
}

/// The calls after a position, by binary search: the records are ordered by sequence number.
fn after(calls: &[CallRecord], position: LogPosition) -> &[CallRecord] {
    &calls[calls.partition_point(|call| call.seq <= position.0)..]
}

impl Default for CallLog {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { calls: Mutex::default(), version: watch::Sender::new(0) }) }
    }
}

impl CallLog {
    /// All calls in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.lock().records.clone()
    }

    /// The calls of one action.
    #[must_use]
    pub fn calls_of(&self, action: &str) -> Vec<CallRecord> {
        self.select(|call| call.action == action)
    }

    /// The calls about one user.
    #[must_use]
    pub fn calls_for_user(&self, user: &str) -> Vec<CallRecord> {
        self.select(|call| call.user.as_deref() == Some(user))
    }

    /// The calls that match a predicate.
    pub fn select(&self, pick: impl Fn(&CallRecord) -> bool) -> Vec<CallRecord> {
        self.lock().records.iter().filter(|call| pick(call)).cloned().collect()
    }

    /// The current end of the log.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition(self.lock().newest)
    }

    /// The calls after a position.
    #[must_use]
    pub fn calls_since(&self, position: LogPosition) -> Vec<CallRecord> {
        self.lock().since(position).to_vec()
    }

    /// The calls of mutating actions after a position, committed or not.
    #[must_use]
    pub fn mutating_calls_since(&self, position: LogPosition) -> Vec<CallRecord> {
        self.lock().since(position).iter().filter(|call| call.mutating).cloned().collect()
    }

    /// Number of calls by action.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.counts_since(LogPosition::default())
    }

    /// Number of calls by action after a position.
    #[must_use]
    pub fn counts_since(&self, position: LogPosition) -> BTreeMap<String, usize> {
        self.lock().since(position).iter().fold(BTreeMap::new(), |mut counts, call| {
            *counts.entry(call.action.clone()).or_default() += 1;
            counts
        })
    }

    /// Waits until `n` calls of an action have ended and returns the n-th.
    pub async fn wait_for_call(&self, action: &str, n: usize, within: Duration) -> Result<CallRecord, WaitError> {
        self.wait_for(&format!("call {n} of {action}"), within, |calls| {
            calls
                .iter()
                .filter(|call| call.action == action && call.outcome != CallOutcome::Pending)
                .nth(n.saturating_sub(1))
                .cloned()
        })
        .await
    }

    /// Waits until a call after a position that matches the predicate has ended and returns it.
    pub async fn wait_since(
        &self,
        position: LogPosition,
        expected: &str,
        within: Duration,
        pick: impl Fn(&CallRecord) -> bool,
    ) -> Result<CallRecord, WaitError> {
        self.wait_for(expected, within, |calls| {
            after(calls, position).iter().find(|call| call.outcome != CallOutcome::Pending && pick(call)).cloned()
        })
        .await
    }

    /// Waits until `found` returns a value for the log.
    pub async fn wait_for<T>(
        &self,
        expected: &str,
        within: Duration,
        found: impl Fn(&[CallRecord]) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut changes = self.inner.version.subscribe();
        let search = async {
            loop {
                changes.mark_unchanged();
                if let Some(result) = found(&self.lock().records) {
                    return result;
                }
                // Cannot fail: `self` owns the sender.
                let _ = changes.changed().await;
            }
        };
        match tokio::time::timeout(within, search).await {
            Ok(result) => Ok(result),
            Err(_) => Err(WaitError { waited: within, expected: expected.to_owned(), seen: self.transcript() }),
        }
    }

    /// The last calls, one per line, for failure messages.
    #[must_use]
    pub fn transcript(&self) -> String {
        const MAX_TRANSCRIPT_LINES: usize = 60;
        let calls = &self.lock().records;
        let skipped = calls.len().saturating_sub(MAX_TRANSCRIPT_LINES);
        let mut out = String::new();
        if skipped > 0 {
            let _ = write!(out, "\n  ({skipped} earlier)");
        }
        for call in &calls[skipped..] {
            let _ = write!(out, "\n  {call}");
        }
        out
    }

    /// Removes all calls. Sequence numbers continue, so positions remain valid.
    pub fn clear(&self) {
        self.lock().records.clear();
    }

    /// Logs a new call.
    pub(super) fn open(&self, call: &Call, user: Option<String>, caller_key: Option<String>) -> OpenCall {
        let mut calls = self.lock();
        calls.newest += 1;
        let seq = calls.newest;
        calls.records.push(CallRecord {
            seq,
            started: Timestamp::now(),
            latency: None,
            service: call.service.name(),
            action: call.action.clone(),
            user,
            access_key: call.access_key_id().map(str::to_owned),
            caller_key,
            mutating: call.is_mutating(),
            committed: false,
            outcome: CallOutcome::Pending,
            status: None,
            error: None,
            rules: Vec::new(),
            params: call.public_params(),
        });
        drop(calls);
        self.changed();
        OpenCall { log: self.clone(), seq, started: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.inner.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.inner.version.send_modify(|version| *version += 1);
    }
}

/// The record of a pending call. Dropping it before [`OpenCall::answered`] records the call as dropped.
pub(super) struct OpenCall {
    log: CallLog,
    seq: u64,
    started: Instant,
}

impl OpenCall {
    pub(super) fn update(&self, change: impl FnOnce(&mut CallRecord)) {
        let mut calls = self.log.lock();
        if let Some(call) = calls.records.iter_mut().rev().find(|call| call.seq == self.seq) {
            change(call);
        }
        drop(calls);
        self.log.changed();
    }

    /// Records the response.
    pub(super) fn answered(self, status: u16, error: Option<String>) {
        let latency = self.started.elapsed();
        self.update(|call| {
            call.latency = Some(latency);
            call.outcome = CallOutcome::Answered;
            call.status = Some(status);
            call.error = error;
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let latency = self.started.elapsed();
        self.update(|call| {
            if call.outcome == CallOutcome::Pending {
                call.latency = Some(latency);
                call.outcome = CallOutcome::Dropped;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    fn create_user(log: &CallLog, user: &str) -> OpenCall {
        let call = Call::iam("CreateUser").with("UserName", user);
        log.open(&call, Some(user.to_owned()), Some("testing".to_owned()))
    }

    #[test]
    fn call_is_pending_until_answered() {
        let log = CallLog::default();
        let open = create_user(&log, "u");
        assert_eq!(log.calls()[0].outcome, CallOutcome::Pending);
        open.answered(409, Some("EntityAlreadyExists".to_owned()));
        let call = &log.calls()[0];
        assert_eq!(
            (call.outcome, call.status, call.error.as_deref()),
            (CallOutcome::Answered, Some(409), Some("EntityAlreadyExists"))
        );
        assert!(call.latency.is_some());
        assert_eq!(call.to_string(), "#1 iam:CreateUser u -> 409 EntityAlreadyExists");
    }

    #[test]
    fn unfinished_call_is_recorded_as_dropped() {
        let log = CallLog::default();
        drop(create_user(&log, "u"));
        assert_eq!(log.calls()[0].outcome, CallOutcome::Dropped);
    }

    #[test]
    fn position_excludes_earlier_calls() {
        let log = CallLog::default();
        create_user(&log, "a").answered(200, None);
        let position = log.position();
        create_user(&log, "b").answered(200, None);
        log.open(&Call::iam("GetUser"), None, None).answered(200, None);
        assert_eq!(log.mutating_calls_since(position).len(), 1);
        assert_eq!(log.calls_since(position).len(), 2);
        assert_eq!(log.counts()["CreateUser"], 2);
        assert_eq!(log.counts_since(position)["CreateUser"], 1);
        log.clear();
        create_user(&log, "c").answered(200, None);
        assert_eq!(log.mutating_calls_since(position).len(), 1, "sequence numbers continue after clear()");
    }

    #[tokio::test]
    async fn wait_returns_the_ended_call_or_the_transcript() {
        let log = CallLog::default();
        let waiter = tokio::spawn({
            let log = log.clone();
            async move { log.wait_for_call("CreateUser", 2, Duration::from_secs(5)).await }
        });
        create_user(&log, "a").answered(200, None);
        let second = create_user(&log, "b");
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "a pending call does not count");
        second.answered(200, None);
        assert_eq!(waiter.await.unwrap().unwrap().user.as_deref(), Some("b"));

        let error = log.wait_for_call("DeleteUser", 1, TIMEOUT).await.unwrap_err().to_string();
        assert!(error.contains("DeleteUser") && error.contains("#2 iam:CreateUser b -> 200"), "{error}");
    }
}
