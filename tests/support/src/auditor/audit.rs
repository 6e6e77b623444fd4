//! The judgement at the end of a run, over what was written down. Reads nothing: the same evidence leads to the same verdict.

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
const JOURNAL: &str = ".awsdeploy-journal";
/// Times in annotations have whole seconds, and the two clocks of a log and a watch are not read at once.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// One version of an object.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) gone: bool,
    pub(super) name: String,
    pub(super) object: Value,
}

#[derive(Default)]
pub(super) struct Notes {
    pub(super) secrets: Vec<Seen>,
    pub(super) users: Vec<Seen>,
    pub(super) excused: BTreeSet<String>,
    /// Users that an AWS admin has handed over.
    pub(super) consented: BTreeSet<String>,
    pub(super) violations: Vec<Violation>,
}

impl Notes {
    /// The published keys of now: Secret -> key id.
    pub(super) fn published(&self) -> BTreeMap<&str, &str> {
        let mut published = BTreeMap::new();
        for seen in &self.secrets {
            match key_id(&seen.object) {
                Some(id) if !seen.gone => published.insert(seen.name.as_str(), id),
                _ => published.remove(seen.name.as_str()),
            };
        }
        published
    }

    /// S1 at this moment: published keys that IAM does not have as Active, each with its Secret.
    pub(super) fn dead(&self, account: &Account) -> Vec<(String, String)> {
        if self.revoked(Timestamp::MAX) {
            return Vec::new();
        }
        let dead = |id: &str| !self.excused.contains(id) && account.key_state(id) != Some(KeyState::Active);
        let published = self.published().into_iter().filter(|(_, id)| dead(id));
        published.map(|(secret, id)| (secret.to_owned(), id.to_owned())).collect()
    }

    /// Whether keys may be switched off on purpose: the resource is suspended or leaves.
    pub(super) fn revoked(&self, until: Timestamp) -> bool {
        self.users.iter().filter(|seen| seen.at - SLACK <= until).any(|seen| {
            seen.gone
                || seen.object["metadata"]["deletionTimestamp"].is_string()
                || seen.object["spec"]["suspend"] == Value::Bool(true)
        })
    }
}

/// All that a verdict is based on.
pub(super) struct Audit<'a> {
    /// What was seen while it went on.
    pub(super) notes: &'a Notes,
    /// The namespace of the run.
    pub(super) namespace: &'a str,
    /// What AWS knows of keys.
    pub(super) account: &'a Account,
    /// What was asked of AWS.
    pub(super) calls: Vec<CallRecord>,
    /// What was asked of Kubernetes, if that was listened to.
    pub(super) kube: Vec<KubeRecord>,
    /// The Secrets at the end.
    pub(super) secrets: Vec<Value>,
    /// The resources at the end.
    pub(super) users: Vec<Value>,
    /// The users in AWS at the end.
    pub(super) truths: Vec<UserSnapshot>,
    /// Texts to search for secrets, with a name each.
    pub(super) texts: Vec<(String, String)>,
    /// What was found.
    pub(super) violations: Vec<Violation>,
}

