//! The Service Authorization Reference of IAM: for each action, the resource type that it is authorized on and the
//! condition keys of its requests.

use std::collections::BTreeMap;

use super::condition::Context;

/// The resource type that an action is authorized on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// No specific resource: `*`.
    Any,
    /// A user.
    User,
    /// A group.
    Group,
    /// A managed policy.
    Policy,
    /// A virtual MFA device.
    Mfa,
    /// A role.
    Role,
}

impl Resource {
    /// The prefix of the resource part of the ARN.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Any => "*",
            Self::User => "user",
            Self::Group => "group",
            Self::Policy => "policy",
            Self::Mfa => "mfa",
            Self::Role => "role",
        }
    }
}

/// An action with its resource type and condition keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// The name with the service prefix, for example `iam:GetUser`.
    pub name: &'static str,
    /// The resource type that the action is authorized on.
    pub resource: Resource,
    /// Condition keys of the action itself, without the tags of the resource.
    pub keys: &'static [&'static str],
}

/// The permissions boundary of the user, or the one that the request sets.
pub const BOUNDARY: &str = "iam:PermissionsBoundary";
/// The managed policy named in the request.
pub const POLICY_ARN: &str = "iam:PolicyARN";
/// The keys of the tags in the request.
pub const TAG_KEYS: &str = "aws:TagKeys";
/// Prefix of the condition key for one tag in the request; the tag key follows.
pub const REQUEST_TAG: &str = "aws:RequestTag/";
/// Prefixes of the condition key for one tag of the resource; the tag key follows. IAM accepts both, except that managed
/// policies have only the second.
pub const RESOURCE_TAG: [&str; 2] = ["iam:ResourceTag/", "aws:ResourceTag/"];

const ACTIONS: &[Action] = &[
    on(Resource::Any, "iam:GetAccountPasswordPolicy", &[]),
    on(Resource::Any, "iam:ListAccountAliases", &[]),
    on(Resource::Any, "iam:GetAccountAuthorizationDetails", &[]),
    on(Resource::Any, "iam:ListPolicies", &[]),
    on(Resource::Any, "iam:ListUsers", &[]),
    on(Resource::User, "iam:AttachUserPolicy", &[BOUNDARY, POLICY_ARN]),
    on(Resource::User, "iam:CreateAccessKey", &[]),
    on(Resource::User, "iam:CreateLoginProfile", &[]),
    on(Resource::User, "iam:CreateUser", &[BOUNDARY, TAG_KEYS, REQUEST_TAG]),
    on(Resource::User, "iam:DeactivateMFADevice", &[]),
    on(Resource::User, "iam:DeleteAccessKey", &[]),
    on(Resource::User, "iam:DeleteLoginProfile", &[]),
    on(Resource::User, "iam:DeleteSSHPublicKey", &[]),
    on(Resource::User, "iam:DeleteServiceSpecificCredential", &[]),
    on(Resource::User, "iam:DeleteSigningCertificate", &[]),
    on(Resource::User, "iam:DeleteUser", &[]),
    on(Resource::User, "iam:DeleteUserPermissionsBoundary", &[BOUNDARY]),
    on(Resource::User, "iam:DeleteUserPolicy", &[BOUNDARY]),
    on(Resource::User, "iam:DetachUserPolicy", &[BOUNDARY, POLICY_ARN]),
    on(Resource::User, "iam:GetAccessKeyLastUsed", &[]),
    on(Resource::User, "iam:GetLoginProfile", &[]),
    on(Resource::User, "iam:GetUser", &[]),
    on(Resource::User, "iam:GetUserPolicy", &[]),
    on(Resource::User, "iam:ListAccessKeys", &[]),
    on(Resource::User, "iam:ListAttachedUserPolicies", &[]),
    on(Resource::User, "iam:ListGroupsForUser", &[]),
    on(Resource::User, "iam:ListMFADevices", &[]),
    on(Resource::User, "iam:ListSSHPublicKeys", &[]),
    on(Resource::User, "iam:ListServiceSpecificCredentials", &[]),
    on(Resource::User, "iam:ListSigningCertificates", &[]),
    on(Resource::User, "iam:ListUserPolicies", &[]),
    on(Resource::User, "iam:ListUserTags", &[]),
    on(Resource::User, "iam:PutUserPermissionsBoundary", &[BOUNDARY]),
    on(Resource::User, "iam:PutUserPolicy", &[BOUNDARY]),
    on(Resource::User, "iam:TagUser", &[TAG_KEYS, REQUEST_TAG]),
    on(Resource::User, "iam:UntagUser", &[TAG_KEYS]),
    on(Resource::User, "iam:UpdateAccessKey", &[]),
    on(Resource::User, "iam:UpdateLoginProfile", &[]),
    on(Resource::User, "iam:UpdateUser", &[]),
    on(Resource::Group, "iam:AddUserToGroup", &[]),
    on(Resource::Group, "iam:RemoveUserFromGroup", &[]),
    on(Resource::Policy, "iam:CreatePolicy", &[TAG_KEYS, REQUEST_TAG]),
    on(Resource::Policy, "iam:CreatePolicyVersion", &[]),
    on(Resource::Policy, "iam:DeletePolicy", &[]),
    on(Resource::Policy, "iam:DeletePolicyVersion", &[]),
    on(Resource::Policy, "iam:GetPolicy", &[]),
    on(Resource::Policy, "iam:GetPolicyVersion", &[]),
    on(Resource::Policy, "iam:ListEntitiesForPolicy", &[]),
    on(Resource::Policy, "iam:ListPolicyTags", &[]),
    on(Resource::Policy, "iam:ListPolicyVersions", &[]),
    on(Resource::Policy, "iam:SetDefaultPolicyVersion", &[]),
    on(Resource::Policy, "iam:TagPolicy", &[TAG_KEYS, REQUEST_TAG]),
    on(Resource::Policy, "iam:UntagPolicy", &[TAG_KEYS]),
    on(Resource::Mfa, "iam:DeleteVirtualMFADevice", &[]),
    on(Resource::Role, "iam:CreateRole", &[BOUNDARY, TAG_KEYS, REQUEST_TAG]),
    on(Resource::Role, "iam:PassRole", &[]),
    on(Resource::Role, "sts:AssumeRole", &[]),
];

