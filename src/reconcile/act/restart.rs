//! Effects on workloads. A workload that cannot be restarted is an observation, not a failure of the reconcile.

use futures::future::join_all;

use super::Executor;
use crate::{
    api::{Reason, user::RestartTarget},
    cluster::{ClusterError, ClusterErrorKind, Workloads},
    domain::{
        plan::Effect,
        restart::{ObservedWorkload, RestartProgress, Restarts},
        secret,
    },
    reconcile::error::ReconcileError,
};

/// Attempts to restart a workload: its status is written often, and the write is conditional.
const MAX_ATTEMPTS: u32 = 5;

impl Executor<'_> {
    pub(super) async fn read_workloads(&mut self, targets: &[RestartTarget]) {
        let workloads = self.workloads();
        let read = join_all(targets.iter().map(|target| workloads.get(target))).await;
        for (target, read) in targets.iter().zip(read) {
            let seen = match read {
                Ok(Some(found)) => ObservedWorkload::Found(found.workload),
                Ok(None) => ObservedWorkload::Missing,
                Err(error) => self.unseen(&error),
            };
            self.observed.current.workloads.insert(target.clone(), seen);
        }
    }

    /// May leave a restarted workload that only its own annotation records: the next reconcile observes it.
    pub(super) async fn restart(&mut self, target: &RestartTarget, key_id: &str) -> Result<(), ReconcileError> {
        let workloads = self.workloads();
        let mut refusal = None;
        for _ in 0..MAX_ATTEMPTS {
            let seen = match workloads.get(target).await {
                Ok(None) => ObservedWorkload::Missing,
                Err(error) => self.unseen(&error),
                Ok(Some(found)) if found.workload.restarted_for.as_deref() == Some(key_id) => {
                    ObservedWorkload::Found(found.workload)
                }
                Ok(Some(found)) => {
                    // Checked after the workload was read: another replica that published a newer key since has changed the
                    // workload too, so that this write conflicts.
                    self.still_asks_for(target, key_id).await?;
                    match workloads.restart(target, &found, key_id).await {
                        Ok(restarted) => {
                            self.record_event(
                                Reason::Restarted,
                                format!("{target} was restarted with access key {key_id}"),
                            );
                            ObservedWorkload::Found(restarted.workload)
                        }
                        Err(error) if error.kind == ClusterErrorKind::NotFound => ObservedWorkload::Missing,
                        Err(error) if error.kind == ClusterErrorKind::Conflict => {
                            refusal = Some(error);
                            continue;
                        }
                        Err(error) => self.unseen(&error),
                    }
                }
            };
            self.observed.current.workloads.insert(target.clone(), seen);
            return Ok(());
        }
        let seen = ObservedWorkload::Failed(refusal.map(|error| error.to_string()).unwrap_or_default());
        self.observed.current.workloads.insert(target.clone(), seen);
        Ok(())
    }

    /// The reason of a restart that did not happen.
    pub(in crate::reconcile) fn failed_restart(&self, effect: &Effect) -> Option<Reason> {
        let Effect::RestartWorkload(target, _) = effect else { return None };
        let found = matches!(self.observed.current.workloads.get(target), Some(ObservedWorkload::Found(_)));
        (!found).then_some(Reason::RestartFailed)
    }

    /// Checks that the published Secret still is the one that the plan was made for.
    async fn still_asks_for(&self, target: &RestartTarget, key_id: &str) -> Result<(), ReconcileError> {
        let name = &self.target.secret_name;
        let now = self.secrets().get(name).await?.map(|held| {
            let facts = secret::read_facts(&held.content(), false, None, self.sealer());
            facts.key_id == key_id && facts.restarts.get(target) == Some(&RestartProgress::Pending)
        });
        if now == Some(true) {
            return Ok(());
        }
        Err(ClusterError {
            action: format!("restart {target}"),
            kind: ClusterErrorKind::Conflict,
            message: format!("Secret {name} has changed since it was read"),
        }
        .into())
    }

    /// Conditional on the Secret as this reconcile read it.
    pub(super) async fn note_restarts(&mut self, restarts: &Restarts) -> Result<(), ReconcileError> {
        let (Some(desired), Some(held)) = (self.desired, &self.observed.published) else { return Ok(()) };
        let content = held.content();
        let Some(key) = secret::read_key(&content, self.sealer()) else { return Ok(()) };
        let mut publication = secret::read_publication(&content);
        publication.restarts.clone_from(restarts);
        self.write_secret(desired, &key, &publication).await
    }

    fn unseen(&self, error: &ClusterError) -> ObservedWorkload {
        tracing::warn!(%error, "failed to restart workload");
        match error.kind {
            ClusterErrorKind::Forbidden => ObservedWorkload::Forbidden(
                self.context.access.restart_access_denied(&self.target.owner.namespace, &error.message).message,
            ),
            ClusterErrorKind::Refused => {
                ObservedWorkload::Forbidden(format!("admission refuses the restart: {}", error.message))
            }
            _ => ObservedWorkload::Failed(error.to_string()),
        }
    }

    fn workloads(&self) -> Workloads {
        let owner = &self.target.owner;
        Workloads::new(self.context.client.clone(), &owner.namespace, &owner.name)
    }
}
