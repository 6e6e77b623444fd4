//! Managed policies that the operator makes for documents.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::retry::RetryConfig;
use aws_sdk_iam::types::{Policy, PolicyScopeType, PolicyVersion};
use serde_json::Value;

use super::{
    IamClient,
    convert::{map_to_tags, optional, paginate, tags_to_map},
    policy_document::decode_document,
};
use crate::{
    aws::AwsError,
    domain::managed_policy::{PolicyRef, version_number},
};

const GET_POLICY: &str = "GetPolicy";
const GET_POLICY_VERSION: &str = "GetPolicyVersion";
const CREATE_POLICY: &str = "CreatePolicy";
const CREATE_POLICY_VERSION: &str = "CreatePolicyVersion";
const LIST_ENTITIES: &str = "ListEntitiesForPolicy";

/// A managed policy as lists and reads return it, without documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPolicy {
    pub arn: String,
    /// Unique id (`ANPA...`).
    pub id: String,
    pub default_version: String,
    /// Number of users, groups and roles that it is attached to.
    pub attachments: i32,
}

impl ListedPolicy {
    /// `None` for a response that lacks what identifies a policy.
    fn from_sdk(policy: &Policy) -> Option<Self> {
        let text = |field: Option<&str>| field.filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            arn: text(policy.arn())?,
            id: text(policy.policy_id())?,
            default_version: text(policy.default_version_id())?,
            attachments: policy.attachment_count().unwrap_or_default(),
        })
    }
}

impl IamClient {
    /// Lists the customer managed policies below a path.
    pub async fn list_policies(&self, path: &str) -> Result<Vec<ListedPolicy>, AwsError> {
        let request = self.iam.list_policies().scope(PolicyScopeType::Local).path_prefix(path);
        paginate!(self, "ListPolicies", request, policies, ListedPolicy::from_sdk)
    }

    /// Reads a policy with its tags. `None` only when IAM responds `NoSuchEntity`.
    pub async fn get_policy(&self, arn: &str) -> Result<Option<(ListedPolicy, BTreeMap<String, String>)>, AwsError> {
        let answer = self.call(GET_POLICY, self.iam.get_policy().policy_arn(arn).send()).await;
        let Some(answer) = optional(answer)? else { return Ok(None) };
        let policy = answer.policy().and_then(|policy| Some((ListedPolicy::from_sdk(policy)?, policy.tags())));
        let (policy, tags) = policy.ok_or_else(|| AwsError::incomplete(GET_POLICY, "policy"))?;
        Ok(Some((policy, tags_to_map(tags))))
    }

    /// Reads the document of a version. `None` only when IAM responds `NoSuchEntity`.
    pub async fn get_policy_version(&self, arn: &str, version: &str) -> Result<Option<Value>, AwsError> {
        let request = self.iam.get_policy_version().policy_arn(arn).version_id(version);
        let Some(answer) = optional(self.call(GET_POLICY_VERSION, request.send()).await)? else { return Ok(None) };
        let document = answer.policy_version().and_then(|version| version.document());
        let document = document.ok_or_else(|| AwsError::incomplete(GET_POLICY_VERSION, "document"))?;
        Ok(Some(decode_document(document)))
    }

    /// Lists the ids of all versions, oldest first.
    pub async fn list_policy_versions(&self, arn: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_policy_versions().policy_arn(arn);
        let id = |version: &PolicyVersion| version.version_id().map(str::to_owned);
        let versions: Result<Vec<String>, AwsError> = paginate!(self, "ListPolicyVersions", request, versions, id);
        let mut versions = versions?;
        versions.sort_by_key(|version| version_number(version));
        Ok(versions)
    }

