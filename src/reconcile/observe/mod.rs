//! The observe step (IO, reads only): IAM first, then the published Secret, then the journal.
//!
//! The order is part of the protocol. A key that is in IAM's answer and in neither of the two
//! Secrets read *after* it was not in them either when IAM answered, or its attempt has ended since.

mod iam;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};

use super::{Context, cache::ReconcileCache, error::ReconcileError};
use crate::{
    api::{AwsDeployUser, user::DeletionPolicy, well_known},
    aws,
    cluster::{ClusterError, ClusterErrorKind, JournalSnapshot, JournalStore, SecretSnapshot, Secrets},
    domain::{
        console::{self, ConsoleSecret},
        current_state::{CurrentState, CurrentUser, JournalSecret, PublishedSecret, StatusHints, UserAbsence},
        desired::Desired,
        owner::Ownership,
        plan::Freshness,
        secret,
        target::{Target, console_secret_name},
    },
};

/// The world, and the objects that conditional writes need.
pub(super) struct Observed {
    pub(super) current: CurrentState,
    /// What is known of IAM is good enough to see that there is nothing to do, and no more.
    pub(super) from_listing: bool,
    /// The target Secret, if it is ours.
    pub(super) held: Option<SecretSnapshot>,
    /// The journal, if it is ours.
    pub(super) attempt: Option<JournalSnapshot>,
    /// The Secret of the console password, if it is ours.
    pub(super) console: Option<SecretSnapshot>,
}

/// Looks at the world. What is remembered of IAM is good enough if it is fresh, of this generation of the resource,
/// and `wanted` asks for no more.
pub(super) async fn observe(
    context: &Context,
    iam: &aws::IamClient,
    user: &AwsDeployUser,
    target: &Target,
    desired: Option<&Desired>,
    cache: &mut ReconcileCache,
    wanted: Freshness,
) -> Result<Observed, ReconcileError> {
    let started = Instant::now();
    let question = iam::Question { context, iam, user, target, desired };
    // What is remembered stays where a look fails: it is as true as before, and without it the next pass would read everything.
    let (remembered, facts) = Box::pin(question.answer(cache.iam.clone(), cache.looked, wanted)).await?;
    cache.looked = true;
    let from_listing = remembered.from_listing;
    // Counted back from the end: AWS's answers are what our idea of its clock is made of.
    let took = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
    let now = iam.clock().now();
    let keys_read_at = now.checked_sub(took).ok().filter(|_| facts != Freshness::Cached);
    let iam = remembered.iam.clone();
    cache.iam = Some(remembered);
    // A user that has to go, because its resource does or is not allowed.
    let leaves = user.metadata.deletion_timestamp.is_some() || desired.is_none();
    let user_absence = user_absence(leaves, target, &iam, started, context, cache);

    let secrets = Secrets::new(context.client.clone(), &target.owner.namespace);
    let secret = desired.map(|desired| &desired.secret);
    // A user without a key may have given the name of its Secret to the one of the password.
    let shared = user.spec.effective_access_key().is_none()
        && console_secret_name(&target.owner.name, &user.spec).as_ref() == Some(&target.secret_name);
    let told = |error| context.secret_error(target, error);
    let held = if shared { None } else { or_gone(user, secrets.get(&target.secret_name).await).map_err(told)? };
    let attempt = or_gone(user, JournalStore::new(context.client.clone(), target).get().await).map_err(told)?;

    let console = match console_name(user, target, &iam) {
        Some(name) => or_gone(user, secrets.get(&name).await).map_err(told)?,
        None => None,
    };
    let (console_seen, console) = match console {
        None => (ConsoleSecret::Missing, None),
        Some(held) => match held.ownership_conflict(&target.owner.uid) {
            Some(whose) => (ConsoleSecret::Foreign(whose), None),
            None => (ConsoleSecret::Ours(console::read_facts(&held.content())), Some(held)),
        },
    };
    let (published, held) = match held {
        None => (PublishedSecret::Missing, None),
        Some(held) => match held.ownership_conflict(&target.owner.uid) {
            Some(whose) => (PublishedSecret::Foreign(whose), None),
            None => {
                (PublishedSecret::Ours(secret::read_facts(&held.content(), held.is_immutable(), secret)), Some(held))
            }
        },
    };
    let (journal, attempt) = match attempt {
        None => (JournalSecret::None, None),
        Some(attempt) => {
            (seen(&attempt, target, now), attempt.ownership_conflict(&target.owner.uid).is_none().then_some(attempt))
        }
    };
    Ok(Observed {
        current: CurrentState {
            iam,
            keys_read_at,
            grants_live: facts == Freshness::Live,
            published,
            journal,
            console: console_seen,
            verification: cache.verification.clone(),
            last_used: cache.last_used.clone(),
            last_used_failed: false,
            workloads: BTreeMap::new(),
            deleted_keys: BTreeSet::new(),
            hints: status_hints(user, cache),
            finalizer: user.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == well_known::FINALIZER),
            user_sync_failed: false,
            user_absence,
        },
        from_listing,
        held,
        attempt,
        console,
    })
}

