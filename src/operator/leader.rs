//! Leader election with a Lease: for progress, never for safety. Two replicas that both believe to lead may duel, and
//! lose no key; the rotation protocol sees to that.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{sync::watch, task::JoinHandle};

use super::error::RunError;

/// The shortest lease: it is kept in whole seconds, and one of them is for the renewal.
const LEAST: u64 = 3;

/// How long giving the lease back may take; who waits for it waits for its end anyway.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Whether this replica leads.
pub(super) struct Leadership {
    leads: watch::Receiver<bool>,
    keeper: Option<JoinHandle<kube_lease_manager::Result<LeaseManager>>>,
    // A replica without election leads for ever: the channel must stay open.
    _always: Option<watch::Sender<bool>>,
}

impl Leadership {
    /// Without election this replica leads, always.
    pub(super) fn unquestioned() -> Self {
        let (sender, leads) = watch::channel(true);
        Self { leads, keeper: None, _always: Some(sender) }
    }

    /// Begins to ask for the lease.
    pub(super) async fn elect(
        client: Client,
        namespace: &str,
        name: &str,
        duration: Duration,
    ) -> Result<Self, RunError> {
        let seconds = duration.as_secs();
        if seconds < LEAST {
            return Err(RunError::Setting(format!("--lease-duration must be at least {LEAST}s, not {seconds}s")));
        }
        let mut builder = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_duration(seconds)
            .with_grace((seconds / 3).max(1));
        // In a pod this is its name. The rest of the identity is made up by the lease manager: a container that was
        // restarted is another candidate.
        if let Ok(pod) = std::env::var("HOSTNAME") {
            builder = builder.with_identity(format!("{pod}-{}-{}", std::process::id(), started()));
        }
        let manager = builder.build().await.map_err(|error| {
            RunError::Setting(format!(
                "the Lease {namespace}/{name} (--lease-namespace, --lease-name) cannot be used: {error}"
            ))
        })?;
        let (leads, keeper) = manager.watch().await;
        Ok(Self { leads, keeper: Some(keeper), _always: None })
    }

    /// Tells when leadership comes and goes. Closed once its keeper has ended: what it told last is no longer true.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Gives the lease back, so that the next one need not wait for its end. Every receiver must be gone.
    pub(super) async fn release(self) {
        let Self { leads, keeper, .. } = self;
        drop(leads);
        if let Some(keeper) = keeper
            && tokio::time::timeout(RELEASE_LIMIT, keeper).await.is_err()
        {
            tracing::warn!("the lease could not be given back; the next leader waits for its end");
        }
    }
}

/// Tells apart two processes that had the same process id, as all first processes of containers have.
fn started() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis())
}
