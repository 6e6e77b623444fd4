//! Managed policies of documents: what brings them to the spec, and what removes them. Each step can be repeated, and none takes a
//! right away that another policy does not give yet.

use jiff::Timestamp;
use serde_json::Value;

use super::{Effect, Note, rules::Step};
use crate::{
    api::Reason,
    domain::{
        current_state::{CurrentState, Grants},
        dates::saturating_add,
        desired::{Desired, ManagedDocument},
        managed_policy::{self, CurrentPolicy, MAX_LEFT, MAX_VERSIONS, PolicyOwner, RecordedPolicy},
        policy,
        settings::Settings,
    },
};

/// What the policies of a live resource need.
#[derive(Debug, Default)]
pub(super) struct PolicySync {
    /// They correct policies that the user has, which may take a right away. No quota stops them, so they come first.
    pub(super) corrections: Vec<Effect>,
    /// They remove policies that the user has no more. Before anything that may fail: each edit may leave another one.
    pub(super) removals: Vec<Effect>,
    /// They give the user a declared right.
    pub(super) grow: Vec<Effect>,
    /// They remove versions that give no right.
    pub(super) tidy: Vec<Effect>,
    /// What only a person can fix.
    pub(super) note: Option<Note>,
    /// A declared right may be missing: no first key is created.
    pub(super) is_blocked: bool,
    /// Inline policies that do not fit beside the present ones are not written.
    pub(super) is_stuck: bool,
    /// When IAM's list shows whether a recorded policy is gone.
    pub(super) recheck_at: Option<Timestamp>,
}

/// Whether the status has to record a managed policy that is declared: none is created before.
pub(super) fn need_record(desired: &Desired, current: &CurrentState) -> bool {
    desired.documents.keys().any(|arn| !current.hints.policies.contains_key(arn))
        && !desired.is_full(&current.hints.policies)
}

/// Whether an attached policy gives the user the right of a document that is to be inline and is not yet.
pub(super) fn precedes_inline(desired: &Desired, current: &CurrentState, grants: &Grants, arn: &str) -> bool {
    let name = managed_policy::document_name(arn);
    let is_ours = current.policies.owned(arn).is_some() || current.hints.policies.contains_key(arn);
    let declared = desired.inline.get(name).filter(|_| is_ours);
    declared
        .is_some_and(|document| !grants.inline.get(name).is_some_and(|found| policy::is_equivalent(found, document)))
}

/// Documents to write as inline policies.
#[derive(Debug, Default)]
pub(super) struct InlinePuts<'a> {
    /// They fit beside the present ones, in this order.
    pub(super) fitting: Vec<(&'a String, &'a Value)>,
    /// They fit only after others have been deleted.
    pub(super) waiting: Vec<(&'a String, &'a Value)>,
}

/// The documents to write as inline policies. Those that shrink come first, because IAM limits the size of all together, and then
/// those that free an attachment.
pub(super) fn inline_puts<'a>(desired: &'a Desired, grants: &Grants, current: &CurrentState) -> InlinePuts<'a> {
    let size = |document: &Value| i64::try_from(policy::counted_characters(document)).unwrap_or(i64::MAX);
    let mut puts: Vec<_> = desired
        .inline
        .iter()
        .filter_map(|put| {
            let before = grants.inline.get(put.0);
            let is_equal = before.is_some_and(|before| policy::is_equivalent(before, put.1));
            (!is_equal).then(|| (size(put.1).saturating_sub(before.map_or(0, size)), put))
        })
        .collect();
    let replaces = |name: &String| {
        let mut attached = grants.attached.iter().filter(|arn| managed_policy::document_name(arn) == name);
        attached.any(|arn| precedes_inline(desired, current, grants, arn))
    };
    puts.sort_by_key(|(growth, (name, _))| (*growth > 0 && !replaces(name), *growth, *name));
    let mut total: i64 = grants.inline.values().map(size).fold(0, i64::saturating_add);
    let limit = i64::try_from(policy::MAX_INLINE_CHARACTERS).unwrap_or(i64::MAX);
    let mut all = InlinePuts::default();
    for (growth, put) in puts {
        if total.saturating_add(growth) <= limit {
            total = total.saturating_add(growth);
            all.fitting.push(put);
        } else {
            all.waiting.push(put);
        }
    }
    all
}

