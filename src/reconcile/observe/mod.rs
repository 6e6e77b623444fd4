//! The observe step (IO, reads only): IAM first, then the published Secret, then the journal.
//!
//! The order is part of the protocol. A key that IAM lists and that neither of the two Secrets, read *after* it, names was not
//! named by them when IAM answered, or its attempt has ended since.

mod iam;
pub(super) mod policies;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use super::{
    Context, Goal, Reconciliation,
    cache::{CachedIam, ReconcileCache},
    error::{ReconcileError, StepError},
    has_finalizer,
};
use crate::{
    api::{AwsDeployUser, user::DeletionPolicy},
    cluster::{ClusterError, ClusterErrorKind, JournalSnapshot, SecretSnapshot, Secrets},
    domain::{
        account,
        conditions::FailureScope,
        console::{self, ConsoleSecret},
        current_state::{CurrentState, CurrentUser, JournalSecret, PublishedSecret, StatusHints, UserAbsence},
        desired::Desired,
        managed_policy::{self, CurrentPolicies},
        plan::Freshness,
        secret::{self, Sealer},
        target::{Target, console_secret_name},
    },
    trace,
};

/// The policies are read for as long before keys are ended.
const POLICIES_DEADLINE: Duration = Duration::from_secs(5);

/// The observed state, and the objects that conditional writes need.
pub(super) struct Observed {
    pub(super) current: CurrentState,
    /// IAM facts come from a listing: enough to see that nothing is to be done, and no more.
    pub(super) from_listing: bool,
    /// The published Secret, if it belongs to the resource.
    pub(super) published: Option<SecretSnapshot>,
    /// The journal of the resource.
    pub(super) journal: Option<JournalSnapshot>,
    /// The Secret of the console password, if it belongs to the resource.
    pub(super) console: Option<SecretSnapshot>,
    /// Why a Secret or the journal could not be read.
    pub(super) unread: Option<ReconcileError>,
    /// Why the managed policies could not be read: access keys are ended and rotated without them.
    pub(super) policies_unread: Option<ReconcileError>,
}

impl Reconciliation<'_> {
    /// Observes for a goal. A deletion executes nothing but destructive effects, so that cached facts are of no use to it.
    pub(super) async fn observe(&mut self, user: &AwsDeployUser, goal: &Goal) -> Result<Observed, StepError> {
        let freshness = if matches!(goal, Goal::Delete) { Freshness::Live } else { Freshness::Cached };
        let pending = self.cache.backoff.pending(FailureScope::Policies, &self.delay_input());
        self.policies_wait = goal.desired().is_some() && pending.is_some();
        let observed = self.observe_with(user, goal.desired(), freshness, !self.policies_wait).await;
        observed.map_err(|error| StepError::new(error, FailureScope::Observation))
    }

    /// Observes again and keeps what this reconcile learned otherwise.
    pub(super) async fn reobserve(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&Desired>,
        before: &Observed,
        freshness: Freshness,
    ) -> Result<Observed, ReconcileError> {
        let reads_policies = !before.current.policies.are_unread;
        let mut observed = self.observe_with(user, desired, freshness, reads_policies).await?;
        observed.policies_unread = before.policies_unread.clone().or(observed.policies_unread);
        let (before, current) = (&before.current, &mut observed.current);
        if before.user_absence == Some(UserAbsence::Removed) {
            current.user_absence = Some(UserAbsence::Removed);
        }
        current.user_sync_failed = before.user_sync_failed;
        current.key_backoff = before.key_backoff;
        current.last_used_failed = before.last_used_failed;
        current.hints.repairs = before.hints.repairs;
        current.hints.policies.clone_from(&before.hints.policies);
        current.workloads.clone_from(&before.workloads);
        current.finalizer = before.finalizer;
        current.user_recorded = before.user_recorded;
        Ok(observed)
    }

    async fn observe_with(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&Desired>,
        freshness: Freshness,
        reads_policies: bool,
    ) -> Result<Observed, ReconcileError> {
        let span = trace::step_span("observe");
        let (context, iam, target) = (self.context, &*self.iam, self.target);
        let reader = iam::IamReader { context, iam, user, target, desired };
        let observed = observe(&reader, &mut self.cache, freshness, reads_policies).instrument(span.clone()).await;
        if let Err(error) = &observed {
            trace::record_failure(&span, error.reason().as_str(), error);
        }
        observed
    }
}

