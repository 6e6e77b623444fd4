//! Changes made outside the operator: by a person in the AWS console or by another program.
//!
//! The AWS rules apply to these calls; fault rules, the call log and the signature check do not.

use std::fmt;

use super::call::Call;
use super::caller::{AccountRef, Caller, Identity};
use super::response::{AwsError, AwsResponse};
use super::rules::Flags;
use super::strict::Aws;
use super::xml;

/// An access key with its secret, as `CreateAccessKey` returns it.
#[derive(Clone)]
pub struct CreatedKey {
    /// Access key id, `AKIA...`.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes changes with all rights in an account; see the module.
#[derive(Clone, Debug)]
pub struct ManualChanges {
    aws: Aws,
    account_ref: AccountRef,
    flags: Flags,
}

impl ManualChanges {
    pub(super) fn new(aws: Aws) -> Self {
        let account_ref = aws.account.home();
        Self { aws, account_ref, flags: Flags::default() }
    }

    /// Makes the changes in another account or partition.
    #[must_use]
    pub fn in_account(mut self, account_ref: AccountRef) -> Self {
        self.account_ref = account_ref;
        self
    }

    /// Sends any call. An error response is an `Err`.
    pub async fn call(&self, call: &Call) -> Result<AwsResponse, AwsError> {
        let caller = Caller { key_id: None, account_ref: self.account_ref.clone(), identity: Identity::Administrator };
        let response = self.aws.perform(call, &caller, self.flags).await?;
        match response.as_error() {
            None => Ok(response),
            Some(error) => Err(error),
        }
    }

    async fn act(&self, call: Call) -> Result<(), AwsError> {
        self.call(&call).await.map(drop)
    }

    /// The values of an element in all pages of a list.
    async fn list(&self, call: &Call, element: &str) -> Result<Vec<String>, AwsError> {
        let mut texts = Vec::new();
        let mut next = call.clone();
        loop {
            let body = self.call(&next).await?.body;
            texts.extend(xml::texts_in(&body, element));
            match xml::text_in(&body, "Marker") {
                Some(marker) => next = call.clone().with("Marker", marker),
                None => return Ok(texts),
            }
        }
    }

    /// Creates a user without tags, so without an owner.
    pub async fn create_user(&self, user: &str) -> Result<(), AwsError> {
        self.act(on("CreateUser", user)).await
    }

    /// Creates a user with tags, for example ownership tags.
    pub async fn create_tagged_user(&self, user: &str, tags: &[(&str, &str)]) -> Result<(), AwsError> {
        self.act(on("CreateUser", user).with_tags(tags.iter().copied())).await
    }

    /// Deletes a user without deletion blockers.
    pub async fn delete_user(&self, user: &str) -> Result<(), AwsError> {
        self.act(on("DeleteUser", user)).await
    }

    /// Deletes a user with its keys, policies, groups and credentials, as the console does in one step. Retries on
    /// `DeleteConflict`: the operator may create something between these calls.
    pub async fn purge_user(&self, user: &str) -> Result<(), AwsError> {
        const MAX_ATTEMPTS: usize = 5;
        for _ in 1..MAX_ATTEMPTS {
            match self.try_purge(user).await {
                Err(error) if error.code == "DeleteConflict" => {}
                done => return done,
            }
        }
        self.try_purge(user).await
    }

    async fn try_purge(&self, user: &str) -> Result<(), AwsError> {
        let list = async |action: &str, element: &str| self.list(&on(action, user), element).await;
        for id in list("ListAccessKeys", "AccessKeyId").await? {
            self.delete_key(user, &id).await?;
        }
        for arn in list("ListAttachedUserPolicies", "PolicyArn").await? {
            self.detach(user, &arn).await?;
        }
        for name in list("ListUserPolicies", "member").await? {
            self.delete_inline(user, &name).await?;
        }
        for group in list("ListGroupsForUser", "GroupName").await? {
            self.act(on("RemoveUserFromGroup", user).with("GroupName", group)).await?;
        }
        for id in list("ListServiceSpecificCredentials", "ServiceSpecificCredentialId").await? {
            let call = on("DeleteServiceSpecificCredential", user);
            self.act(call.with("ServiceSpecificCredentialId", id)).await?;
        }
        for serial in list("ListMFADevices", "SerialNumber").await? {
            self.act(on("DeactivateMFADevice", user).with("SerialNumber", serial)).await?;
        }
        match self.act(on("DeleteLoginProfile", user)).await {
            Err(error) if error.code != "NoSuchEntity" => return Err(error),
            _ => {}
        }
        self.delete_user(user).await
    }

    /// Creates an access key.
    pub async fn create_key(&self, user: &str) -> Result<CreatedKey, AwsError> {
        let response = self.call(&on("CreateAccessKey", user)).await?;
        let text = |name: &str| {
            xml::text_in(&response.body, name).ok_or_else(|| AwsError::upstream(&format!("a response without {name}")))
        };
        Ok(CreatedKey { id: text("AccessKeyId")?, secret: text("SecretAccessKey")? })
    }

