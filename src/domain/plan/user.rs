//! The writes that bring user, tags, policies, groups and boundary to the spec. Permissions shrink before they grow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Effect,
    policies::{self, PolicySync},
};
use crate::{
    api::well_known,
    domain::{
        current_state::{CurrentState, Grants, IamUser},
        desired::Desired,
        owner::Owner,
        policy,
    },
};

/// Whether a tag is the consent of an AWS admin that this resource adopts the user.
pub(super) fn is_consent_to(owner: &Owner, key: &str, value: &str) -> bool {
    key.eq_ignore_ascii_case(well_known::TAG_ADOPTABLE_BY) && value == owner.adoptable_by()
}

pub(super) fn sync(desired: &Desired, user: &IamUser, current: &CurrentState, policies: PolicySync) -> Vec<Effect> {
    let mut effects = Vec::new();
    // First, because it limits what is granted after it. None declared: one set by an AWS admin is kept.
    if let Some(boundary) = desired.boundary.as_ref().filter(|boundary| user.boundary.as_ref() != Some(*boundary)) {
        effects.push(Effect::PutBoundary(boundary.clone()));
    }
    if let Some(grants) = &user.grants {
        effects.extend(shrink(desired, grants, current));
    }
    effects.extend(policies.corrections);
    effects.extend(policies.removals);
    effects.extend(tags(desired, user, current));
    let puts = user.grants.as_ref().map(|grants| policies::inline_puts(desired, grants, current)).unwrap_or_default();
    // A document that becomes inline frees an attachment for one that becomes managed, and that frees the inline quota.
    effects.extend(puts.fitting.into_iter().map(put));
    effects.extend(policies.grow);
    if let Some(grants) = &user.grants {
        let replaced = (!policies.is_stuck).then(|| replaced_by_inline(desired, grants, current)).into_iter().flatten();
        effects.extend(puts.waiting.into_iter().filter(|_| !policies.is_stuck).map(put));
        effects.extend(grow(desired, grants));
        effects.extend(replaced);
    }
    effects.extend(policies.tidy);
    effects
}

/// What an adopted user is about to lose, for people: policies and groups are exclusive.
pub(super) fn losses(desired: &Desired, user: &IamUser, current: &CurrentState) -> Vec<String> {
    let Some(grants) = &user.grants else { return Vec::new() };
    let written = desired.inline.iter().filter(|(name, document)| {
        grants.inline.get(*name).is_some_and(|found| !policy::is_equivalent(found, document))
    });
    let written = written.map(|(name, _)| format!("the current document of inline policy {name}"));
    shrink(desired, grants, current)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::DetachPolicy(arn) => Some(format!("managed policy {arn}")),
            Effect::DeleteInlinePolicy(name) => Some(format!("inline policy {name}")),
            Effect::RemoveFromGroup(group) => Some(format!("group {group}")),
            _ => None,
        })
        .chain(written)
        .collect()
}

fn shrink(desired: &Desired, grants: &Grants, current: &CurrentState) -> Vec<Effect> {
    let detach = grants
        .attached
        .iter()
        .filter(|arn| !is_declared(desired, current, arn) && !policy::is_quarantine(arn))
        .filter(|arn| !policies::precedes_inline(desired, current, grants, arn))
        .cloned()
        .map(Effect::DetachPolicy);
    let delete = grants
        .inline
        .keys()
        .filter(|name| !desired.inline.contains_key(*name))
        .filter(|name| !policies::precedes_managed(desired, current, grants, name))
        .cloned()
        .map(Effect::DeleteInlinePolicy);
    let leave = others(&grants.groups, &desired.groups).map(Effect::RemoveFromGroup);
    detach.chain(delete).chain(leave).collect()
}

/// Whether the spec declares an attached policy. One of another owner that has the name of a document is not declared.
fn is_declared(desired: &Desired, current: &CurrentState, arn: &str) -> bool {
    let is_foreign = || current.policies.found.get(arn).is_some_and(|policy| !policy.is_ours());
    desired.attached.contains(arn) || desired.documents.contains_key(arn) && !is_foreign()
}

/// Managed policies whose documents the inline policies before them have.
fn replaced_by_inline(desired: &Desired, grants: &Grants, current: &CurrentState) -> Vec<Effect> {
    let attached = grants.attached.iter().filter(|arn| !is_declared(desired, current, arn));
    let replaced = attached.filter(|arn| policies::precedes_inline(desired, current, grants, arn));
    replaced.cloned().map(Effect::DetachPolicy).collect()
}

/// Groups of the first set that are not in the second; IAM compares their names without regard to case.
fn others<'a>(left: &'a BTreeSet<String>, right: &'a BTreeSet<String>) -> impl Iterator<Item = String> + 'a {
    left.iter().filter(|group| !right.iter().any(|other| other.eq_ignore_ascii_case(group))).cloned()
}

fn put((name, document): (&String, &Value)) -> Effect {
    Effect::PutInlinePolicy(name.clone(), document.clone())
}

fn grow(desired: &Desired, grants: &Grants) -> Vec<Effect> {
    let attach = desired.attached.difference(&grants.attached).cloned().map(Effect::AttachPolicy);
    let join = others(&desired.groups, &grants.groups).map(Effect::AddToGroup);
    attach.chain(join).collect()
}

/// The tag that the AWS console shows as the description of the published key. It is written with the key's ownership tag;
/// here it is only corrected.
fn description(desired: &Desired, user: &IamUser, current: &CurrentState) -> Option<(String, String)> {
    let published = current.published().filter(|facts| user.is_tagged(&facts.key_id))?;
    Some((published.key_id.clone(), desired.key.as_ref()?.description.clone()?))
}

/// Whether the status names every declared tag. A tag is written to IAM only after that, so that it is known as the operator's
/// however the reconcile ends, and is removed when it is no longer declared.
pub(super) fn records_tags(desired: &Desired, current: &CurrentState) -> bool {
    desired.declared_tag_keys().all(|key| current.hints.tag_keys.contains(key))
}

fn tags(desired: &Desired, user: &IamUser, current: &CurrentState) -> Vec<Effect> {
    // IAM compares tag keys without regard to case: writing `owner` replaces `Owner`.
    let found: BTreeMap<String, &String> = user.tags.iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
    let description = description(desired, user, current);
    let set: BTreeMap<String, String> = desired
        .tags
        .iter()
        .chain(description.iter().map(|(key, value)| (key, value)))
        .filter(|(key, value)| found.get(&key.to_lowercase()) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let declared: BTreeSet<String> = desired.tags.keys().map(|key| key.to_lowercase()).collect();
    let dropped = |key: &String, value: &String| {
        // The consent that led to the adoption. A consent to another resource is kept.
        let consent = is_consent_to(&desired.target.owner, key, value);
        let was_declared = current.hints.tag_keys.iter().any(|old| old.to_lowercase() == key.to_lowercase());
        let ours = was_declared || key == well_known::TAG_USE_CASE || consent;
        ours && !declared.contains(&key.to_lowercase())
    };
    let remove: BTreeSet<String> =
        user.tags.iter().filter(|(key, value)| dropped(key, value)).map(|(key, _)| key.clone()).collect();
    let mut effects = Vec::new();
    if !remove.is_empty() {
        effects.push(Effect::UntagUser(remove));
    }
    if !set.is_empty() {
        effects.push(Effect::TagUser(set));
    }
    effects
}