const fn on(resource: Resource, name: &'static str, keys: &'static [&'static str]) -> Action {
    Action { name, resource, keys }
}

/// The entry of an action; names are compared ignoring case.
#[must_use]
pub fn action(name: &str) -> Option<&'static Action> {
    ACTIONS.iter().find(|action| action.name.eq_ignore_ascii_case(name))
}

impl Action {
    /// Whether requests of this action carry the condition key.
    #[must_use]
    pub fn has_condition_key(&self, key: &str) -> bool {
        let own = self.keys.iter().any(|known| match known.strip_suffix('/') {
            Some(_) => key.get(..known.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(known)),
            None => known.eq_ignore_ascii_case(key),
        });
        let of_resource: &[&str] = match self.resource {
            Resource::User | Resource::Mfa | Resource::Role => &RESOURCE_TAG,
            Resource::Policy => &RESOURCE_TAG[1..],
            Resource::Any | Resource::Group => &[],
        };
        own || of_resource
            .iter()
            .any(|known| key.get(..known.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(known)))
    }
}

/// A request to authorize: action, resource and condition keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) action: String,
    pub(super) resource: String,
    pub(super) context: Context,
}

impl Request {
    /// A request for an action on a resource. Condition keys that the action does not support are dropped, as AWS does.
    /// The error says that the action is not in this table, or is not authorized on this resource type.
    pub fn new<'a>(
        name: &str,
        resource: &str,
        context: impl IntoIterator<Item = (&'a str, Vec<String>)>,
    ) -> Result<Self, String> {
        let known = action(name).ok_or_else(|| format!("the action {name} is not supported"))?;
        let applies = match known.resource {
            Resource::Any => resource == "*",
            kind => resource
                .splitn(6, ':')
                .nth(5)
                .is_some_and(|part| part.strip_prefix(kind.kind()).is_some_and(|rest| rest.starts_with('/'))),
        };
        if !applies {
            return Err(format!("{name} is not authorized on {resource}"));
        }
        let supported = context.into_iter().filter(|(key, _)| known.has_condition_key(key));
        Ok(Self::of_service(name, resource, supported))
    }

    /// A request of a service that is not in this table. The caller names the resource and the condition keys as the
    /// Service Authorization Reference of that service does.
    #[must_use]
    pub fn of_service<'a>(
        name: &str,
        resource: &str,
        context: impl IntoIterator<Item = (&'a str, Vec<String>)>,
    ) -> Self {
        let present = context.into_iter().filter(|(_, values)| !values.is_empty());
        let context: BTreeMap<_, _> = present.map(|(key, values)| (key.to_lowercase(), values)).collect();
        Self { action: name.to_owned(), resource: resource.to_owned(), context }
    }
}