    /// Sets a key to Inactive.
    pub async fn deactivate_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("UpdateAccessKey", user).with("AccessKeyId", key_id).with("Status", "Inactive")).await
    }

    /// Sets a key to Active.
    pub async fn activate_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("UpdateAccessKey", user).with("AccessKeyId", key_id).with("Status", "Active")).await
    }

    /// Deletes a key.
    pub async fn delete_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("DeleteAccessKey", user).with("AccessKeyId", key_id)).await
    }

    /// Attaches a managed policy. AWS itself does so with `AWSCompromisedKeyQuarantineV3`.
    pub async fn attach(&self, user: &str, policy_arn: &str) -> Result<(), AwsError> {
        self.act(on("AttachUserPolicy", user).with("PolicyArn", policy_arn)).await
    }

    /// Detaches a managed policy.
    pub async fn detach(&self, user: &str, policy_arn: &str) -> Result<(), AwsError> {
        self.act(on("DetachUserPolicy", user).with("PolicyArn", policy_arn)).await
    }

    /// Creates or replaces an inline policy.
    pub async fn put_inline(&self, user: &str, name: &str, document: &str) -> Result<(), AwsError> {
        self.act(on("PutUserPolicy", user).with("PolicyName", name).with("PolicyDocument", document)).await
    }

    /// Deletes an inline policy.
    pub async fn delete_inline(&self, user: &str, name: &str) -> Result<(), AwsError> {
        self.act(on("DeleteUserPolicy", user).with("PolicyName", name)).await
    }

    /// Sets tags.
    pub async fn tag(&self, user: &str, tags: &[(&str, &str)]) -> Result<(), AwsError> {
        self.act(on("TagUser", user).with_tags(tags.iter().copied())).await
    }

    /// Removes tags.
    pub async fn untag(&self, user: &str, keys: &[&str]) -> Result<(), AwsError> {
        let call = keys
            .iter()
            .enumerate()
            .fold(on("UntagUser", user), |call, (index, key)| call.with(format!("TagKeys.member.{}", index + 1), *key));
        self.act(call).await
    }

    /// Sets the permissions boundary of a user; `None` removes it.
    pub async fn set_boundary(&self, user: &str, policy_arn: Option<&str>) -> Result<(), AwsError> {
        match policy_arn {
            Some(arn) => self.act(on("PutUserPermissionsBoundary", user).with("PermissionsBoundary", arn)).await,
            None => self.act(on("DeleteUserPermissionsBoundary", user)).await,
        }
    }

    /// Creates a customer managed policy and returns its ARN.
    pub async fn create_policy(&self, name: &str, document: &str) -> Result<String, AwsError> {
        self.create_policy_at("/", name, document).await
    }

    /// Creates a customer managed policy at a path and returns its ARN.
    pub async fn create_policy_at(&self, path: &str, name: &str, document: &str) -> Result<String, AwsError> {
        let call = Call::iam("CreatePolicy").with("PolicyName", name).with("Path", path);
        let call = call.with("PolicyDocument", document);
        let response = self.call(&call).await?;
        xml::text_in(&response.body, "Arn").ok_or_else(|| AwsError::upstream("a policy without an ARN"))
    }

    /// Adds a version to a customer managed policy, makes it the default, and returns its id.
    pub async fn create_policy_version(&self, arn: &str, document: &str) -> Result<String, AwsError> {
        let call = Call::iam("CreatePolicyVersion").with("PolicyArn", arn).with("PolicyDocument", document);
        let response = self.call(&call.with("SetAsDefault", "true")).await?;
        xml::text_in(&response.body, "VersionId").ok_or_else(|| AwsError::upstream("a version without an id"))
    }

    /// Makes a version of a customer managed policy the default.
    pub async fn set_default_policy_version(&self, arn: &str, version: &str) -> Result<(), AwsError> {
        self.act(Call::iam("SetDefaultPolicyVersion").with("PolicyArn", arn).with("VersionId", version)).await
    }

    /// Deletes a customer managed policy that is not attached and has no version besides the default.
    pub async fn delete_policy(&self, arn: &str) -> Result<(), AwsError> {
        self.act(Call::iam("DeletePolicy").with("PolicyArn", arn)).await
    }

    /// Creates a group.
    pub async fn create_group(&self, group: &str) -> Result<(), AwsError> {
        self.act(Call::iam("CreateGroup").with("GroupName", group)).await
    }

    /// Adds a user to a group.
    pub async fn add_to_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        self.act(on("AddUserToGroup", user).with("GroupName", group)).await
    }

    /// Creates a console password.
    pub async fn create_login_profile(&self, user: &str, password: &str) -> Result<(), AwsError> {
        self.act(on("CreateLoginProfile", user).with("Password", password)).await
    }
}

fn on(action: &str, user: &str) -> Call {
    Call::iam(action).with("UserName", user)
}
