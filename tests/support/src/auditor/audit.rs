//! Evaluates the invariants over the evidence of a run. Pure: the same evidence gives the same violations.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Violation,
    objects::{DEFAULT_OVERLAP, duration, forms, key_id, published_at},
};
use crate::{
    aws_proxy::{Account, CallRecord, KeyState, UserSnapshot},
    kube_proxy::KubeRecord,
};

const KEY_TAG: &str = "awsdeploy.dev/key/";
const JOURNAL_OF: &str = "awsdeploy.dev/resource-uid";
/// How the names of Secrets begin that the operator writes in its own namespace.
const OWN_SECRETS: &str = "awsdeploy-";
/// Writes to managed policies.
const POLICY_WRITES: [&str; 6] = [
    "CreatePolicyVersion",
    "DeletePolicy",
    "DeletePolicyVersion",
    "SetDefaultPolicyVersion",
    "TagPolicy",
    "UntagPolicy",
];
/// Annotations have times in whole seconds, and log and watch record their times independently.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// One version of an object.
#[derive(Clone)]
pub(super) struct ObservedVersion {
    pub(super) at: Timestamp,
    pub(super) deleted: bool,
    pub(super) name: String,
    pub(super) object: Value,
}

#[derive(Default)]
pub(super) struct Observations {
    pub(super) secrets: Vec<ObservedVersion>,
    pub(super) users: Vec<ObservedVersion>,
    pub(super) ignored_keys: BTreeSet<String>,
    /// Users that an AWS admin tagged for adoption.
    pub(super) adoptable_users: BTreeSet<String>,
    pub(super) violations: Vec<Violation>,
}

impl Observations {
    /// The currently published keys: Secret -> key ID.
    pub(super) fn published(&self) -> BTreeMap<&str, &str> {
        let mut published = BTreeMap::new();
        for seen in &self.secrets {
            match key_id(&seen.object) {
                Some(id) if !seen.deleted => published.insert(seen.name.as_str(), id),
                _ => published.remove(seen.name.as_str()),
            };
        }
        published
    }

    /// Published keys that are not Active in IAM, each with its Secret.
    pub(super) fn inactive_published_keys(&self, account: &Account) -> Vec<(String, String)> {
        if self.is_revoked(Timestamp::MAX) {
            return Vec::new();
        }
        let inactive = |id: &str| !self.ignored_keys.contains(id) && account.key_state(id) != Some(KeyState::Active);
        let published = self.published().into_iter().filter(|(_, id)| inactive(id));
        published.map(|(secret, id)| (secret.to_owned(), id.to_owned())).collect()
    }

    /// Whether keys may be deactivated on purpose, because its credentials are revoked or it is deleted.
    pub(super) fn is_revoked(&self, until: Timestamp) -> bool {
        self.users.iter().filter(|seen| seen.at - CLOCK_TOLERANCE <= until).any(|seen| {
            seen.deleted
                || seen.object["metadata"]["deletionTimestamp"].is_string()
                || seen.object["spec"]["credentials"] == "Revoked"
        })
    }
}

/// Evidence of a run.
pub(super) struct Audit<'a> {
    /// Versions observed during the run.
    pub(super) observations: &'a Observations,
    /// The namespace of the run.
    pub(super) namespace: &'a str,
    pub(super) operator_namespace: &'a str,
    /// Knows the key material of the AWS account.
    pub(super) account: &'a Account,
    /// Calls to AWS.
    pub(super) calls: Vec<CallRecord>,
    /// Calls to Kubernetes, if they were recorded.
    pub(super) kube: Vec<KubeRecord>,
    /// The Secrets at the end.
    pub(super) secrets: Vec<Value>,
    /// The journals of all namespaces at the end.
    pub(super) journals: Vec<Value>,
    /// The resources at the end.
    pub(super) users: Vec<Value>,
    /// The users in AWS at the end.
    pub(super) truths: Vec<UserSnapshot>,
    /// Named texts to search for secrets.
    pub(super) texts: Vec<(String, String)>,
    /// Violations found so far.
    pub(super) violations: Vec<Violation>,
}

