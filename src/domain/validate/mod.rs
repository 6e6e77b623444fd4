//! The validate step: what is declared, made whole and checked, so that later steps cannot fail on it.

mod rotation;
mod secret;
#[cfg(test)]
mod tests;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    desired::{Account, Consent, Desired, Grant, Violation},
    policy,
    settings::Settings,
    target::{Target, recorded_secret_name},
};
use crate::api::{AwsDeployUser, user::Adoption};

/// Characters of a tag's value (IAM limit).
const TAG_VALUE_LIMIT: usize = 256;

/// Checks a resource against IAM's limits and its own logic and makes it whole.
///
/// # Errors
/// All violations at once, so that a person mends them in one go.
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
    let tags = user::desired_tags(spec, target, &mut violate);
    let console = user::desired_console(user, target);
    let mut attached: BTreeSet<String> =
        spec.policies.managed.iter().map(|declared| policy::managed_arn(declared, &account.partition)).collect();
    if console.as_ref().is_some_and(|console| console.reset_required) && !account.users_may_change_passwords {
        attached.insert(policy::managed_arn("IAMUserChangePassword", &account.partition));
    }
    // Without a key the target is a name that may be free, unless it is that of an earlier key.
    let key_secret = Some(&target.secret_name)
        .filter(|_| spec.effective_access_key().is_some() || recorded_secret_name(user).is_some());
    if let Some(console) = &console
        && (Some(&console.secret_name) == key_secret || console.secret_name == target.journal_name)
    {
        violate(
            "console.secretName",
            format!(
                "{:?} is the name of another Secret of this resource; each needs a name of its own",
                console.secret_name
            ),
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
        violate(
            "policies.managed",
            format!("{arn} is attached by AWS to users with leaked keys; it cannot be declared"),
        );
    }
    let mut inline = BTreeMap::new();
    for declared in &spec.policies.inline {
        // Authorization has put documents in place of templates.
        match &declared.document {
            Some(document) => _ = inline.insert(declared.name.clone(), document.clone()),
            None => violate("policies.inline", format!("{} has no document", declared.name)),
        }
    }
    let size: usize = inline.values().map(policy::counted_characters).sum();
    if size > policy::MAX_INLINE_CHARACTERS {
        violate(
            "policies.inline",
            format!(
                "the inline policies have {size} characters together, IAM allows {} (white space not counted); use a customer managed policy",
                policy::MAX_INLINE_CHARACTERS
            ),
        );
    }

    user::check_groups(spec, &mut violate);
    let key = spec.effective_access_key().map(|key| rotation::desired_key(user, key, settings, &mut violate));
    let secret = secret::desired_secret(spec, target, account, &mut violate);
    if target.secret_name == target.journal_name {
        violate("accessKey.secret.name", format!("{:?} is the name of the operator's own journal", target.secret_name));
    }
    let consent = target.owner.adoptable_by().chars().count();
    if spec.adoption == Adoption::IfTagged && consent > TAG_VALUE_LIMIT {
        violate(
            "adoption",
            format!(
                "the consent of an AWS admin would have {consent} characters (cluster id, namespace and name), IAM allows {TAG_VALUE_LIMIT} in a tag; give the resource a shorter name"
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
        suspend: spec.suspend,
        adoption: match spec.adoption {
            Adoption::Never => Consent::NotRequested,
            Adoption::IfTagged if grant.adoption => Consent::Permitted,
            Adoption::IfTagged => Consent::NotPermitted,
        },
        on_quarantine: grant.on_quarantine,
    })
}
