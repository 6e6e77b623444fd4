//! What follows when a resource is no longer allowed: it depends on what its user has, not on what the resource asks for.
//!
//! Else a mistake in a manifest could cost a user its key, and a tenant could escape a revocation by a mistake made on purpose.

use super::{NamespaceContext, admin, allows_group, fits_whole, namespace, pattern, template};
use crate::{
    api::{
        AwsDeployUserClass,
        class::{InlinePermission, OnRevoked, Permission},
    },
    domain::{current_state::IamUser, policy},
};

/// What is done to a user whose resource is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// How far it goes.
    pub action: OnRevoked,
    /// What the user has and may not have; `None` if it may have all of it, and only the change that is asked for is refused.
    pub reason: Option<String>,
}

/// What is done to the user of a resource that is not allowed. `class` is the class that allowed it last, `recorded` what
/// that class said of revocations then: it holds when the class is gone. `begun` says that a revocation is under way: the
/// user may have lost what it was for, and that is no reason to leave it at that.
#[must_use]
pub fn decide_revocation(
    class: Option<&AwsDeployUserClass>,
    recorded: Option<OnRevoked>,
    begun: bool,
    user: &IamUser,
    context: NamespaceContext<'_>,
) -> Revocation {
    let Some(class) = class else {
        // An operator of the time before classes has recorded none.
        let why = if recorded.is_some() { "the class that allowed it is gone" } else { "no class has allowed it yet" };
        return Revocation { action: recorded.unwrap_or_default(), reason: Some(why.to_owned()) };
    };
    match check_still_allowed(class, user, context) {
        Ok(()) if begun => {
            Revocation { action: class.spec.on_revoked, reason: Some("the class did not allow what it had".to_owned()) }
        }
        Ok(()) => Revocation { action: OnRevoked::Freeze, reason: None },
        Err(why) => Revocation { action: class.spec.on_revoked, reason: Some(why) },
    }
}

/// Whether the class allows what the user has in AWS.
///
/// # Errors
/// The first thing that it does not allow.
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
    if fits_whole(&rules.users.name_pattern, &user.name) == Ok(false) {
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
        // It comes with a password that has to be changed.
        let comes_with_console =
            user.login_profile == Some(true) && pattern::canonicalize(arn) == "IAMUserChangePassword";
        if !comes_with_console && !pattern::allows_policy(&rules.policies.allowed, arn) {
            return Err(format!("the class does not allow {arn}"));
        }
        if admin::is_admin_policy(arn) && !rules.acknowledge_admin_equivalent {
            return Err(format!("the class does not acknowledge {arn}"));
        }
    }
    let account = rules.account.as_ref().map(|account| account.id.as_str());
    let own = template::builtin_values(context.namespace, None, account);
    for (name, document) in &grants.inline {
        let allowed = match rules.policies.inline {
            InlinePermission::Deny => false,
            InlinePermission::TemplatesOnly => {
                rules.policies.templates.iter().any(|made| template::could_render(made, document, &own))
            }
            InlinePermission::Allow => true,
        };
        if !allowed {
            return Err(format!("the class does not allow the inline policy {name}"));
        }
        if let Some(why) = admin::escalation_reason(document).filter(|_| !rules.acknowledge_admin_equivalent) {
            return Err(format!("the class does not acknowledge the inline policy {name}: {why}"));
        }
    }
    match grants.groups.iter().find(|group| !allows_group(&rules.groups, group)) {
        Some(group) => Err(format!("the class does not allow the group {group}")),
        None => Ok(()),
    }
}

/// Whether the user is where the class has its users.
///
/// # Errors
/// Where it is, and what can be done.
pub fn check_path(path: &str, user: &IamUser) -> Result<(), String> {
    let found = user.arn.split_once(":user").map_or("/", |(_, name)| name);
    if found.starts_with(path) {
        return Ok(());
    }
    Err(format!(
        "the IAM user is {found}, and the class has its users below {path}; a user that exists is not moved: name a class with its path, or delete the resource and create it again"
    ))
}
