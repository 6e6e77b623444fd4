//! The observe step (IO, reads only): IAM first, then the published Secret, then the journal.
//!
//! The order is part of the protocol. A key that is in IAM's answer and in neither of the two
//! Secrets read *after* it was not in them either when IAM answered, or its attempt has ended since.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use jiff::SignedDuration;

use super::{
    Context,
    error::PassError,
    memory::{Memory, Remembered},
};
use crate::{
    api::{AwsDeployUser, mark, user::DeletionPolicy},
    aws,
    cluster::{Attempt, ClusterError, ClusterErrorKind, Held, Journals, Secrets},
    domain::{
        console::{self, ConsoleSecret},
        desired::{self, Desired, Target},
        owner::Ownership,
        plan::{self, Facts, Standing},
        secret,
        world::{Iam, IamUser, JournalSeen, NoUser, Published, Reported, World},
    },
};

/// The world, and the objects that conditional writes need.
pub(super) struct Observed {
    pub(super) world: World,
    /// The target Secret, if it is ours.
    pub(super) held: Option<Held>,
    /// The journal, if it is ours.
    pub(super) attempt: Option<Attempt>,
    /// The Secret of the console password, if it is ours.
    pub(super) console: Option<Held>,
}

/// Looks at the world. What is remembered of IAM is good enough if it is fresh, of this generation of the resource,
/// and `wanted` asks for no more.
pub(super) async fn observe(
    context: &Context,
    iam: &aws::Iam,
    user: &AwsDeployUser,
    target: &Target,
    desired: Option<&Desired>,
    memory: &mut Memory,
    wanted: Facts,
) -> Result<Observed, PassError> {
    let generation = user.metadata.generation;
    let started = Instant::now();
    let remembered = memory
        .iam
        .take()
        .filter(|seen| seen.generation == generation && seen.read_at.elapsed() < context.settings.resync);
    let remembered = match (wanted, remembered) {
        (Facts::Remembered, remembered) => remembered.map(|seen| (seen, wanted)),
        (Facts::LiveKeys, Some(seen)) => {
            read_keys(iam, target, &seen.iam).await?.map(|iam| (Remembered { iam: Iam::Found(iam), ..seen }, wanted))
        }
        (Facts::LiveKeys, None) | (Facts::Live, _) => None,
    };
    let (remembered, facts) = if let Some(remembered) = remembered {
        remembered
    } else {
        let found = Box::pin(read_iam(iam, user, target, desired)).await?;
        (Remembered { iam: found, read_at: started, generation }, Facts::Live)
    };
    // Counted back from the end: AWS's answers are what our idea of its clock is made of.
    let took = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
    let keys_read_at = iam.clock().now().checked_sub(took).ok().filter(|_| facts != Facts::Remembered);
    let iam = remembered.iam.clone();
    memory.iam = Some(remembered);
    let no_user = no_user(user, target, &iam, started, context, memory);

    let secrets = Secrets::new(context.client.clone(), &target.owner.namespace);
    let secret = desired.map(|desired| &desired.secret);
    // A user without a key may have given the name of its Secret to the one of the password.
    let shared = user.spec.programmatic().is_none()
        && desired::console_secret(&target.owner.name, &user.spec).as_ref() == Some(&target.secret_name);
    let told = |error| context.secret_error(target, error);
    let held = if shared { None } else { or_gone(user, secrets.get(&target.secret_name).await).map_err(told)? };
    let attempt = or_gone(user, Journals::new(context.client.clone(), target).get().await).map_err(told)?;

    let console = match console_name(user, target, &iam) {
        Some(name) => or_gone(user, secrets.get(&name).await).map_err(told)?,
        None => None,
    };
    let (console_seen, console) = match console {
        None => (ConsoleSecret::Missing, None),
        Some(held) => match held.foreign_to(&target.owner.uid) {
            Some(whose) => (ConsoleSecret::Foreign(whose), None),
            None => (ConsoleSecret::Ours(console::facts(&held.content())), Some(held)),
        },
    };
    let (published, held) = match held {
        None => (Published::Missing, None),
        Some(held) => match held.foreign_to(&target.owner.uid) {
            Some(whose) => (Published::Foreign(whose), None),
            None => (Published::Ours(secret::facts(&held.content(), held.immutable(), secret)), Some(held)),
        },
    };
    let (journal, attempt) = match attempt {
        None => (JournalSeen::None, None),
        Some(attempt) => (seen(&attempt, target), attempt.foreign_to(&target.owner.uid).is_none().then_some(attempt)),
    };
    Ok(Observed {
        world: World {
            iam,
            keys_read_at,
            grants_live: facts == Facts::Live,
            published,
            journal,
            console: console_seen,
            verification: memory.verification.clone(),
            last_used: memory.last_used.clone(),
            last_used_failed: false,
            workloads: BTreeMap::new(),
            gone: BTreeSet::new(),
            reported: reported(user),
            finalizer: user.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == mark::FINALIZER),
            user_sync_failed: false,
            no_user,
        },
        held,
        attempt,
        console,
    })
}

