//! Enforces the IAM policies of the operator. The emulator does not check permissions, so [`PolicyAuthorizer`]
//! evaluates each call with [`iam_policy`](crate::iam_policy), using the actual tags and boundaries of the user.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use serde_json::Value;

use super::account::{Account, Authorizer};
use super::call::{Call, Service};
use super::caller::{AccountRef, Caller, Identity};
use super::inspector::Inspector;
use super::response::AwsError;
use crate::iam_policy::authorization_reference::{
    self, BOUNDARY, POLICY_ARN, REQUEST_TAG, RESOURCE_TAG, Resource, TAG_KEYS,
};
use crate::iam_policy::{Decision, Policy, Request, evaluate};

/// Checks the permissions of the trusted keys of an account and of the roles that they assume. Calls of IAM users and
/// administrators are not checked. [`PolicyAuthorizer::enforce`] replaces the policies at any time.
pub struct PolicyAuthorizer {
    account: Arc<Account>,
    inspector: Inspector,
    policies: RwLock<Vec<Policy>>,
    /// Policies of roles in other accounts, by account id.
    policies_by_account: RwLock<HashMap<String, Vec<Policy>>>,
}

impl PolicyAuthorizer {
    pub(super) fn new(account: Arc<Account>, inspector: Inspector) -> Self {
        Self { account, inspector, policies: RwLock::default(), policies_by_account: RwLock::default() }
    }

