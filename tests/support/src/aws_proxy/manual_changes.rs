//! A person at the AWS console, or any other program with rights in the account: what happens behind the operator's
//! back. By AWS's rules, but past the rules, the log and the signature check of any proxy.

use std::fmt;

use super::call::Call;
use super::caller::{AccountRef, Caller, Identity};
use super::response::{AwsError, AwsResponse};
use super::rules::Flags;
use super::strict::Aws;
use super::xml;

/// An access key with its secret, as `CreateAccessKey` answered it.
#[derive(Clone)]
pub struct CreatedKey {
    /// `AKIA...`
    pub id: String,
    /// Forty characters.
    pub secret: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Somebody with all rights in an account; see the module.
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

    /// The same person in another account or partition.
    #[must_use]
    pub fn in_account(mut self, account_ref: AccountRef) -> Self {
        self.account_ref = account_ref;
        self
    }

    /// Any call. An error answer is an `Err`.
    pub async fn call(&self, call: &Call) -> Result<AwsResponse, AwsError> {
        let caller = Caller { key_id: None, account_ref: self.account_ref.clone(), identity: Identity::Administrator };
        let answer = self.aws.perform(call, &caller, self.flags).await?;
        match answer.as_error() {
            None => Ok(answer),
            Some(error) => Err(error),
        }
    }

    async fn act(&self, call: Call) -> Result<(), AwsError> {
        self.call(&call).await.map(drop)
    }

    /// The texts of an element in all pages of a list.
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

    /// Makes a user that is nobody's.
    pub async fn create_user(&self, user: &str) -> Result<(), AwsError> {
        self.act(on("CreateUser", user)).await
    }

    /// Makes a user with tags, so that it looks like somebody's.
    pub async fn create_tagged_user(&self, user: &str, tags: &[(&str, &str)]) -> Result<(), AwsError> {
        self.act(on("CreateUser", user).with_tags(tags.iter().copied())).await
    }

    /// Deletes a user that has nothing left.
    pub async fn delete_user(&self, user: &str) -> Result<(), AwsError> {
        self.act(on("DeleteUser", user)).await
    }

    /// Deletes a user and all that hangs on it, as the console does with one click. To another program that is many
    /// calls, and it may put something back in between: then this starts over.
    pub async fn purge_user(&self, user: &str) -> Result<(), AwsError> {
        const TRIES: usize = 5;
        for _ in 1..TRIES {
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

    /// Makes an access key that the operator has not asked for.
    pub async fn create_key(&self, user: &str) -> Result<CreatedKey, AwsError> {
        let answer = self.call(&on("CreateAccessKey", user)).await?;
        let text = |name: &str| {
            xml::text_in(&answer.body, name).ok_or_else(|| AwsError::upstream(&format!("an answer without {name}")))
        };
        Ok(CreatedKey { id: text("AccessKeyId")?, secret: text("SecretAccessKey")? })
    }

    /// Switches a key off.
    pub async fn deactivate_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("UpdateAccessKey", user).with("AccessKeyId", key_id).with("Status", "Inactive")).await
    }

    /// Switches a key on again.
    pub async fn activate_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("UpdateAccessKey", user).with("AccessKeyId", key_id).with("Status", "Active")).await
    }

    /// Deletes a key.
    pub async fn delete_key(&self, user: &str, key_id: &str) -> Result<(), AwsError> {
        self.act(on("DeleteAccessKey", user).with("AccessKeyId", key_id)).await
    }

    /// Attaches a managed policy. With `AWSCompromisedKeyQuarantineV3` this is AWS itself.
    pub async fn attach(&self, user: &str, policy_arn: &str) -> Result<(), AwsError> {
        self.act(on("AttachUserPolicy", user).with("PolicyArn", policy_arn)).await
    }

    /// Detaches a managed policy.
    pub async fn detach(&self, user: &str, policy_arn: &str) -> Result<(), AwsError> {
        self.act(on("DetachUserPolicy", user).with("PolicyArn", policy_arn)).await
    }

    /// Writes an inline policy.
    pub async fn put_inline(&self, user: &str, name: &str, document: &str) -> Result<(), AwsError> {
        self.act(on("PutUserPolicy", user).with("PolicyName", name).with("PolicyDocument", document)).await
    }

    /// Deletes an inline policy.
    pub async fn delete_inline(&self, user: &str, name: &str) -> Result<(), AwsError> {
        self.act(on("DeleteUserPolicy", user).with("PolicyName", name)).await
    }

    /// Writes tags.
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

    /// Sets the boundary of a user, or takes it away.
    pub async fn set_boundary(&self, user: &str, policy_arn: Option<&str>) -> Result<(), AwsError> {
        match policy_arn {
            Some(arn) => self.act(on("PutUserPermissionsBoundary", user).with("PermissionsBoundary", arn)).await,
            None => self.act(on("DeleteUserPermissionsBoundary", user)).await,
        }
    }

    /// Makes a managed policy of the account and returns its ARN.
    pub async fn create_policy(&self, name: &str, document: &str) -> Result<String, AwsError> {
        let call = Call::iam("CreatePolicy").with("PolicyName", name).with("PolicyDocument", document);
        let answer = self.call(&call).await?;
        xml::text_in(&answer.body, "Arn").ok_or_else(|| AwsError::upstream("a policy without an ARN"))
    }

    /// Makes a group.
    pub async fn create_group(&self, group: &str) -> Result<(), AwsError> {
        self.act(Call::iam("CreateGroup").with("GroupName", group)).await
    }

    /// Puts a user into a group.
    pub async fn add_to_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        self.act(on("AddUserToGroup", user).with("GroupName", group)).await
    }

    /// Gives a user a password.
    pub async fn create_login_profile(&self, user: &str, password: &str) -> Result<(), AwsError> {
        self.act(on("CreateLoginProfile", user).with("Password", password)).await
    }
}

fn on(action: &str, user: &str) -> Call {
    Call::iam(action).with("UserName", user)
}