/// A failed read keeps the cache: it is as true as before, and without it the next reconcile would read everything.
///
/// The third is why the policies could not be read. Neither the end of an access key nor a rotation needs them.
async fn read_iam(
    reader: &iam::IamReader<'_>,
    cache: &mut ReconcileCache,
    freshness: Freshness,
    reads_policies: bool,
) -> Result<(CachedIam, Freshness, Option<ReconcileError>), ReconcileError> {
    let read = reader.read(cache.iam.clone(), cache.observed_before, freshness);
    let (mut cached, freshness) = Box::pin(read).await?;
    let mut unread = None;
    if cached.policies.are_unread && reads_policies {
        let read = Box::pin(reader.read_policies(&cached.iam, &cache.documents));
        // Keys are not ended before it.
        let read =
            if reader.ends_keys() { tokio::time::timeout(POLICIES_DEADLINE, read).await } else { Ok(read.await) };
        match read {
            Ok(Ok(policies)) => cached.policies = policies,
            Ok(Err(error)) => unread = Some(error),
            Err(_) => unread = Some(ReconcileError::PoliciesDeadline(POLICIES_DEADLINE.as_secs())),
        }
    }
    cache.learn_documents(&cached.policies);
    cache.observed_before = true;
    Ok((cached, freshness, unread))
}