impl Audit<'_> {
    /// Evaluates all invariants. `ambiguities` is the number of key creations that the injected faults account for.
    pub(super) fn evaluate(mut self, ambiguities: usize) -> Vec<Violation> {
        self.check_published_keys();
        self.check_secret_consistency();
        self.check_key_retirement();
        self.check_write_ownership();
        self.check_key_count(ambiguities);
        self.check_leaks();
        self.check_deletion();
        self.check_ready();
        self.violations
    }

    fn report(&mut self, invariant: &'static str, detail: String) {
        self.violations.push(Violation { invariant, detail });
    }

    fn check_published_keys(&mut self) {
        if self.observations.is_revoked(Timestamp::MAX) {
            return;
        }
        for secret in self.secrets.clone() {
            if let Some(id) = key_id(&secret)
                && !self.account.accepts(id)
            {
                self.report("S1", format!("at the end AWS does not accept the published key {id}"));
            }
        }
    }

    fn check_secret_consistency(&mut self) {
        let versions: Vec<Value> = self.observations.secrets.iter().map(|seen| seen.object.clone()).collect();
        for secret in versions.iter().chain(&self.secrets.clone()) {
            let Some(id) = key_id(secret) else { continue };
            if self.observations.ignored_keys.contains(id) {
                continue;
            }
            let forms = forms(secret);
            if forms.is_empty() {
                self.report("S2", format!("a Secret annotated with {id} holds no key"));
            }
            for (form, held, value) in forms {
                if held != id {
                    self.report("S2", format!("{form} of a Secret annotated with {id} holds {held}"));
                }
                if !self.account.secret_matches(&held, &value) {
                    self.report("S2", format!("the secret of {held} in {form} does not match AWS"));
                }
            }
        }
    }

    fn check_key_retirement(&mut self) {
        let overlap = self
            .observations
            .users
            .iter()
            .map(|seen| {
                seen.object["spec"]["accessKey"]["rotation"]["overlap"].as_str().map_or(DEFAULT_OVERLAP, duration)
            })
            .min()
            .unwrap_or(DEFAULT_OVERLAP);
        for call in self.calls.clone() {
            let retires = call.action == "DeleteAccessKey"
                || (call.action == "UpdateAccessKey" && call.params.get("Status").is_some_and(|to| to == "Inactive"));
            let Some(id) = call.access_key.clone().filter(|_| retires && call.committed) else { continue };
            if self.observations.ignored_keys.contains(&id) || self.observations.is_revoked(call.started) {
                continue;
            }
            let mut current: BTreeMap<&str, (&str, Timestamp)> = BTreeMap::new();
            let mut superseded: Option<Timestamp> = None;
            for seen in self.observations.secrets.iter().filter(|seen| seen.at - CLOCK_TOLERANCE <= call.started) {
                match key_id(&seen.object).filter(|_| !seen.deleted) {
                    Some(now) => {
                        let since = published_at(&seen.object).unwrap_or(seen.at).min(seen.at);
                        let before = current.insert(&seen.name, (now, since));
                        if before.is_some_and(|(before, _)| before == id) && now != id {
                            superseded = Some(since);
                        }
                    }
                    None => drop(current.remove(seen.name.as_str())),
                }
            }
            if current.values().any(|(now, _)| *now == id) {
                self.report("S3", format!("{call} changed the published key"));
            }
            if let Some(since) = superseded
                && call.started + CLOCK_TOLERANCE < since + overlap
            {
                self.report("S3", format!("{call} was within the overlap of {overlap} since {since}"));
            }
        }
    }

    fn check_write_ownership(&mut self) {
        let (mut users, mut keys) = (self.observations.adoptable_users.clone(), BTreeSet::new());
        let mut policies: BTreeSet<String> = BTreeSet::new();
        for call in self.calls.clone().into_iter().filter(|call| call.mutating && call.committed) {
            let user = call.user.clone().unwrap_or_default();
            let key = call.access_key.clone().unwrap_or_default();
            let param = |name: &str| call.params.get(name).cloned().unwrap_or_default();
            if call.action == "CreatePolicy" {
                policies.insert(format!(":policy{}{}", param("Path"), param("PolicyName")));
                continue;
            }
            if POLICY_WRITES.contains(&call.action.as_str()) {
                let arn = param("PolicyArn");
                if !policies.iter().any(|made| arn.ends_with(made)) {
                    self.report("S4", format!("{call} wrote to a policy that the operator did not create"));
                }
                continue;
            }
            match call.action.as_str() {
                "CreateUser" => {
                    users.insert(user.clone());
                }
                "CreateAccessKey" => {
                    keys.insert(key);
                }
                "UpdateAccessKey" | "DeleteAccessKey" if !keys.contains(&key) => {
                    self.report("S5", format!("{call} wrote to a key that the operator did not create"));
                }
                _ => {}
            }
            if !users.contains(&user) {
                self.report("S4", format!("{call} wrote to a user that the operator did not create"));
            }
        }
        let mut made = BTreeSet::new();
        for call in self.kube.clone().into_iter().filter(|call| call.mutating && call.committed) {
            let is_own = call.namespace.as_deref() == Some(self.operator_namespace)
                && call.name.as_deref().is_some_and(|name| name.starts_with(OWN_SECRETS));
            if call.namespace.as_deref() != Some(self.namespace) && !is_own {
                self.report("S4", format!("{call} is in another namespace"));
            }
            if call.resource == "secrets" {
                if call.verb == "create" {
                    made.insert(call.name.clone());
                } else if !made.contains(&call.name) {
                    self.report("S4", format!("{call} wrote to a Secret that the operator did not create"));
                }
            }
        }
    }

    fn check_key_count(&mut self, ambiguities: usize) {
        let published: BTreeSet<&str> =
            self.observations.secrets.iter().filter_map(|seen| key_id(&seen.object)).collect();
        let created = self.calls.iter().filter(|call| call.action == "CreateAccessKey" && call.committed).count();
        if created > published.len() + ambiguities {
            let published = published.len();
            self.report(
                "S6",
                format!(
                    "{created} keys were created for {published} publications and {ambiguities} injected ambiguities"
                ),
            );
        }
        for user in self.truths.clone() {
            if user.keys.len() > 2 && user.keys.iter().filter(|key| self.created_by_operator(&key.id)).count() > 2 {
                self.report("S6", format!("user {} has {} keys", user.name, user.keys.len()));
            }
        }
    }

    fn created_by_operator(&self, key_id: &str) -> bool {
        self.calls.iter().any(|call| {
            call.action == "CreateAccessKey" && call.committed && call.access_key.as_deref() == Some(key_id)
        })
    }

    fn check_leaks(&mut self) {
        let all = |values: &[Value]| Value::from(values.to_vec()).to_string();
        let versions: Vec<Value> = self.observations.users.iter().map(|seen| seen.object.clone()).collect();
        let metadata: Vec<Value> =
            self.observations.secrets.iter().map(|seen| seen.object["metadata"].clone()).collect();
        let mut texts = std::mem::take(&mut self.texts);
        texts.extend([
            ("resources".to_owned(), all(&self.users)),
            ("earlier versions of resources".to_owned(), all(&versions)),
            ("metadata of Secrets".to_owned(), all(&metadata)),
            ("the log of the AWS proxy".to_owned(), serde_json::to_string(&self.calls).unwrap_or_default()),
            ("the log of the Kubernetes proxy".to_owned(), serde_json::to_string(&self.kube).unwrap_or_default()),
        ]);
        for (name, text) in texts {
            for id in self.account.leaks_in(&text) {
                self.report("S7", format!("the secret of {id} is in {name}"));
            }
        }
    }

    fn check_deletion(&mut self) {
        let mut last: BTreeMap<&str, &ObservedVersion> = BTreeMap::new();
        for seen in &self.observations.users {
            last.insert(&seen.name, seen);
        }
        let deleted: Vec<Value> = last.values().filter(|seen| seen.deleted).map(|seen| seen.object.clone()).collect();
        for object in deleted {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let remaining: Vec<String> = self
                .truths
                .iter()
                .filter(|user| user.tags.get("awsdeploy.dev/uid") == Some(&uid))
                .map(|user| user.name.clone())
                .collect();
            for user in remaining {
                self.report("S8", format!("the resource is deleted, but user {user} still has its ownership tags"));
            }
        }
    }

    fn check_ready(&mut self) {
        for resource in self.users.clone() {
            let name = resource["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let uid = resource["metadata"]["uid"].as_str().unwrap_or_default();
            let truth =
                self.truths.iter().find(|user| user.tags.get("awsdeploy.dev/uid").is_some_and(|owner| owner == uid));
            let ready = resource["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == resource["metadata"]["generation"]
            });
            if !ready {
                continue;
            }
            let Some(truth) = truth.cloned() else {
                self.report("S9", format!("{name} is Ready, but IAM has no user for it"));
                continue;
            };
            for difference in differences(&resource["spec"], &truth) {
                self.report("S9", format!("{name} is Ready, but {difference}"));
            }
            let uid = &resource["metadata"]["uid"];
            let journal = self.journals.iter().any(|secret| secret["metadata"]["annotations"][JOURNAL_OF] == *uid);
            let published: BTreeSet<String> = self.secrets.iter().filter_map(key_id).map(str::to_owned).collect();
            for key in truth
                .keys
                .iter()
                .filter(|key| self.created_by_operator(&key.id))
                .map(|key| key.id.clone())
                .collect::<Vec<_>>()
            {
                let tagged = truth.tags.keys().any(|tag| tag.eq_ignore_ascii_case(&format!("{KEY_TAG}{key}")));
                if !tagged && !published.contains(&key) && !journal {
                    self.report(
                        "S9",
                        format!("key {key} of user {} is not tagged, published or in a journal", truth.name),
                    );
                }
            }
        }
    }
}

