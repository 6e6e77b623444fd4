//! Reads the actual state of AWS for the auditor and for assertions.
//!
//! Reads bypass fault rules, the call log and paging, so that a snapshot is never stale and never counts as traffic.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use roxmltree::{Document, Node};

use super::call::Call;
use super::caller::AccountRef;
use super::key::KeyState;
use super::response::AwsError;
use super::strict::{Aws, decode_document};
use super::xml;

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySnapshot {
    /// Access key id, `AKIA...`.
    pub id: String,
    /// State as IAM lists it.
    pub state: KeyState,
    /// Creation date.
    pub created: Timestamp,
    /// Whether a request signed with the key is accepted now, propagation delays included.
    pub accepted: bool,
}

/// A login profile, without the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginProfileSnapshot {
    /// Whether the next sign-in must change the password.
    pub password_reset_required: bool,
}

/// A user with its tags, policies, groups, keys and credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct UserSnapshot {
    /// Name, in the case of its creation.
    pub name: String,
    /// User id, `AIDA...`; a recreated user has another one.
    pub id: String,
    /// ARN, including the path.
    pub arn: String,
    /// Path.
    pub path: String,
    /// Creation date.
    pub created: Timestamp,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// ARNs of attached managed policies.
    pub attached: BTreeSet<String>,
    /// Inline policies, parsed.
    pub inline: BTreeMap<String, serde_json::Value>,
    /// Groups.
    pub groups: BTreeSet<String>,
    /// Permissions boundary.
    pub boundary: Option<String>,
    /// Access keys, oldest first.
    pub keys: Vec<KeySnapshot>,
    /// Console password.
    pub login_profile: Option<LoginProfileSnapshot>,
    /// Ids of service-specific credentials.
    pub service_credentials: BTreeSet<String>,
}

impl UserSnapshot {
    /// The key with this id.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&KeySnapshot> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The ids of the active keys.
    #[must_use]
    pub fn active_keys(&self) -> Vec<&str> {
        self.keys.iter().filter(|key| key.state == KeyState::Active).map(|key| key.id.as_str()).collect()
    }
}

/// A customer managed policy with its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySnapshot {
    /// Name, in the case of its creation.
    pub name: String,
    /// Policy id, `ANPA...`; a recreated policy has another one.
    pub id: String,
    /// ARN, including the path.
    pub arn: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The documents by version, parsed.
    pub versions: BTreeMap<String, serde_json::Value>,
    /// The version in effect.
    pub default_version: String,
    /// Number of users, groups and roles that it is attached to.
    pub attachment_count: usize,
}

impl PolicySnapshot {
    /// The document in effect.
    #[must_use]
    pub fn document(&self) -> Option<&serde_json::Value> {
        self.versions.get(&self.default_version)
    }
}

/// The facts about a user that condition keys of policies refer to.
pub(super) struct AuthorizationFacts {
    pub(super) arn: String,
    pub(super) boundary: Option<String>,
    pub(super) tags: Vec<(String, String)>,
}

/// Reads the actual state; see the module.
#[derive(Clone, Debug)]
pub struct Inspector {
    aws: Aws,
    account_ref: AccountRef,
}

impl Inspector {
    pub(super) fn new(aws: Aws) -> Self {
        let account_ref = aws.account.home();
        Self { aws, account_ref }
    }

    /// Reads another account or partition.
    #[must_use]
    pub fn in_account(mut self, account_ref: AccountRef) -> Self {
        self.account_ref = account_ref;
        self
    }

    /// The names of all users.
    pub async fn user_names(&self) -> Result<Vec<String>, AwsError> {
        Ok(xml::texts_in(&self.query(&Call::iam("ListUsers")).await?, "UserName"))
    }

    /// Snapshots of all users.
    pub async fn users(&self) -> Result<Vec<UserSnapshot>, AwsError> {
        let mut users = Vec::new();
        for name in self.user_names().await? {
            // A user deleted since the list was read is skipped.
            users.extend(self.user(&name).await?);
        }
        Ok(users)
    }