/// Reads the current state. Cached IAM facts serve if they are fresh, of this generation of the resource, and `freshness`
/// asks for no more.
async fn observe(
    reader: &iam::IamReader<'_>,
    cache: &mut ReconcileCache,
    freshness: Freshness,
    reads_policies: bool,
) -> Result<Observed, ReconcileError> {
    let started = Instant::now();
    let iam::IamReader { context, iam, user, target, desired } = *reader;
    let (cached, freshness, policies_unread) = read_iam(reader, cache, freshness, reads_policies).await?;
    let from_listing = cached.from_listing;
    // Counted back from the end: the clock is estimated from the answers of AWS.
    let took = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
    let now = iam.clock().now();
    let keys_read_at = now.checked_sub(took).ok().filter(|_| freshness != Freshness::Cached);
    let (iam, policies) = (cached.iam.clone(), cached.policies.clone());
    let is_outdated = matches!(policies_unread, Some(ReconcileError::OutdatedPolicy(_)));
    cache.iam = Some(cached).filter(|_| !is_outdated);
    let is_removed = user.metadata.deletion_timestamp.is_some() || desired.is_none();
    let newly_missing_keys = newly_missing_keys(context, &iam, started, cache);
    let user_absence = user_absence(is_removed, target, &iam, started, context, cache);
    let owner_is_ending = matches!(&iam, CurrentUser::Found(found) if context.is_owner_ending(target, &found.tags));

    // Without them access can still be taken away, which needs IAM only.
    let mut unread = None;
    let secrets = Secrets::new(context.client.clone(), &target.owner.namespace);
    let read = |result, unread: &mut Option<ReconcileError>| {
        let result = ignore_forbidden(user, result).map_err(|error| context.secret_error(target, error));
        found_or_unread(result, unread)
    };
    // A user without a key may have given the name of its Secret to the one of the password.
    let is_shared = user.spec.effective_access_key().is_none()
        && console_secret_name(&target.owner.name, &user.spec).as_ref() == Some(&target.secret_name);
    let published = if is_shared { None } else { read(secrets.get(&target.secret_name).await, &mut unread) };
    let journal = context.journals(target).get().await.map_err(ReconcileError::from);
    let journal = found_or_unread(journal, &mut unread);
    let console = match observed_console_name(user, target, &iam) {
        Some(name) => read(secrets.get(&name).await, &mut unread),
        None => None,
    };

    let hints = status_hints(user);
    let policies_missing_since = policies_missing_since(&hints, &policies, desired, started, context, cache);
    let may_be_first = desired.is_some_and(|desired| desired.key.is_some()) && hints.last_attempt.is_none();
    let first_key_at = may_be_first.then(|| context.first_key_at(&target.owner.namespace, cache, now)).flatten();
    let uid = &target.owner.uid;
    let (console_secret, console) = match console {
        None => (ConsoleSecret::Missing, None),
        Some(secret) => match secret.ownership_conflict(uid) {
            Some(owner) => (ConsoleSecret::Foreign(owner), None),
            None => (ConsoleSecret::Ours(console::read_facts(&secret.content())), Some(secret)),
        },
    };
    let declared = desired.map(|desired| &desired.secret);
    let (published_secret, published) = match published {
        None => (PublishedSecret::Missing, None),
        Some(secret) => {
            if let Some(owner) = secret.ownership_conflict(uid) {
                (PublishedSecret::Foreign(owner), None)
            } else {
                let sealer = Sealer { keys: &context.mac_keys, uid };
                let facts = secret::read_facts(&secret.content(), secret.is_immutable(), declared, sealer);
                (PublishedSecret::Ours(facts), Some(secret))
            }
        }
    };
    let version = published.as_ref().and_then(SecretSnapshot::version);
    let refusals = cache.secret_refusals.as_ref().filter(|(refused, _)| version == Some(refused.as_str()));
    let secret_refusals = refusals.map(|(_, refusals)| *refusals);
    let (journal_secret, journal) = match journal {
        None => (JournalSecret::None, None),
        Some(attempt) => (read_journal(&attempt, now), Some(attempt)),
    };
    Ok(Observed {
        current: CurrentState {
            iam,
            keys_read_at,
            grants_live: freshness == Freshness::Live,
            policies_missing_since,
            published: published_secret,
            secret_refusals,
            journal: journal_secret,
            console: console_secret,
            verification: cache.verification.clone(),
            last_used: cache.last_used.clone(),
            last_used_failed: false,
            workloads: BTreeMap::new(),
            deleted_keys: BTreeSet::new(),
            newly_missing_keys,
            unknown_keys: BTreeSet::new(),
            secrets_unread: unread.is_some(),
            secret_has_owner: published.iter().chain(&console).any(SecretSnapshot::has_owner),
            owner_is_ending,
            hints,
            finalizer: has_finalizer(user),
            user_recorded: is_recorded(user, target, &context.namespace),
            user_sync_failed: false,
            key_backoff: None,
            first_key_at,
            user_absence,
            policies,
        },
        from_listing,
        published,
        journal,
        console,
        unread,
        policies_unread,
    })
}

/// Records the first failure.
fn found_or_unread<T>(result: Result<Option<T>, ReconcileError>, unread: &mut Option<ReconcileError>) -> Option<T> {
    result.unwrap_or_else(|error| {
        unread.get_or_insert(error);
        None
    })
}

/// Whether the status binds the resource to its IAM user and to the operator of this namespace.
pub(super) fn is_recorded(user: &AwsDeployUser, target: &Target, namespace: &str) -> bool {
    account::recorded_user(user).is_some_and(|recorded| recorded.name == target.user_name)
        && user.status.as_ref().is_some_and(|status| status.operator_namespace.as_deref() == Some(namespace))
}

/// Since when IAM shows no user, for a resource whose user is to be removed. Measured by the monotonic clock.
fn user_absence(
    is_removed: bool,
    target: &Target,
    iam: &CurrentUser,
    observed_at: Instant,
    context: &Context,
    cache: &mut ReconcileCache,
) -> Option<UserAbsence> {
    let is_owned = matches!(iam, CurrentUser::Found(found) if target.owner.owns(&found.tags));
    if is_owned || !is_removed {
        cache.user_absent_since = None;
        return None;
    }
    let absent = SignedDuration::try_from(cache.user_absent_since.get_or_insert(observed_at).elapsed()).ok()?;
    Some(UserAbsence::NotObserved { since: context.accounts.clock().now().checked_sub(absent).ok()? })
}

