//! What the classes of a cluster admin allow. Pure: resource + class + namespace -> authorization, or all that is wrong.
//!
//! Asked in every pass before AWS is; the chart's admission policy asks the same of the API server, so that most of
//! what is refused here never gets this far.

pub mod admin;
mod inline;
pub mod namespace;
pub mod pattern;
mod revocation;
mod select;
pub mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use revocation::{Revocation, check_path, check_still_allowed, decide_revocation};
pub use select::{ClassEntry, ClassSelection, is_default, requested_class, select_class};

use super::{
    desired::{DEFAULT_ROTATION_INTERVAL, Grant, Violation},
    schedule::{CronSchedule, RotationSchedule},
    target::Target,
};
use crate::api::{
    AwsDeployUser, AwsDeployUserClass, HumanDuration,
    class::{ClassRotation, Permission},
    duration::humanize,
    user::{AccountReference, ClassReference, RotationSpec},
};

/// What authorization depends on beside resource and class.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceContext<'a> {
    /// Namespace of the resource.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Resources of the class in the namespace that come before this one, see [`precedes`].
    pub preceding_users: usize,
}

/// What a class grants to a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// The class, as it is recorded in the status.
    pub class: ClassReference,
    /// Path and limits of the user.
    pub grant: Grant,
    /// The resource, with what the class adds to it: forced tags, defaults for what it leaves out, and the documents that
    /// its templates make.
    pub user: AwsDeployUser,
}

/// Whether the resource has its place among the users of the class. A user that another class allowed takes a new one.
#[must_use]
pub fn is_admitted(user: &AwsDeployUser, class: &str) -> bool {
    user.status.as_ref().is_some_and(|status| {
        status.user.is_some() && status.class.as_ref().is_none_or(|recorded| recorded.name == class)
    })
}

/// Whether `other` counts against the class's limit of users when `user` asks. Those that have their place come first, then
/// those that bring a user, then those without; the older one before the younger.
#[must_use]
pub fn precedes(other: &AwsDeployUser, user: &AwsDeployUser, class: &str) -> bool {
    let rank = |user: &AwsDeployUser| {
        let has_user = user.status.as_ref().is_some_and(|status| status.user.is_some());
        let made_at = user.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_admitted(user, class), !has_user, made_at, user.metadata.uid.clone())
    };
    other.metadata.uid != user.metadata.uid && !is_admitted(user, class) && rank(other) < rank(user)
}

/// Whether the class allows what the resource asks for.
///
/// # Errors
/// All violations at once, each with what the class allows.
pub fn authorize(
    user: &AwsDeployUser,
    target: &Target,
    class: &AwsDeployUserClass,
    context: NamespaceContext<'_>,
) -> Result<Authorization, Vec<Violation>> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let rules = &class.spec;
    if !namespace::serves(&rules.namespaces, context.namespace, context.labels) {
        // Nothing else of the class is anybody's business there.
        let served = namespace::served(&rules.namespaces);
        let message = format!("class {name} does not serve namespace {}; it serves: {served}", context.namespace);
        return Err(vec![Violation { field: "className", message }]);
    }
    let mut user = complete(user, class);
    let mut violations = Vec::new();
    let mut violate = |field, message: String| violations.push(Violation { field, message });
    check_limit(name, class, context, &mut violate);
    check_name(name, class, target, &mut violate);
    check_policies(name, class, &user, &mut violate);
    inline::settle(name, class, context.namespace, &mut user, &mut violate);
    check_tags(name, class, &user, &mut violate);
    if let Some(key) = user.spec.effective_access_key() {
        check_rotation(name, &rules.rotation, &key.rotation, &mut violate);
        if !key.restart.is_empty() && rules.restart == Permission::Deny {
            violate("accessKey.restart", format!("class {name} does not allow restarts of workloads"));
        }
    }
    for group in user.spec.groups.iter().filter(|group| !allows_group(&rules.groups, group)) {
        violate("groups", format!("class {name} does not allow the group {group}; it allows: {}", list(&rules.groups)));
    }
    if user.spec.console.is_some() && rules.console == Permission::Deny {
        violate("console", format!("class {name} does not allow access to the console"));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Authorization {
        class: ClassReference {
            name: name.to_owned(),
            generation: class.metadata.generation.unwrap_or_default(),
            on_revoked: rules.on_revoked,
            account: rules.account.as_ref().map(|account| AccountReference {
                id: account.id.clone(),
                role_arn: account.role_arn.clone(),
                external_id: account.external_id.clone(),
            }),
            on_quarantine: rules.on_quarantine,
        },
        grant: Grant {
            path: rules.users.path.clone(),
            boundary: rules.permissions_boundary.clone(),
            adoption: rules.adoption == Permission::Allow,
            on_quarantine: rules.on_quarantine,
        },
        user,
    })
}

