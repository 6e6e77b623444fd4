//! Validation: computes the desired state of a resource, or its violations.

mod documents;
mod rotation;
mod secret;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeSet;

use super::{
    desired::{Account, Consent, Desired, Grant, Violation},
    managed_policy, policy,
    settings::Settings,
    target::{Target, recorded_secret_name},
};
use crate::api::{
    AwsDeployUser,
    user::{Adoption, DeletionPolicy},
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
    for arn in attached.iter().filter(|arn| policy::is_quarantine(arn)) {
        violate("policies.managed", format!("AWS attaches {arn} to users with leaked keys; it cannot be declared"));
    }
    for arn in attached.iter().filter(|arn| policy::is_for_service_linked_roles(arn)) {
        violate(
            "policies.managed",
            format!("{arn} is for service-linked roles only: AWS does not let it be attached to a user; remove it"),
        );
    }
    let recorded = user.status.as_ref().map(|status| status.policies.as_slice()).unwrap_or_default();
    let policy_path = managed_policy::path_of_resource(&grant.path, &target.user_name, recorded);
    let placement = documents::placement(spec, &policy_path, &mut violate);
    documents::check_count(&attached, &placement, settings.max_attached_policies, &mut violate);
    let documents = documents::managed_documents(placement.managed, &policy_path, target, account);
    let inline = placement.inline;
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
        documents,
        policy_path,
        keep_versions: grant.keep_versions,
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
