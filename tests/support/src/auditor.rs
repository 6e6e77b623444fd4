//! The auditor: watches a run from outside and says at its end which promises were broken.
//!
//! It shares no code with the product. What it knows it has from the API server as plain JSON, from [`Truth`] and from
//! the logs of both proxies; names of annotations and tags are spelled out here a second time on purpose.
//!
//! | promise | what is checked |
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
//! | S10 | when all is well, a full look writes nothing on either side ([`Auditor::quiet`]) |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, pin_mut};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    runtime::watcher::{self, Event},
};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    Result,
    aws_proxy::{Account, CallLog, CallRecord, KeyState, Truth, UserTruth},
    error::Context as _,
    kube_proxy::KubeLog,
};

const KEY_ID: &str = "awsdeploy.dev/access-key-id";
const PUBLISHED_AT: &str = "awsdeploy.dev/published-at";
const KEY_TAG: &str = "awsdeploy.dev/key/";
const JOURNAL: &str = ".awsdeploy-journal";
/// The overlap of a resource that declares none.
const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// Times in annotations have whole seconds, and the two clocks of a log and a watch are not read at once.
const SLACK: SignedDuration = SignedDuration::from_secs(1);
/// How often the published key is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `S1` to `S10`.
    pub promise: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.promise, self.found)
    }
}

/// What to look at.
#[derive(Clone)]
pub struct Audited {
    /// A client with every right.
    pub client: Client,
    /// The namespace of the run.
    pub namespace: String,
    /// What is so in AWS.
    pub truth: Truth,
    /// What AWS knows of keys.
    pub account: Arc<Account>,
    /// What the operator has asked of AWS.
    pub aws: CallLog,
    /// What it has asked of Kubernetes, if it went through a proxy.
    pub kube: Option<KubeLog>,
}

/// One version of an object.
#[derive(Clone)]
struct Seen {
    at: Timestamp,
    gone: bool,
    name: String,
    object: Value,
}

#[derive(Default)]
struct Notes {
    secrets: Vec<Seen>,
    users: Vec<Seen>,
    excused: BTreeSet<String>,
    violations: Vec<Violation>,
}

impl Notes {
    /// The published keys of now: Secret -> key id.
    fn published(&self) -> BTreeMap<&str, &str> {
        let mut published = BTreeMap::new();
        for seen in &self.secrets {
            match key_id(&seen.object) {
                Some(id) if !seen.gone => published.insert(seen.name.as_str(), id),
                _ => published.remove(seen.name.as_str()),
            };
        }
        published
    }

    /// Whether keys may be switched off on purpose: the resource is suspended or leaves.
    fn revoked(&self, until: Timestamp) -> bool {
        self.users.iter().filter(|seen| seen.at - SLACK <= until).any(|seen| {
            seen.gone
                || seen.object["metadata"]["deletionTimestamp"].is_string()
                || seen.object["spec"]["suspend"] == Value::Bool(true)
        })
    }
}

/// A running auditor.
pub struct Auditor {
    audited: Audited,
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
    pub fn start(audited: Audited) -> Self {
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
    pub fn excuse(&self, key_id: &str) {
        self.notes().excused.insert(key_id.to_owned());
    }

    /// S10: after two full looks at IAM, which may finish what the end of a fault has left, two more write nothing on
    /// either side.
    pub async fn quiet(&self, within: Duration) -> Vec<Violation> {
        let mut marks = (self.audited.aws.mark(), None);
        for look in 1..=4 {
            let from = self.audited.aws.mark();
            if look <= 3 {
                marks = (from, self.audited.kube.as_ref().map(KubeLog::mark));
            }
            // A look has one of these.
            let looked = |call: &CallRecord| call.action == "ListAttachedUserPolicies";
            if let Err(error) = self.audited.aws.wait_since(from, "a full look", within, looked).await {
                return vec![Violation { promise: "S10", found: format!("no look number {look} at IAM: {error}") }];
            }
        }
        let (mark, kube_mark) = marks;
        let mut violations = Vec::new();
        for call in self.audited.aws.mutating_calls_since(mark) {
            violations.push(Violation { promise: "S10", found: format!("a quiet look wrote to AWS: {call}") });
        }
        if let (Some(log), Some(mark)) = (&self.audited.kube, kube_mark) {
            for call in log.mutating_since(mark) {
                violations
                    .push(Violation { promise: "S10", found: format!("a quiet look wrote to Kubernetes: {call}") });
            }
        }
        violations
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
        let truths = self.audited.truth.users().await.map_err(|error| crate::Error::Unexpected(error.to_string()))?;

        let notes = self.notes();
        let mut audit = Audit {
            notes: &notes,
            audited: &self.audited,
            calls: self.audited.aws.calls(),
            secrets: secrets_now.items.iter().map(json).collect(),
            users: users_now.items.iter().map(json).collect(),
            truths,
            violations: notes.violations.clone(),
        };
        audit.published_keys_work();
        audit.secrets_are_consistent();
        audit.nothing_dies_early();
        audit.only_ours_is_written();
        audit.keys_are_counted(ambiguities);
        audit.nothing_leaks(evidence, &events.items.iter().map(json).collect::<Vec<_>>());
        audit.what_is_gone_is_gone();
        audit.ready_means_so();
        let violations = audit.violations;
        Ok(violations)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }
}

struct Audit<'a> {
    notes: &'a Notes,
    audited: &'a Audited,
    calls: Vec<CallRecord>,
    secrets: Vec<Value>,
    users: Vec<Value>,
    truths: Vec<UserTruth>,
    violations: Vec<Violation>,
}

