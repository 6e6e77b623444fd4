//! Budget of activity: what one resource may cause within a few seconds, so that a hot loop fails whichever test it hides in.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Violation;
use crate::aws_proxy::CallLog;

/// The window in which activity is counted. A test rarely lasts for a minute.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Environment variable with the file that the peaks of each test are appended to.
const REPORT: &str = "ACTIVITY_REPORT";
/// The message of the operator at the end of a reconcile.
const RECONCILED: &str = "reconciled resource";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivityKind {
    /// The end of a reconcile.
    Reconcile,
    /// A write of the status, accepted or not.
    StatusWrite,
    /// A write of an Event.
    Event,
    /// A write of a Secret, by its name.
    SecretWrite,
    /// A call to AWS, by the IAM user instead of the resource.
    AwsCall,
    /// A line of the log that names the resource.
    LogLine,
}

/// The most activity of each kind in ten seconds for one resource.
///
/// The limits are several times what the tests cause with their short intervals, and a fraction of what a loop without a pause
/// causes: one of 5 status writes a second fails within seconds, as one of 12 reconciles a second.
#[derive(Clone, Copy, Debug)]
pub struct ActivityBudget {
    /// See [`ActivityKind::Reconcile`].
    pub reconciles: usize,
    /// See [`ActivityKind::StatusWrite`].
    pub status_writes: usize,
    /// See [`ActivityKind::Event`].
    pub events: usize,
    /// See [`ActivityKind::SecretWrite`].
    pub secret_writes: usize,
    /// See [`ActivityKind::AwsCall`].
    pub aws_calls: usize,
    /// See [`ActivityKind::LogLine`].
    pub log_lines: usize,
}

impl Default for ActivityBudget {
    fn default() -> Self {
        Self { reconciles: 90, status_writes: 35, events: 25, secret_writes: 40, aws_calls: 400, log_lines: 1500 }
    }
}

impl ActivityBudget {
    fn limit(&self, kind: ActivityKind) -> usize {
        match kind {
            ActivityKind::Reconcile => self.reconciles,
            ActivityKind::StatusWrite => self.status_writes,
            ActivityKind::Event => self.events,
            ActivityKind::SecretWrite => self.secret_writes,
            ActivityKind::AwsCall => self.aws_calls,
            ActivityKind::LogLine => self.log_lines,
        }
    }
}

/// One thing that the operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: ActivityKind,
    /// Name of the resource, or of the IAM user.
    pub subject: String,
}

/// Where the activity of an operator is recorded.
#[derive(Clone, Debug)]
pub struct ActivitySources {
    /// The namespace of the test.
    pub namespace: String,
    /// Audit log of the API server; `None` if the cluster is not of the test kit.
    pub audit_log: Option<PathBuf>,
    /// Directory of the logs of the operators.
    pub logs: PathBuf,
    /// Calls to AWS.
    pub aws: CallLog,
}

/// Records the activity of a test and checks it against a budget when dropped.
pub struct ActivityMonitor {
    sources: ActivitySources,
    /// Where the audit log ended when the test began.
    audit_from: u64,
    budget: Mutex<Option<ActivityBudget>>,
}

impl fmt::Debug for ActivityMonitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ActivityMonitor").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl ActivityMonitor {
    /// Starts with an empty record and the default budget.
    #[must_use]
    pub fn start(sources: ActivitySources) -> Self {
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let audit_from = sources.audit_log.as_ref().map_or(0, length);
        Self { sources, audit_from, budget: Mutex::new(Some(ActivityBudget::default())) }
    }

    /// Replaces the budget, for a test that needs more. `None`: nothing is checked.
    pub fn set_budget(&self, budget: Option<ActivityBudget>) {
        *self.budget.lock().unwrap_or_else(PoisonError::into_inner) = budget;
    }

    /// All activity so far.
    #[must_use]
    pub fn activities(&self) -> Vec<Activity> {
        let mut all = Vec::new();
        if let Some(path) = &self.sources.audit_log {
            all.extend(of_audit_log(&read_from(path, self.audit_from), &self.sources.namespace));
        }
        for file in log_files(&self.sources.logs) {
            all.extend(of_operator_log(&read_from(&file, 0)));
        }
        let calls = self.sources.aws.calls().into_iter();
        all.extend(
            calls.filter_map(|call| {
                Some(Activity { at: call.started, kind: ActivityKind::AwsCall, subject: call.user? })
            }),
        );
        all
    }

    /// How often something was done for a resource so far.
    #[must_use]
    pub fn count(&self, kind: ActivityKind, subject: &str) -> usize {
        self.activities().iter().filter(|activity| activity.kind == kind && activity.subject == subject).count()
    }
}

