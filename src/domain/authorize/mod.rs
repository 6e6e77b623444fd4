//! Authorization: what a class allows a resource to have.
//!
//! Evaluated in every reconcile before any call to AWS. The chart's admission policy checks the same rules, so that the API
//! server rejects most violations before they get here.

pub mod admin;
mod documents;
pub mod namespace;
pub mod pattern;
mod revocation;
mod secrets;
mod select;
pub mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::SignedDuration;

pub use documents::{allows_documents, may_allow_a_document};
pub use revocation::{ClassAbsence, Revocation, check_path, check_still_allowed, decide_revocation};
pub use select::{ClassEntry, ClassSelection, is_default, requested_class, select_class};

use super::{
    desired::{DEFAULT_ROTATION_INTERVAL, Grant, Violation},
    managed_policy,
    schedule::{CronSchedule, RotationSchedule},
    target::Target,
};
use crate::api::{
    AwsDeployUser, AwsDeployUserClass, HumanDuration,
    class::{ClassRotation, Permission},
    duration::humanize,
    user::{AccountReference, ClassReference, HandoverConsumer, RestartTarget, RotationSpec},
};

/// Input of authorization besides resource and class.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceContext<'a> {
    /// Namespace of the resource.
    pub namespace: &'a str,
    /// Labels of the namespace.
    pub labels: &'a BTreeMap<String, String>,
    /// Number of resources of the class in the namespace that precede this one, see [`precedes`].
    pub preceding_users: usize,
}

/// What a class grants to a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// Class, as recorded in the status.
    pub class: ClassReference,
    /// Path and limits of the user.
    pub grant: Grant,
    /// The resource, completed with the tags and defaults of the class, and with rendered templates.
    pub user: AwsDeployUser,
}

/// Whether the resource already counts as a user of the class. A user of another class is admitted again when it changes
/// its class.
#[must_use]
pub fn is_admitted(user: &AwsDeployUser, class: &str) -> bool {
    user.status.as_ref().is_some_and(|status| {
        status.user.is_some() && status.class.as_ref().is_none_or(|recorded| recorded.name == class)
    })
}

/// Whether `other` precedes `user` in the class's `maxPerNamespace` quota. Admitted resources come first, then resources with
/// an IAM user, then those without; older resources precede younger ones.
#[must_use]
pub fn precedes(other: &AwsDeployUser, user: &AwsDeployUser, class: &str) -> bool {
    let rank = |user: &AwsDeployUser| {
        let has_user = user.status.as_ref().is_some_and(|status| status.user.is_some());
        let created_at = user.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_admitted(user, class), !has_user, created_at, user.metadata.uid.clone())
    };
    other.metadata.uid != user.metadata.uid && !is_admitted(user, class) && rank(other) < rank(user)
}

/// Authorizes a resource against a class.
///
/// # Errors
/// All violations, each with what the class allows.
pub fn authorize(
    user: &AwsDeployUser,
    target: &Target,
    class: &AwsDeployUserClass,
    context: NamespaceContext<'_>,
) -> Result<Authorization, Vec<Violation>> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let rules = &class.spec;
    if !namespace::serves(&rules.namespaces, context.namespace, context.labels) {
        // Do not disclose the other rules to a namespace that may not use the class.
        let served = namespace::describe_served(&rules.namespaces);
        let message = format!("class {name} does not serve namespace {}; it serves: {served}", context.namespace);
        return Err(vec![Violation { field: "className", message }]);
    }
    let mut user = complete(user, class);
    let mut violations = Vec::new();
    let mut violate = |field, message: String| violations.push(Violation { field, message });
    check_limit(name, class, context, &mut violate);
    check_name(name, class, &user, target, &mut violate);
    check_policies(name, class, &user, &mut violate);
    documents::render_documents(name, class, context.namespace, &mut user, &mut violate);
    check_tags(name, class, &user, &mut violate);
    secrets::check(name, &rules.secrets, &user, target, &mut violate);
    if let Some(key) = user.spec.effective_access_key() {
        check_rotation(name, &rules.rotation, &key.rotation, &mut violate);
        check_restart(name, class, &key.restart, &mut violate);
        check_handover(name, &rules.rotation, &key.handover, &mut violate);
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
            missing_since: None,
        },
        grant: Grant {
            path: rules.users.path.clone(),
            boundary: rules.permissions_boundary.clone(),
            adoption: rules.adoption == Permission::Allow,
            keep_versions: usize::try_from(rules.policies.keep_versions).unwrap_or_default(),
            on_quarantine: rules.on_quarantine,
        },
        user,
    })
}

