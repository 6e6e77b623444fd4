//! How a pass ends: status and Events are written, and it is said when to look again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use super::{
    ReconcileError,
    cache::Failed,
    class_decision::Verdict,
    pass::{DEADLINE, End, Pass},
    status,
};
use crate::{
    api::{AwsDeployUser, MANAGER, Reason},
    cluster::{ClusterErrorKind, DeployUsers, PendingEvent},
    domain::{
        conditions::FailureScope,
        current_state::{CurrentState, IamUser},
        dates::saturating_add,
        plan::{Note, Plan},
    },
    trace,
};

impl Pass<'_> {
    pub(super) async fn report_cut_off(&mut self, user: &AwsDeployUser) -> End {
        self.cache.iam = None;
        self.errors.push((ReconcileError::Deadline(DEADLINE.as_secs()), FailureScope::Observation));
        self.report(user.clone(), None, None, Vec::new(), false).await
    }

    /// Writes status and Events and says when to look again.
    pub(super) async fn report(
        &mut self,
        user: AwsDeployUser,
        plan: Option<&Plan>,
        current: Option<&CurrentState>,
        news: Vec<PendingEvent>,
        left: bool,
    ) -> End {
        Box::pin(self.tell(user, plan, current, news, left)).instrument(trace::step_span("report")).await
    }

    async fn tell(
        &mut self,
        user: AwsDeployUser,
        plan: Option<&Plan>,
        current: Option<&CurrentState>,
        news: Vec<PendingEvent>,
        left: bool,
    ) -> End {
        let now = self.now();
        let context = self.context;
        let drift = user.status.as_ref().is_some_and(|status| {
            status.observed_generation == user.metadata.generation && status.failed_attempts == 0
        });
        for piece in status::deeds(news, drift) {
            context.events.publish(&user, &piece).await;
        }
        // A deletion does not look at policies.
        if let Some(current) = current.filter(|_| self.desired.is_some() || self.revoked.is_some() || left) {
            let (owner, is) = (&self.target.owner, !left && current.user().is_some_and(IamUser::is_quarantined));
            context.observer.quarantined(&owner.namespace, &owner.name, is);
        }
        if left {
            return End { user, next: Timestamp::MAX, left };
        }
        // A verdict is no failure: it is the same however often it is asked for.
        let failed_now = self.errors.iter().any(|(error, _)| !matches!(error, ReconcileError::NotAllowed(_)));
        let mut failures = status::failures(&self.errors);
        if self.errors.is_empty()
            && let Some((error, _)) = &self.cache.user_failure
        {
            failures.push(error.failure(FailureScope::User));
        }
        let class = match &self.class_decision.verdict {
            Verdict::Allowed(authorization) if self.revoked.is_none() && self.class_decision.elsewhere.is_none() => {
                Some(&authorization.class)
            }
            _ => None,
        };
        let allowed = class.map(|class| format!("class {} allows it", class.name)).unwrap_or_default();
        let status = status::status(&status::Account {
            user: &user,
            target: self.target,
            desired: self.desired.as_ref(),
            plan,
            current,
            failures,
            failed_now,
            class,
            authorization: Note::new(Reason::Allowed, allowed),
            now,
        });
        let attempts = u32::try_from(status.failed_attempts).unwrap_or(0);
        let untold = self.cache.failed.of(user.metadata.generation);
        // A pass that only waited was no success.
        let waited =
            self.cache.user_failure.is_some() || plan.is_some_and(|plan| plan.rotation.reason == Reason::BackingOff);
        let failed = match (failed_now, waited) {
            (true, _) => untold.once_more(attempts, now),
            (false, true) => untold,
            (false, false) => Failed::default(),
        };
        let mut next = self.next(plan, current, attempts.max(failed.passes), now);
        let before = user.status.clone();
        if before.as_ref() == Some(&status) {
            (self.cache.unwritten, self.cache.failed) = (0, Failed::default());
            return End { user, next, left };
        }
        let told = status::news(before.as_ref(), &status);
        let published = status.secret_name.clone().filter(|name| *name == self.target.secret_name);
        let written =
            DeployUsers::new(context.client.clone(), &self.target.owner.namespace).write_status(&user, status).await;
        let user = match written {
            Ok(user) => {
                (self.cache.unwritten, self.cache.failed) = (0, Failed::default());
                // Until a Secret of the name that is declared now is told of, an earlier one is not forgotten.
                self.cache.untold_secret.take_if(|_| published.is_some());
                user
            }
            Err(error) if error.kind == ClusterErrorKind::NotFound => {
                return End { user, next: Timestamp::MAX, left: true };
            }
            Err(error) => {
                // A status is a report. Somebody changed the resource meanwhile, or the API server is away: the next
                // pass reports. One that failed besides has its own pause, which a report must not cut short.
                tracing::warn!(%error, manager = MANAGER, "the status could not be written");
                self.cache.unwritten = self.cache.unwritten.saturating_add(1);
                self.cache.untold_secret = published.or(self.cache.untold_secret.take());
                let conflict = error.kind == ClusterErrorKind::Conflict;
                if !conflict {
                    // Nobody else keeps count.
                    self.cache.failed = failed;
                }
                if conflict || !failed_now {
                    next = next.min(now + self.delay_after(&error.into(), self.cache.unwritten));
                }
                return End { user, next, left };
            }
        };
        for piece in told {
            context.events.publish(&user, &piece).await;
        }
        End { user, next, left }
    }

    /// When there is something to do even if nothing changes.
    fn next(&self, plan: Option<&Plan>, current: Option<&CurrentState>, failures: u32, now: Timestamp) -> Timestamp {
        let settings = &self.context.settings;
        let after =
            |duration: Duration| saturating_add(now, SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
        let mut times = vec![after(settings.resync)];
        times.extend(plan.and_then(|plan| plan.requeue_at));
        times.extend(self.errors.iter().map(|(error, _)| now + self.delay_after(error, failures)));
        times.extend(self.cache.user_failure.as_ref().map(|(_, retry_at)| *retry_at));
        if self.errors.is_empty()
            && current.is_some_and(|current| current.published().is_some() || current.user().is_some())
        {
            times.push(after(settings.secret_check));
        }
        if let Some(seen) = self.cache.iam.as_ref().filter(|_| self.errors.is_empty()) {
            times.push(after(settings.expires_in(seen, &self.target.owner.uid)));
            times.push(after(settings.key_check.saturating_sub(seen.keys_read_at.elapsed())));
        }
        times.into_iter().min().unwrap_or(now)
    }
}