/// The resource with the defaults and the tags of its class.
fn complete(user: &AwsDeployUser, class: &AwsDeployUserClass) -> AwsDeployUser {
    let mut user = user.clone();
    let (spec, rules) = (&mut user.spec, &class.spec);
    if spec.policies.managed.is_empty() && spec.policies.inline.is_empty() && spec.groups.is_empty() {
        spec.policies.managed.clone_from(&rules.policies.default);
    }
    for (key, value) in &rules.tags {
        // IAM compares tag keys without regard to case; another value is a violation, told later.
        if !spec.tags.keys().any(|declared| declared.to_lowercase() == key.to_lowercase()) {
            spec.tags.insert(key.clone(), value.clone());
        }
    }
    if spec.effective_access_key().is_some() {
        let rotation = &mut spec.access_key.get_or_insert_default().rotation;
        if rotation.every.is_none() && rotation.schedule.is_none() {
            rotation.every = default_every(&rules.rotation);
        }
        if rotation.overlap.is_none() {
            rotation.overlap.clone_from(&rules.rotation.default.overlap);
        }
    }
    user
}

/// The interval of a resource that declares none, if it is not the operator's own default.
fn default_every(rules: &ClassRotation) -> Option<String> {
    let parsed = |limit: &Option<HumanDuration>| limit.as_ref().and_then(|limit| limit.parse().ok());
    if let Some(every) = &rules.default.every {
        return Some(every.0.clone());
    }
    if parsed(&rules.max_every).is_some_and(|most| most < DEFAULT_ROTATION_INTERVAL) {
        return rules.max_every.as_ref().map(|most| most.0.clone());
    }
    if parsed(&rules.min_every).is_some_and(|least| least > DEFAULT_ROTATION_INTERVAL) {
        return rules.min_every.as_ref().map(|least| least.0.clone());
    }
    None
}