impl Audit<'_> {
    /// The verdict. `ambiguities` is how many creations of keys the injected faults account for.
    pub(super) fn judge(mut self, ambiguities: usize) -> Vec<Violation> {
        self.published_keys_work();
        self.secrets_are_consistent();
        self.nothing_dies_early();
        self.only_ours_is_written();
        self.keys_are_counted(ambiguities);
        self.nothing_leaks();
        self.what_is_gone_is_gone();
        self.ready_means_so();
        self.violations
    }

    fn report(&mut self, invariant: &'static str, detail: String) {
        self.violations.push(Violation { invariant, detail });
    }

    fn published_keys_work(&mut self) {
        if self.notes.revoked(Timestamp::MAX) {
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

    fn secrets_are_consistent(&mut self) {
        let versions: Vec<Value> = self.notes.secrets.iter().map(|seen| seen.object.clone()).collect();
        for secret in versions.iter().chain(&self.secrets.clone()) {
            let Some(id) = key_id(secret) else { continue };
            if self.notes.excused.contains(id) {
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
                    self.report(
                        "S2",
                        format!("the secret beside {held} in {form} is not the one that AWS made for it"),
                    );
                }
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
                self.report("S3", format!("{call} hit the published key"));
            }
            if let Some(since) = superseded
                && call.started + SLACK < since + overlap
            {
                self.report(
                    "S3",
                    format!("{call} came before the overlap of {overlap} was over, counted from {since}"),
                );
            }
        }
    }

    fn only_ours_is_written(&mut self) {
        let (mut users, mut keys) = (self.notes.consented.clone(), BTreeSet::new());
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
                    self.report("S5", format!("{call} wrote to a key that the operator has not made"));
                }
                _ => {}
            }
            if !users.contains(&user) {
                self.report("S4", format!("{call} wrote to a user that the operator has not made"));
            }
        }
        let mut made = BTreeSet::new();
        for call in self.kube.clone().into_iter().filter(|call| call.mutating && call.committed) {
            if call.namespace.as_deref() != Some(self.namespace) {
                self.report("S4", format!("{call} is in another namespace"));
            }
            if call.resource == "secrets" {
                if call.verb == "create" {
                    made.insert(call.name.clone());
                } else if !made.contains(&call.name) {
                    self.report("S4", format!("{call} wrote to a Secret that the operator has not made"));
                }
            }
        }
    }

    fn keys_are_counted(&mut self, ambiguities: usize) {
        let published: BTreeSet<&str> = self.notes.secrets.iter().filter_map(|seen| key_id(&seen.object)).collect();
        let created = self.calls.iter().filter(|call| call.action == "CreateAccessKey" && call.committed).count();
        if created > published.len() + ambiguities {
            let published = published.len();
            self.report(
                "S6",
                format!("{created} keys were made for {published} publications and {ambiguities} injected ambiguities"),
            );
        }
        for user in self.truths.clone() {
            if user.keys.len() > 2 && user.keys.iter().filter(|key| self.minted(&key.id)).count() > 2 {
                self.report("S6", format!("user {} has {} keys", user.name, user.keys.len()));
            }
        }
    }

    fn minted(&self, key_id: &str) -> bool {
        self.calls.iter().any(|call| {
            call.action == "CreateAccessKey" && call.committed && call.access_key.as_deref() == Some(key_id)
        })
    }

    fn nothing_leaks(&mut self) {
        let all = |values: &[Value]| Value::from(values.to_vec()).to_string();
        let versions: Vec<Value> = self.notes.users.iter().map(|seen| seen.object.clone()).collect();
        let metadata: Vec<Value> = self.notes.secrets.iter().map(|seen| seen.object["metadata"].clone()).collect();
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
                self.report("S7", format!("the secret of {id} stands in {name}"));
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
                self.report("S8", format!("the resource is gone and user {user} still carries its marks"));
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
                self.report("S9", format!("{name} is Ready and IAM has no user of it"));
                continue;
            };
            for difference in differences(&resource["spec"], &truth) {
                self.report("S9", format!("{name} is Ready, and {difference}"));
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
                    self.report("S9", format!("key {key} of user {} is known to nobody", truth.name));
                }
            }
        }
    }
}

/// S10: what was written while there was nothing to do.
pub(super) fn loud(aws: &[CallRecord], kube: &[KubeRecord]) -> Vec<Violation> {
    let violation = |detail| Violation { invariant: "S10", detail };
    let aws = aws.iter().map(|call| violation(format!("a quiet look wrote to AWS: {call}")));
    aws.chain(kube.iter().map(|call| violation(format!("a quiet look wrote to Kubernetes: {call}")))).collect()
}

/// What IAM has otherwise than declared.
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
    let groups: BTreeSet<String> =
        spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if groups != truth.groups {
        differences.push(format!("declared groups are {groups:?}, the user is in {:?}", truth.groups));
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