/// Whether a document fits in the place of its inline policy, beside all that is to be written as inline policies.
fn fits_inline(desired: &Desired, grants: &Grants, current: &CurrentState, document: &ManagedDocument) -> bool {
    let mut after = grants.clone();
    after.inline.insert(document.name.clone(), document.document.clone());
    let total = after.inline.values().map(policy::counted_characters).fold(0, usize::saturating_add);
    let waiting = |grants: &Grants| inline_puts(desired, grants, current).waiting.len();
    total <= policy::MAX_INLINE_CHARACTERS && waiting(&after) <= waiting(grants)
}

/// Whether an inline policy gives the user the right of a document that is to be a managed policy and is not attached yet.
pub(super) fn precedes_managed(desired: &Desired, current: &CurrentState, grants: &Grants, name: &str) -> bool {
    let declared = desired.documents.iter().find(|(_, document)| document.name == name);
    declared.is_some_and(|(arn, document)| {
        let found = current.policies.owned(arn).and_then(CurrentPolicy::digest);
        !grants.attached.contains(arn) || found != Some(document.digest)
    })
}

/// What brings the managed policies to the spec. Empty if the policies of the user were not read.
pub(super) fn sync(
    desired: &Desired,
    grants: Option<&Grants>,
    current: &CurrentState,
    now: Timestamp,
    settings: &Settings,
) -> PolicySync {
    let mut sync = PolicySync::default();
    let Some(grants) = grants else { return sync };
    if current.policies.are_unread {
        return PolicySync { is_blocked: true, is_stuck: true, ..sync };
    }
    for (arn, document) in &desired.documents {
        sync.provide(arn, document, desired, grants, current);
    }
    let undeclared = |policy: &&CurrentPolicy| !desired.documents.contains_key(&policy.arn);
    sync.check_exchange(desired, grants, current, settings);
    for policy in current.policies.ours().filter(undeclared).filter(|policy| !grants.attached.contains(&policy.arn)) {
        sync.remove(remove(policy, current.hints.policies.get(&policy.arn)));
    }
    for (arn, document) in &desired.documents {
        let policy = current.policies.owned(arn).filter(|policy| policy.digest() == Some(document.digest));
        let excess = policy.and_then(|policy| excess_version(policy, current, desired.keep_versions));
        sync.tidy.extend(excess.map(|version| Effect::DeletePolicyVersion(arn.clone(), version)));
    }
    let missing =
        current.hints.policies.keys().find(|arn| !desired.documents.contains_key(*arn) && is_missing(arn, current));
    match missing.map(|arn| forget(arn, current, now, settings)) {
        Some(Step::Wait(until, _)) => sync.recheck_at = Some(until),
        Some(Step::Do(effect)) => sync.tidy.push(effect),
        Some(Step::Hold(_) | Step::Idle) | None => {}
    }
    sync
}