impl Drop for ActivityMonitor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let budget = *self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let activities = self.activities();
        if let Some(file) = std::env::var_os(REPORT) {
            let written = append_peaks(Path::new(&file), &self.sources.namespace, &activities);
            assert!(written.is_ok(), "failed to write the peaks to {}: {written:?}", file.display());
        }
        let violations = budget.map(|budget| over_budget(&activities, &budget)).unwrap_or_default();
        let violations: Vec<_> = violations.iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.sources.aws.transcript());
    }
}

/// The most activity of each kind in a window, for each subject.
fn peaks(activities: &[Activity]) -> BTreeMap<(ActivityKind, &str), usize> {
    let mut times: BTreeMap<(ActivityKind, &str), Vec<Timestamp>> = BTreeMap::new();
    for activity in activities {
        times.entry((activity.kind, &activity.subject)).or_default().push(activity.at);
    }
    let peak = |mut times: Vec<Timestamp>| {
        times.sort();
        let in_window = |from: usize| times[from..].partition_point(|at| at.duration_since(times[from]) < WINDOW);
        (0..times.len()).map(in_window).max().unwrap_or_default()
    };
    times.into_iter().map(|(counted, times)| (counted, peak(times))).collect()
}

/// S11: subjects with more activity in a window than the budget allows.
#[must_use]
pub fn over_budget(activities: &[Activity], budget: &ActivityBudget) -> Vec<Violation> {
    let violation = |((kind, subject), peak): ((ActivityKind, &str), usize)| {
        let limit = budget.limit(kind);
        let detail = format!("{subject}: {peak} of {kind:?} in {WINDOW}, the budget is {limit}");
        (peak > limit).then_some(Violation { invariant: "S11", detail })
    };
    peaks(activities).into_iter().filter_map(violation).collect()
}

/// Appends the peaks of a test to a file, to measure what the budget has to allow.
fn append_peaks(file: &Path, namespace: &str, activities: &[Activity]) -> std::io::Result<()> {
    let lines = peaks(activities).into_iter();
    let lines: String = lines
        .map(|((kind, subject), peak)| format!("{kind:?} {peak} {namespace}/{subject}\n"))
        .collect::<Vec<_>>()
        .concat();
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(lines.as_bytes())
}

/// Writes of status and Events of resources in a namespace.
fn of_audit_log(text: &str, namespace: &str) -> Vec<Activity> {
    let entries = text.lines().filter(|line| line.contains(namespace));
    let entries = entries.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let activity = |entry: Value| {
        let object = &entry["objectRef"];
        let is_operator = entry["user"]["username"].as_str()?.starts_with("system:serviceaccount:");
        if !is_operator || object["namespace"] != namespace {
            return None;
        }
        let name = object["name"].as_str().unwrap_or_default();
        let (kind, subject) = match (object["resource"].as_str()?, object["subresource"].as_str()) {
            ("awsdeployusers", Some("status")) => (ActivityKind::StatusWrite, name),
            ("secrets", _) => (ActivityKind::SecretWrite, name),
            // The name of an Event is that of the resource and a suffix.
            ("events", _) => (ActivityKind::Event, name.rsplit_once('.').map_or(name, |(resource, _)| resource)),
            _ => return None,
        };
        let at = entry["requestReceivedTimestamp"].as_str()?.parse().ok()?;
        Some(Activity { at, kind, subject: subject.to_owned() })
    };
    entries.filter_map(activity).collect()
}

