//! The update-status step (IO): writes status and Events after every reconcile, also after a failed one.

use std::time::Duration;

use jiff::Timestamp;

use super::{Goal, Next, Progress, ReconcileError, Reconciliation, claim, error::StepError, status};
use crate::{
    api::{AwsDeployUser, AwsDeployUserStatus, MANAGER, Reason, user::ClassReference},
    cluster::{ClusterError, ClusterErrorKind, DeployUsers, PendingEvent},
    domain::{
        backoff::ErrorClass,
        conditions::FailureScope,
        current_state::{CurrentState, IamUser},
        plan::Note,
        secret::HonouredRequest,
    },
};

/// The step is cut off after this long. The reconcile holds a permit, and the client has no deadline of its own.
pub(super) const UPDATE_DEADLINE: Duration = Duration::from_secs(30);

/// What the status update has done.
enum WrittenStatus {
    /// The status was as it should be.
    Unchanged,
    /// The resource with its new status.
    Stored(Box<AwsDeployUser>),
    /// There is no resource to report on.
    Gone,
}

impl Reconciliation<'_> {
    /// Records what failed and writes status and Events, all within [`UPDATE_DEADLINE`].
    pub(super) async fn update_status(&mut self, progress: Progress) -> Next {
        self.update_backoff(&progress);
        let written = tokio::time::timeout(UPDATE_DEADLINE, self.write_status(&progress)).await;
        let written = written.unwrap_or_else(|_| Err(self.no_response()));
        if let Err(error) = &written {
            self.retry_status(error);
        }
        // After the write, which ends or begins the back-off of the status.
        let requeue_at = self.requeue_at(&progress);
        let priority = self.next_priority(progress.plan.as_ref(), requeue_at);
        let requeue_at = (!matches!(written, Ok(WrittenStatus::Gone))).then_some(requeue_at);
        let user = if let Ok(WrittenStatus::Stored(user)) = written { *user } else { progress.user };
        Next { user, requeue_at, priority }
    }

    fn no_response(&self) -> ClusterError {
        let owner = &self.target.owner;
        let action = format!("update status of AwsDeployUser {}/{}", owner.namespace, owner.name);
        let message = format!("no response in {} s", UPDATE_DEADLINE.as_secs());
        ClusterError { action, kind: ClusterErrorKind::Unavailable, message }
    }

    async fn write_status(&mut self, progress: &Progress) -> Result<WrittenStatus, ClusterError> {
        self.publish_changes(progress).await;
        self.report_quarantine(progress);
        if let Some(facts) = progress.current.as_ref().and_then(CurrentState::verified) {
            self.cache.honoured = Some(HonouredRequest(facts.rotate_honoured.clone()));
        }
        if progress.finalized {
            return Ok(WrittenStatus::Gone);
        }
        if let Some(other) = self.served_by {
            // The conditions of two operators would replace each other with every reconcile.
            claim::report(&progress.user, other, self.obstacle(progress).as_ref(), self.context).await;
            self.cache.backoff = std::mem::take(&mut self.cache.backoff).without_status();
            return Ok(WrittenStatus::Unchanged);
        }
        let desired = progress.goal.as_ref().and_then(Goal::desired);
        let warnings = desired.map(|desired| self.cache.policy_warnings(desired.all_documents()));
        let status = self.status(progress, warnings, self.now());
        let before = progress.user.status.as_ref();
        if before == Some(&status) {
            self.cache.backoff = std::mem::take(&mut self.cache.backoff).without_status();
            return Ok(WrittenStatus::Unchanged);
        }
        let events = status::condition_events(before, &status);
        let users = DeployUsers::new(self.context.client.clone(), &self.target.owner.namespace);
        match users.write_status(&progress.user, status).await {
            Ok(user) => {
                self.cache.backoff = std::mem::take(&mut self.cache.backoff).without_status();
                for event in events {
                    self.context.events.publish(&user, &event).await;
                }
                Ok(WrittenStatus::Stored(Box::new(user)))
            }
            Err(error) if error.kind == ClusterErrorKind::NotFound => Ok(WrittenStatus::Gone),
            Err(error) => {
                self.report_unwritten_status(&progress.user, &error).await;
                Err(error)
            }
        }
    }

    /// Why credentials are not taken away, if so.
    fn obstacle(&self, progress: &Progress) -> Option<Note> {
        let failure = self.failures.iter().find(|failure| !failure.error.is_decision());
        let held = || {
            let note = progress.plan.as_ref()?.user.clone()?;
            matches!(note.reason, Reason::ForeignKeys | Reason::Pending).then_some(note)
        };
        failure.map(|failure| failure.for_conditions().note).or_else(held)
    }

    fn status(&self, progress: &Progress, policy_warnings: Option<Vec<String>>, now: Timestamp) -> AwsDeployUserStatus {
        let mut failures: Vec<_> = self.failures.iter().map(StepError::for_conditions).collect();
        // What is waited for is reported as when it failed.
        for scope in [FailureScope::User, FailureScope::Policies, FailureScope::Key] {
            if failures.iter().all(|failure| failure.scope != scope) {
                failures.extend(self.cache.backoff.failure(scope).cloned());
            }
        }
        // A class may be created right after the resource, and the quota is free once another resource is deleted.
        if self.decision.awaits_others {
            let authorization = failures.iter_mut().filter(|failure| failure.scope == FailureScope::Authorization);
            authorization.for_each(|failure| failure.class = ErrorClass::Denied);
        }
        let class = self.allowing_class(progress);
        let allowed = class.map(|class| format!("class {} allows it", class.name)).unwrap_or_default();
        status::status(&status::StatusInput {
            user: &progress.user,
            target: self.target,
            desired: progress.goal.as_ref().and_then(Goal::desired),
            policy_warnings,
            plan: progress.plan.as_ref(),
            current: progress.current.as_ref(),
            failures,
            failing_since: self.cache.backoff.since(),
            class,
            class_is_missing: self.decision.missing_class(&progress.user).is_some(),
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
            status.observed_generation == user.metadata.generation && status.failing_since.is_none()
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

    /// An Event says what no condition can say. One for failures in a row; a conflict ends by itself.
    async fn report_unwritten_status(&self, user: &AwsDeployUser, error: &ClusterError) {
        if error.kind == ClusterErrorKind::Conflict || self.cache.backoff.failure(FailureScope::Status).is_some() {
            return;
        }
        let reason = ReconcileError::from(error.clone()).reason();
        let note = format!(
            "failed to write the status: {error}. Without a status no IAM user is created; a resource that is too large has to become smaller"
        );
        self.context.events.publish(user, &PendingEvent { reason, note, warning: true }).await;
    }

    /// The status is written by the next reconcile.
    fn retry_status(&mut self, error: &ClusterError) {
        // The resource was edited meanwhile: the next reconcile has its new version.
        let is_first_conflict =
            error.kind == ClusterErrorKind::Conflict && self.cache.backoff.failure(FailureScope::Status).is_none();
        if is_first_conflict {
            tracing::debug!(%error, manager = MANAGER, "failed to write status");
        } else {
            tracing::warn!(%error, manager = MANAGER, "failed to write status");
        }
        let failure = ReconcileError::from(error.clone()).for_conditions(FailureScope::Status);
        let input = self.delay_input();
        self.cache.backoff = std::mem::take(&mut self.cache.backoff).after_status_write(failure, &input);
    }
}
