//! Managed policies that the operator makes for documents: their names, what the status records, and what was observed.
//!
//! Each user has a path of its own, below the path of its class: one list by path finds all policies of a resource, attached or
//! not, and no class reaches those of another. They outlive the user, which is deleted first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    owner::{Owner, Ownership, tag_value},
    policy,
};
use crate::api::{
    user::{PolicyKind, PolicyStatus},
    well_known,
};

/// Quota of IAM for versions of a managed policy.
pub const MAX_VERSIONS: usize = 5;

/// Policies of a resource that are left although no document is declared for them, such as those that others have too. At this
/// number no further ones are made: each edit could leave another one.
pub const MAX_LEFT: usize = 10;

/// Limit of IAM for paths.
pub const MAX_PATH_CHARACTERS: usize = 512;

/// Separates the name of the user from that of the document, which does not contain it.
const SEPARATOR: char = '+';

/// IAM path of the policies of a user.
#[must_use]
pub fn path(class_path: &str, user: &str) -> String {
    format!("{class_path}{user}/")
}

/// IAM path of the policies of a resource. Recorded policies decide, which may have been made below the path of another class:
/// names are unique regardless of the path, so that a document cannot have one at each.
#[must_use]
pub fn path_of_resource(class_path: &str, user: &str, recorded: &[PolicyStatus]) -> String {
    let recorded = recorded.iter().filter_map(|policy| path_of(policy.arn.as_deref()?));
    let mut of_user = recorded.filter(|recorded| recorded.starts_with(class_path) && folder(recorded) == user);
    of_user.next().map_or_else(|| path(class_path, user), str::to_owned)
}

/// Last folder of a path.
fn folder(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Whether IAM treats the names of two policies as one, as it does regardless of path and case.
#[must_use]
pub fn is_same_name(left: &str, right: &str) -> bool {
    let name = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    name(left) == name(right)
}

/// Name of the policy for a document of a user. Names are unique in an account regardless of path and case.
#[must_use]
pub fn name(user: &str, document: &str) -> String {
    format!("{user}{SEPARATOR}{document}")
}

/// ARN of the policy for a document of a user; `path` is that of its policies.
#[must_use]
pub fn arn(partition: &str, account: &str, path: &str, user: &str, document: &str) -> String {
    format!("arn:{partition}:iam::{account}:policy{path}{}", name(user, document))
}

/// Name of the document in the ARN of its policy.
#[must_use]
pub fn document_name(arn: &str) -> &str {
    arn.rsplit_once(SEPARATOR).map_or(arn, |(_, document)| document)
}

/// Path in the ARN of a policy. `None` if it is not the ARN of a policy.
#[must_use]
pub fn path_of(arn: &str) -> Option<&str> {
    let path = arn.split_once(":policy")?.1;
    Some(&path[..=path.rfind('/')?])
}

/// Whether the ARN has the form of a policy that an operator made for a document of some resource: the name continues that of its
/// folder. Holds in every class and account, whatever their paths. Ignores case, as IAM does when it compares names.
#[must_use]
pub fn is_of_a_document(arn: &str) -> bool {
    let mut parts = arn.rsplit('/');
    let (Some(name), Some(folder)) = (parts.next(), parts.next()) else { return false };
    let continues = name.len() > folder.len() && name.is_char_boundary(folder.len());
    continues
        && parts.next().is_some()
        && arn.starts_with("arn:")
        && name[..folder.len()].eq_ignore_ascii_case(folder)
        && name[folder.len()..].starts_with(SEPARATOR)
}

/// SHA-256 of the meaning of a document. Documents of tenants are large; what is kept of them is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentDigest([u8; 32]);

impl DocumentDigest {
    #[must_use]
    pub fn of(document: &Value) -> Self {
        Self(Sha256::digest(policy::canonical_text(document)).into())
    }
}

/// Whose a policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyOwner {
    /// The status records its id, or its tags name this resource.
    Ours,
    /// Its tags name this resource with another UID: the resource was restored from a backup.
    Earlier,
    /// Its tags name another owner, or none; the text describes it.
    Other(String),
}

