//! Validation: computes the desired state of a resource, or its violations.

mod rotation;
mod secret;
#[cfg(test)]
mod tests;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    desired::{Account, Consent, Desired, Grant, Violation},
    policy,
    settings::Settings,
    target::{Target, recorded_secret_name},
};
use crate::api::{
    AwsDeployUser,
    user::{Adoption, AwsDeployUserSpec, DeletionPolicy},
    well_known,
};

/// Limit of IAM for tag values.
const MAX_TAG_VALUE_CHARACTERS: usize = 256;

/// Validates a resource against the limits of IAM and its own consistency, and completes it.
///
/// # Errors
/// All violations.
pub fn validate(
    user: &AwsDeployUser,
    target: &Target,
    grant: &Grant,
    account: &Account,
    settings: &Settings,
) -> Result<Desired, Vec<Violation>> {
    let spec = &user.spec;
    let mut violations = Vec::new();
    let mut violate = |field, message: String| violations.push(Violation { field, message });

    user::check_name(target, &mut violate);
    let mut tags = user::desired_tags(spec, target, &mut violate);
    let console = user::desired_console(user, target);
    let mut attached: BTreeSet<String> =
        spec.policies.managed.iter().map(|declared| policy::managed_arn(declared, &account.partition)).collect();
    if console.as_ref().is_some_and(|console| console.reset_required) && !account.users_may_change_passwords {
        attached.insert(policy::managed_arn("IAMUserChangePassword", &account.partition));
    }
    // Without a declared key, the name of its Secret is in use only if an earlier key has one.
    let key_secret = Some(&target.secret_name)
        .filter(|_| spec.effective_access_key().is_some() || recorded_secret_name(user).is_some());
    if let Some(console) = &console
        && Some(&console.secret_name) == key_secret
    {
        violate(
            "console.secretName",
            format!("{:?} is the name of another Secret of this resource; set a different name", console.secret_name),
        );
    }
    if attached.len() > settings.max_attached_policies {
        violate(
            "policies.managed",
            format!(
                "{} managed policies are declared, the account allows {} per user (IAM quota PoliciesPerUser); merge some into a customer managed policy, or have the quota raised and start the operator with --max-attached-policies",
                attached.len(),
                settings.max_attached_policies
            ),
        );
    }
    for arn in attached.iter().filter(|arn| policy::is_quarantine(arn)) {
        violate("policies.managed", format!("AWS attaches {arn} to users with leaked keys; it cannot be declared"));
    }
    for arn in attached.iter().filter(|arn| policy::is_for_service_linked_roles(arn)) {
        violate(
            "policies.managed",
            format!("{arn} is for service-linked roles only: AWS does not let it be attached to a user; remove it"),
        );
    }
    let inline = inline_policies(spec, &mut violate);
    user::check_groups(spec, &mut violate);
    let key = spec.effective_access_key().map(|key| rotation::desired_key(user, key, settings, &mut violate));
    tags.extend(
        key.as_ref().map(|key| (well_known::TAG_OVERLAP.to_owned(), key.longest_overlap(settings).to_string())),
    );
    let secret = secret::desired_secret(spec, target, account, &mut violate);
    let consent = target.owner.adoptable_by().chars().count();
    if spec.adoption == Adoption::IfTagged && consent > MAX_TAG_VALUE_CHARACTERS {
        violate(
            "adoption",
            format!(
                "the tag of an AWS admin that allows the adoption would have {consent} characters (cluster id, namespace and name), IAM allows {MAX_TAG_VALUE_CHARACTERS}; use a shorter name for the resource"
            ),
        );
    }

    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Desired {
        target: target.clone(),
        path: grant.path.clone(),
        tags,
        attached,
        inline,
        groups: spec.groups.iter().cloned().collect(),
        boundary: grant.boundary.clone(),
        key,
        secret,
        console,
        credentials_revoked: spec.credentials_revoked(),
        retain: spec.deletion_policy == DeletionPolicy::Retain,
        adoption: match spec.adoption {
            Adoption::Never => Consent::NotRequested,
            Adoption::IfTagged if grant.adoption => Consent::Permitted,
            Adoption::IfTagged => Consent::NotPermitted,
        },
        on_quarantine: grant.on_quarantine,
    })
}

/// The inline policies by name. Authorization has replaced templates by documents.
fn inline_policies(
    spec: &AwsDeployUserSpec,
    violate: &mut impl FnMut(&'static str, String),
) -> BTreeMap<String, Value> {
    let mut inline = BTreeMap::new();
    for declared in &spec.policies.inline {
        let Some(document) = &declared.document else {
            violate("policies.inline", format!("{} has no document", declared.name));
            continue;
        };
        if let Some((wrong, around)) = policy::forbidden_character(document) {
            violate(
                "policies.inline",
                format!(
                    "the document of {} contains {:?} (U+{:04X}) in {around:?}; IAM allows the characters up to U+00FF only. A hyphen or quotation mark may have been changed by an editor or a web page; type it again",
                    declared.name,
                    wrong,
                    u32::from(wrong)
                ),
            );
        }
        inline.insert(declared.name.clone(), document.clone());
    }
    let size: usize = inline.values().map(policy::counted_characters).sum();
    if size > policy::MAX_INLINE_CHARACTERS {
        violate(
            "policies.inline",
            format!(
                "the inline policies have {size} characters in total, IAM allows {} (without white space); use a customer managed policy",
                policy::MAX_INLINE_CHARACTERS
            ),
        );
    }
    inline
}
