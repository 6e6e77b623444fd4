//! Auditor: observes a test run from outside and reports violated invariants at its end.
//!
//! It shares no code with the product. Its evidence is plain JSON from the API server, [`AwsInspector`] and the logs of
//! both proxies; names of annotations and tags are duplicated here on purpose.
//!
//! | invariant | check |
//! |---|---|
//! | S1 | the published key is Active: sampled ten times a second, and accepted by AWS at the end |
//! | S2 | ID, secret and files of every version of a Secret belong together, and AWS knows that pair |
//! | S3 | no key is deactivated or deleted while it is published or within its overlap |
//! | S4 | no write to a user or Secret that the operator did not create |
//! | S5 | no write to an access key that the operator did not create |
//! | S6 | at most two keys, and no more creations than publications plus what the injected faults account for |
//! | S7 | no secret in any log, Event, status, metric or error |
//! | S8 | a resource is deleted only after its user |
//! | S9 | Ready at the current generation means that IAM equals the spec; no unknown key of the operator remains |
//! | S10 | without changes or faults, a full comparison writes nothing to AWS or Kubernetes ([`Auditor::check_idle`]) |
//! | S11 | no resource causes more reconciles, writes, Events, calls or log lines than its budget ([`activity`]) |

pub mod activity;
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

use audit::{Audit, Observations, ObservedVersion};
pub(crate) use objects::base64;
use objects::{json, key_id};

use crate::{
    Result,
    aws_proxy::{Account, CallLog, CallRecord, Inspector},
    error::Context as _,
    kube_proxy::KubeLog,
};

/// Sampling interval of the published key.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `S1` to `S11`.
    pub invariant: &'static str,
    /// What violates it.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.detail)
    }
}

/// Sources of evidence of one run.
#[derive(Clone)]
pub struct AuditTarget {
    /// A client with cluster-admin permissions.
    pub client: Client,
    /// The namespace of the run.
    pub namespace: String,
    /// The namespace of the operator.
    pub operator_namespace: String,
    /// Reads the state of IAM.
    pub inspector: Inspector,
    /// Knows the key material of the AWS account.
    pub account: Arc<Account>,
    /// Calls of the operator to AWS.
    pub aws: CallLog,
    /// Its calls to Kubernetes, if it used a proxy.
    pub kube: Option<KubeLog>,
}

/// A running auditor.
pub struct Auditor {
    target: AuditTarget,
    observations: Arc<Mutex<Observations>>,
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
    /// Starts the watches and the sampling.
    #[must_use]
    pub fn start(target: AuditTarget) -> Self {
        let observations = Arc::new(Mutex::new(Observations::default()));
        let tasks = vec![
            tokio::spawn(follow(secrets(&target), Arc::clone(&observations), |observations| &mut observations.secrets)),
            tokio::spawn(follow(users(&target), Arc::clone(&observations), |observations| &mut observations.users)),
            tokio::spawn(sample(target.clone(), Arc::clone(&observations))),
        ];
        Self { target, observations, tasks }
    }

    /// Excludes a key from S1 to S3, because the test deactivates it or deletes its Secret.
    pub fn expect_key_failure(&self, key_id: &str) {
        self.observations().ignored_keys.insert(key_id.to_owned());
    }

    /// Allows writes to an existing user that an AWS admin tagged for adoption.
    pub fn allow_adoption(&self, user: &str) {
        self.observations().adoptable_users.insert(user.to_owned());
    }

    /// Checks S10: waits until no resource backs off, then until two comparisons of policies have completed recovery,
    /// and expects no write to AWS or Kubernetes during two further comparisons.
    pub async fn check_idle(&self, within: Duration) -> Vec<Violation> {
        if let Err(violation) = self.wait_until_no_resource_fails(within).await {
            return vec![violation];
        }
        let mut positions = (self.target.aws.position(), None);
        let (mut comparisons, mut was_bulk) = (0, false);
        while comparisons < 4 {
            let from = self.target.aws.position();
            if comparisons < 3 {
                positions = (from, self.target.kube.as_ref().map(KubeLog::position));
            }
            let compared = CallRecord::reads_policies;
            match self.target.aws.wait_since(from, "a comparison of policies", within, compared).await {
                Ok(call) => {
                    // Drift in a bulk read is confirmed by a read of the user, which is part of the same comparison.
                    comparisons += u32::from(call.lists_all_users() || !was_bulk);
                    was_bulk = call.lists_all_users();
                }
                Err(error) => {
                    let detail = format!("IAM was not read again after {comparisons} comparisons: {error}");
                    return vec![Violation { invariant: "S10", detail }];
                }
            }
        }
        let (position, kube_position) = positions;
        let kube = self.target.kube.as_ref().zip(kube_position).map(|(log, position)| log.mutating_since(position));
        audit::idle_writes(&self.target.aws.mutating_calls_since(position), &kube.unwrap_or_default())
    }