impl PolicyOwner {
    /// Whose a policy with these tags is.
    #[must_use]
    pub fn classify(owner: &Owner, tags: &BTreeMap<String, String>) -> Self {
        match owner.classify(tags) {
            Ownership::Ours => Self::Ours,
            _ if is_of_earlier(owner, tags) => Self::Earlier,
            Ownership::Untagged => Self::Other("it has no ownership tags of this operator".to_owned()),
            Ownership::Other(who) => Self::Other(format!("it belongs to {who}")),
        }
    }
}

/// The UID aside, the tags are those of this resource, of which there is one at a time.
fn is_of_earlier(owner: &Owner, tags: &BTreeMap<String, String>) -> bool {
    let mut others = owner.tags();
    others.remove(well_known::TAG_UID);
    others.iter().all(|(key, value)| tag_value(tags, key) == Some(value))
        && tag_value(tags, well_known::TAG_UID).is_some()
}

/// Observed policy at the path of the user.
#[derive(Clone, Debug, PartialEq)]
pub struct CurrentPolicy {
    pub arn: String,
    /// Unique id (`ANPA...`), which changes when the policy is deleted and created again.
    pub id: String,
    pub owner: PolicyOwner,
    pub default_version: String,
    /// Digests by version, as far as they were read: the document of a version never changes.
    pub documents: BTreeMap<String, DocumentDigest>,
    /// Document of the default version. Read only for a resource that no class allows, to see whether it may keep it.
    pub content: Option<Value>,
    /// Number of users, groups and roles that it is attached to.
    pub attachments: i32,
    /// All versions, oldest first. `None` if not read: that takes a call, after a refusal of IAM only.
    pub versions: Option<Vec<String>>,
    /// Other users, groups and roles that it is attached to or a boundary of. `None` if not read, as the versions.
    pub holders: Option<Vec<String>>,
}

/// An observed policy of the resource, as the target of a write: one that was not observed cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    arn: String,
    id: String,
}

impl PolicyRef {
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Unique id (`ANPA...`).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl CurrentPolicy {
    /// Whether it belongs to the resource.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.owner, PolicyOwner::Other(_))
    }

    /// `None` if it belongs to another owner.
    #[must_use]
    pub fn reference(&self) -> Option<PolicyRef> {
        self.is_ours().then(|| PolicyRef { arn: self.arn.clone(), id: self.id.clone() })
    }

    /// Digest of the document that applies. `None` if it could not be read.
    #[must_use]
    pub fn digest(&self) -> Option<DocumentDigest> {
        self.documents.get(&self.default_version).copied()
    }

    /// Forgets a version that does not exist.
    pub fn remove_version(&mut self, version: &str) {
        self.documents.remove(version);
        self.versions.iter_mut().for_each(|all| all.retain(|other| other != version));
    }

    /// Adds a version, which becomes the default.
    pub fn add_default(&mut self, version: &str, digest: DocumentDigest) {
        version.clone_into(&mut self.default_version);
        self.documents.insert(version.to_owned(), digest);
        self.versions.iter_mut().for_each(|all| all.push(version.to_owned()));
    }
}

/// Policies of a resource: a fact beside the user, which they outlive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CurrentPolicies {
    /// What IAM lists at the path of the user, by ARN.
    pub found: BTreeMap<String, CurrentPolicy>,
    /// They could not be read: none counts as missing, and none is changed.
    pub are_unread: bool,
}

impl CurrentPolicies {
    /// Policies that could not be read.
    #[must_use]
    pub fn unread() -> Self {
        Self { are_unread: true, ..Self::default() }
    }

    /// The policies that belong to the resource.
    pub fn ours(&self) -> impl Iterator<Item = &CurrentPolicy> {
        self.found.values().filter(|policy| policy.is_ours())
    }

    /// The policy of this ARN, if it belongs to the resource.
    #[must_use]
    pub fn owned(&self, arn: &str) -> Option<&CurrentPolicy> {
        self.found.get(arn).filter(|policy| policy.is_ours())
    }
}