/// Tagged keys that IAM's lists have lacked for less than the recovery delay, measured by the monotonic clock.
fn newly_missing_keys(
    context: &Context,
    iam: &CurrentUser,
    observed_at: Instant,
    cache: &mut ReconcileCache,
) -> BTreeSet<String> {
    cache.missing_keys = match iam {
        CurrentUser::Found(found) => {
            let since = |id| cache.missing_keys.get(id).copied().unwrap_or(observed_at);
            found.missing_keys().map(|id| (id.to_owned(), since(id))).collect()
        }
        CurrentUser::Absent => BTreeMap::new(),
    };
    let delay = context.settings.protocol.recovery_delay.unsigned_abs();
    let new = cache.missing_keys.iter().filter(|(_, since)| since.elapsed() < delay);
    new.map(|(id, _)| id.clone()).collect()
}

/// Since when IAM does not list a recorded policy that is to be removed. Measured by the monotonic clock.
fn policies_missing_since(
    hints: &StatusHints,
    policies: &CurrentPolicies,
    desired: Option<&Desired>,
    observed_at: Instant,
    context: &Context,
    cache: &mut ReconcileCache,
) -> Option<Timestamp> {
    if policies.are_unread {
        return None;
    }
    let is_declared = |arn: &String| desired.is_some_and(|desired| desired.documents.contains_key(arn));
    if hints.policies.keys().all(|arn| is_declared(arn) || policies.owned(arn).is_some()) {
        cache.policies_missing_since = None;
        return None;
    }
    let missing = cache.policies_missing_since.get_or_insert(observed_at).elapsed();
    context.accounts.clock().now().checked_sub(SignedDuration::try_from(missing).ok()?).ok()
}

/// A namespace under deletion often loses the `RoleBinding` for its Secrets before its resources. A deletion does without:
/// the garbage collector deletes Secrets with their owner, owned keys have tags or are in the journal, which is elsewhere. Only
/// `Retain`, which has to release the Secret first, cannot continue.
fn ignore_forbidden<T>(
    user: &AwsDeployUser,
    result: Result<Option<T>, ClusterError>,
) -> Result<Option<T>, ClusterError> {
    let is_deleted = user.metadata.deletion_timestamp.is_some() && user.spec.deletion_policy != DeletionPolicy::Retain;
    match result {
        Err(error) if error.kind == ClusterErrorKind::Forbidden && is_deleted => Ok(None),
        result => result,
    }
}

pub(super) fn read_journal(attempt: &JournalSnapshot, now: Timestamp) -> JournalSecret {
    match &attempt.journal {
        Ok(journal) => JournalSecret::Attempt {
            attempt: attempt.id().to_owned(),
            journal: journal.clone().with_bounded_dates(attempt.created_at(), now),
        },
        Err(error) => JournalSecret::Unknown(error.to_string()),
    }
}

/// The Secret of the console password: the declared one, or the one that the tag of the user names.
fn observed_console_name(user: &AwsDeployUser, target: &Target, iam: &CurrentUser) -> Option<String> {
    console_secret_name(&target.owner.name, &user.spec).or_else(|| match iam {
        CurrentUser::Found(found) if target.owner.owns(&found.tags) => iam::console_tag(found).cloned(),
        CurrentUser::Found(_) | CurrentUser::Absent => None,
    })
}

/// Hints from the status of the resource, and from what could not be written to it.
fn status_hints(user: &AwsDeployUser) -> StatusHints {
    let Some(status) = &user.status else { return StatusHints::default() };
    StatusHints {
        inactive_since: status
            .access_keys
            .iter()
            .filter_map(|key| Some((key.id.clone(), key.inactive_since?)))
            .collect(),
        last_rotation: status.last_rotation_time,
        last_attempt: status.last_key_attempt_time,
        repairs: status.key_repairs,
        user_id: status.user.as_ref().and_then(|user| user.id.clone()),
        tag_keys: status.user.iter().flat_map(|user| user.tag_keys.iter().cloned()).collect(),
        policies: managed_policy::records(&status.policies),
    }
}