    /// A back-off ends with a status write, which must not count as a write while idle.
    async fn wait_until_no_resource_fails(&self, within: Duration) -> std::result::Result<(), Violation> {
        let recovered = async || {
            let users = users(&self.target).list(&ListParams::default()).await.ok()?;
            let failing = |user: &DynamicObject| json(user)["status"]["failingSince"].is_string();
            (!users.items.iter().any(failing)).then_some(())
        };
        let waiting = async {
            while recovered().await.is_none() {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        };
        tokio::time::timeout(within, waiting)
            .await
            .map_err(|_| Violation { invariant: "liveness", detail: format!("still failing after {within:?}") })
    }

    /// Ends the watches and returns all violations. `ambiguities` is the number of key creations that the injected
    /// faults account for; `evidence` are named texts to search for secrets.
    pub async fn finish(self, ambiguities: usize, evidence: &[(&str, String)]) -> Result<Vec<Violation>> {
        let what = || "read the final state of the run".to_owned();
        let secrets_now = secrets(&self.target).list(&ListParams::default()).await.context(what)?;
        let journals = ListParams::default().labels("awsdeploy.dev/role=journal");
        let journals_now = all_secrets(&self.target).list(&journals).await.context(what)?;
        let users_now = users(&self.target).list(&ListParams::default()).await.context(what)?;
        let events: Api<DynamicObject> = Api::namespaced_with(
            self.target.client.clone(),
            &self.target.namespace,
            &resource("events.k8s.io", "v1", "Event", "events"),
        );
        let events = events.list(&ListParams::default()).await.context(what)?;
        let truths =
            self.target.inspector.users().await.map_err(|error| crate::Error::Unexpected(error.to_string()))?;

        let observations = self.observations();
        let mut texts: Vec<(String, String)> =
            evidence.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let events: Vec<_> = events.items.iter().map(json).collect();
        texts.push(("Events".to_owned(), serde_json::to_string(&events).unwrap_or_default()));
        let audit = Audit {
            observations: &observations,
            namespace: &self.target.namespace,
            operator_namespace: &self.target.operator_namespace,
            account: &self.target.account,
            calls: self.target.aws.calls(),
            kube: self.target.kube.as_ref().map(KubeLog::calls).unwrap_or_default(),
            secrets: secrets_now.items.iter().map(json).collect(),
            journals: journals_now.items.iter().map(json).collect(),
            users: users_now.items.iter().map(json).collect(),
            truths,
            texts,
            violations: observations.violations.clone(),
        };
        Ok(audit.evaluate(ambiguities))
    }

    fn observations(&self) -> MutexGuard<'_, Observations> {
        lock(&self.observations)
    }
}

fn secrets(target: &AuditTarget) -> Api<DynamicObject> {
    Api::namespaced_with(target.client.clone(), &target.namespace, &resource("", "v1", "Secret", "secrets"))
}

fn all_secrets(target: &AuditTarget) -> Api<DynamicObject> {
    Api::all_with(target.client.clone(), &resource("", "v1", "Secret", "secrets"))
}

fn users(target: &AuditTarget) -> Api<DynamicObject> {
    let resource = resource("awsdeploy.dev", "v1alpha1", "AwsDeployUser", "awsdeployusers");
    Api::namespaced_with(target.client.clone(), &target.namespace, &resource)
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

/// Records every version of every object.
async fn follow(
    api: Api<DynamicObject>,
    observations: Arc<Mutex<Observations>>,
    list: fn(&mut Observations) -> &mut Vec<ObservedVersion>,
) {
    let events = watcher::watcher(api, watcher::Config::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let (object, deleted) = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
            Ok(Event::Delete(object)) => (object, true),
            // The watcher recovers from errors.
            Ok(Event::Init | Event::InitDone) | Err(_) => continue,
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        let seen = ObservedVersion { at: Timestamp::now(), deleted, name, object: json(&object) };
        list(&mut lock(&observations)).push(seen);
    }
}

/// Checks S1 ten times a second.
async fn sample(target: AuditTarget, observations: Arc<Mutex<Observations>>) {
    let secrets = secrets(&target);
    let mut reported = BTreeSet::new();
    loop {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        let inactive = lock(&observations).inactive_published_keys(&target.account);
        for (secret, id) in inactive {
            // The watch may lag, so read the Secret from the API server.
            let Ok(Some(now)) = secrets.get_opt(&secret).await else { continue };
            let mut observations = lock(&observations);
            let still_published = key_id(&json(&now)) == Some(&id)
                && !observations.ignored_keys.contains(&id)
                && !observations.is_revoked(Timestamp::MAX);
            if still_published && reported.insert(id.clone()) {
                let detail = format!("Secret {secret} holds {id}, which is not Active in IAM");
                observations.violations.push(Violation { invariant: "S1", detail });
            }
        }
    }
}

fn lock(observations: &Mutex<Observations>) -> MutexGuard<'_, Observations> {
    observations.lock().unwrap_or_else(PoisonError::into_inner)
}