/// What the status records of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedPolicy {
    /// Unique id. `None`: `CreatePolicy` may or may not have been called.
    pub id: Option<String>,
    /// The version that the operator made the default.
    pub default_version: Option<String>,
    /// Versions that the operator made, oldest first.
    pub versions: Vec<String>,
    /// Versions that others made, as far as they were read.
    pub other_versions: Vec<String>,
}

/// Recorded policies by ARN. A policy is created only after it is recorded, and its record is removed after IAM has said that it is
/// gone, so that none is forgotten, however a reconcile ends.
pub type PolicyRecords = BTreeMap<String, RecordedPolicy>;

/// Whether the records name the policy of this ARN by this id: it is the resource's, whatever its tags.
#[must_use]
pub fn is_recorded(records: &PolicyRecords, arn: &str, id: &str) -> bool {
    records.get(arn).is_some_and(|record| record.id.as_deref() == Some(id))
}

/// Recorded policies that are left although no document is declared for them; `declares` says which are declared.
pub fn left<'a>(records: &'a PolicyRecords, declares: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a str> {
    records.keys().map(String::as_str).filter(move |arn| !declares(arn))
}

impl RecordedPolicy {
    /// Records a version that the operator made, which is the default.
    pub fn add_default(&mut self, version: &str) {
        self.default_version = Some(version.to_owned());
        self.add([&version.to_owned()]);
    }

    /// Recorded versions that are not the default, oldest first.
    pub fn replaced<'a>(&'a self, default: &'a str) -> impl Iterator<Item = &'a String> {
        self.versions.iter().filter(move |version| *version != default)
    }

    /// Forgets a version that does not exist.
    pub fn remove_version(&mut self, version: &str) {
        self.versions.retain(|known| known != version);
        self.other_versions.retain(|known| known != version);
    }

    /// Completes the record by what was observed. Versions with the declared document are the operator's own: of one that is not
    /// recorded, the response was lost.
    pub fn observe(&mut self, found: &CurrentPolicy, declared: Option<DocumentDigest>) {
        if self.id.as_ref() != Some(&found.id) {
            *self = Self { id: Some(found.id.clone()), ..Self::default() };
        }
        let of_document = found.documents.iter().filter(|(_, digest)| Some(**digest) == declared);
        let exists = |version: &&String| found.versions.as_ref().is_none_or(|all| all.contains(version));
        let own: Vec<&String> = of_document.map(|(version, _)| version).filter(exists).collect();
        let (default, other): (Vec<&String>, Vec<&String>) =
            own.into_iter().partition(|version| **version == found.default_version);
        self.add(other);
        for version in default {
            self.add_default(version);
        }
        if let Some(all) = &found.versions {
            self.other_versions.clone_from(all);
        } else if found.digest().is_some() && !self.other_versions.contains(&found.default_version) {
            self.other_versions.push(found.default_version.clone());
        }
        self.other_versions.retain(|version| !self.versions.contains(version));
    }

    fn add<'a>(&mut self, versions: impl IntoIterator<Item = &'a String>) {
        for version in versions {
            if !self.versions.contains(version) {
                self.versions.push(version.clone());
            }
        }
        self.versions.sort_by_key(|version| version_number(version));
    }
}

/// Number of a version, which orders them: `v10` is newer than `v9`.
#[must_use]
pub fn version_number(version: &str) -> u64 {
    version.trim_start_matches('v').parse().unwrap_or_default()
}

/// The records in a status.
#[must_use]
pub fn records(status: &[PolicyStatus]) -> PolicyRecords {
    let managed = status.iter().filter(|policy| policy.kind == PolicyKind::Managed);
    let record = |policy: &PolicyStatus| RecordedPolicy {
        id: policy.id.clone(),
        default_version: policy.default_version.clone(),
        versions: policy.versions.clone(),
        other_versions: policy.other_versions.clone(),
    };
    let records = managed.filter_map(|policy| Some((policy.arn.clone()?, record(policy))));
    // Nothing else is the operator's, whatever was written into a status by hand.
    records.filter(|(arn, _)| is_of_a_document(arn)).collect()
}