impl PolicySync {
    fn provide(
        &mut self,
        arn: &str,
        document: &ManagedDocument,
        desired: &Desired,
        grants: &Grants,
        current: &CurrentState,
    ) {
        let is_attached = grants.attached.contains(arn);
        // The inline policy stays until the managed one replaces it, which AWS may refuse: it has the declared text by then.
        if let Some(before) = grants.inline.get(&document.name)
            && precedes_managed(desired, current, grants, &document.name)
            && !policy::is_equivalent(before, &document.document)
            && fits_inline(desired, grants, current, document)
        {
            self.corrections.push(Effect::PutInlinePolicy(document.name.clone(), document.document.clone()));
        }
        match current.policies.found.get(arn) {
            None => {
                let same = current.policies.ours().find(|other| managed_policy::is_same_name(&other.arn, arn));
                if let Some(other) = same {
                    // It is deleted first, once it is detached.
                    return match remove(other, current.hints.policies.get(&other.arn)) {
                        Step::Do(effect) => self.grow.push(effect),
                        Step::Hold(note) => self.block(note),
                        Step::Idle | Step::Wait(..) => {}
                    };
                }
                if !current.hints.policies.contains_key(arn) && desired.is_full(&current.hints.policies) {
                    let left = managed_policy::left(&current.hints.policies, |arn| desired.documents.contains_key(arn));
                    return self.block(too_many_left(&document.name, left));
                }
                self.grow.push(Effect::CreatePolicy(arn.to_owned()));
            }
            Some(policy) => {
                let effects = if is_attached { &mut self.corrections } else { &mut self.grow };
                match &policy.owner {
                    PolicyOwner::Other(whose) => return self.block(not_owned(policy, &document.name, whose)),
                    PolicyOwner::Earlier => effects.push(Effect::TagPolicy(arn.to_owned())),
                    PolicyOwner::Ours => {}
                }
                match correct(policy, document, current.hints.policies.get(arn)) {
                    Step::Do(effect) => effects.push(effect),
                    Step::Hold(note) => return self.block(note),
                    Step::Idle | Step::Wait(..) => {}
                }
            }
        }
        if !is_attached {
            self.grow.push(Effect::AttachPolicy(arn.to_owned()));
        }
        if grants.inline.contains_key(&document.name) && !desired.inline.contains_key(&document.name) {
            self.grow.push(Effect::DeleteInlinePolicy(document.name.clone()));
        }
    }

    /// Blocks where a document can become managed only after another one has become inline, and the other way round.
    fn check_exchange(&mut self, desired: &Desired, grants: &Grants, current: &CurrentState, settings: &Settings) {
        let attaches = |effect: &Effect| matches!(effect, Effect::AttachPolicy(_));
        let deletes = |effect: &Effect| matches!(effect, Effect::DeleteInlinePolicy(_));
        let is_attached = |name: &String| {
            desired.documents.iter().any(|(arn, document)| document.name == *name && grants.attached.contains(arn))
        };
        let frees = |effect: &Effect| matches!(effect, Effect::DeleteInlinePolicy(name) if is_attached(name));
        let is_full = grants.attached.len() >= settings.max_attached_policies;
        if !is_full || !self.grow.iter().any(attaches) || self.grow.iter().any(frees) {
            return;
        }
        let undeclared = |arn: &&String| !desired.attached.contains(*arn) && !desired.documents.contains_key(*arn);
        let mut replaced =
            grants.attached.iter().filter(undeclared).filter(|arn| !policy::is_quarantine(arn)).peekable();
        let waiting: Vec<&str> =
            inline_puts(desired, grants, current).waiting.into_iter().map(|(name, _)| name.as_str()).collect();
        let waits = |arn: &String| {
            precedes_inline(desired, current, grants, arn) && waiting.contains(&managed_policy::document_name(arn))
        };
        if replaced.peek().is_none() || !replaced.all(waits) {
            return;
        }
        // An inline document is deleted after its policy has been attached.
        self.grow.retain(|effect| !attaches(effect) && !deletes(effect));
        self.is_stuck = true;
        self.block(Note::new(
            Reason::LimitExceeded,
            format!(
                "{} cannot become inline before another document has become managed, and no other policy can be attached: the user has {} (IAM quota PoliciesPerUser). Nothing is taken away meanwhile. Set `as: Managed` for {}, or remove one policy for a moment",
                waiting.join(", "),
                grants.attached.len(),
                waiting.join(", ")
            ),
        ));
    }