    /// Snapshot of a user; `None` if there is no user of that name.
    pub async fn user(&self, name: &str) -> Result<Option<UserSnapshot>, AwsError> {
        none_if_not_found(self.read_user(name).await)
    }

    /// The access keys of a user, oldest first; empty if there is no such user.
    pub async fn keys(&self, user: &str) -> Result<Vec<KeySnapshot>, AwsError> {
        match self.read_keys(user).await {
            Err(error) if error.code == "NoSuchEntity" => Ok(Vec::new()),
            keys => keys,
        }
    }

    /// The facts that authorization depends on; `None` if there is no such user.
    pub(super) async fn authorization_facts(&self, name: &str) -> Result<Option<AuthorizationFacts>, AwsError> {
        let about = |action: &str| Call::iam(action).with("UserName", name);
        let read = async {
            let arn = xml::text_in(&self.query(&about("GetUser")).await?, "Arn").ok_or_else(|| malformed("a user"))?;
            let tags = super::strict::read_tags(&self.query(&about("ListUserTags")).await?);
            Ok(AuthorizationFacts { arn, boundary: self.aws.account.boundary(&self.account_ref, name), tags })
        };
        none_if_not_found(read.await)
    }

    /// Snapshots of all customer managed policies below a path, by name.
    pub async fn policies(&self, path_prefix: &str) -> Result<Vec<PolicySnapshot>, AwsError> {
        let all = super::strict::ALL_ITEMS;
        let call = Call::iam("ListPolicies").with("Scope", "Local").with("PathPrefix", path_prefix);
        let mut policies = Vec::new();
        for arn in xml::texts_in(&self.query(&call.with("MaxItems", all)).await?, "Arn") {
            // A policy deleted since the list was read is skipped.
            policies.extend(self.policy(&arn).await?);
        }
        Ok(policies)
    }

    /// Snapshot of a customer managed policy; `None` if there is none.
    pub async fn policy(&self, arn: &str) -> Result<Option<PolicySnapshot>, AwsError> {
        none_if_not_found(self.read_policy(arn).await)
    }

    /// The tags of a managed policy; none if it does not exist.
    pub(super) async fn policy_tags(&self, arn: &str) -> Result<Vec<(String, String)>, AwsError> {
        let found = self.query(&Call::iam("GetPolicy").with("PolicyArn", arn)).await;
        Ok(none_if_not_found(found)?.map(|body| super::strict::read_tags(&body)).unwrap_or_default())
    }

    async fn read_policy(&self, arn: &str) -> Result<PolicySnapshot, AwsError> {
        let about = |action: &str| Call::iam(action).with("PolicyArn", arn);
        let body = self.query(&about("GetPolicy")).await?;
        let document = parse(&body)?;
        let policy = xml::find(&document, "Policy").ok_or_else(|| malformed("a policy"))?;
        let mut versions = BTreeMap::new();
        for id in xml::texts_in(&self.query(&about("ListPolicyVersions")).await?, "VersionId") {
            let body = self.query(&about("GetPolicyVersion").with("VersionId", &id)).await?;
            let text = xml::text_in(&body, "Document").unwrap_or_default();
            // The emulator does not encode this document.
            let document = serde_json::from_str(&text).map_err(|_| malformed("a policy document"))?;
            versions.insert(id, document);
        }
        Ok(PolicySnapshot {
            name: text(policy, "PolicyName")?.to_owned(),
            id: super::strict::policy_id(text(policy, "PolicyId")?),
            arn: text(policy, "Arn")?.to_owned(),
            tags: super::strict::read_tags(&body).into_iter().collect(),
            versions,
            default_version: text(policy, "DefaultVersionId")?.to_owned(),
            attachment_count: text(policy, "AttachmentCount")?.parse().map_err(|_| malformed("a count"))?,
        })
    }

    /// The ARN of a group; `None` if there is no such group.
    pub(super) async fn group_arn(&self, name: &str) -> Result<Option<String>, AwsError> {
        let found = self.query(&Call::iam("GetGroup").with("GroupName", name)).await;
        Ok(none_if_not_found(found)?.and_then(|body| xml::text_in(&body, "Arn")))
    }