/// Completes the resource with the defaults and tags of the class.
fn complete(user: &AwsDeployUser, class: &AwsDeployUserClass) -> AwsDeployUser {
    let mut user = user.clone();
    let (spec, rules) = (&mut user.spec, &class.spec);
    if spec.policies.managed.is_empty() && spec.policies.documents.is_empty() && spec.groups.is_empty() {
        spec.policies.managed.clone_from(&rules.policies.default);
    }
    for (key, value) in &rules.tags {
        // IAM ignores the case of tag keys. `check_tags` reports another value as violation.
        if !spec.tags.keys().any(|declared| declared.to_lowercase() == key.to_lowercase()) {
            spec.tags.insert(key.clone(), value.clone());
        }
    }
    if spec.effective_access_key().is_some() {
        let rotation = &mut spec.access_key.get_or_insert_default().rotation;
        let declares_interval = rotation.every.is_some() || rotation.schedule.is_some();
        // Beside another interval or overlap, the default could make the spec invalid.
        if !declares_interval && rotation.overlap.is_none() && rotation.hold_while_used.is_none() {
            rotation.hold_while_used.clone_from(&rules.rotation.default.hold_while_used);
        }
        if !declares_interval {
            rotation.every = default_every(&rules.rotation);
        }
        if rotation.overlap.is_none() {
            rotation.overlap.clone_from(&rules.rotation.default.overlap);
        }
    }
    user
}

/// Interval of a resource that declares none. `None`: the operator's default applies.
fn default_every(rules: &ClassRotation) -> Option<String> {
    let parsed = |limit: &Option<HumanDuration>| limit.as_ref().and_then(|limit| limit.parse().ok());
    if let Some(every) = &rules.default.every {
        return Some(every.0.clone());
    }
    if parsed(&rules.max_every).is_some_and(|max| max < DEFAULT_ROTATION_INTERVAL) {
        return rules.max_every.as_ref().map(|max| max.0.clone());
    }
    if parsed(&rules.min_every).is_some_and(|min| min > DEFAULT_ROTATION_INTERVAL) {
        return rules.min_every.as_ref().map(|min| min.0.clone());
    }
    None
}

fn check_limit(
    name: &str,
    class: &AwsDeployUserClass,
    context: NamespaceContext<'_>,
    violate: &mut impl FnMut(&'static str, String),
) {
    let Some(max) = class.spec.users.max_per_namespace else { return };
    if context.preceding_users >= usize::try_from(max).unwrap_or(usize::MAX) {
        violate(
            "className",
            format!(
                "class {name} allows {max} users per namespace, and {} has {} that precede this one; delete one, or ask a cluster admin to raise users.maxPerNamespace",
                context.namespace, context.preceding_users
            ),
        );
    }
}

fn check_name(
    name: &str,
    class: &AwsDeployUserClass,
    user: &AwsDeployUser,
    target: &Target,
    violate: &mut impl FnMut(&'static str, String),
) {
    let Some(pattern) = &name_pattern(class, &target.owner.namespace) else {
        if user.spec.user_name.is_some() {
            violate(
                "userName",
                format!(
                    "class {name} sets no users.namePattern and so allows no userName; remove it to get a name from the class"
                ),
            );
        }
        return;
    };
    if let Err(why) = check_pattern(name, "users.namePattern", pattern, "IAM user name", &target.user_name) {
        violate("userName", why);
    }
}

/// Why a name is denied: `setting` of class `class` is the `pattern` that it must match whole.
fn check_pattern(class: &str, setting: &str, pattern: &str, what: &str, name: &str) -> Result<(), String> {
    match matches_whole(pattern, name) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("class {class} does not allow the {what} {name:?}; it must match {pattern}")),
        Err(why) => Err(format!(
            "class {class} has an invalid {setting}, so that no name matches: {why}; ask a cluster admin to correct it"
        )),
    }
}

/// Pattern of user names in a namespace. Names of namespaces contain no character with a meaning in regular expressions.
fn name_pattern(class: &AwsDeployUserClass, namespace: &str) -> Option<String> {
    class.spec.users.name_pattern.as_ref().map(|pattern| pattern.replace("{namespace}", namespace))
}

/// Length of a pattern with its namespaces, above all that the CRDs accept: compilation takes time in proportion to it.
const MAX_PATTERN_BYTES: usize = 4096;

/// Whether the regular expression matches the whole text.
fn matches_whole(pattern: &str, text: &str) -> Result<bool, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("it is longer than {MAX_PATTERN_BYTES} bytes"));
    }
    // Compile it alone first: `a)|(b` is valid only inside of the anchors, and would then match parts of a text.
    regex_lite::Regex::new(pattern).map_err(|error| error.to_string())?;
    let whole = regex_lite::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())?;
    Ok(whole.is_match(text))
}

