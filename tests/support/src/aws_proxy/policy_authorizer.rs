//! The IAM policy of a caller, in force: the emulator knows no permissions, so this asks
//! [`iam_policy`](crate::iam_policy) about each call of the operator, on what is so in AWS at that moment.

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

/// The permissions of the operator in an account: of the keys that the account was told to trust, and of the roles that
/// these assume. IAM users and people are not asked. [`PolicyAuthorizer::enforce`] changes the policies at any time.
pub struct PolicyAuthorizer {
    account: Arc<Account>,
    truth: Inspector,
    policies: RwLock<Vec<Policy>>,
    /// Of the roles in other accounts, by account id.
    abroad: RwLock<HashMap<String, Vec<Policy>>>,
}

impl PolicyAuthorizer {
    pub(super) fn new(account: Arc<Account>, truth: Inspector) -> Self {
        Self { account, truth, policies: RwLock::default(), abroad: RwLock::default() }
    }

    /// From now on these policies hold for sessions in this account, and no others.
    pub fn enforce_in<'a>(&self, account: &str, documents: impl IntoIterator<Item = &'a Value>) -> Result<(), String> {
        let policies = documents.into_iter().map(Policy::parse).collect::<Result<_, _>>()?;
        self.abroad.write().unwrap_or_else(PoisonError::into_inner).insert(account.to_owned(), policies);
        Ok(())
    }

    /// From now on these policies hold, and no others, but in accounts that have policies of their own. The error says what
    /// is wrong with a document.
    pub fn enforce<'a>(&self, documents: impl IntoIterator<Item = &'a Value>) -> Result<(), String> {
        let policies = documents.into_iter().map(Policy::parse).collect::<Result<_, _>>()?;
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
        Ok(())
    }

    async fn ask(&self, caller: &Caller, call: &Call) -> Result<(), AwsError> {
        let asked = match &caller.identity {
            Identity::Trusted | Identity::Session { .. } => true,
            Identity::User(_) | Identity::Anonymous | Identity::Administrator => false,
        };
        // It needs no permission, and cannot even be denied.
        let free = call.service == Service::Sts && call.action == "GetCallerIdentity";
        if !asked || free {
            return Ok(());
        }
        let name = call.iam_action();
        let who = self.account.caller_arn(caller);
        let unknown =
            |error: String| AwsError::new(403, "AccessDenied", format!("the test rig cannot weigh it: {error}"));
        let kind = authorization_reference::action(&name)
            .ok_or_else(|| unknown(format!("the action {name} is not known")))?
            .resource;
        let (resource, context) = self.facts(caller, call, kind).await?;
        let context = context.iter().map(|(key, values)| (key.as_str(), values.clone()));
        let request = Request::new(&name, &resource, context).map_err(unknown)?;
        let is_session = matches!(caller.identity, Identity::Session { .. });
        let abroad = self.abroad.read().unwrap_or_else(PoisonError::into_inner);
        let decision = match abroad.get(&caller.account_ref.account).filter(|_| is_session) {
            Some(policies) => evaluate(policies, &request),
            None => evaluate(&self.policies.read().unwrap_or_else(PoisonError::into_inner), &request),
        };
        drop(abroad);
        match decision {
            Decision::Allowed => Ok(()),
            Decision::ImplicitDeny => Err(AwsError::access_denied(&who, &name, &resource)),
            Decision::ExplicitDeny(_) => Err(AwsError::explicitly_denied(&who, &name, &resource)),
        }
    }

    /// The ARN that the call is authorised on, and its condition keys.
    async fn facts(
        &self,
        caller: &Caller,
        call: &Call,
        kind: Resource,
    ) -> Result<(String, Vec<(String, Vec<String>)>), AwsError> {
        let account_ref = &caller.account_ref;
        let param = |name: &str| call.param(name).map(str::to_owned);
        let named = |name: &str| param(name).unwrap_or_default();
        let mut context = request_context(call);
        let resource = match kind {
            Resource::Any => "*".to_owned(),
            Resource::Role => {
                param("RoleArn").unwrap_or_else(|| account_ref.arn("iam", &format!("role/{}", named("RoleName"))))
            }
            Resource::Policy => named("PolicyArn"),
            Resource::Mfa => named("SerialNumber"),
            Resource::Group => {
                let found = self.truth.clone().in_account(account_ref.clone()).group_arn(&named("GroupName")).await?;
                found.unwrap_or_else(|| account_ref.arn("iam", &format!("group/{}", named("GroupName"))))
            }
            Resource::User => self.user(account_ref, caller, call, &mut context).await?,
        };
        Ok((resource, context))
    }

    async fn user(
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
        let Some(standing) = self.truth.clone().in_account(account_ref.clone()).standing(&name).await? else {
            // Who is not there has no path.
            return Ok(account_ref.arn("iam", &format!("user/{name}")));
        };
        if call.action != "PutUserPermissionsBoundary" {
            context.extend(standing.boundary.map(|arn| (BOUNDARY.to_owned(), vec![arn])));
        }
        for (key, value) in standing.tags {
            context.extend(RESOURCE_TAG.map(|prefix| (format!("{prefix}{key}"), vec![value.clone()])));
        }
        Ok(standing.arn)
    }
}

impl Authorizer for PolicyAuthorizer {
    fn check<'a>(&'a self, caller: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>> {
        Box::pin(self.ask(caller, call))
    }
}

/// What a request says of itself.
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