/// Lines about resources, and ends of reconciles, in a log of either format.
fn of_operator_log(text: &str) -> Vec<Activity> {
    let mut activities = Vec::new();
    for line in text.lines() {
        let Some(subject) = quoted_after(line, "resource=").or_else(|| quoted_after(line, "\"resource\":")) else {
            continue;
        };
        let at = quoted_after(line, "\"timestamp\":").or(line.split_whitespace().next());
        let Some(at) = at.and_then(|at| at.parse().ok()) else { continue };
        let activity = |kind| Activity { at, kind, subject: subject.to_owned() };
        activities.push(activity(ActivityKind::LogLine));
        if line.contains(RECONCILED) {
            activities.push(activity(ActivityKind::Reconcile));
        }
    }
    activities
}

fn quoted_after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(name)?.1.strip_prefix('"')?.split('"').next()
}

fn log_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// The text of a file from an offset; empty if it cannot be read.
fn read_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    drop(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millisecond).expect("a time")
    }

    fn every(interval: Duration, kind: ActivityKind) -> Vec<Activity> {
        let interval = i64::try_from(interval.as_millis()).expect("a number");
        let times = (0..60_000 / interval).map(|number| at(number * interval));
        times.map(|at| Activity { at, kind, subject: "x".to_owned() }).collect()
    }

    #[test]
    fn loop_without_a_pause_is_over_budget() {
        for (interval, kind) in [
            (Duration::from_millis(215), ActivityKind::StatusWrite),
            (Duration::from_millis(83), ActivityKind::Reconcile),
            (Duration::from_millis(20), ActivityKind::AwsCall),
            (Duration::from_millis(300), ActivityKind::Event),
            (Duration::from_millis(100), ActivityKind::SecretWrite),
            (Duration::from_millis(5), ActivityKind::LogLine),
        ] {
            let found = over_budget(&every(interval, kind), &ActivityBudget::default());
            assert_eq!(found.iter().map(|violation| violation.invariant).collect::<Vec<_>>(), ["S11"], "{kind:?}");
        }
    }

    #[test]
    fn short_intervals_of_tests_are_within_budget() {
        let checks = every(Duration::from_millis(300), ActivityKind::Reconcile);
        assert_eq!(over_budget(&checks, &ActivityBudget::default()), []);
    }

    #[test]
    fn evidence_names_the_resource() {
        let operator = "system:serviceaccount:operator:operator";
        let entry = |user: &str, namespace: &str, object: Value| {
            let mut object = object;
            object["namespace"] = json!(namespace);
            let entry = json!({"user": {"username": user}, "objectRef": object,
                "requestReceivedTimestamp": "2026-11-21T10:00:00.000000Z"});
            entry.to_string()
        };
        let status = json!({"resource": "awsdeployusers", "subresource": "status", "name": "x"});
        let log = [
            entry(operator, "t1", status.clone()),
            entry(operator, "t1", json!({"resource": "events", "name": "x.17a"})),
            entry("admin", "t1", status.clone()),
            entry(operator, "t10", status),
        ];
        let found = of_audit_log(&log.join("\n"), "t1");
        let found: Vec<_> = found.iter().map(|activity| (activity.kind, activity.subject.as_str())).collect();
        assert_eq!(found, [(ActivityKind::StatusWrite, "x"), (ActivityKind::Event, "x")]);
        for line in [
            "2026-11-21T10:00:00.123Z DEBUG reconcile{reconcile_id=1 resource=\"x\"}: awsdeploy: reconciled resource",
            r#"{"timestamp":"2026-11-21T10:00:00.123Z","message":"reconciled resource","span":{"resource":"x"}}"#,
        ] {
            let kinds: Vec<_> = of_operator_log(line).iter().map(|activity| activity.kind).collect();
            assert_eq!(kinds, [ActivityKind::LogLine, ActivityKind::Reconcile], "{line}");
        }
    }
}
