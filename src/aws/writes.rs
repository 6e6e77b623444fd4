//! What is done to a user in IAM, each one call.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::retry::RetryConfig;
use aws_sdk_iam::types::StatusType;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    AwsError, AwsErrorKind, IamClient,
    convert::{optional, timestamp, to_tags, user_facts},
};
use crate::domain::{
    current_state::{Grants, IamUser},
    secret::KeyMaterial,
};

impl IamClient {
    /// Creates the user with path, boundary and tags in one call: a lost answer leaves a user that carries our marks.
    pub async fn create_user(
        &self,
        name: &str,
        path: &str,
        boundary: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<IamUser, AwsError> {
        let request = self.iam.create_user().user_name(name).path(path).set_tags(Some(to_tags(tags)));
        let request = request.set_permissions_boundary(boundary.map(str::to_owned));
        let answer = self.call("CreateUser", request.send()).await?;
        let mut user = answer.user.as_ref().map(user_facts).unwrap_or_default();
        // Some answers leave the tags out; they were set in this very call.
        user.tags.clone_from(tags);
        user.boundary = boundary.map(str::to_owned);
        user.grants = Some(Grants::default());
        Ok(user)
    }

    /// Sets tags. Can be repeated.
    pub async fn tag_user(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
        self.call("TagUser", self.iam.tag_user().user_name(name).set_tags(Some(to_tags(tags))).send()).await.map(drop)
    }

    /// Removes tags. Can be repeated; tags that are not there are no error.
    pub async fn untag_user(&self, name: &str, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let request = self.iam.untag_user().user_name(name).set_tag_keys(Some(keys.iter().cloned().collect()));
        optional(self.call("UntagUser", request.send()).await).map(drop)
    }

    /// Attaches a managed policy. Can be repeated.
    pub async fn attach_policy(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        self.call("AttachUserPolicy", self.iam.attach_user_policy().user_name(user).policy_arn(arn).send())
            .await
            .map(drop)
    }

    /// Detaches a managed policy. Can be repeated.
    pub async fn detach_policy(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        optional(
            self.call("DetachUserPolicy", self.iam.detach_user_policy().user_name(user).policy_arn(arn).send()).await,
        )
        .map(drop)
    }

    /// Writes an inline policy. Can be repeated.
    pub async fn put_inline_policy(&self, user: &str, name: &str, document: &Value) -> Result<(), AwsError> {
        let request =
            self.iam.put_user_policy().user_name(user).policy_name(name).policy_document(document.to_string());
        self.call("PutUserPolicy", request.send()).await.map(drop)
    }

    /// Removes an inline policy. Can be repeated.
    pub async fn delete_inline_policy(&self, user: &str, name: &str) -> Result<(), AwsError> {
        optional(
            self.call("DeleteUserPolicy", self.iam.delete_user_policy().user_name(user).policy_name(name).send()).await,
        )
        .map(drop)
    }

    /// Puts the user into a group. Can be repeated.
    pub async fn add_to_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        let request = self.iam.add_user_to_group().user_name(user).group_name(group);
        self.call("AddUserToGroup", request.send()).await.map(drop)
    }

    /// Takes the user out of a group. Can be repeated.
    pub async fn remove_from_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        let request = self.iam.remove_user_from_group().user_name(user).group_name(group);
        optional(self.call("RemoveUserFromGroup", request.send()).await).map(drop)
    }

    /// Sets the permissions boundary. Can be repeated.
    pub async fn put_boundary(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        let request = self.iam.put_user_permissions_boundary().user_name(user).permissions_boundary(arn);
        self.call("PutUserPermissionsBoundary", request.send()).await.map(drop)
    }

    /// Makes an access key. **Not idempotent**: the secret is shown once, there is no client token,
    /// and the SDK's retries would leave a second key whose secret nobody holds. So there is
    /// exactly one attempt, here and nowhere else.
    ///
    /// # Errors
    /// When the kind of the error is not definite, a key may have been made.
    pub async fn create_access_key(&self, user: &str) -> Result<(KeyMaterial, Timestamp), AwsError> {
        let once = aws_sdk_iam::config::Builder::new().retry_config(RetryConfig::disabled());
        let request = self.iam.create_access_key().user_name(user).customize().config_override(once);
        let answer = self.call("CreateAccessKey", request.send()).await?;
        let key = answer.access_key.ok_or_else(|| AwsError {
            operation: "CreateAccessKey",
            kind: AwsErrorKind::Service,
            message: "AWS answered without a key".to_owned(),
            request_id: None,
        })?;
        let created_at = key.create_date().map_or_else(|| self.clock().now(), timestamp);
        let aws_sdk_iam::types::AccessKey { access_key_id, secret_access_key, .. } = key;
        Ok((KeyMaterial { id: access_key_id, secret: secret_access_key.into() }, created_at))
    }

    /// Sets a key Inactive. Can be repeated; a key that is gone counts as done and gives false.
    pub async fn deactivate_access_key(&self, user: &str, id: &str) -> Result<bool, AwsError> {
        let request = self.iam.update_access_key().user_name(user).access_key_id(id).status(StatusType::Inactive);
        Ok(optional(self.call("UpdateAccessKey", request.send()).await)?.is_some())
    }

    /// Deletes a key. Can be repeated.
    pub async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), AwsError> {
        optional(
            self.call("DeleteAccessKey", self.iam.delete_access_key().user_name(user).access_key_id(id).send()).await,
        )
        .map(drop)
    }

    /// Deletes the user. Can be repeated: false when there was none. `DeleteConflict` when something still hangs on it.
    pub async fn delete_user(&self, name: &str) -> Result<bool, AwsError> {
        let answer = self.call("DeleteUser", self.iam.delete_user().user_name(name).send()).await;
        optional(answer).map(|deleted| deleted.is_some())
    }
}
