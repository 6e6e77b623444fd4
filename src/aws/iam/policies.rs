//! Policies of a user: managed, inline, permissions boundary.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    IamClient,
    convert::{optional, paginate},
    policy_document::decode_document,
};
use crate::{
    aws::AwsError,
    domain::current_state::{Grants, UserRef},
};

impl IamClient {
    /// Whether a managed policy exists.
    pub async fn policy_exists(&self, arn: &str) -> Result<bool, AwsError> {
        let answer = self.call("GetPolicy", self.iam.get_policy().policy_arn(arn).send()).await;
        Ok(optional(answer)?.is_some())
    }

    /// Reads all policies and groups of the user: three lists, and one call per inline policy.
    pub async fn get_grants(&self, user: &str) -> Result<Grants, AwsError> {
        let (attached, names, groups) = tokio::try_join!(
            Box::pin(self.list_attached_policies(user)),
            Box::pin(self.list_inline_policies(user)),
            Box::pin(self.list_groups(user))
        )?;
        let mut inline = BTreeMap::new();
        for name in names {
            // `None`: deleted since the list was read.
            if let Some(document) = self.get_inline_policy(user, &name).await? {
                inline.insert(name, document);
            }
        }
        Ok(Grants { attached, inline, groups })
    }

    async fn list_attached_policies(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let request = self.iam.list_attached_user_policies().user_name(user);
        paginate!(self, "ListAttachedUserPolicies", request, attached_policies, |policy| policy
            .policy_arn()
            .map(str::to_owned))
    }

    async fn list_inline_policies(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_user_policies().user_name(user);
        paginate!(self, "ListUserPolicies", request, policy_names, |name| Some(name.clone()))
    }

    async fn get_inline_policy(&self, user: &str, name: &str) -> Result<Option<Value>, AwsError> {
        let request = self.iam.get_user_policy().user_name(user).policy_name(name);
        let answer = self.call("GetUserPolicy", request.send()).await;
        Ok(optional(answer)?.map(|answer| decode_document(answer.policy_document())))
    }

    /// Attaches a managed policy.
    pub async fn attach_policy(&self, user: &UserRef, arn: &str) -> Result<(), AwsError> {
        let request = self.iam.attach_user_policy().user_name(user.name()).policy_arn(arn);
        self.call("AttachUserPolicy", request.send()).await.map(drop)
    }

    /// Detaches a managed policy. One that is not attached is no error.
    pub async fn detach_policy(&self, user: &UserRef, arn: &str) -> Result<(), AwsError> {
        let request = self.iam.detach_user_policy().user_name(user.name()).policy_arn(arn);
        optional(self.call("DetachUserPolicy", request.send()).await).map(drop)
    }

    /// Creates or replaces an inline policy.
    pub async fn put_inline_policy(&self, user: &UserRef, name: &str, document: &Value) -> Result<(), AwsError> {
        let request =
            self.iam.put_user_policy().user_name(user.name()).policy_name(name).policy_document(document.to_string());
        self.call("PutUserPolicy", request.send()).await.map(drop)
    }

    /// Deletes an inline policy. One that does not exist is no error.
    pub async fn delete_inline_policy(&self, user: &UserRef, name: &str) -> Result<(), AwsError> {
        let request = self.iam.delete_user_policy().user_name(user.name()).policy_name(name);
        optional(self.call("DeleteUserPolicy", request.send()).await).map(drop)
    }

    /// Sets the permissions boundary.
    pub async fn put_boundary(&self, user: &UserRef, arn: &str) -> Result<(), AwsError> {
        let request = self.iam.put_user_permissions_boundary().user_name(user.name()).permissions_boundary(arn);
        self.call("PutUserPermissionsBoundary", request.send()).await.map(drop)
    }
}
