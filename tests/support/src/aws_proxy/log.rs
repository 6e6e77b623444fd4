//! The call log: what was asked of AWS, in order, and what came of it.
//!
//! It holds names, ids and codes. Secrets, passwords and signatures never get in: parameters pass through
//! [`Call::public_params`], answers leave only their status and error code here.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::call::Call;

/// A place in the log. Calls that came in later have a higher sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogPosition(u64);

/// How a call ended for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// It is still being worked on, or held by a rule.
    Pending,
    /// An answer was sent.
    Answered,
    /// The connection was closed without an answer.
    Dropped,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// 1 for the first call of this proxy.
    pub seq: u64,
    /// When it came in.
    pub started: Timestamp,
    /// From the last byte of the request to the answer, faults included.
    pub latency: Option<Duration>,
    /// `iam` or `sts`.
    pub service: &'static str,
    /// The `Action`.
    pub action: String,
    /// The user it is about: named in the call, or the caller where the call names none.
    pub user: Option<String>,
    /// The access key it is about; for `CreateAccessKey` the one it made.
    pub access_key: Option<String>,
    /// The key id that signed it; none for unsigned calls.
    pub caller_key: Option<String>,
    /// Whether the action changes IAM.
    pub mutating: bool,
    /// Whether it did: it reached AWS and succeeded there, whatever the caller was told.
    pub committed: bool,
    /// How it ended for the caller.
    pub outcome: CallOutcome,
    /// HTTP status sent to the caller.
    pub status: Option<u16>,
    /// Error code sent to the caller.
    pub error: Option<String>,
    /// Ids of the fault rules that acted on it.
    pub rules: Vec<u64>,
    /// Its parameters, without secrets.
    pub params: BTreeMap<String, String>,
}

impl CallRecord {
    /// Whether it asks what users may do: one of them, or all of the account together. Every look at policies has one of these.
    #[must_use]
    pub fn reads_policies(&self) -> bool {
        self.lists_all_users() || self.action == "ListAttachedUserPolicies"
    }

    /// Whether it asks about all users of the account together.
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

/// What was waited for did not come in time. Says what came instead.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {expected}; the calls so far:{seen}")]
pub struct WaitError {
    waited: Duration,
    expected: String,
    seen: String,
}

/// The log of one proxy. Clones share it.
#[derive(Clone, Debug)]
pub struct CallLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    calls: Mutex<Calls>,
    // Counts changes, so that a waiter can neither miss one nor has to poll.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Calls {
    newest: u64,
    records: Vec<CallRecord>,
}

impl Calls {
    fn since(&self, mark: LogPosition) -> &[CallRecord] {
        behind(&self.records, mark)
    }
}

/// The calls behind a place; logs grow long and are in order.
fn behind(calls: &[CallRecord], mark: LogPosition) -> &[CallRecord] {
    &calls[calls.partition_point(|call| call.seq <= mark.0)..]
}

impl Default for CallLog {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { calls: Mutex::default(), version: watch::Sender::new(0) }) }
    }
}

impl CallLog {
    /// Every call, in the order they came in.
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

    /// The calls that a condition picks.
    pub fn select(&self, pick: impl Fn(&CallRecord) -> bool) -> Vec<CallRecord> {
        self.lock().records.iter().filter(|call| pick(call)).cloned().collect()
    }