    /// Lists the users, groups and roles that a policy is attached to or a boundary of, such as `role deployer`.
    pub async fn list_policy_holders(&self, arn: &str) -> Result<Vec<String>, AwsError> {
        let (mut holders, mut marker) = (Vec::new(), None);
        loop {
            let request = self.iam.list_entities_for_policy().policy_arn(arn).set_marker(marker);
            let page = self.call(LIST_ENTITIES, request.send()).await?;
            let named = |kind: &str, name: Option<&str>| format!("{kind} {}", name.unwrap_or("without a name"));
            holders.extend(page.policy_users().iter().map(|user| named("user", user.user_name())));
            holders.extend(page.policy_groups().iter().map(|group| named("group", group.group_name())));
            holders.extend(page.policy_roles().iter().map(|role| named("role", role.role_name())));
            marker = super::convert::next_marker(LIST_ENTITIES, page.is_truncated(), page.marker())?;
            if marker.is_none() {
                return Ok(holders);
            }
        }
    }

    /// Creates a policy with its tags in one call, so that a lost response leaves a policy with ownership tags. Not idempotent:
    /// `EntityAlreadyExists` when there is one.
    pub async fn create_policy(
        &self,
        name: &str,
        path: &str,
        document: &Value,
        tags: &BTreeMap<String, String>,
    ) -> Result<ListedPolicy, AwsError> {
        let request = self.iam.create_policy().policy_name(name).path(path).policy_document(document.to_string());
        let answer = self.call(CREATE_POLICY, request.set_tags(Some(map_to_tags(tags))).send()).await?;
        let policy = answer.policy().and_then(ListedPolicy::from_sdk);
        policy.ok_or_else(|| AwsError::incomplete(CREATE_POLICY, "policy"))
    }

    /// Creates a version, makes it the default, and returns its id. `LimitExceeded` while there are five. Not idempotent: a retry
    /// after a lost response would make a second version. This is the only attempt: the SDK's retries are disabled.
    pub async fn create_policy_version(&self, policy: &PolicyRef, document: &Value) -> Result<String, AwsError> {
        let request = self.iam.create_policy_version().policy_arn(policy.arn()).policy_document(document.to_string());
        let once = aws_sdk_iam::config::Builder::new().retry_config(RetryConfig::disabled());
        let request = request.set_as_default(true).customize().config_override(once);
        let answer = self.call(CREATE_POLICY_VERSION, request.send()).await?;
        let version = answer.policy_version().and_then(|version| version.version_id());
        version.map(str::to_owned).ok_or_else(|| AwsError::incomplete(CREATE_POLICY_VERSION, "version"))
    }

    /// Makes a version the default; false when there is none of this id.
    pub async fn set_default_policy_version(&self, policy: &PolicyRef, version: &str) -> Result<bool, AwsError> {
        let request = self.iam.set_default_policy_version().policy_arn(policy.arn()).version_id(version);
        optional(self.call("SetDefaultPolicyVersion", request.send()).await).map(|set| set.is_some())
    }

    /// Deletes a version that is not the default. One that does not exist is no error.
    pub async fn delete_policy_version(&self, policy: &PolicyRef, version: &str) -> Result<(), AwsError> {
        let request = self.iam.delete_policy_version().policy_arn(policy.arn()).version_id(version);
        optional(self.call("DeletePolicyVersion", request.send()).await).map(drop)
    }

    /// Deletes a policy; false when there is none. `DeleteConflict` while it is attached or has other versions than the default.
    pub async fn delete_policy(&self, policy: &PolicyRef) -> Result<bool, AwsError> {
        let answer = self.call("DeletePolicy", self.iam.delete_policy().policy_arn(policy.arn()).send()).await;
        optional(answer).map(|deleted| deleted.is_some())
    }

    /// Sets tags of a policy; others are kept.
    pub async fn tag_policy(&self, policy: &PolicyRef, tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
        let request = self.iam.tag_policy().policy_arn(policy.arn()).set_tags(Some(map_to_tags(tags)));
        self.call("TagPolicy", request.send()).await.map(drop)
    }

    /// Removes tags of a policy; false when there is no such policy. A tag that does not exist is no error.
    pub async fn untag_policy(&self, policy: &PolicyRef, keys: &BTreeSet<String>) -> Result<bool, AwsError> {
        let keys = keys.iter().cloned().collect();
        let request = self.iam.untag_policy().policy_arn(policy.arn()).set_tag_keys(Some(keys));
        optional(self.call("UntagPolicy", request.send()).await).map(|untagged| untagged.is_some())
    }
}