    /// Replaces the policies for sessions in this account. The error says what is wrong with a document.
    pub fn enforce_in<'a>(&self, account: &str, documents: impl IntoIterator<Item = &'a Value>) -> Result<(), String> {
        let policies = documents.into_iter().map(Policy::parse).collect::<Result<_, _>>()?;
        self.policies_by_account.write().unwrap_or_else(PoisonError::into_inner).insert(account.to_owned(), policies);
        Ok(())
    }

    /// Replaces the policies for all accounts without their own ([`PolicyAuthorizer::enforce_in`]). The error says what
    /// is wrong with a document.
    pub fn enforce<'a>(&self, documents: impl IntoIterator<Item = &'a Value>) -> Result<(), String> {
        let policies = documents.into_iter().map(Policy::parse).collect::<Result<_, _>>()?;
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
        Ok(())
    }

    async fn authorize(&self, caller: &Caller, call: &Call) -> Result<(), AwsError> {
        let is_checked = match &caller.identity {
            Identity::Trusted | Identity::Session { .. } => true,
            Identity::User(_) | Identity::Anonymous | Identity::Administrator => false,
        };
        // GetCallerIdentity needs no permission and cannot be denied.
        let needs_no_permission = call.service == Service::Sts && call.action == "GetCallerIdentity";
        if !is_checked || needs_no_permission {
            return Ok(());
        }
        for name in std::iter::once(call.iam_action()).chain(tagging_action(call)) {
            self.authorize_action(caller, call, &name).await?;
        }
        Ok(())
    }

    async fn authorize_action(&self, caller: &Caller, call: &Call, name: &str) -> Result<(), AwsError> {
        let caller_arn = self.account.caller_arn(caller);
        let unknown = |error: String| {
            AwsError::new(403, "AccessDenied", format!("the policy authorizer cannot evaluate the call: {error}"))
        };
        let resource_type = authorization_reference::action(name)
            .ok_or_else(|| unknown(format!("the action {name} is not supported")))?
            .resource;
        let (resource, context) = self.resource_and_context(caller, call, resource_type).await?;
        let context = context.iter().map(|(key, values)| (key.as_str(), values.clone()));
        let request = Request::new(name, &resource, context).map_err(unknown)?;
        let is_session = matches!(caller.identity, Identity::Session { .. });
        let policies_by_account = self.policies_by_account.read().unwrap_or_else(PoisonError::into_inner);
        let decision = match policies_by_account.get(&caller.account_ref.account).filter(|_| is_session) {
            Some(policies) => evaluate(policies, &request),
            None => evaluate(&self.policies.read().unwrap_or_else(PoisonError::into_inner), &request),
        };
        drop(policies_by_account);
        match decision {
            Decision::Allowed => Ok(()),
            Decision::ImplicitDeny => Err(AwsError::access_denied(&caller_arn, name, &resource)),
            Decision::ExplicitDeny(_) => Err(AwsError::explicitly_denied(&caller_arn, name, &resource)),
        }
    }

    /// The ARN that the call is authorized on, and its condition keys.
    async fn resource_and_context(
        &self,
        caller: &Caller,
        call: &Call,
        resource_type: Resource,
    ) -> Result<(String, Vec<(String, Vec<String>)>), AwsError> {
        let account_ref = &caller.account_ref;
        let param = |name: &str| call.param(name).map(str::to_owned);
        let named = |name: &str| param(name).unwrap_or_default();
        let mut context = request_context(call);
        let resource = match resource_type {
            Resource::Any => "*".to_owned(),
            Resource::Role => {
                param("RoleArn").unwrap_or_else(|| account_ref.arn("iam", &format!("role/{}", named("RoleName"))))
            }
            Resource::Policy => self.policy_arn(account_ref, call, &mut context).await?,
            Resource::Mfa => named("SerialNumber"),
            Resource::Group => {
                let found =
                    self.inspector.clone().in_account(account_ref.clone()).group_arn(&named("GroupName")).await?;
                found.unwrap_or_else(|| account_ref.arn("iam", &format!("group/{}", named("GroupName"))))
            }
            Resource::User => self.user_arn(account_ref, caller, call, &mut context).await?,
        };
        Ok((resource, context))
    }

    /// The ARN of the managed policy that the call names, and its tags. A policy that does not exist has no tags.
    async fn policy_arn(
        &self,
        account_ref: &AccountRef,
        call: &Call,
        context: &mut Vec<(String, Vec<String>)>,
    ) -> Result<String, AwsError> {
        let Some(arn) = call.param("PolicyArn") else {
            let (path, name) = (call.param("Path").unwrap_or("/"), call.param("PolicyName").unwrap_or_default());
            return Ok(account_ref.arn("iam", &format!("policy{path}{name}")));
        };
        let tags = self.inspector.clone().in_account(account_ref.clone()).policy_tags(arn).await?;
        context.extend(tags.into_iter().map(|(key, value)| (format!("{}{key}", RESOURCE_TAG[1]), vec![value])));
        Ok(arn.to_owned())
    }

    async fn user_arn(
        &self,
        account_ref: &AccountRef,
        caller: &Caller,
        call: &Call,
        context: &mut Vec<(String, Vec<String>)>,
    ) -> Result<String, AwsError> {
        let owner = || call.access_key_id().and_then(|id| self.account.owner_of(id));
        let named = call.user_name().map(str::to_owned).or_else(owner).or_else(|| caller.user().map(str::to_owned));
        let name = named.unwrap_or_default();
        if call.action == "CreateUser" {
            let path = call.param("Path").unwrap_or("/");
            return Ok(account_ref.arn("iam", &format!("user{path}{name}")));
        }
        let Some(facts) = self.inspector.clone().in_account(account_ref.clone()).authorization_facts(&name).await?
        else {
            // A missing user has no path.
            return Ok(account_ref.arn("iam", &format!("user/{name}")));
        };
        if call.action != "PutUserPermissionsBoundary" {
            context.extend(facts.boundary.map(|arn| (BOUNDARY.to_owned(), vec![arn])));
        }
        for (key, value) in facts.tags {
            context.extend(RESOURCE_TAG.map(|prefix| (format!("{prefix}{key}"), vec![value.clone()])));
        }
        Ok(facts.arn)
    }
}

impl Authorizer for PolicyAuthorizer {
    fn check<'a>(&'a self, caller: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>> {
        Box::pin(self.authorize(caller, call))
    }
}

/// The action that a creation with tags needs besides its own.
fn tagging_action(call: &Call) -> Option<String> {
    let kind = call.action.strip_prefix("Create").filter(|kind| ["User", "Policy"].contains(kind))?;
    (!call.tags().is_empty()).then(|| format!("iam:Tag{kind}"))
}

/// The condition keys taken from the request parameters.
fn request_context(call: &Call) -> Vec<(String, Vec<String>)> {
    let (tags, untag) = (call.tags(), call.list("TagKeys"));
    let keys: Vec<String> = tags.iter().map(|(key, _)| *key).chain(untag).map(str::to_owned).collect();
    let mut context = vec![(TAG_KEYS.to_owned(), keys)];
    context.extend(tags.iter().map(|(key, value)| (format!("{REQUEST_TAG}{key}"), vec![(*value).to_owned()])));
    for (key, param) in [(BOUNDARY, "PermissionsBoundary"), (POLICY_ARN, "PolicyArn")] {
        context.extend(call.param(param).map(|value| (key.to_owned(), vec![value.to_owned()])));
    }
    context
}