fn allows_group(allowed: &[String], group: &str) -> bool {
    // IAM ignores the case of group names.
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
        if managed_policy::is_of_a_document(declared) {
            violate(
                "policies.managed",
                format!(
                    "{declared} has the name of a policy that the operator makes for a document (<path>/<user>/<user>+<document>); a resource has only those of its own policies.documents"
                ),
            );
        } else if !pattern::allows_policy(&rules.policies.allowed, declared) {
            violate(
                "policies.managed",
                format!("class {name} does not allow {declared}; it allows: {}", list(&rules.policies.allowed)),
            );
        } else if admin::is_admin_policy(declared) && !rules.acknowledge_admin_equivalent {
            violate(
                "policies.managed",
                format!(
                    "{declared} makes the holder of the key an administrator of the account, and class {name} does not set acknowledgeAdminEquivalent"
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
            violate("tags", format!("class {name} sets the tag {key} to {value:?}; remove {declared}"));
        }
    }
    let of_class = |key: &str| class.spec.tags.keys().any(|known| known.to_lowercase() == key.to_lowercase());
    let allowed = &class.spec.tag_keys;
    // IAM ignores the case of tag keys. Admission can ignore it for ASCII letters only.
    let allows = |key: &str| {
        let key = key.to_ascii_lowercase();
        allowed.iter().any(|pattern| pattern::matches(&pattern.to_ascii_lowercase(), &key))
    };
    for key in user.spec.tags.keys().filter(|key| !of_class(key) && !allows(key)) {
        violate("tags", format!("class {name} does not allow the tag {key}; it allows: {}", list(allowed)));
    }
}

fn check_restart(
    name: &str,
    class: &AwsDeployUserClass,
    targets: &[RestartTarget],
    violate: &mut impl FnMut(&'static str, String),
) {
    if targets.is_empty() {
        return;
    }
    if class.spec.restart == Permission::Deny {
        violate("accessKey.restart", format!("class {name} does not allow restarts of workloads"));
        return;
    }
    let allowed = &class.spec.restart_targets;
    let allows = |target: &RestartTarget| {
        let target = format!("{}/{}", target.kind.as_str(), target.name);
        allowed.is_empty() || allowed.iter().any(|pattern| pattern::matches(pattern, &target))
    };
    for target in targets.iter().filter(|target| !allows(target)) {
        violate(
            "accessKey.restart",
            format!("class {name} does not allow restarts of {target}; it allows: {}", list(allowed)),
        );
    }
}

fn check_handover(
    name: &str,
    rules: &ClassRotation,
    consumers: &[HandoverConsumer],
    violate: &mut impl FnMut(&'static str, String),
) {
    let max = duration_limit(name, "accessKey.handover", ("maxHandover", &rules.max_handover), violate);
    let Some(max) = max else { return };
    // Validation reports an invalid duration.
    for (consumer, within) in consumers.iter().filter_map(|consumer| Some((consumer, consumer.within.parse().ok()?))) {
        if within > max {
            violate(
                "accessKey.handover",
                format!(
                    "the previous key would wait {} for {}; the longest time of class {name} is {}",
                    humanize(within),
                    consumer.name,
                    humanize(max)
                ),
            );
        }
    }
}

/// A duration that the class declares, if it does. An invalid one is a violation at this field of the resource.
fn duration_limit(
    class: &str,
    violated: &'static str,
    (field, limit): (&str, &Option<HumanDuration>),
    violate: &mut impl FnMut(&'static str, String),
) -> Option<SignedDuration> {
    let parsed = limit.as_ref().map(HumanDuration::parse).transpose();
    parsed.unwrap_or_else(|error| {
        violate(violated, format!("class {class} has an invalid {field}: {error}; ask a cluster admin to correct it"));
        None
    })
}

fn check_rotation(
    name: &str,
    rules: &ClassRotation,
    rotation: &RotationSpec,
    violate: &mut impl FnMut(&'static str, String),
) {
    let mut limit =
        |field, limit: &Option<HumanDuration>| duration_limit(name, "accessKey.rotation", (field, limit), violate);
    let (min, max) = (limit("minEvery", &rules.min_every), limit("maxEvery", &rules.max_every));
    // Validation reports an invalid interval.
    let Some(schedule) = parse_schedule(rotation) else { return };
    if let (Some(min), Some(shortest)) = (min, schedule.smallest_gap())
        && shortest < min
    {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be rotated every {}; the shortest interval of class {name} is {}",
                humanize(shortest),
                humanize(min)
            ),
        );
    }
    let Some(max) = max else { return };
    if schedule == RotationSchedule::Never {
        violate(
            "accessKey.rotation",
            format!("class {name} requires a rotation at least every {}; every: Never is not allowed", humanize(max)),
        );
    } else if let Some(longest) = schedule.gap_longer_than(max) {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be kept for {}; the longest interval of class {name} is {}",
                humanize(longest),
                humanize(max)
            ),
        );
    }
}

/// Schedule of the resource. `None` if it is invalid.
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
