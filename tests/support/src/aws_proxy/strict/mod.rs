//! The AWS rules that the emulator does not enforce, one file per group, and the table of actions that they apply to.

mod boundary;
mod delete_user;
mod groups;
mod identity;
mod keys;
mod last_used;
mod login_profile;
mod managed_policies;
mod names;
mod normalize;
mod paging;
mod policies;
mod service_credentials;
mod sessions;
mod tags;
mod users;

use std::sync::Arc;

use super::account::Account;
use super::call::{Call, Service};
use super::caller::{AccountRef, Caller};
use super::response::{AwsError, AwsResponse};
use super::rules::Flags;
use super::upstream::Upstream;

pub(super) use managed_policies::ALL_ITEMS;
pub(super) use normalize::{shown_policy_id as policy_id, shown_user_id as user_id};
pub(super) use policies::decode as decode_document;
pub(super) use tags::read as read_tags;

/// The AWS behind a proxy: the emulator and the account state.
#[derive(Clone, Debug)]
pub(super) struct Aws {
    pub(super) account: Arc<Account>,
    pub(super) upstream: Upstream,
}

/// A call being processed.
struct Operation<'a> {
    aws: &'a Aws,
    call: &'a Call,
    caller: &'a Caller,
    flags: Flags,
}

impl Aws {
    /// Performs a call under the AWS rules. `Err` and an error response both mean that nothing was changed.
    pub(super) async fn perform(&self, call: &Call, caller: &Caller, flags: Flags) -> Result<AwsResponse, AwsError> {
        let operation = Operation { aws: self, call, caller, flags };
        let response = operation.perform().await?;
        Ok(normalize::normalize(response, call, flags.clock_skew))
    }

    /// Reads from the emulator on behalf of the proxy, not of the caller. An error response is an `Err`.
    pub(super) async fn query(&self, account_ref: &AccountRef, call: &Call) -> Result<String, AwsError> {
        let response = self.upstream.send(account_ref, call, None).await?;
        match response.as_error() {
            None => Ok(response.body),
            Some(error) => Err(error),
        }
    }
}

impl Operation<'_> {
    async fn perform(&self) -> Result<AwsResponse, AwsError> {
        match (self.call.service, self.call.action.as_str()) {
            (Service::Sts, "GetCallerIdentity") => identity::get_caller_identity(self).await,
            (Service::Sts, "AssumeRole" | "AssumeRoleWithWebIdentity" | "AssumeRoleWithSAML" | "GetSessionToken") => {
                sessions::issue_credentials(self).await
            }
            (Service::Sts, _) => self.forward().await,

            (_, "CreateUser") => users::create(self).await,
            (_, "GetUser") => users::get(self).await,
            (_, "UpdateUser") => users::update(self).await,
            (_, "DeleteUser") => delete_user::delete(self).await,
            (_, "PutUserPermissionsBoundary") => boundary::put(self).await,
            (_, "DeleteUserPermissionsBoundary") => boundary::delete(self).await,
            (_, "GetAccountAuthorizationDetails") => boundary::in_account_details(self).await,

            (_, "CreateAccessKey") => keys::create(self).await,
            (_, "UpdateAccessKey") => keys::update(self).await,
            (_, "DeleteAccessKey") => keys::delete(self).await,
            (_, "ListAccessKeys") => keys::list(self).await,
            (_, "GetAccessKeyLastUsed") => last_used::get(self),

            (_, "TagUser") => tags::tag_user(self).await,
            (_, "UntagUser") => tags::untag_user(self).await,

            (_, "AttachUserPolicy") => policies::attach(self).await,
            (_, "PutUserPolicy") => policies::put_inline(self).await,
            (_, "CreatePolicy") => managed_policies::create(self).await,
            (_, "GetPolicy") => managed_policies::get(self).await,
            (_, "ListPolicies") => managed_policies::list(self).await,
            (_, "DeletePolicy") => managed_policies::delete(self).await,
            (_, "TagPolicy") => managed_policies::tag(self).await,
            (_, "UntagPolicy") => managed_policies::untag(self).await,
            (_, "ListPolicyTags") => managed_policies::list_tags(self).await,
            (_, "ListEntitiesForPolicy") => managed_policies::list_entities(self).await,
            (_, "CreatePolicyVersion") => managed_policies::create_version(self).await,
            (_, "GetPolicyVersion") => managed_policies::get_version(self).await,
            (_, "ListPolicyVersions") => managed_policies::list_versions(self).await,
            (_, "SetDefaultPolicyVersion") => managed_policies::set_default_version(self).await,
            (_, "DeletePolicyVersion") => managed_policies::delete_version(self).await,

            (_, "AddUserToGroup") => groups::add_user(self).await,
            (_, "DeleteGroup") => groups::delete(self).await,

            (_, "CreateLoginProfile") => login_profile::create(self).await,
            (_, "UpdateLoginProfile") => login_profile::update(self).await,
            (_, "GetLoginProfile") => login_profile::get(self).await,
            (_, "DeleteLoginProfile") => login_profile::delete(self).await,

            (_, "CreateServiceSpecificCredential") => service_credentials::create(self).await,
            (_, "ListServiceSpecificCredentials") => service_credentials::list(self).await,
            (_, "UpdateServiceSpecificCredential") => service_credentials::update(self).await,
            (_, "DeleteServiceSpecificCredential") => service_credentials::delete(self).await,

            (_, action) if paging::is_paged(action) => paging::list(self).await,
            _ => self.forward().await,
        }
    }

    fn account(&self) -> &Account {
        &self.aws.account
    }

    fn account_ref(&self) -> &AccountRef {
        &self.caller.account_ref
    }

    /// The user named in the call, or the calling user.
    fn user(&self) -> Result<&str, AwsError> {
        match self.call.user_name().or_else(|| self.caller.user()) {
            Some(user) => {
                names::check_reference(user)?;
                Ok(user)
            }
            None => Err(AwsError::validation("Must specify userName when calling with non-User credentials")),
        }
    }

    /// Forwards the call unchanged.
    async fn forward(&self) -> Result<AwsResponse, AwsError> {
        self.forward_as(self.call).await
    }

    /// Forwards a modified call.
    async fn forward_as(&self, call: &Call) -> Result<AwsResponse, AwsError> {
        self.aws.upstream.send(self.account_ref(), call, self.caller.key_id.as_deref()).await
    }

    /// Reads from the emulator on behalf of the proxy.
    async fn query(&self, call: &Call) -> Result<String, AwsError> {
        self.aws.query(self.account_ref(), call).await
    }

    /// Fails with `NoSuchEntity` unless the user exists.
    async fn check_user_exists(&self, user: &str) -> Result<(), AwsError> {
        self.query(&Call::iam("GetUser").with("UserName", user)).await.map(drop)
    }

    /// A success response of this action.
    fn success(&self, result: &str) -> AwsResponse {
        AwsResponse::success(self.call.service, &self.call.action, result)
    }
}