    fn block(&mut self, note: Note) {
        self.is_blocked = true;
        self.note.get_or_insert(note);
    }

    fn remove(&mut self, step: Step) {
        match step {
            Step::Do(effect) => self.removals.push(effect),
            Step::Hold(note) => _ = self.note.get_or_insert(note),
            Step::Idle | Step::Wait(..) => {}
        }
    }
}

/// Makes the declared document the default version. A version that has it already is made the default; IAM keeps five.
fn correct(policy: &CurrentPolicy, document: &ManagedDocument, record: Option<&RecordedPolicy>) -> Step {
    let arn = || policy.arn.clone();
    if policy.digest() == Some(document.digest) {
        return Step::Idle;
    }
    let exists = |version: &&String| policy.versions.as_ref().is_none_or(|all| all.contains(version));
    let own: Vec<&String> =
        record.iter().flat_map(|record| record.replaced(&policy.default_version)).filter(exists).collect();
    if let Some(version) = own.iter().rev().find(|version| policy.documents.get(**version) == Some(&document.digest)) {
        return Step::Do(Effect::SetDefaultPolicyVersion(arn(), (*version).clone()));
    }
    let switched_by_hand =
        record.is_some_and(|record| record.default_version.as_ref() != Some(&policy.default_version));
    if policy.versions.is_none() && (policy.digest().is_none() || switched_by_hand && !own.is_empty()) {
        return Step::Do(Effect::ReadPolicyVersions(arn()));
    }
    let is_full = policy.versions.as_ref().is_some_and(|versions| versions.len() >= MAX_VERSIONS);
    match (is_full, own.first()) {
        (false, _) => Step::Do(Effect::CreatePolicyVersion(arn())),
        (true, Some(oldest)) => Step::Do(Effect::DeletePolicyVersion(arn(), (*oldest).clone())),
        (true, None) => Step::Hold(full(policy, &document.name)),
    }
}

/// The oldest version of the operator beyond those that are kept.
fn excess_version(policy: &CurrentPolicy, current: &CurrentState, keep: usize) -> Option<String> {
    let record = current.hints.policies.get(&policy.arn)?;
    let replaced: Vec<&String> = record.replaced(&policy.default_version).collect();
    replaced.first().filter(|_| replaced.len() > keep).map(|oldest| (*oldest).clone())
}

/// Removes a policy that the user has no more. It is never taken from others that have it.
fn remove(policy: &CurrentPolicy, record: Option<&RecordedPolicy>) -> Step {
    let arn = || policy.arn.clone();
    match &policy.holders {
        Some(holders) if !holders.is_empty() => return Step::Hold(in_use(policy, holders)),
        None if policy.attachments > 0 => return Step::Do(Effect::ReadPolicyHolders(arn())),
        _ => {}
    }
    let recorded = || record.map(|record| record.versions.clone()).unwrap_or_default();
    let versions = policy.versions.clone().unwrap_or_else(recorded);
    let replaced = versions.into_iter().find(|version| *version != policy.default_version);
    Step::Do(match replaced {
        Some(version) => Effect::DeletePolicyVersion(arn(), version),
        None => Effect::DeletePolicy(arn()),
    })
}

/// Removes all policies of a resource that has no user any more; `Idle` if none is left or recorded.
pub(super) fn remove_all(current: &CurrentState, now: Timestamp, settings: &Settings) -> Step {
    if current.policies.are_unread {
        return Step::Hold(unread());
    }
    let records = &current.hints.policies;
    let steps = current.policies.ours().map(|policy| remove(policy, records.get(&policy.arn)));
    let missing = records.keys().filter(|arn| is_missing(arn, current)).map(|arn| forget(arn, current, now, settings));
    let mut steps: Vec<Step> = steps.chain(missing).collect();
    // What waits or is held holds nothing else up.
    steps.sort_by_key(|step| match step {
        Step::Do(_) => 0,
        Step::Wait(..) => 1,
        Step::Hold(_) => 2,
        Step::Idle => 3,
    });
    steps.into_iter().next().unwrap_or(Step::Idle)
}

