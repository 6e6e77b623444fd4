//! The update-status step (IO): writes status and Events after every reconcile, also after a failed one.

use jiff::Timestamp;

use super::{Goal, Next, Progress, ReconcileError, Reconciliation, cache::FailureCount, error::StepError, status};
use crate::{
    api::{AwsDeployUser, AwsDeployUserStatus, MANAGER, Reason, user::ClassReference},
    cluster::{ClusterError, ClusterErrorKind, DeployUsers, PendingEvent},
    domain::{
        conditions::FailureScope,
        current_state::IamUser,
        fair_queue::Priority,
        plan::{Note, Plan},
    },
};

impl Reconciliation<'_> {
    pub(super) async fn update_status(&mut self, progress: Progress) -> Next {
        let now = self.now();
        self.publish_changes(&progress).await;
        self.report_quarantine(&progress);
        if progress.finalized {
            return Next { user: progress.user, requeue_at: None, priority: Priority::Due };
        }
        // A denial is no failure: it is the same however often it is decided.
        let failed = self.failures.iter().any(|failure| !matches!(failure.error, ReconcileError::NotAllowed(_)));
        let status = self.status(&progress, failed, now);
        let reported = u32::try_from(status.failed_attempts).unwrap_or(0);
        let failures = self.count_failures(&progress, failed, reported, now);
        let (plan, current) = (progress.plan.as_ref(), progress.current.as_ref());
        let requeue_at = self.requeue_at(plan, current, reported.max(failures.count), now);
        let priority = self.next_priority(plan, failed, requeue_at);

        let before = progress.user.status.clone();
        if before.as_ref() == Some(&status) {
            self.cache.status_is_current();
            return Next { user: progress.user, requeue_at: Some(requeue_at), priority };
        }
        let events = status::condition_events(before.as_ref(), &status);
        let secret = status.secret_name.clone().filter(|name| *name == self.target.secret_name);
        let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
        match users.write_status(&progress.user, status).await {
            Ok(user) => {
                self.cache.status_is_current();
                // An earlier Secret is remembered until the status names the one that is declared now.
                self.cache.unreported_secret.take_if(|_| secret.is_some());
                for event in events {
                    self.context.events.publish(&user, &event).await;
                }
                Next { user, requeue_at: Some(requeue_at), priority }
            }
            Err(error) if error.kind == ClusterErrorKind::NotFound => {
                Next { user: progress.user, requeue_at: None, priority: Priority::Due }
            }
            Err(error) => {
                self.report_unwritten_status(&progress.user, &error).await;
                let requeue_at = self.retry_status(error, secret, failures, failed, requeue_at);
                Next { user: progress.user, requeue_at: Some(requeue_at), priority }
            }
        }
    }

    fn status(&self, progress: &Progress, failed: bool, now: Timestamp) -> AwsDeployUserStatus {
        let mut failures: Vec<_> = self.failures.iter().map(StepError::for_conditions).collect();
        if failures.is_empty()
            && let Some((error, _)) = &self.cache.user_failure
        {
            failures.push(error.for_conditions(FailureScope::User));
        }
        let class = self.allowing_class(progress);
        let allowed = class.map(|class| format!("class {} allows it", class.name)).unwrap_or_default();
        status::status(&status::StatusInput {
            user: &progress.user,
            target: self.target,
            desired: progress.goal.as_ref().and_then(Goal::desired),
            plan: progress.plan.as_ref(),
            current: progress.current.as_ref(),
            failures,
            failed,
            class,
            authorization: Note::new(Reason::Allowed, allowed),
            now,
        })
    }

    /// The class that allows the resource, unless what was observed speaks against it.
    fn allowing_class(&self, progress: &Progress) -> Option<&ClassReference> {
        let is_revoked = matches!(progress.goal, Some(Goal::Revoke(Some(_))));
        self.decision.allowing_class().filter(|_| !is_revoked)
    }

    async fn publish_changes(&self, progress: &Progress) {
        let user = &progress.user;
        // Only what was in order before can have drifted.
        let was_in_sync = user.status.as_ref().is_some_and(|status| {
            status.observed_generation == user.metadata.generation && status.failed_attempts == 0
        });
        for event in status::summarize_changes(progress.events.clone(), was_in_sync) {
            self.context.events.publish(user, &event).await;
        }
    }

    fn report_quarantine(&self, progress: &Progress) {
        // A deletion reads no policies.
        let reads_policies = matches!(progress.goal, Some(Goal::Sync(_) | Goal::Revoke(Some(_))));
        if let Some(current) = progress.current.as_ref().filter(|_| reads_policies || progress.finalized) {
            let is_quarantined = !progress.finalized && current.user().is_some_and(IamUser::is_quarantined);
            self.context.observer.quarantined(&self.target.owner.namespace, &self.target.owner.name, is_quarantined);
        }
    }

    /// Failures in a row that the status does not count. A reconcile that only waited is no success.
    fn count_failures(&self, progress: &Progress, failed: bool, reported: u32, now: Timestamp) -> FailureCount {
        let uncounted = self.cache.failures.at(progress.user.metadata.generation);
        let is_backing_off = |plan: &Plan| plan.rotation.reason == Reason::BackingOff;
        if failed {
            uncounted.incremented(reported, now)
        } else if self.cache.user_failure.is_some() || progress.plan.as_ref().is_some_and(is_backing_off) {
            uncounted
        } else {
            FailureCount::default()
        }
    }

    /// An Event says what no condition can say. One for failures in a row; a conflict ends by itself.
    async fn report_unwritten_status(&self, user: &AwsDeployUser, error: &ClusterError) {
        if error.kind == ClusterErrorKind::Conflict || self.cache.status_write_failures > 0 {
            return;
        }
        let reason = ReconcileError::from(error.clone()).reason();
        let note = format!(
            "failed to write the status: {error}. Without a status no IAM user is created; a resource that is too large has to become smaller"
        );
        self.context.events.publish(user, &PendingEvent { reason, note, warning: true }).await;
    }

    /// The status is written by the next reconcile. Its pause must not cut short the back-off of a failed reconcile.
    fn retry_status(
        &mut self,
        error: ClusterError,
        secret: Option<String>,
        failures: FailureCount,
        failed: bool,
        requeue_at: Timestamp,
    ) -> Timestamp {
        let is_conflict = error.kind == ClusterErrorKind::Conflict;
        tracing::warn!(%error, manager = MANAGER, "failed to write status");
        self.cache.status_write_failures = self.cache.status_write_failures.saturating_add(1);
        self.cache.unreported_secret = secret.or(self.cache.unreported_secret.take());
        if !is_conflict {
            self.cache.failures = failures;
        }
        if is_conflict || !failed {
            let delay = self.delay_after(&error.into(), self.cache.status_write_failures);
            return requeue_at.min(self.now() + delay);
        }
        requeue_at
    }
}