fn check_limit(
    name: &str,
    class: &AwsDeployUserClass,
    context: NamespaceContext<'_>,
    violate: &mut impl FnMut(&'static str, String),
) {
    let Some(most) = class.spec.users.max_per_namespace else { return };
    if context.preceding_users >= usize::try_from(most).unwrap_or(usize::MAX) {
        violate(
            "className",
            format!(
                "class {name} allows {most} users in a namespace, and namespace {} has {} others that come first; delete one, or ask a cluster admin for more",
                context.namespace, context.preceding_users
            ),
        );
    }
}

fn check_name(name: &str, class: &AwsDeployUserClass, target: &Target, violate: &mut impl FnMut(&'static str, String)) {
    let pattern = &class.spec.users.name_pattern;
    match fits_whole(pattern, &target.user_name) {
        Ok(true) => {}
        Ok(false) => violate(
            "userName",
            format!("class {name} does not allow the IAM user name {:?}; it has to fit {pattern}", target.user_name),
        ),
        Err(why) => {
            violate("userName", format!("class {name} has a namePattern that cannot be used, so no name fits: {why}"));
        }
    }
}

/// Whether the whole text fits the pattern.
fn fits_whole(pattern: &str, text: &str) -> Result<bool, String> {
    // By itself first: `a)|(b` is a pattern only with what is put around it, and then fits parts.
    regex_lite::Regex::new(pattern).map_err(|error| error.to_string())?;
    let whole = regex_lite::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())?;
    Ok(whole.is_match(text))
}

fn allows_group(allowed: &[String], group: &str) -> bool {
    // IAM compares names of groups without regard to case.
    let group = group.to_ascii_lowercase();
    allowed.iter().any(|allowed| pattern::matches(&allowed.to_ascii_lowercase(), &group))
}

fn check_policies(
    name: &str,
    class: &AwsDeployUserClass,
    user: &AwsDeployUser,
    violate: &mut impl FnMut(&'static str, String),
) {
    let (rules, policies) = (&class.spec, &user.spec.policies);
    for declared in &policies.managed {
        if !pattern::allows_policy(&rules.policies.allowed, declared) {
            violate(
                "policies.managed",
                format!("class {name} does not allow {declared}; it allows: {}", list(&rules.policies.allowed)),
            );
        } else if admin::is_admin_policy(declared) && !rules.acknowledge_admin_equivalent {
            violate(
                "policies.managed",
                format!(
                    "{declared} makes whoever has the key an administrator of the account, and class {name} does not acknowledge that (acknowledgeAdminEquivalent)"
                ),
            );
        }
    }
}

fn check_tags(
    name: &str,
    class: &AwsDeployUserClass,
    user: &AwsDeployUser,
    violate: &mut impl FnMut(&'static str, String),
) {
    for (key, value) in &class.spec.tags {
        let other = user.spec.tags.iter().find(|(declared, _)| declared.to_lowercase() == key.to_lowercase());
        if let Some((declared, _)) = other.filter(|(declared, found)| (*declared, *found) != (key, value)) {
            violate("tags", format!("class {name} sets the tag {key} to {value:?}; leave {declared} out"));
        }
    }
}

fn check_rotation(
    name: &str,
    rules: &ClassRotation,
    rotation: &RotationSpec,
    violate: &mut impl FnMut(&'static str, String),
) {
    let mut limit = |field: &str, limit: &Option<HumanDuration>| {
        let parsed = limit.as_ref().map(HumanDuration::parse).transpose();
        parsed.unwrap_or_else(|error| {
            violate("accessKey.rotation", format!("class {name} has a {field} that cannot be used: {error}"));
            None
        })
    };
    let (least, most) = (limit("minEvery", &rules.min_every), limit("maxEvery", &rules.max_every));
    // What is no interval at all is told by validation.
    let Some(schedule) = parse_schedule(rotation) else { return };
    if let (Some(least), Some(shortest)) = (least, schedule.smallest_gap())
        && shortest < least
    {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be rotated every {}, class {name} allows {} at the shortest",
                humanize(shortest),
                humanize(least)
            ),
        );
    }
    let Some(most) = most else { return };
    if schedule == RotationSchedule::Never {
        violate(
            "accessKey.rotation",
            format!("class {name} asks for a rotation every {} at the latest, so Never is not allowed", humanize(most)),
        );
    } else if let Some(longest) = schedule.gap_longer_than(most) {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be kept for {}, class {name} allows {} at the longest",
                humanize(longest),
                humanize(most)
            ),
        );
    }
}

/// When keys would be rotated; `None` if that cannot be read.
fn parse_schedule(rotation: &RotationSpec) -> Option<RotationSchedule> {
    Some(match (rotation.every.as_deref(), rotation.schedule.as_deref()) {
        (Some("Never"), None) => RotationSchedule::Never,
        (Some(text), None) => RotationSchedule::Every(HumanDuration::from(text).parse().ok()?),
        (None, Some(text)) => {
            RotationSchedule::Cron(Box::new(CronSchedule::parse(text, rotation.time_zone.as_deref()).ok()?))
        }
        (None, None) => RotationSchedule::Every(DEFAULT_ROTATION_INTERVAL),
        (Some(_), Some(_)) => return None,
    })
}

fn list(allowed: &[String]) -> String {
    if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") }
}
