//! Reconciles the status of an `AwsDeployUserClass`: whether the operator can do what the class declares, and its number of
//! users.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use kube::runtime::controller::Action;
use parking_lot::Mutex;

use super::{
    Context,
    class_claim::{ClassClaim, ClassClaims},
    class_decision::class_name,
    error::ReconcileError,
};
use crate::{
    api::{AwsDeployUserClass, AwsDeployUserClassStatus, Reason},
    aws::IamClient,
    cluster::{ClassStatusWriter, ClusterError, ClusterErrorKind, Guarded},
    domain::{
        account::AccountRoute,
        authorize,
        class_conditions::{self, ClassFacts},
        plan::Note,
        policy,
    },
};

/// Collects related changes before all classes are reconciled.
const TRIGGER_DEBOUNCE: Duration = Duration::from_secs(1);
/// Bounds how often changes of users start reconciles of all classes.
const MIN_TRIGGER_INTERVAL: Duration = Duration::from_secs(15);
/// Detects the recovery of an account before the back-off of its resources ends; the recovery requeues them.
const UNREACHABLE_RETRY: Duration = Duration::from_secs(15);
/// After a failed write, while the permissions boundary does not exist or cannot be read, and before a class of another operator
/// is taken over.
const RETRY: Duration = Duration::from_mins(1);

/// What reconciles of classes share.
pub struct ClassContext {
    context: Arc<Context>,
    status_writer: ClassStatusWriter,
    boundaries: BoundaryCache,
    claims: ClassClaims,
}

/// Updates the status of a class if it differs, unless the operator of another namespace does so. Calls AWS at most once per resync for a permissions boundary that exists.
///
/// # Errors
/// When the status cannot be written.
pub async fn reconcile_class(
    class: Arc<Guarded<AwsDeployUserClass>>,
    context: Arc<ClassContext>,
) -> Result<Action, ClusterError> {
    // The AwsDeployUsers of such a class report why it cannot be read.
    let Ok(class) = class.complete() else { return Ok(Action::await_change()) };
    let resync = context.context.settings.resync;
    match context.claims.evaluate(class, &context.context.namespace, Instant::now(), RETRY.min(resync)) {
        ClassClaim::Write => {}
        ClassClaim::Check(after) => return Ok(Action::requeue(after)),
        ClassClaim::Skip => return Ok(Action::await_change()),
    }
    let facts = context.observe(class).await;
    let requeue = requeue_after(&facts, resync);
    context.update_status(class, facts).await?;
    Ok(Action::requeue(requeue))
}

/// Logs the error and retries.
#[allow(clippy::needless_pass_by_value, reason = "the signature that kube requires")]
pub fn class_error_policy(
    _: Arc<Guarded<AwsDeployUserClass>>,
    error: &ClusterError,
    context: Arc<ClassContext>,
) -> Action {
    tracing::warn!(%error, "failed to update class status");
    Action::requeue(RETRY.min(context.context.settings.resync))
}