/// What has to be done about the policies before the user is deleted.
pub(super) fn before_user_is_deleted(current: &CurrentState) -> Option<Step> {
    if current.policies.are_unread {
        return Some(Step::Hold(unread()));
    }
    let is_unrecorded = |policy: &CurrentPolicy| !current.hints.policies.contains_key(&policy.arn);
    current.policies.ours().any(is_unrecorded).then_some(Step::Do(Effect::RecordUser))
}

/// The next policy that keeps its document and loses our ownership tags; `Idle` if none is left or recorded.
pub(super) fn release(current: &CurrentState, now: Timestamp, settings: &Settings) -> Step {
    if current.policies.are_unread {
        return Step::Hold(unread());
    }
    if let Some(policy) = current.policies.ours().next() {
        return Step::Do(Effect::UntagPolicy(policy.arn.clone()));
    }
    // One that was released is listed, with another owner.
    let records = current.hints.policies.keys();
    let mut missing = records.filter(|arn| !current.policies.found.contains_key(*arn));
    missing.next().map_or(Step::Idle, |arn| forget(arn, current, now, settings))
}

/// Whether IAM does not list a recorded policy. One of another owner that has its name is not it.
fn is_missing(arn: &str, current: &CurrentState) -> bool {
    current.policies.owned(arn).is_none()
}

/// A list of IAM may be older than the policy, whose creation may have lost its response.
fn forget(arn: &str, current: &CurrentState, now: Timestamp, settings: &Settings) -> Step {
    let since = current.policies_missing_since.unwrap_or(now).min(now);
    let until = saturating_add(since, settings.recovery_delay);
    if now < until {
        return Step::Wait(
            until,
            Note::new(
                Reason::Deleting,
                format!(
                    "IAM does not list the managed policy {arn}, but its list may be older than the policy: it is read again"
                ),
            ),
        );
    }
    Step::Do(Effect::ForgetPolicy(arn.to_owned()))
}

fn not_owned(policy: &CurrentPolicy, document: &str, whose: &str) -> Note {
    Note::new(
        Reason::NotOwned,
        format!(
            "a managed policy {} exists that was not made for this resource: {whose}. It is not changed, and the document {document} gives the user nothing. Choose another name for the document, or have an AWS admin delete that policy",
            policy.arn
        ),
    )
}

fn unread() -> Note {
    Note::new(Reason::Deleting, "the managed policies of the resource could not be read; they are removed after that")
}

fn too_many_left<'a>(document: &str, left: impl Iterator<Item = &'a str>) -> Note {
    Note::new(
        Reason::LimitExceeded,
        format!(
            "no managed policy is made for the document {document}, because {MAX_LEFT} or more of documents that are not declared any more are left: {}. Each is removed once no one else has it and AWS allows it; the log says what failed. An AWS admin can delete them",
            left.collect::<Vec<_>>().join(", ")
        ),
    )
}

fn full(policy: &CurrentPolicy, document: &str) -> Note {
    let others = policy.versions.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
    Note::new(
        Reason::LimitExceeded,
        format!(
            "the document {document} cannot be written: the managed policy {} has {MAX_VERSIONS} versions ({others}), as many as IAM keeps, and the operator has no record of making one that is not the default. An AWS admin has to delete one: aws iam delete-policy-version --policy-arn {} --version-id <version>",
            policy.arn, policy.arn
        ),
    )
}

fn in_use(policy: &CurrentPolicy, holders: &[String]) -> Note {
    Note::new(
        Reason::PolicyInUse,
        format!(
            "the managed policy {} is not declared any more, and others have it: {}. It is not taken from them and not deleted. An AWS admin has to detach it there",
            policy.arn,
            holders.join(", ")
        ),
    )
}
