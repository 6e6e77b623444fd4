//! What a reconcile reads.

use super::{
    policies::{read_policies, records},
    *,
};

/// IAM first, then the published Secret, then the journal.
pub(super) fn observe(
    operator: &mut Operator,
    cloud: &Cloud,
    status: &Status,
    desired: Option<&Desired>,
    live: bool,
) -> Observed {
    let target = cloud.target();
    let generation = cloud.resource.metadata.generation;
    let cached =
        operator.iam.take().filter(|(_, at, of)| !live && *of == generation && cloud.now.duration_since(*at) < RESYNC);
    let keys_read_at = cached.is_none().then_some(cloud.now);
    let cached = cached.unwrap_or_else(|| (cloud.read_iam(), cloud.now, generation));
    let iam = cached.0.clone();
    operator.iam = Some(cached);
    if keys_read_at.is_some() {
        operator.policies = read_policies(cloud, desired, &iam);
    }
    let policies = operator.policies.clone();
    let records = records(cloud);
    let declared = |arn: &String| desired.is_some_and(|desired| desired.documents.contains_key(arn));
    let is_missing = records.keys().any(|arn| !declared(arn) && policies.owned(arn).is_none());
    operator.policies_missing_since = is_missing.then(|| operator.policies_missing_since.unwrap_or(cloud.now));
    let stored = cloud.secrets.get(&target.secret_name).cloned();
    let attempt = cloud.secrets.get(&target.journal_name).cloned();
    let foreign = |stored: &StoredSecret| {
        (stored.owner.as_deref() != Some(OWNER)).then(|| "it belongs to another owner".to_owned())
    };
    let (published, stored) = match stored {
        None => (PublishedSecret::Missing, None),
        Some(stored) => match foreign(&stored) {
            Some(whose) => (PublishedSecret::Foreign(whose), None),
            None => (published(Some(&stored), desired), Some(stored)),
        },
    };
    let key_backoff = operator.backoff.pending(FailureScope::Key, &delay_input(cloud));
    let key_backoff = key_backoff.map(|until| KeyBackoff { until, reason: Reason::Conflict });
    let version = stored.as_ref().map(|stored| stored.version);
    let refusals = operator.secret_refusals.filter(|(refused, _)| version == Some(*refused));
    let secret_refusals = refusals.map(|(_, refusals)| refusals);
    let hints = StatusHints {
        inactive_since: status.inactive_since.clone(),
        last_rotation: status.last_rotation,
        last_attempt: status.last_attempt,
        repairs: status.repairs,
        user_id: status.user_id.clone(),
        policies: records,
        tag_keys: account::recorded_user(&cloud.resource)
            .iter()
            .flat_map(|user| user.tag_keys.clone())
            .chain(status.tag_keys.clone())
            .collect(),
    };
    let finalizer = cloud.resource.metadata.finalizers.is_some();
    let ours = matches!(&iam, CurrentUser::Found(found) if target.owner.classify(&found.tags) == Ownership::Ours);
    let unseen = !ours && cloud.resource.metadata.deletion_timestamp.is_some();
    operator.absent_since = unseen.then(|| operator.absent_since.unwrap_or(cloud.now));
    let user_absence = operator.absent_since.map(|since| UserAbsence::NotObserved { since });
    operator.missing_since = match &iam {
        CurrentUser::Found(found) => {
            let since = |id| operator.missing_since.get(id).copied().unwrap_or(cloud.now);
            found.missing_keys().map(|id| (id.to_owned(), since(id))).collect()
        }
        CurrentUser::Absent => BTreeMap::new(),
    };
    let is_new = |since: &Timestamp| cloud.now.duration_since(*since) < settings().recovery_delay;
    let new = operator.missing_since.iter().filter(|(_, since)| is_new(since));
    let newly_missing_keys = new.map(|(id, _)| id.clone()).collect();
    let current = CurrentState {
        iam,
        keys_read_at,
        grants_live: keys_read_at.is_some(),
        policies,
        policies_missing_since: operator.policies_missing_since,
        published,
        secret_refusals,
        journal: attempt.as_ref().map_or(JournalSecret::None, seen),
        verification: operator.verification.clone(),
        console: ConsoleSecret::Missing,
        last_used: operator.last_used.clone(),
        last_used_failed: false,
        workloads: BTreeMap::new(),
        deleted_keys: BTreeSet::new(),
        newly_missing_keys,
        unknown_keys: BTreeSet::new(),
        secrets_unread: false,
        secret_has_owner: false,
        owner_is_ending: false,
        hints,
        finalizer,
        user_recorded: account::recorded_user(&cloud.resource).is_some(),
        user_sync_failed: false,
        key_backoff,
        first_key_at: None,
        user_absence,
    };
    Observed { current, stored, attempt }
}

pub(super) fn published(stored: Option<&StoredSecret>, desired: Option<&Desired>) -> PublishedSecret {
    let facts = |stored: &StoredSecret| {
        secret::read_facts(&stored.content, stored.immutable, desired.map(|desired| &desired.secret), sealer())
    };
    stored.map_or(PublishedSecret::Missing, |stored| PublishedSecret::Ours(facts(stored)))
}

pub(super) fn seen(attempt: &StoredSecret) -> JournalSecret {
    match Journal::decode(&attempt.content.data["journal"]) {
        Ok(journal) => JournalSecret::Attempt { attempt: attempt.uid.clone(), journal },
        Err(error) => JournalSecret::Unknown(error.to_string()),
    }
}