    /// The place behind the newest call.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition(self.lock().newest)
    }

    /// The calls behind a place.
    #[must_use]
    pub fn calls_since(&self, mark: LogPosition) -> Vec<CallRecord> {
        self.lock().since(mark).to_vec()
    }

    /// The calls behind a place that would change IAM, whether they did or not.
    #[must_use]
    pub fn mutating_calls_since(&self, mark: LogPosition) -> Vec<CallRecord> {
        self.lock().since(mark).iter().filter(|call| call.mutating).cloned().collect()
    }

    /// How often each action was called.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.counts_since(LogPosition::default())
    }

    /// How often each action was called behind a place.
    #[must_use]
    pub fn counts_since(&self, mark: LogPosition) -> BTreeMap<String, usize> {
        self.lock().since(mark).iter().fold(BTreeMap::new(), |mut counts, call| {
            *counts.entry(call.action.clone()).or_default() += 1;
            counts
        })
    }

    /// Waits until `n` calls of an action have ended, and returns the n-th.
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

    /// Waits until a call behind a place has ended that a condition picks, and returns it.
    pub async fn wait_since(
        &self,
        mark: LogPosition,
        expected: &str,
        within: Duration,
        pick: impl Fn(&CallRecord) -> bool,
    ) -> Result<CallRecord, WaitError> {
        self.wait_for(expected, within, |calls| {
            behind(calls, mark).iter().find(|call| call.outcome != CallOutcome::Pending && pick(call)).cloned()
        })
        .await
    }

    /// Waits until `found` finds something in the log.
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
                // The sender lives in self, so this cannot fail while we are here.
                let _ = changes.changed().await;
            }
        };
        match tokio::time::timeout(within, search).await {
            Ok(result) => Ok(result),
            Err(_) => Err(WaitError { waited: within, expected: expected.to_owned(), seen: self.transcript() }),
        }
    }

    /// The last calls, a line each, for failure messages.
    #[must_use]
    pub fn transcript(&self) -> String {
        const LINES: usize = 60;
        let calls = &self.lock().records;
        let skipped = calls.len().saturating_sub(LINES);
        let mut out = String::new();
        if skipped > 0 {
            let _ = write!(out, "\n  ({skipped} earlier)");
        }
        for call in &calls[skipped..] {
            let _ = write!(out, "\n  {call}");
        }
        out
    }

    /// Forgets all calls. Sequence numbers go on, so marks stay valid.
    pub fn clear(&self) {
        self.lock().records.clear();
    }

    /// Writes down a call that just came in.
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

/// The record of a call that has not ended. Dropped without an end, it counts as dropped: the worker died.
pub(super) struct OpenCall {
    log: CallLog,
    seq: u64,
    started: Instant,
}

impl OpenCall {
    /// Changes the record.
    pub(super) fn note(&self, change: impl FnOnce(&mut CallRecord)) {
        let mut calls = self.log.lock();
        if let Some(call) = calls.records.iter_mut().rev().find(|call| call.seq == self.seq) {
            change(call);
        }
        drop(calls);
        self.log.changed();
    }

    /// An answer goes out.
    pub(super) fn answered(self, status: u16, error: Option<String>) {
        let latency = self.started.elapsed();
        self.note(|call| {
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
        self.note(|call| {
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

    const SOON: Duration = Duration::from_millis(50);

    fn create_user(log: &CallLog, user: &str) -> OpenCall {
        let call = Call::iam("CreateUser").with("UserName", user);
        log.open(&call, Some(user.to_owned()), Some("testing".to_owned()))
    }

    #[test]
    fn a_call_is_open_then_answered() {
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
    fn a_call_whose_worker_is_gone_counts_as_dropped() {
        let log = CallLog::default();
        drop(create_user(&log, "u"));
        assert_eq!(log.calls()[0].outcome, CallOutcome::Dropped);
    }

    #[test]
    fn marks_count_only_what_comes_later() {
        let log = CallLog::default();
        create_user(&log, "a").answered(200, None);
        let mark = log.position();
        create_user(&log, "b").answered(200, None);
        log.open(&Call::iam("GetUser"), None, None).answered(200, None);
        assert_eq!(log.mutating_calls_since(mark).len(), 1);
        assert_eq!(log.calls_since(mark).len(), 2);
        assert_eq!(log.counts()["CreateUser"], 2);
        assert_eq!(log.counts_since(mark)["CreateUser"], 1);
        log.clear();
        create_user(&log, "c").answered(200, None);
        assert_eq!(log.mutating_calls_since(mark).len(), 1, "sequence numbers go on after a clear");
    }

    #[tokio::test]
    async fn waiting_ends_with_the_call_and_says_what_came_instead() {
        let log = CallLog::default();
        let waiter = tokio::spawn({
            let log = log.clone();
            async move { log.wait_for_call("CreateUser", 2, Duration::from_secs(5)).await }
        });
        create_user(&log, "a").answered(200, None);
        let second = create_user(&log, "b");
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "an open call is not a call yet");
        second.answered(200, None);
        assert_eq!(waiter.await.unwrap().unwrap().user.as_deref(), Some("b"));

        let error = log.wait_for_call("DeleteUser", 1, SOON).await.unwrap_err().to_string();
        assert!(error.contains("DeleteUser") && error.contains("#2 iam:CreateUser b -> 200"), "{error}");
    }
}
