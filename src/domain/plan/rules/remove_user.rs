//! How a user is deleted, retained, or stripped of its access. Every step can be repeated.

use std::collections::BTreeSet;

use super::{Effect, Mode, Note, RetireReason, RuleInput, Step};
use crate::{
    api::{Reason, class::OnRevoked, user::DeletionPolicy, well_known},
    domain::{
        console::ConsoleSecret,
        current_state::PublishedSecret,
        owner::tagged_key_id,
        plan::{policies, user::is_consent_to},
        policy,
    },
};

pub(super) fn remove_password(input: &RuleInput<'_>) -> Option<Step> {
    let Mode::Revoked(policy) = &input.mode else { return None };
    let revokes = policy.credentials_revoked || policy.revocation.action != OnRevoked::Freeze;
    (revokes && input.user.login_profile == Some(true)).then_some(Step::Do(Effect::RemovePassword))
}

/// Keys of other owners are never changed, and one of them may be a key that the user made for itself while its policies allowed
/// `iam:CreateAccessKey`. Sessions of a key outlive it too. Without policies, neither may do anything.
pub(super) fn revoke_grants(input: &RuleInput<'_>) -> Option<Step> {
    let Mode::Revoked(policy) = &input.mode else { return None };
    if policy.revocation.action == OnRevoked::Freeze {
        return None;
    }
    // The user is kept as long as such a key is, and so is its quarantine.
    remove_grants(input, |arn| !policy::is_quarantine(arn)).map(Step::Do)
}

/// Removes our ownership tags only: declared tags, descriptions of keys and the keys stay. The consent of an AWS admin
/// that another resource adopts the user stays too.
pub(super) fn retain(input: &RuleInput<'_>) -> Option<Step> {
    let Mode::Deleting(DeletionPolicy::Retain) = input.mode else { return None };
    // Secrets first: without ownership tags a repeated reconcile would not know the user as ours.
    if matches!(input.current.published, PublishedSecret::Ours(_)) {
        return Some(Step::Do(Effect::ReleaseSecret));
    }
    if matches!(input.current.console, ConsoleSecret::Ours(_)) {
        return Some(Step::Do(Effect::ReleaseConsoleSecret));
    }
    match policies::release(input.current, input.now, input.settings) {
        Step::Idle => {}
        step => return Some(step),
    }
    let ours = |(key, value): &(&String, &String)| {
        let consent = key.eq_ignore_ascii_case(well_known::TAG_ADOPTABLE_BY);
        key.to_lowercase().starts_with(well_known::TAG_PREFIX)
            && (!consent || is_consent_to(&input.target.owner, key, value))
    };
    let tags: BTreeSet<String> = input.user.tags.iter().filter(ours).map(|(key, _)| key.clone()).collect();
    debug_assert!(tags.iter().any(|key| tagged_key_id(key).is_none()), "an owned user carries ownership tags");
    Some(Step::Do(Effect::UntagUser(tags)))
}

/// Keys of other owners block the deletion before anything is taken from the user, unless the policy is `Force`.
pub(super) fn delete(input: &RuleInput<'_>) -> Option<Step> {
    let user = input.user;
    let force = match &input.mode {
        Mode::Deleting(DeletionPolicy::Force) => true,
        Mode::Deleting(DeletionPolicy::Delete) => false,
        Mode::Revoked(policy) if policy.revocation.action == OnRevoked::Delete => false,
        Mode::Deleting(DeletionPolicy::Retain) | Mode::Revoked(_) | Mode::Live { .. } => return None,
    };
    let foreign: Vec<&str> = input.foreign().map(|key| key.id.as_str()).collect();
    if !force && !foreign.is_empty() {
        return Some(Step::Hold(Note::new(
            Reason::ForeignKeys,
            format!(
                "the IAM user {} has access keys that this operator did not create: {}. Nothing is removed from the user. Delete these keys in AWS, or set spec.deletionPolicy to Force to delete them too, or to Retain to keep the user",
                user.name,
                foreign.join(", ")
            ),
        )));
    }
    if user.login_profile == Some(true) {
        return Some(Step::Do(Effect::RemovePassword));
    }
    // All keys stop working before the first one is deleted.
    if let Some(key) = user.keys.iter().find(|key| key.active) {
        return Some(Step::Do(Effect::DeactivateKey(key.id.clone(), RetireReason::Cleanup)));
    }
    if let Some(key) = user.keys.first() {
        return Some(Step::Do(Effect::DeleteKey(key.id.clone(), RetireReason::Cleanup)));
    }
    let blocker = || user.deletion_blockers.iter().flatten().next().cloned().map(Effect::RemoveDeletionBlocker);
    let effect = remove_grants(input, |_| true).or_else(blocker);
    // Without the user, only records lead to its policies.
    let before = || policies::before_user_is_deleted(input.current);
    Some(effect.map(Step::Do).or_else(before).unwrap_or(Step::Do(Effect::DeleteUser)))
}

fn remove_grants(input: &RuleInput<'_>, detaches: impl Fn(&str) -> bool) -> Option<Effect> {
    let Some(grants) = &input.user.grants else { return Some(Effect::ReadGrants) };
    let attached = grants.attached.iter().find(|arn| detaches(arn));
    attached
        .map(|arn| Effect::DetachPolicy(arn.clone()))
        .or_else(|| grants.inline.keys().next().map(|name| Effect::DeleteInlinePolicy(name.clone())))
        .or_else(|| grants.groups.iter().next().map(|group| Effect::RemoveFromGroup(group.clone())))
}