/// The status of inline documents and of recorded policies.
#[must_use]
pub fn status<'a>(inline: impl IntoIterator<Item = &'a String>, records: &PolicyRecords) -> Vec<PolicyStatus> {
    let inline: BTreeSet<&String> = inline.into_iter().collect();
    let inline = inline.into_iter().map(|name| PolicyStatus {
        name: name.clone(),
        kind: PolicyKind::Inline,
        arn: None,
        id: None,
        default_version: None,
        versions: Vec::new(),
        other_versions: Vec::new(),
    });
    let managed = records.iter().map(|(arn, record)| PolicyStatus {
        name: document_name(arn).to_owned(),
        kind: PolicyKind::Managed,
        arn: Some(arn.clone()),
        id: record.id.clone(),
        default_version: record.default_version.clone(),
        versions: record.versions.clone(),
        other_versions: record.other_versions.clone(),
    });
    let mut all: Vec<PolicyStatus> = inline.chain(managed).collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:iam::123456789012:policy/awsdeploy/deploy_cycle/deploy_cycle+s3";

    #[test]
    fn name_has_user_and_document_and_a_path_per_user() {
        let path = path("/awsdeploy/", "deploy_cycle");
        assert_eq!(path, "/awsdeploy/deploy_cycle/");
        assert_eq!(arn("aws", "123456789012", &path, "deploy_cycle", "s3"), ARN);
        assert_eq!((document_name(ARN), path_of(ARN)), ("s3", Some(path.as_str())));
        assert_eq!(name(&"u".repeat(64), &"d".repeat(63)).len(), 128, "the limit of IAM");
        assert_eq!(document_name("arn:aws:iam::1:policy/a+b/a+b+c"), "c", "names of users may have the separator");
    }

    #[test]
    fn path_of_recorded_policies_is_kept_within_the_class() {
        let recorded = |arn: &str| PolicyStatus {
            name: "s3".into(),
            kind: PolicyKind::Managed,
            arn: Some(arn.to_owned()),
            id: None,
            default_version: None,
            versions: Vec::new(),
            other_versions: Vec::new(),
        };
        let path = |class: &str, arns: &[&str]| {
            path_of_resource(class, "u", &arns.iter().map(|arn| recorded(arn)).collect::<Vec<_>>())
        };
        let below = "arn:aws:iam::123456789012:policy/a/b/u/u+s3";
        assert_eq!(path("/a/", &[]), "/a/u/");
        assert_eq!(path("/a/", &[below]), "/a/b/u/");
        assert_eq!(path("/", &[below]), "/a/b/u/");
        assert_eq!(path("/c/", &[below]), "/c/u/");
        assert_eq!(path("/a/", &["arn:aws:iam::123456789012:policy/a/b/v/v+s3"]), "/a/u/", "of another user");
    }

    #[test]
    fn names_of_policies_differ_by_more_than_path_and_case() {
        let arn = |rest: &str| format!("arn:aws:iam::123456789012:policy/{rest}");
        assert!(is_same_name(&arn("a/u/u+s3"), &arn("b/u/U+S3")));
        assert!(!is_same_name(&arn("a/u/u+s3"), &arn("a/u/u+s4")));
    }

    #[test]
    fn policy_of_a_document_is_known_by_its_form_in_every_class() {
        let of = |rest: &str| is_of_a_document(&format!("arn:aws:iam::123456789012:policy/{rest}"));
        for rest in ["awsdeploy/u/u+d", "u/u+d", "a/b/U/u+d", "awsdeploy/a+b/a+b+c", "awsdeploy/u/u+"] {
            assert!(of(rest), "{rest}");
        }
        for rest in ["awsdeploy/boundary", "awsdeploy/u/u", "awsdeploy/u/v+d", "u+d", "awsdeploy/u/ud+", "u/x/u+d"] {
            assert!(!of(rest), "{rest}");
        }
        assert!(!is_of_a_document("AmazonEC2FullAccess") && !is_of_a_document("u/u+d"), "of AWS");
    }

    #[test]
    fn policy_is_ours_by_all_tags_and_earlier_by_all_but_the_uid() {
        let owner = Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u1".into() };
        let with = |key: &str, value: &str| {
            let mut tags = owner.tags();
            tags.insert(key.to_owned(), value.to_owned());
            PolicyOwner::classify(&owner, &tags)
        };
        assert_eq!(PolicyOwner::classify(&owner, &owner.tags()), PolicyOwner::Ours);
        assert_eq!(with(well_known::TAG_UID, "u0"), PolicyOwner::Earlier);
        for key in [well_known::TAG_CLUSTER, well_known::TAG_NAMESPACE, well_known::TAG_NAME] {
            assert!(matches!(with(key, "x"), PolicyOwner::Other(_)), "{key}");
            let mut tags = owner.tags();
            tags.remove(key);
            assert!(matches!(PolicyOwner::classify(&owner, &tags), PolicyOwner::Other(_)), "without {key}");
        }
        assert!(matches!(PolicyOwner::classify(&owner, &BTreeMap::new()), PolicyOwner::Other(_)));
    }

    #[test]
    fn records_survive_the_status() {
        use PolicyKind::{Inline, Managed};
        let record = RecordedPolicy {
            id: Some("ANPA1".into()),
            default_version: Some("v2".into()),
            versions: vec!["v1".into(), "v2".into()],
            other_versions: vec!["v3".into()],
        };
        let all: PolicyRecords =
            [(ARN.to_owned(), record), ("arn:aws:iam::1:policy/u/u+a".to_owned(), RecordedPolicy::default())].into();
        let written = status(["s3".to_owned(), "b".to_owned()].iter(), &all);
        let names: Vec<_> = written.iter().map(|policy| (policy.name.as_str(), policy.kind)).collect();
        assert_eq!(names, [("a", Managed), ("b", Inline), ("s3", Inline), ("s3", Managed)]);
        assert_eq!(records(&written), all);
    }

    #[test]
    fn default_with_the_declared_document_is_recorded_as_own() {
        let digest = DocumentDigest::of(&json!({"Statement": []}));
        let mut found = CurrentPolicy {
            arn: ARN.into(),
            id: "ANPA1".into(),
            owner: PolicyOwner::Ours,
            default_version: "v10".into(),
            documents: [("v10".to_owned(), digest)].into(),
            content: None,
            attachments: 1,
            versions: None,
            holders: None,
        };
        let mut record = RecordedPolicy {
            id: Some("ANPA1".into()),
            default_version: Some("v9".into()),
            versions: vec!["v9".into()],
            other_versions: Vec::new(),
        };
        let before = record.clone();
        record.observe(&found, Some(DocumentDigest::of(&json!({}))));
        assert_eq!(record, RecordedPolicy { other_versions: vec!["v10".into()], ..before }, "made by hand");
        record.observe(&found, Some(digest));
        assert_eq!((record.default_version.as_deref(), record.versions.len()), (Some("v10"), 2));
        assert_eq!(record.replaced("v10").collect::<Vec<_>>(), ["v9"]);
        assert!(record.other_versions.is_empty());
        // The listing of the account has all versions with their documents. v8 lost its response, v11 is by hand.
        found.versions = Some(["v8", "v10", "v11"].map(str::to_owned).to_vec());
        found.documents.extend([("v8".to_owned(), digest), ("v7".to_owned(), digest)]);
        record.observe(&found, Some(digest));
        assert_eq!((record.versions.join(" "), record.other_versions.join(" ")), ("v8 v9 v10".into(), "v11".into()));
        record.remove_version("v11");
        assert!(record.other_versions.is_empty());
        // Another policy of that name: nothing of the record is about it.
        found.id = "ANPA2".into();
        record.observe(&found, None);
        let other_versions = ["v8", "v10", "v11"].map(str::to_owned).to_vec();
        assert_eq!(record, RecordedPolicy { id: Some("ANPA2".into()), other_versions, ..RecordedPolicy::default() });
    }
}
