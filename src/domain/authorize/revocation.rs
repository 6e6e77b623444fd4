//! What happens to the IAM user of a resource that is not authorized. It depends on what the user has, not on the spec.
//!
//! Otherwise a mistake in a manifest could cost a user its key, and a tenant could escape a revocation with a deliberate
//! mistake.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    NamespaceContext, admin, allows_documents, allows_group, matches_whole, may_allow_a_document, name_pattern,
    namespace, pattern, template,
};
use crate::{
    api::{
        AwsDeployUserClass,
        class::{DocumentPermission, OnRevoked, Permission},
    },
    domain::{
        current_state::IamUser,
        dates::saturating_add,
        managed_policy::{self, CurrentPolicies},
        policy,
    },
};

/// Decision about the IAM user of a resource that is not authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub action: OnRevoked,
    /// What the user has but may not have. `None`: only the requested change is denied.
    pub reason: Option<String>,
    /// When the decision changes if the class that is missing is not created again.
    pub until: Option<Timestamp>,
}

/// The class that authorized a resource last does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassAbsence {
    /// Its `onRevoked`, as recorded.
    pub on_revoked: OnRevoked,
    /// When it takes effect; `None`: it does already.
    pub revokes_at: Option<Timestamp>,
}

impl ClassAbsence {
    /// A class that is replaced is away for a moment. `since` is when it was first observed missing.
    #[must_use]
    pub fn new(on_revoked: OnRevoked, since: Timestamp, now: Timestamp, grace: SignedDuration) -> Self {
        // Ignore timestamps in the future (the clock was set back).
        let revokes_at = saturating_add(since.min(now), grace);
        Self { on_revoked, revokes_at: Some(revokes_at).filter(|at| *at > now) }
    }

    /// What it means for a resource that has not begun to be revoked.
    #[must_use]
    pub fn revocation(self) -> Revocation {
        let why = "the class that allowed it does not exist";
        match self.revokes_at.filter(|_| self.on_revoked != OnRevoked::Freeze) {
            Some(at) => Revocation {
                action: OnRevoked::Freeze,
                reason: Some(format!(
                    "{why} (onRevoked: {:?} applies at {at} unless it is created again)",
                    self.on_revoked
                )),
                until: Some(at),
            },
            None => Revocation { action: self.on_revoked, reason: Some(why.to_owned()), until: None },
        }
    }
}

/// Decides what happens to the IAM user of a resource that is not authorized. `class` is the class that authorized it last;
/// `absence` says that it does not exist. `in_progress`: a revocation has begun and is completed, even if the user has already
/// lost what caused it.
#[must_use]
pub fn decide_revocation(
    class: Option<&AwsDeployUserClass>,
    absence: Option<ClassAbsence>,
    in_progress: bool,
    (user, policies): (&IamUser, &CurrentPolicies),
    context: NamespaceContext<'_>,
) -> Revocation {
    let revoked = |action, reason: &str| Revocation { action, reason: Some(reason.to_owned()), until: None };
    let Some(class) = class else {
        let absence =
            absence.map(|absence| ClassAbsence { revokes_at: absence.revokes_at.filter(|_| !in_progress), ..absence });
        return absence
            .map_or_else(|| revoked(OnRevoked::default(), "no class has allowed it yet"), ClassAbsence::revocation);
    };
    match check_still_allowed(class, user, policies, context) {
        Ok(()) if in_progress => revoked(class.spec.on_revoked, "the class did not allow what it had"),
        Ok(()) => Revocation { action: OnRevoked::Freeze, reason: None, until: None },
        Err(why) => revoked(class.spec.on_revoked, &why),
    }
}

/// Checks that the class allows what the user has in AWS.
///
/// # Errors
/// The first violation.
pub fn check_still_allowed(
    class: &AwsDeployUserClass,
    user: &IamUser,
    policies: &CurrentPolicies,
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
    let account = rules.account.as_ref().map(|account| account.id.as_str());
    let own = template::builtin_values(context.namespace, None, account);
    let allows_document = |document: Option<&Value>| {
        let could_render =
            |document| rules.policies.templates.iter().any(|template| template::could_render(template, document, &own));
        allows_documents(rules)
            || (rules.policies.documents != DocumentPermission::Deny && document.is_some_and(could_render))
    };
    for arn in grants.attached.iter().filter(|arn| !policy::is_quarantine(arn)) {
        if managed_policy::is_of_a_document(arn) {
            // What could not be read is no violation where the document decides: it is read again, and the reconcile fails meanwhile.
            if policies.are_unread && may_allow_a_document(rules) {
                continue;
            }
            // One of another resource is never allowed, whatever the class allows by name.
            let document = policies.owned(arn).map(|policy| policy.content.as_ref());
            if !document.is_some_and(allows_document) {
                return Err(format!("the class does not allow the document {arn}"));
            }
            continue;
        }
        // The operator attaches it for a password that must be changed.
        let is_for_console = user.login_profile == Some(true) && pattern::canonicalize(arn) == "IAMUserChangePassword";
        if !is_for_console && !pattern::allows_policy(&rules.policies.allowed, arn) {
            return Err(format!("the class does not allow {arn}"));
        }
        if admin::is_admin_policy(arn) && !rules.acknowledge_admin_equivalent {
            return Err(format!("the class does not set acknowledgeAdminEquivalent, which {arn} needs"));
        }
    }
    for (name, document) in &grants.inline {
        if !allows_document(Some(document)) {
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
