//! The auditor: watches a run from outside and says at its end which promises were broken.
//!
//! It shares no code with the product. What it knows it has from the API server as plain JSON, from [`Inspector`] and from
//! the logs of both proxies; names of annotations and tags are spelled out here a second time on purpose.
//!
//! | invariant | what is checked |
//! |---|---|
//! | S1 | the published key is Active: ten times a second, and accepted by AWS at the end |
//! | S2 | id, secret and files of every version of a Secret belong together, and AWS knows that pair |
//! | S3 | no key is deactivated or deleted while it is published, or before its overlap is over |
//! | S4 | nothing is written to a user or Secret that the operator has not made |
//! | S5 | no access key is written to that the operator has not made |
//! | S6 | two keys at most, and no more creations than publications plus what the faults account for |
//! | S7 | no secret in any log, Event, status, metric or error |
//! | S8 | a resource is gone only when its user is |
//! | S9 | Ready at the present generation means that IAM is as declared; no key is left that nobody knows |
//! | S10 | when all is well, a look at everything writes nothing on either side ([`Auditor::check_idle`]) |

mod audit;
mod objects;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    runtime::watcher::{self, Event},
};
use tokio::task::JoinHandle;

use audit::{Audit, Notes, Seen};
pub(crate) use objects::base64;
use objects::{json, key_id};

use crate::{
    Result,
    aws_proxy::{Account, CallLog, CallRecord, Inspector},
    error::Context as _,
    kube_proxy::KubeLog,
};

/// How often the published key is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `S1` to `S10`.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.detail)
    }
}

/// What to look at.
#[derive(Clone)]
pub struct AuditTarget {
    /// A client with every right.
    pub client: Client,
    /// The namespace of the run.
    pub namespace: String,
    /// What is so in AWS.
    pub inspector: Inspector,
    /// What AWS knows of keys.
    pub account: Arc<Account>,
    /// What the operator has asked of AWS.
    pub aws: CallLog,
    /// What it has asked of Kubernetes, if it went through a proxy.
    pub kube: Option<KubeLog>,
}

