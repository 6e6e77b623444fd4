//! What IAM is asked about a user, each one call unless it says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{AccessKeyMetadata, StatusType};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    AwsError, IamClient,
    convert::{next, optional, paginate, timestamp, user_facts},
    document::document,
};
use crate::domain::current_state::{AccessKey, Grants, IamUser};

impl IamClient {
    /// The user with its tags, without keys and grants. `None` only when IAM says `NoSuchEntity`.
    pub async fn get_user(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        let answer = self.call("GetUser", self.iam.get_user().user_name(name).send()).await;
        Ok(optional(answer)?.and_then(|answer| answer.user).map(|user| user_facts(&user)))
    }

    /// Whether a managed policy exists.
    pub async fn policy_exists(&self, arn: &str) -> Result<bool, AwsError> {
        let answer = self.call("GetPolicy", self.iam.get_policy().policy_arn(arn).send()).await;
        Ok(optional(answer)?.is_some())
    }

    /// Finds a user whose name differs only in case: IAM refuses the name and does not say whose it is.
    /// One call per page of users; for messages only.
    pub async fn find_user_ignoring_case(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        let mut marker = None;
        loop {
            let page = self.call("ListUsers", self.iam.list_users().set_marker(marker).max_items(1000).send()).await?;
            if let Some(user) = page.users().iter().find(|user| user.user_name().eq_ignore_ascii_case(name)) {
                // Lists carry no tags.
                return self.get_user(user.user_name()).await;
            }
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(None);
            }
        }
    }

    /// All access keys of the user.
    pub async fn list_access_keys(&self, user: &str) -> Result<Vec<AccessKey>, AwsError> {
        let request = self.iam.list_access_keys().user_name(user);
        paginate!(self, "ListAccessKeys", request, access_key_metadata, access_key)
    }

    /// All policies and groups of the user: three lists, and one call per inline policy.
    pub async fn get_grants(&self, user: &str) -> Result<Grants, AwsError> {
        let (attached, names, groups) = tokio::try_join!(
            Box::pin(self.attached_policies(user)),
            Box::pin(self.inline_policy_names(user)),
            Box::pin(self.groups(user))
        )?;
        let mut inline = BTreeMap::new();
        for name in names {
            if let Some(document) = self.inline_policy(user, &name).await? {
                inline.insert(name, document);
            }
        }
        Ok(Grants { attached, inline, groups })
    }

    async fn attached_policies(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let request = self.iam.list_attached_user_policies().user_name(user);
        paginate!(self, "ListAttachedUserPolicies", request, attached_policies, |policy| policy
            .policy_arn()
            .map(str::to_owned))
    }

    async fn groups(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let request = self.iam.list_groups_for_user().user_name(user);
        paginate!(self, "ListGroupsForUser", request, groups, |group| Some(group.group_name().to_owned()))
    }

    async fn inline_policy_names(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_user_policies().user_name(user);
        paginate!(self, "ListUserPolicies", request, policy_names, |name| Some(name.clone()))
    }

    async fn inline_policy(&self, user: &str, name: &str) -> Result<Option<Value>, AwsError> {
        let answer =
            self.call("GetUserPolicy", self.iam.get_user_policy().user_name(user).policy_name(name).send()).await;
        Ok(optional(answer)?.map(|answer| document(answer.policy_document())))
    }

    /// When a key was last used; `None` if never, or not within AWS's record.
    pub async fn get_last_used(&self, key_id: &str) -> Result<Option<Timestamp>, AwsError> {
        let answer =
            self.call("GetAccessKeyLastUsed", self.iam.get_access_key_last_used().access_key_id(key_id).send()).await;
        Ok(optional(answer)?
            .and_then(|answer| answer.access_key_last_used)
            .and_then(|used| used.last_used_date)
            .map(|date| timestamp(&date)))
    }
}

/// A key as a list shows it; without an id it is none.
fn access_key(key: &AccessKeyMetadata) -> Option<AccessKey> {
    Some(AccessKey {
        id: key.access_key_id()?.to_owned(),
        // Anything but Inactive is taken for a key that works.
        active: key.status() != Some(&StatusType::Inactive),
        created_at: key.create_date().map(timestamp).unwrap_or_default(),
    })
}