/// Since when a user has not been found that has to go. Told by the process's own clock, which nobody sets back.
fn user_absence(
    leaves: bool,
    target: &Target,
    iam: &CurrentUser,
    looked: Instant,
    context: &Context,
    cache: &mut ReconcileCache,
) -> Option<UserAbsence> {
    let ours = matches!(iam, CurrentUser::Found(found) if target.owner.classify(&found.tags) == Ownership::Ours);
    if ours || !leaves {
        cache.unseen_since = None;
        return None;
    }
    let unseen = SignedDuration::try_from(cache.unseen_since.get_or_insert(looked).elapsed()).ok()?;
    Some(UserAbsence::NotObserved { since: context.accounts.clock().now().checked_sub(unseen).ok()? })
}

/// A namespace that is deleted loses the `RoleBinding` for its Secrets, often before its resources are gone. A
/// deletion does without: Secrets go with their owner, keys of ours are told by their tags, and an untagged key makes
/// it wait as a foreign one. Only `Retain`, which has to release the Secret first, cannot go on.
fn or_gone<T>(user: &AwsDeployUser, read: Result<Option<T>, ClusterError>) -> Result<Option<T>, ClusterError> {
    let deleting = user.metadata.deletion_timestamp.is_some() && user.spec.deletion_policy != DeletionPolicy::Retain;
    match read {
        Err(error) if error.kind == ClusterErrorKind::Forbidden && deleting => Ok(None),
        read => read,
    }
}

pub(super) fn seen(attempt: &JournalSnapshot, target: &Target, now: Timestamp) -> JournalSecret {
    if let Some(whose) = attempt.ownership_conflict(&target.owner.uid) {
        return JournalSecret::Foreign(whose);
    }
    match &attempt.journal {
        Ok(journal) => JournalSecret::Attempt {
            attempt: attempt.id().to_owned(),
            journal: journal.clone().with_bounded_dates(attempt.created_at(), now),
        },
        Err(error) => JournalSecret::Unknown(error.to_string()),
    }
}

/// The Secret of the console password: the declared one, or the one that the user's tag still tells of.
fn console_name(user: &AwsDeployUser, target: &Target, iam: &CurrentUser) -> Option<String> {
    console_secret_name(&target.owner.name, &user.spec).or_else(|| match iam {
        CurrentUser::Found(found) if target.owner.classify(&found.tags) == Ownership::Ours => {
            iam::console_tag(found).cloned()
        }
        CurrentUser::Found(_) | CurrentUser::Absent => None,
    })
}

/// Hints from the resource's own status, and what it could not be told.
fn status_hints(user: &AwsDeployUser, cache: &ReconcileCache) -> StatusHints {
    let failed = cache.failed.of(user.metadata.generation);
    let Some(status) = &user.status else {
        return StatusHints {
            failed_attempts: failed.passes,
            last_failure: failed.last,
            secret_name: cache.untold_secret.clone(),
            ..StatusHints::default()
        };
    };
    let same_generation = status.observed_generation == user.metadata.generation;
    StatusHints {
        inactive_since: status
            .access_keys
            .iter()
            .filter_map(|key| Some((key.id.clone(), key.inactive_since?)))
            .collect(),
        // A change of the spec is a new chance.
        failed_attempts: if same_generation { u32::try_from(status.failed_attempts).unwrap_or(0) } else { 0 }
            .max(failed.passes),
        last_failure: status.last_failure_time.filter(|_| same_generation).max(failed.last),
        last_rotation: status.last_rotation_time,
        secret_name: cache.untold_secret.clone().or_else(|| status.secret_name.clone()),
        user_id: status.user.as_ref().map(|user| user.id.clone()),
        tag_keys: status.user.iter().flat_map(|user| user.tag_keys.iter().cloned()).collect(),
    }
}