impl Audit<'_> {
    fn found(&mut self, promise: &'static str, found: String) {
        self.violations.push(Violation { promise, found });
    }

    fn published_keys_work(&mut self) {
        if self.notes.revoked(Timestamp::MAX) {
            return;
        }
        for secret in self.secrets.clone() {
            if let Some(id) = key_id(&secret)
                && !self.audited.account.accepts(id)
            {
                self.found("S1", format!("at the end AWS does not accept the published key {id}"));
            }
        }
    }

    fn secrets_are_consistent(&mut self) {
        let versions: Vec<Value> = self.notes.secrets.iter().map(|seen| seen.object.clone()).collect();
        for secret in versions.iter().chain(&self.secrets.clone()) {
            let Some(id) = key_id(secret) else { continue };
            if self.notes.excused.contains(id) {
                continue;
            }
            let field = |name: &str| {
                let bytes = unbase64(secret["data"][name].as_str().unwrap_or_default());
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let (env_id, env_secret) = (field("AWS_ACCESS_KEY_ID"), field("AWS_SECRET_ACCESS_KEY"));
            if env_id != id {
                self.found("S2", format!("a Secret annotated with {id} holds {env_id}"));
            }
            if !self.audited.account.secret_matches(&env_id, &env_secret) {
                self.found("S2", format!("the secret beside {env_id} is not the one that AWS made for it"));
            }
            let file = field("credentials");
            let belongs = file.contains(id) && file.contains(&env_secret);
            if !file.is_empty() && !belongs {
                self.found("S2", format!("the credentials file beside {id} is of another key"));
            }
        }
    }

    fn nothing_dies_early(&mut self) {
        let overlap = self
            .notes
            .users
            .iter()
            .map(|seen| {
                seen.object["spec"]["accessKey"]["rotation"]["overlap"].as_str().map_or(DEFAULT_OVERLAP, duration)
            })
            .min()
            .unwrap_or(DEFAULT_OVERLAP);
        for call in self.calls.clone() {
            let off = call.action == "DeleteAccessKey"
                || (call.action == "UpdateAccessKey" && call.params.get("Status").is_some_and(|to| to == "Inactive"));
            let Some(id) = call.access_key.clone().filter(|_| off && call.committed) else { continue };
            if self.notes.excused.contains(&id) || self.notes.revoked(call.started) {
                continue;
            }
            let mut current: BTreeMap<&str, (&str, Timestamp)> = BTreeMap::new();
            let mut superseded: Option<Timestamp> = None;
            for seen in self.notes.secrets.iter().filter(|seen| seen.at - SLACK <= call.started) {
                match key_id(&seen.object).filter(|_| !seen.gone) {
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
                self.found("S3", format!("{call} hit the published key"));
            }
            if let Some(since) = superseded
                && call.started + SLACK < since + overlap
            {
                self.found("S3", format!("{call} came before the overlap of {overlap} was over, counted from {since}"));
            }
        }
    }

    fn only_ours_is_written(&mut self) {
        let (mut users, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for call in self.calls.clone().into_iter().filter(|call| call.mutating && call.committed) {
            let user = call.user.clone().unwrap_or_default();
            let key = call.access_key.clone().unwrap_or_default();
            match call.action.as_str() {
                "CreateUser" => {
                    users.insert(user.clone());
                }
                "CreateAccessKey" => {
                    keys.insert(key);
                }
                "UpdateAccessKey" | "DeleteAccessKey" if !keys.contains(&key) => {
                    self.found("S5", format!("{call} wrote to a key that the operator has not made"));
                }
                _ => {}
            }
            if !users.contains(&user) {
                self.found("S4", format!("{call} wrote to a user that the operator has not made"));
            }
        }
        let Some(log) = &self.audited.kube else { return };
        let mut made = BTreeSet::new();
        for call in log.mutating_since(0).into_iter().filter(|call| call.committed) {
            if call.namespace.as_ref() != Some(&self.audited.namespace) {
                self.found("S4", format!("{call} is in another namespace"));
            }
            if call.resource == "secrets" {
                if call.verb == "create" {
                    made.insert(call.name.clone());
                } else if !made.contains(&call.name) {
                    self.found("S4", format!("{call} wrote to a Secret that the operator has not made"));
                }
            }
        }
    }

    fn keys_are_counted(&mut self, ambiguities: usize) {
        let published: BTreeSet<&str> = self.notes.secrets.iter().filter_map(|seen| key_id(&seen.object)).collect();
        let created = self.calls.iter().filter(|call| call.action == "CreateAccessKey" && call.committed).count();
        if created > published.len() + ambiguities {
            let published = published.len();
            self.found(
                "S6",
                format!("{created} keys were made for {published} publications and {ambiguities} injected ambiguities"),
            );
        }
        for user in self.truths.clone() {
            if user.keys.len() > 2 && user.keys.iter().filter(|key| self.minted(&key.id)).count() > 2 {
                self.found("S6", format!("user {} has {} keys", user.name, user.keys.len()));
            }
        }
    }

    fn minted(&self, key_id: &str) -> bool {
        self.calls.iter().any(|call| {
            call.action == "CreateAccessKey" && call.committed && call.access_key.as_deref() == Some(key_id)
        })
    }

    fn nothing_leaks(&mut self, evidence: &[(&str, String)], events: &[Value]) {
        let mut texts: Vec<(&str, String)> = evidence.to_vec();
        texts.push(("Events", Value::from(events.to_vec()).to_string()));
        texts.push(("resources", Value::from(self.users.clone()).to_string()));
        let statuses: Vec<Value> = self.notes.users.iter().map(|seen| seen.object.clone()).collect();
        texts.push(("earlier versions of resources", Value::from(statuses).to_string()));
        texts.push(("the log of the AWS proxy", serde_json::to_string(&self.calls).unwrap_or_default()));
        if let Some(log) = &self.audited.kube {
            texts.push(("the log of the Kubernetes proxy", serde_json::to_string(&log.calls()).unwrap_or_default()));
        }
        let annotations: Vec<Value> = self.notes.secrets.iter().map(|seen| seen.object["metadata"].clone()).collect();
        texts.push(("metadata of Secrets", Value::from(annotations).to_string()));
        for (name, text) in texts {
            for id in self.audited.account.leaks_in(&text) {
                self.found("S7", format!("the secret of {id} stands in {name}"));
            }
        }
    }

    fn what_is_gone_is_gone(&mut self) {
        let mut last: BTreeMap<&str, &Seen> = BTreeMap::new();
        for seen in &self.notes.users {
            last.insert(&seen.name, seen);
        }
        let gone: Vec<Value> = last.values().filter(|seen| seen.gone).map(|seen| seen.object.clone()).collect();
        for object in gone {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let left: Vec<String> = self
                .truths
                .iter()
                .filter(|user| user.tags.get("awsdeploy.dev/uid") == Some(&uid))
                .map(|user| user.name.clone())
                .collect();
            for user in left {
                self.found("S8", format!("the resource is gone and user {user} still carries its marks"));
            }
        }
    }

    fn ready_means_so(&mut self) {
        for resource in self.users.clone() {
            let name = resource["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let uid = resource["metadata"]["uid"].as_str().unwrap_or_default();
            let truth = self.truths.iter().find(|user| user.tags.get("awsdeploy.dev/uid").is_some_and(|of| of == uid));
            let ready = resource["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == resource["metadata"]["generation"]
            });
            if !ready {
                continue;
            }
            let Some(truth) = truth.cloned() else {
                self.found("S9", format!("{name} is Ready and IAM has no user of it"));
                continue;
            };
            for difference in differences(&resource["spec"], &truth) {
                self.found("S9", format!("{name} is Ready, and {difference}"));
            }
            let journal = self.secrets.iter().any(|secret| {
                secret["metadata"]["name"].as_str().is_some_and(|secret| secret == format!("{name}{JOURNAL}"))
            });
            let published: BTreeSet<String> = self.secrets.iter().filter_map(key_id).map(str::to_owned).collect();
            for key in
                truth.keys.iter().filter(|key| self.minted(&key.id)).map(|key| key.id.clone()).collect::<Vec<_>>()
            {
                let tagged = truth.tags.keys().any(|tag| tag.eq_ignore_ascii_case(&format!("{KEY_TAG}{key}")));
                if !tagged && !published.contains(&key) && !journal {
                    self.found("S9", format!("key {key} of user {} is known to nobody", truth.name));
                }
            }
        }
    }
}

/// What IAM has otherwise than declared.
fn differences(spec: &Value, truth: &UserTruth) -> Vec<String> {
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
    if managed != attached {
        differences.push(format!("declared are {managed:?}, attached {attached:?}"));
    }
    let inline: BTreeMap<String, &Value> = spec["policies"]["inline"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|policy| (policy["name"].as_str().unwrap_or_default().to_owned(), &policy["document"]))
        .collect();
    if inline.keys().ne(truth.inline.keys()) {
        differences.push("inline policies differ".to_owned());
    }
    for (key, value) in spec["tags"].as_object().into_iter().flatten() {
        if truth.tags.get(key).map(String::as_str) != value.as_str() {
            differences.push(format!("tag {key} differs"));
        }
    }
    differences
}

fn secrets(audited: &Audited) -> Api<DynamicObject> {
    Api::namespaced_with(audited.client.clone(), &audited.namespace, &resource("", "v1", "Secret", "secrets"))
}

fn users(audited: &Audited) -> Api<DynamicObject> {
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
async fn sample(audited: Audited, notes: Arc<Mutex<Notes>>) {
    let secrets = secrets(&audited);
    let mut told = BTreeSet::new();
    loop {
        tokio::time::sleep(SAMPLE).await;
        let dead: Vec<(String, String)> = {
            let notes = lock(&notes);
            if notes.revoked(Timestamp::MAX) {
                continue;
            }
            let published = notes.published().into_iter();
            published
                .filter(|(_, id)| {
                    !notes.excused.contains(*id) && audited.account.key_state(id) != Some(KeyState::Active)
                })
                .map(|(secret, id)| (secret.to_owned(), id.to_owned()))
                .collect()
        };
        for (secret, id) in dead {
            // The watch may lag: asked again, of the API server itself.
            let Ok(Some(now)) = secrets.get_opt(&secret).await else { continue };
            let mut notes = lock(&notes);
            let still =
                key_id(&json(&now)) == Some(&id) && !notes.excused.contains(&id) && !notes.revoked(Timestamp::MAX);
            if still && told.insert(id.clone()) {
                let found = format!("Secret {secret} holds {id}, which is not Active in IAM");
                notes.violations.push(Violation { promise: "S1", found });
            }
        }
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn key_id(secret: &Value) -> Option<&str> {
    secret["metadata"]["annotations"][KEY_ID].as_str()
}

fn published_at(secret: &Value) -> Option<Timestamp> {
    secret["metadata"]["annotations"][PUBLISHED_AT].as_str()?.parse().ok()
}

/// `90s`, `15m`, `12h`, `30d`.
fn duration(text: &str) -> SignedDuration {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return DEFAULT_OVERLAP,
    };
    number.parse::<i64>().map_or(DEFAULT_OVERLAP, |number| SignedDuration::from_secs(number * seconds))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 without padding, so that it is found in a longer one too.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0_usize, |word, (place, byte)| word | usize::from(*byte) << (16 - 8 * place));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) & 63]));
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let digits: Vec<usize> =
        text.bytes().filter_map(|digit| ALPHABET.iter().position(|known| *known == digit)).collect();
    for chunk in digits.chunks(4) {
        let word = chunk.iter().enumerate().fold(0_usize, |word, (place, digit)| word | digit << (18 - 6 * place));
        for place in 0..chunk.len().saturating_sub(1) {
            bytes.push(u8::try_from((word >> (16 - 8 * place)) & 255).unwrap_or_default());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_proxy::Realm;

    #[test]
    fn base64_goes_both_ways() {
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob+/", "Zm9vYisv")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded), plain.as_bytes());
        }
        assert_eq!(unbase64("Zg=="), b"f");
    }

    #[test]
    fn a_leak_is_found_in_every_disguise_and_nothing_else_is() {
        let account = Account::new();
        account.learn_key(Realm::aws("123456789012"), "u", "AKIA1", "abc/def+ghi");
        for text in ["key=abc/def+ghi!", "YWJjL2RlZitnaGk", "body=abc%2Fdef%2Bghi&x"] {
            assert_eq!(account.leaks_in(text), ["AKIA1"], "{text}");
        }
        assert!(account.leaks_in("AKIA1 abc/def ghi").is_empty());
    }

    #[test]
    fn durations_are_read_as_declared() {
        assert_eq!(duration("2s"), SignedDuration::from_secs(2));
        assert_eq!(duration("12h"), SignedDuration::from_hours(12));
        assert_eq!(duration("soon"), DEFAULT_OVERLAP);
    }
}