impl ClassContext {
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        let status_writer = ClassStatusWriter::new(context.client.clone());
        Self { context, status_writer, boundaries: BoundaryCache::default(), claims: ClassClaims::default() }
    }

    /// Emits when the users or the default of classes may have changed, or an account becomes reachable or unreachable. All
    /// classes are reconciled: a user that changes its class affects two of them, and the update needs no AWS call.
    pub fn triggers(&self) -> impl Stream<Item = ()> + Send + use<> {
        let sources =
            (self.context.rules.changes(), self.context.resources.changes(), self.context.account_health.changes());
        stream::unfold(
            (sources, tokio::time::Instant::now()),
            async |((mut rules, mut users, mut accounts), earliest)| {
                tokio::select! {
                    changed = rules.changed() => changed.ok()?,
                    changed = users.changed() => changed.ok()?,
                    changed = accounts.changed() => changed.ok()?,
                }
                tokio::time::sleep_until(earliest.max(tokio::time::Instant::now() + TRIGGER_DEBOUNCE)).await;
                rules.mark_unchanged();
                users.mark_unchanged();
                accounts.mark_unchanged();
                Some(((), ((rules, users, accounts), tokio::time::Instant::now() + MIN_TRIGGER_INTERVAL)))
            },
        )
    }

    async fn observe(&self, class: &AwsDeployUserClass) -> ClassFacts {
        let context = &self.context;
        let route = AccountRoute::from_class(class);
        let iam = context.accounts.client(route.role.as_ref());
        let caller = context.identity(&iam, route.role.as_ref()).await;
        let account = caller.map(|identity| identity.account.id.clone()).map_err(into_note);
        let boundary = match &class.spec.permissions_boundary {
            None => None,
            Some(arn) => Some((arn.clone(), self.boundary_exists(&iam, &route, &account, arn).await)),
        };
        let expected_account = route.account;
        let templates =
            authorize::template::describe_faults(&class.spec.policies.templates, expected_account.is_some());
        let role = route.role.map(|role| role.arn);
        ClassFacts { account, expected_account, role, boundary, templates }
    }

    async fn update_status(&self, class: &AwsDeployUserClass, facts: ClassFacts) -> Result<(), ClusterError> {
        let previous = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let now = self.context.accounts.clock().now();
        let status = AwsDeployUserClassStatus {
            observed_generation: class.metadata.generation,
            conditions: class_conditions::evaluate(&facts, previous, class.metadata.generation, now),
            boundary: facts.boundary.as_ref().map(|(arn, _)| policy::name(arn).to_owned()),
            account: facts.account.ok(),
            operator_namespace: Some(self.context.namespace.clone()),
            users: self.count_users(class),
        };
        if class.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.status_writer.write(class, status).await {
            // The class has changed or is deleted: its watch event starts another reconcile.
            Err(error) if matches!(error.kind, ClusterErrorKind::Conflict | ClusterErrorKind::NotFound) => Ok(()),
            result => result,
        }
    }

    fn count_users(&self, class: &AwsDeployUserClass) -> i64 {
        let classes = self.context.rules.classes();
        let entries = classes.entries();
        let users = self.context.resources.count(|user| class_name(user, &entries) == class.metadata.name.as_deref());
        i64::try_from(users).unwrap_or(i64::MAX)
    }

    async fn boundary_exists(
        &self,
        iam: &IamClient,
        route: &AccountRoute,
        account: &Result<String, Note>,
        arn: &str,
    ) -> Result<bool, Note> {
        match (account, &route.account) {
            (Err(note), _) => return Err(note.clone()),
            (Ok(actual), Some(expected)) if actual != expected => {
                return Err(Note::new(Reason::WrongAccount, "the operator does not call AWS in another account"));
            }
            (Ok(_), _) => {}
        }
        let key = (route.clone(), arn.to_owned());
        if let Some(exists) = self.boundaries.get(&key, self.context.settings.resync) {
            return exists;
        }
        let exists = iam.policy_exists(arn).await.map_err(into_note);
        self.boundaries.put(key, exists.clone());
        exists
    }
}

fn requeue_after(facts: &ClassFacts, resync: Duration) -> Duration {
    let boundary_is_missing = facts.boundary.as_ref().is_some_and(|(_, exists)| *exists != Ok(true));
    match &facts.account {
        Err(_) => UNREACHABLE_RETRY,
        Ok(_) if boundary_is_missing => RETRY.min(resync),
        Ok(_) => resync,
    }
}

fn into_note(error: crate::aws::AwsError) -> Note {
    let error = ReconcileError::from(error);
    Note::new(error.reason(), error.to_string())
}

/// Which permissions boundaries exist, by account route and ARN. Reconciles that a user or a class has triggered must not
/// call AWS.
#[derive(Default)]
struct BoundaryCache(Mutex<HashMap<BoundaryKey, BoundaryCheck>>);

type BoundaryKey = (AccountRoute, String);
type BoundaryCheck = (Instant, Result<bool, Note>);

impl BoundaryCache {
    fn get(&self, key: &BoundaryKey, resync: Duration) -> Option<Result<bool, Note>> {
        let (at, exists) = self.0.lock().get(key).cloned()?;
        let ttl = if exists == Ok(true) { resync } else { RETRY.min(resync) };
        (at.elapsed() < ttl).then_some(exists)
    }

    fn put(&self, key: BoundaryKey, exists: Result<bool, Note>) {
        self.0.lock().insert(key, (Instant::now(), exists));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(account: Result<String, Note>, boundary: Option<Result<bool, Note>>) -> ClassFacts {
        let boundary = boundary.map(|exists| ("arn".to_owned(), exists));
        ClassFacts { account, expected_account: None, role: None, boundary, templates: None }
    }

    #[test]
    fn class_is_requeued_sooner_while_something_is_missing() {
        let (account, denied) = (Ok("1".to_owned()), Note::new(Reason::OperatorCredentials, "denied"));
        let resync = Duration::from_mins(10);
        let short_resync = Duration::from_secs(5);
        for (facts, expected) in [
            (facts(account.clone(), None), resync),
            (facts(account.clone(), Some(Ok(true))), resync),
            (facts(account.clone(), Some(Ok(false))), RETRY),
            (facts(account, Some(Err(denied.clone()))), RETRY),
            (facts(Err(denied.clone()), Some(Err(denied))), UNREACHABLE_RETRY),
        ] {
            assert_eq!(requeue_after(&facts, resync), expected, "{facts:?}");
            let expected = if facts.account.is_ok() { short_resync } else { UNREACHABLE_RETRY };
            assert_eq!(requeue_after(&facts, short_resync), expected, "{facts:?}");
        }
    }
}