/// Since when a deletion has not found a user of ours. Told by the process's own clock, which nobody sets back.
fn no_user(
    user: &AwsDeployUser,
    target: &Target,
    iam: &Iam,
    looked: Instant,
    context: &Context,
    memory: &mut Memory,
) -> Option<NoUser> {
    let ours = matches!(iam, Iam::Found(found) if target.owner.of(&found.tags) == Ownership::Ours);
    if ours || user.metadata.deletion_timestamp.is_none() {
        memory.unseen_since = None;
        return None;
    }
    let unseen = SignedDuration::try_from(memory.unseen_since.get_or_insert(looked).elapsed()).ok()?;
    Some(NoUser::Unseen { since: context.accounts.clock().now().checked_sub(unseen).ok()? })
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

pub(super) fn seen(attempt: &Attempt, target: &Target) -> JournalSeen {
    if let Some(whose) = attempt.foreign_to(&target.owner.uid) {
        return JournalSeen::Foreign(whose);
    }
    match &attempt.journal {
        Ok(journal) => JournalSeen::Attempt { attempt: attempt.id().to_owned(), journal: journal.clone() },
        Err(error) => JournalSeen::Unknown(error.to_string()),
    }
}

/// The Secret of the console password: the declared one, or the one that the user's tag still tells of.
fn console_name(user: &AwsDeployUser, target: &Target, iam: &Iam) -> Option<String> {
    desired::console_secret(&target.owner.name, &user.spec).or_else(|| match iam {
        Iam::Found(found) if target.owner.of(&found.tags) == Ownership::Ours => console_tag(found).cloned(),
        Iam::Found(_) | Iam::Absent => None,
    })
}

fn console_tag(user: &IamUser) -> Option<&String> {
    user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(mark::TAG_CONSOLE)).map(|(_, value)| value)
}

/// Reads the user and what belongs to it. Nothing of another owner's user is read beyond its tags.
async fn read_iam(
    iam: &aws::Iam,
    user: &AwsDeployUser,
    target: &Target,
    desired: Option<&Desired>,
) -> Result<Iam, PassError> {
    let Some(mut found) = iam.user(&target.user_name).await? else { return Ok(Iam::Absent) };
    // One that is about to be adopted is read whole: what it loses is told before.
    let stranger = match desired {
        Some(desired) => {
            matches!(plan::standing(target, desired.adoption, &desired.path, &found), Standing::Stranger(_))
        }
        None => target.owner.of(&found.tags) != Ownership::Ours,
    };
    if stranger {
        return Ok(Iam::Found(found));
    }
    if user.metadata.deletion_timestamp.is_some() {
        // A deletion starts with what is declared; `DeleteUser` tells if more hangs on the user.
        let partition = &iam.identity().await?.account.partition;
        found.keys = iam.access_keys(&found.name).await?;
        found.grants = Some(plan::declared_grants(user, partition));
        found.login = console_tag(&found).map(|_| true);
    } else {
        let (keys, grants) = tokio::try_join!(iam.access_keys(&found.name), iam.grants(&found.name))?;
        found.keys = keys;
        found.grants = Some(grants);
        if user.spec.console.is_some() || console_tag(&found).is_some() {
            found.login = Some(iam.has_login_profile(&found.name).await?);
        }
    }
    Ok(Iam::Found(found))
}

/// Reads user, tags and keys anew and takes policies, groups and password from what is remembered. `None` when that
/// does not go together: another user has the name now, or none of ours.
async fn read_keys(iam: &aws::Iam, target: &Target, before: &Iam) -> Result<Option<IamUser>, PassError> {
    let Iam::Found(before) = before else { return Ok(None) };
    let Some(mut found) = iam.user(&target.user_name).await? else { return Ok(None) };
    if found.id != before.id || target.owner.of(&found.tags) != Ownership::Ours {
        return Ok(None);
    }
    found.keys = iam.access_keys(&found.name).await?;
    found.grants.clone_from(&before.grants);
    found.leftovers.clone_from(&before.leftovers);
    found.login = before.login;
    Ok(Some(found))
}

/// Hints from the resource's own status.
fn reported(user: &AwsDeployUser) -> Reported {
    let Some(status) = &user.status else { return Reported::default() };
    let same_generation = status.observed_generation == user.metadata.generation;
    Reported {
        inactive_since: status
            .access_keys
            .iter()
            .filter_map(|key| Some((key.id.clone(), key.inactive_since?)))
            .collect(),
        // A change of the spec is a new chance.
        failed_attempts: if same_generation { u32::try_from(status.failed_attempts).unwrap_or(0) } else { 0 },
        last_failure: status.last_failure_time.filter(|_| same_generation),
        last_rotation: status.last_rotation_time,
        secret_name: status.secret_name.clone(),
        user_id: status.user.as_ref().map(|user| user.id.clone()),
        tag_keys: status.user.iter().flat_map(|user| user.tag_keys.iter().cloned()).collect(),
    }
}