    async fn read_user(&self, name: &str) -> Result<UserSnapshot, AwsError> {
        let about = |action: &str| Call::iam(action).with("UserName", name);
        let body = self.query(&about("GetUser")).await?;
        let document = parse(&body)?;
        let user = xml::find(&document, "User").ok_or_else(|| malformed("a user"))?;
        let known = self.aws.account.user(&self.account_ref, name);

        let mut inline = BTreeMap::new();
        for policy in xml::texts_in(&self.query(&about("ListUserPolicies")).await?, "member") {
            let body = self.query(&about("GetUserPolicy").with("PolicyName", &policy)).await?;
            let text = decode_document(&xml::text_in(&body, "PolicyDocument").unwrap_or_default());
            let document = serde_json::from_str(&text).map_err(|_| malformed("a policy document"))?;
            inline.insert(policy, document);
        }
        let login_profile = match self.query(&about("GetLoginProfile")).await {
            Ok(_) => Some(LoginProfileSnapshot { password_reset_required: known.password_reset_required }),
            Err(error) if error.code == "NoSuchEntity" => None,
            Err(error) => return Err(error),
        };
        let attached = self.query(&about("ListAttachedUserPolicies")).await?;
        let groups = self.query(&about("ListGroupsForUser")).await?;
        Ok(UserSnapshot {
            name: text(user, "UserName")?.to_owned(),
            id: super::strict::user_id(text(user, "UserId")?),
            arn: text(user, "Arn")?.to_owned(),
            path: text(user, "Path")?.to_owned(),
            created: date(user)?,
            tags: super::strict::read_tags(&self.query(&about("ListUserTags")).await?).into_iter().collect(),
            attached: xml::texts_in(&attached, "PolicyArn").into_iter().collect(),
            inline,
            groups: xml::texts_in(&groups, "GroupName").into_iter().collect(),
            boundary: known.boundary,
            keys: self.read_keys(name).await?,
            login_profile,
            service_credentials: known.service_credentials.into_iter().map(|credential| credential.id).collect(),
        })
    }

    async fn read_keys(&self, user: &str) -> Result<Vec<KeySnapshot>, AwsError> {
        let body = self.query(&Call::iam("ListAccessKeys").with("UserName", user)).await?;
        let document = parse(&body)?;
        let list = xml::find(&document, "AccessKeyMetadata").ok_or_else(|| malformed("a list of keys"))?;
        let mut keys = Vec::new();
        for key in xml::members(list) {
            let id = text(key, "AccessKeyId")?.to_owned();
            let state = if text(key, "Status")? == "Active" { KeyState::Active } else { KeyState::Inactive };
            keys.push(KeySnapshot { accepted: self.aws.account.accepts(&id), id, state, created: date(key)? });
        }
        for (id, state, created) in self.aws.account.keys_beyond_quota(&self.account_ref, user) {
            keys.push(KeySnapshot { accepted: self.aws.account.accepts(&id), id, state, created });
        }
        keys.sort_by_key(|key| key.created);
        Ok(keys)
    }

    async fn query(&self, call: &Call) -> Result<String, AwsError> {
        self.aws.query(&self.account_ref, call).await
    }
}

fn none_if_not_found<T>(found: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == "NoSuchEntity" => Ok(None),
        Err(error) => Err(error),
    }
}

fn malformed(what: &str) -> AwsError {
    AwsError::upstream(&format!("{what} is malformed"))
}

fn parse(body: &str) -> Result<Document<'_>, AwsError> {
    Document::parse(body).map_err(|_| malformed("XML"))
}

fn text<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, AwsError> {
    xml::child_text(node, name).ok_or_else(|| malformed(name))
}

fn date(node: Node<'_, '_>) -> Result<Timestamp, AwsError> {
    text(node, "CreateDate")?.parse().map_err(|_| malformed("a date"))
}
