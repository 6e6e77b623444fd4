//! Name, tags, groups and console access of the IAM user.

use std::collections::BTreeMap;

use crate::{
    api::{AwsDeployUser, user::AwsDeployUserSpec, well_known},
    domain::{
        desired::DesiredConsole,
        target::{Target, console_secret_name},
    },
};

/// Tags per user (IAM quota).
const TAG_LIMIT: usize = 50;
/// Tags that the operator needs beside the declared ones: ownership, use case, console and quarantine, and for two
/// keys and a third in its last moments the ownership tag and the console's description.
const TAGS_OF_OUR_OWN: usize = 7 + 3 * 2;
/// Characters of a user name (IAM limit).
const NAME_LIMIT: usize = 64;

pub(super) fn check_name(target: &Target, violate: &mut impl FnMut(&'static str, String)) {
    let length = target.user_name.chars().count();
    if length > NAME_LIMIT {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} has {length} characters, IAM allows {NAME_LIMIT}; set spec.userName",
                target.user_name
            ),
        );
    }
    if let Some(wrong) = target.user_name.chars().find(|c| !(c.is_ascii_alphanumeric() || "+=,.@_-".contains(*c))) {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} holds {wrong:?}; IAM allows letters, digits and + = , . @ _ -",
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
            violate("tags", format!("tag keys {other:?} and {key:?} differ only in case; IAM treats them as one"));
        }
    }
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    // The schema refuses these too; but the marks of ownership and consent hang on it.
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
                "tag key {key:?} holds a character that IAM does not allow; allowed are letters, digits, spaces and _ . : / = + - @"
            ),
        );
    }
    if spec.tags.len() + TAGS_OF_OUR_OWN > TAG_LIMIT {
        violate(
            "tags",
            format!(
                "{} tags are declared; IAM allows {TAG_LIMIT} per user, {TAGS_OF_OUR_OWN} are needed by the operator, {} are left",
                spec.tags.len(),
                TAG_LIMIT - TAGS_OF_OUR_OWN
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
        // IAM compares names of groups without regard to case.
        if let Some(other) = spec.groups[..number].iter().find(|other| other.eq_ignore_ascii_case(group)) {
            violate(
                "groups",
                format!("the groups {other:?} and {group:?} differ at most in case; IAM treats them as one"),
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