/// S10: writes while nothing was due.
pub(super) fn idle_writes(aws: &[CallRecord], kube: &[KubeRecord]) -> Vec<Violation> {
    let violation = |detail| Violation { invariant: "S10", detail };
    let aws = aws.iter().map(|call| violation(format!("wrote to AWS while idle: {call}")));
    aws.chain(kube.iter().map(|call| violation(format!("wrote to Kubernetes while idle: {call}")))).collect()
}

/// Differences between the spec and IAM.
fn differences(spec: &Value, truth: &UserSnapshot) -> Vec<String> {
    let mut differences = Vec::new();
    let managed: BTreeSet<String> = spec["policies"]["managed"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| if name.starts_with("arn:") { name.to_owned() } else { format!("arn:aws:iam::aws:policy/{name}") })
        .collect();
    let attached: BTreeSet<String> =
        truth.attached.iter().filter(|arn| !arn.contains("AWSCompromisedKeyQuarantine")).cloned().collect();
    // A document is an inline policy, or a managed one with the name of the user and its own.
    let documents: BTreeSet<String> = spec["policies"]["documents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|document| document["name"].as_str().map(str::to_owned))
        .collect();
    let of_document = |arn: &str| arn.rsplit_once(&format!("/{}+", truth.name)).map(|(_, name)| name.to_owned());
    let (of_documents, others): (BTreeSet<String>, BTreeSet<String>) =
        attached.into_iter().partition(|arn| of_document(arn).is_some());
    if managed != others {
        differences.push(format!("the declared policies are {managed:?}, attached are {others:?}"));
    }
    let mut found: Vec<String> = of_documents.iter().filter_map(|arn| of_document(arn)).collect();
    found.extend(truth.inline.keys().cloned());
    found.sort();
    if documents.iter().ne(found.iter()) {
        differences.push(format!("the declared documents are {documents:?}, the user has {found:?}"));
    }
    let groups: BTreeSet<String> =
        spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if groups != truth.groups {
        differences.push(format!("the declared groups are {groups:?}, the user is in {:?}", truth.groups));
    }
    if spec["console"].is_object() != truth.login_profile.is_some() {
        differences.push("console access differs".to_owned());
    }
    for (key, value) in spec["tags"].as_object().into_iter().flatten() {
        if truth.tags.get(key).map(String::as_str) != value.as_str() {
            differences.push(format!("tag {key} differs"));
        }
    }
    differences
}