/// A running auditor.
pub struct Auditor {
    audited: AuditTarget,
    notes: Arc<Mutex<Notes>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Auditor {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Auditor {
    /// Begins to watch.
    #[must_use]
    pub fn start(audited: AuditTarget) -> Self {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let tasks = vec![
            tokio::spawn(follow(secrets(&audited), Arc::clone(&notes), |notes| &mut notes.secrets)),
            tokio::spawn(follow(users(&audited), Arc::clone(&notes), |notes| &mut notes.users)),
            tokio::spawn(sample(audited.clone(), Arc::clone(&notes))),
        ];
        Self { audited, notes, tasks }
    }

    /// A person has switched this key off, or has taken the Secret that held it: that it stops working is no fault of
    /// the operator.
    pub fn expect_key_failure(&self, key_id: &str) {
        self.notes().excused.insert(key_id.to_owned());
    }

    /// An AWS admin has handed this user over: the operator may write to it although it has not made it.
    pub fn allow_adoption(&self, user: &str) {
        self.notes().consented.insert(user.to_owned());
    }

    /// S10: when no failure is being waited out any more, and after two looks at policies, which may finish what the end of a fault
    /// has left, two more write nothing on either side.
    pub async fn check_idle(&self, within: Duration) -> Vec<Violation> {
        if let Err(violation) = self.no_failure_is_open(within).await {
            return vec![violation];
        }
        let mut marks = (self.audited.aws.position(), None);
        let (mut looks, mut all_together) = (0, false);
        while looks < 4 {
            let from = self.audited.aws.position();
            if looks < 3 {
                marks = (from, self.audited.kube.as_ref().map(KubeLog::position));
            }
            let looked = CallRecord::reads_policies;
            match self.audited.aws.wait_since(from, "a look at policies", within, looked).await {
                Ok(call) => {
                    // What all users together show is looked at anew before it is mended: that is the same look.
                    looks += u32::from(call.lists_all_users() || !all_together);
                    all_together = call.lists_all_users();
                }
                Err(error) => {
                    let detail = format!("no look at IAM after {looks} of them: {error}");
                    return vec![Violation { invariant: "S10", detail }];
                }
            }
        }
        let (mark, kube_mark) = marks;
        let kube = self.audited.kube.as_ref().zip(kube_mark).map(|(log, mark)| log.mutating_since(mark));
        audit::loud(&self.audited.aws.mutating_calls_since(mark), &kube.unwrap_or_default())
    }

    /// A back-off ends with a status that says so, which is no write out of nothing.
    async fn no_failure_is_open(&self, within: Duration) -> std::result::Result<(), Violation> {
        let open = async || {
            let users = users(&self.audited).list(&ListParams::default()).await.ok()?;
            let failing = |user: &DynamicObject| json(user)["status"]["failedAttempts"].as_i64().unwrap_or(0) > 0;
            (!users.items.iter().any(failing)).then_some(())
        };
        let asked = async {
            while open().await.is_none() {
                tokio::time::sleep(SAMPLE).await;
            }
        };
        tokio::time::timeout(within, asked)
            .await
            .map_err(|_| Violation { invariant: "liveness", detail: format!("still failing after {within:?}") })
    }

    /// Ends the watch and judges the run. `ambiguities` is how many creations the injected faults account for;
    /// `evidence` are the texts to search for secrets, with a name each.
    pub async fn finish(self, ambiguities: usize, evidence: &[(&str, String)]) -> Result<Vec<Violation>> {
        let what = || "read the end of the run".to_owned();
        let secrets_now = secrets(&self.audited).list(&ListParams::default()).await.context(what)?;
        let users_now = users(&self.audited).list(&ListParams::default()).await.context(what)?;
        let events: Api<DynamicObject> = Api::namespaced_with(
            self.audited.client.clone(),
            &self.audited.namespace,
            &resource("events.k8s.io", "v1", "Event", "events"),
        );
        let events = events.list(&ListParams::default()).await.context(what)?;
        let truths =
            self.audited.inspector.users().await.map_err(|error| crate::Error::Unexpected(error.to_string()))?;

        let notes = self.notes();
        let mut texts: Vec<(String, String)> =
            evidence.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let events: Vec<_> = events.items.iter().map(json).collect();
        texts.push(("Events".to_owned(), serde_json::to_string(&events).unwrap_or_default()));
        let audit = Audit {
            notes: &notes,
            namespace: &self.audited.namespace,
            account: &self.audited.account,
            calls: self.audited.aws.calls(),
            kube: self.audited.kube.as_ref().map(KubeLog::calls).unwrap_or_default(),
            secrets: secrets_now.items.iter().map(json).collect(),
            users: users_now.items.iter().map(json).collect(),
            truths,
            texts,
            violations: notes.violations.clone(),
        };
        Ok(audit.judge(ambiguities))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }
}

fn secrets(audited: &AuditTarget) -> Api<DynamicObject> {
    Api::namespaced_with(audited.client.clone(), &audited.namespace, &resource("", "v1", "Secret", "secrets"))
}

fn users(audited: &AuditTarget) -> Api<DynamicObject> {
    let resource = resource("awsdeploy.dev", "v1alpha1", "AwsDeployUser", "awsdeployusers");
    Api::namespaced_with(audited.client.clone(), &audited.namespace, &resource)
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Writes down every version of every object.
async fn follow(api: Api<DynamicObject>, notes: Arc<Mutex<Notes>>, list: fn(&mut Notes) -> &mut Vec<Seen>) {
    let events = watcher::watcher(api, watcher::Config::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let (object, gone) = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
            Ok(Event::Delete(object)) => (object, true),
            // The watch mends itself.
            Ok(Event::Init | Event::InitDone) | Err(_) => continue,
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        let seen = Seen { at: Timestamp::now(), gone, name, object: json(&object) };
        list(&mut lock(&notes)).push(seen);
    }
}

/// S1, ten times a second.
async fn sample(audited: AuditTarget, notes: Arc<Mutex<Notes>>) {
    let secrets = secrets(&audited);
    let mut told = BTreeSet::new();
    loop {
        tokio::time::sleep(SAMPLE).await;
        let dead = lock(&notes).dead(&audited.account);
        for (secret, id) in dead {
            // The watch may lag: asked again, of the API server itself.
            let Ok(Some(now)) = secrets.get_opt(&secret).await else { continue };
            let mut notes = lock(&notes);
            let still =
                key_id(&json(&now)) == Some(&id) && !notes.excused.contains(&id) && !notes.revoked(Timestamp::MAX);
            if still && told.insert(id.clone()) {
                let detail = format!("Secret {secret} holds {id}, which is not Active in IAM");
                notes.violations.push(Violation { invariant: "S1", detail });
            }
        }
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}
