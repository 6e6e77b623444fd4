//! What happens to the IAM user of a resource that is not authorized. It depends on what the user has, not on the spec.
//!
//! Otherwise a mistake in a manifest could cost a user its key, and a tenant could escape a revocation with a deliberate
//! mistake.

use super::{
    NamespaceContext, admin, allows_documents, allows_group, matches_whole, name_pattern, namespace, pattern, template,
};
use crate::{
    api::{
        AwsDeployUserClass,
        class::{InlinePermission, OnRevoked, Permission},
    },
    domain::{current_state::IamUser, policy},
};

/// Decision about the IAM user of a resource that is not authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub action: OnRevoked,
    /// What the user has but may not have. `None`: only the requested change is denied.
    pub reason: Option<String>,
}

/// Decides what happens to the IAM user of a resource that is not authorized. `class` is the class that authorized it last,
/// `recorded` its `onRevoked` at that time, which applies after the class was deleted. `in_progress`: a revocation has begun
/// and is completed, even if the user has already lost what caused it.
#[must_use]
pub fn decide_revocation(
    class: Option<&AwsDeployUserClass>,
    recorded: Option<OnRevoked>,
    in_progress: bool,
    user: &IamUser,
    context: NamespaceContext<'_>,
) -> Revocation {
    let Some(class) = class else {
        let why =
            if recorded.is_some() { "the class that allowed it was deleted" } else { "no class has allowed it yet" };
        return Revocation { action: recorded.unwrap_or_default(), reason: Some(why.to_owned()) };
    };
    match check_still_allowed(class, user, context) {
        Ok(()) if in_progress => {
            Revocation { action: class.spec.on_revoked, reason: Some("the class did not allow what it had".to_owned()) }
        }
        Ok(()) => Revocation { action: OnRevoked::Freeze, reason: None },
        Err(why) => Revocation { action: class.spec.on_revoked, reason: Some(why) },
    }
}

/// Checks that the class allows what the user has in AWS.
///
/// # Errors
/// The first violation.
pub fn check_still_allowed(
    class: &AwsDeployUserClass,
    user: &IamUser,
    context: NamespaceContext<'_>,
) -> Result<(), String> {
    let rules = &class.spec;
    if !namespace::serves(&rules.namespaces, context.namespace, context.labels) {
        return Err(format!("the class does not serve namespace {}", context.namespace));
    }
    check_path(&rules.users.path, user)?;
    let pattern = name_pattern(class, context.namespace);
    if pattern.is_some_and(|pattern| matches_whole(&pattern, &user.name) == Ok(false)) {
        return Err(format!("the class does not allow the name {}", user.name));
    }
    if rules.permissions_boundary.is_some() && rules.permissions_boundary != user.boundary {
        return Err("the user does not have the permissions boundary of the class".to_owned());
    }
    if user.login_profile == Some(true) && rules.console == Permission::Deny {
        return Err("the class does not allow access to the console".to_owned());
    }
    let Some(grants) = &user.grants else { return Ok(()) };
    for arn in grants.attached.iter().filter(|arn| !policy::is_quarantine(arn)) {
        // The operator attaches it for a password that must be changed.
        let is_for_console = user.login_profile == Some(true) && pattern::canonicalize(arn) == "IAMUserChangePassword";
        if !is_for_console && !pattern::allows_policy(&rules.policies.allowed, arn) {
            return Err(format!("the class does not allow {arn}"));
        }
        if admin::is_admin_policy(arn) && !rules.acknowledge_admin_equivalent {
            return Err(format!("the class does not set acknowledgeAdminEquivalent, which {arn} needs"));
        }
    }
    let account = rules.account.as_ref().map(|account| account.id.as_str());
    let own = template::builtin_values(context.namespace, None, account);
    for (name, document) in &grants.inline {
        let from_template =
            || rules.policies.templates.iter().any(|template| template::could_render(template, document, &own));
        let allowed = allows_documents(rules) || (rules.policies.inline != InlinePermission::Deny && from_template());
        if !allowed {
            return Err(format!("the class does not allow the inline policy {name}"));
        }
    }
    match grants.groups.iter().find(|group| !allows_group(&rules.groups, group)) {
        Some(group) => Err(format!("the class does not allow the group {group}")),
        None => Ok(()),
    }
}

/// Checks that the user is below the path of the class.
///
/// # Errors
/// The path of the user, and the remedy.
pub fn check_path(path: &str, user: &IamUser) -> Result<(), String> {
    let found = user.arn.split_once(":user").map_or("/", |(_, name)| name);
    if found.starts_with(path) {
        return Ok(());
    }
    Err(format!(
        "the IAM user is {found}, but the path of the class is {path}, and existing users are not moved; set a class with the path of the user, or delete the resource and create it again"
    ))
}
