//! Name, tags, groups and console access of the IAM user.

use std::collections::BTreeMap;

use crate::{
    api::{AwsDeployUser, user::AwsDeployUserSpec, well_known},
    domain::{
        desired::DesiredConsole,
        owner::MAX_TAGS_PER_USER,
        target::{Target, console_secret_name},
    },
};

/// Tags of the operator: four for ownership, use case, overlap, console and quarantine; and for two keys, plus one that is being
/// retired, an ownership tag and a description each.
const OPERATOR_TAGS: usize = 8 + 3 * 2;
/// Limit of IAM for user names.
const MAX_NAME_CHARACTERS: usize = 64;

pub(super) fn check_name(target: &Target, violate: &mut impl FnMut(&'static str, String)) {
    let length = target.user_name.chars().count();
    if length > MAX_NAME_CHARACTERS {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} has {length} characters, IAM allows {MAX_NAME_CHARACTERS}; delete this resource and create it under a shorter name, or with a spec.userName from the start: it cannot be set later",
                target.user_name
            ),
        );
    }
    if let Some(wrong) = target.user_name.chars().find(|c| !(c.is_ascii_alphanumeric() || "+=,.@_-".contains(*c))) {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} contains {wrong:?}; IAM allows letters, digits and + = , . @ _ -",
                target.user_name
            ),
        );
    }
}

pub(super) fn desired_tags(
    spec: &AwsDeployUserSpec,
    target: &Target,
    violate: &mut impl FnMut(&'static str, String),
) -> BTreeMap<String, String> {
    let mut tags = spec.tags.clone();
    let mut seen = BTreeMap::new();
    for key in spec.tags.keys() {
        if let Some(other) = seen.insert(key.to_lowercase(), key) {
            violate("tags", format!("tag keys {other:?} and {key:?} differ only in case; IAM treats them as one key"));
        }
    }
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    // The CRD rejects these too, but ownership and consent to adoption depend on it.
    let reserved =
        |key: &str| ["aws:", well_known::TAG_PREFIX].iter().any(|prefix| key.to_lowercase().starts_with(prefix));
    for key in spec.tags.keys().filter(|key| reserved(key)) {
        violate(
            "tags",
            format!("tag key {key:?} begins with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"),
        );
    }
    for key in spec.tags.keys().filter(|key| !key.chars().all(allowed)) {
        violate(
            "tags",
            format!(
                "tag key {key:?} contains a character that IAM does not allow; allowed are letters, digits, spaces and _ . : / = + - @"
            ),
        );
    }
    if spec.tags.len() + OPERATOR_TAGS > MAX_TAGS_PER_USER {
        violate(
            "tags",
            format!(
                "{} tags are declared; IAM allows {MAX_TAGS_PER_USER} per user, of which the operator needs {OPERATOR_TAGS}; declare at most {}",
                spec.tags.len(),
                MAX_TAGS_PER_USER - OPERATOR_TAGS
            ),
        );
    }
    tags.extend(target.owner.tags());
    if let Some(name) = console_secret_name(&target.owner.name, spec) {
        tags.insert(well_known::TAG_CONSOLE.to_owned(), name);
    }
    if let Some(use_case) = spec.effective_access_key().and_then(|key| key.use_case) {
        tags.insert(well_known::TAG_USE_CASE.to_owned(), use_case.as_str().to_owned());
    }
    tags
}

pub(super) fn check_groups(spec: &AwsDeployUserSpec, violate: &mut impl FnMut(&'static str, String)) {
    for (number, group) in spec.groups.iter().enumerate() {
        // IAM ignores the case of group names.
        if let Some(other) = spec.groups[..number].iter().find(|other| other.eq_ignore_ascii_case(group)) {
            violate(
                "groups",
                format!("the groups {other:?} and {group:?} differ at most in case; IAM treats them as one group"),
            );
        }
    }
}

pub(super) fn desired_console(user: &AwsDeployUser, target: &Target) -> Option<DesiredConsole> {
    let annotations = user.metadata.annotations.as_ref();
    Some(DesiredConsole {
        secret_name: console_secret_name(&target.owner.name, &user.spec)?,
        reset_required: user.spec.console.as_ref()?.password_reset_required,
        reset_request: annotations.and_then(|all| all.get(well_known::ANNOTATION_RESET_PASSWORD)).cloned(),
    })
}
