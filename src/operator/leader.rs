//! Leader election with a Lease. It only prevents duplicate work: the rotation protocol stays correct while two replicas
//! both believe to be the leader.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{sync::watch, task::JoinHandle};

use super::error::RunError;

/// A Lease has whole seconds, and the renewal needs one of them.
const MIN_LEASE_SECONDS: u64 = 3;
/// Bounds the release at shutdown. On a timeout the next leader waits until the Lease expires.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Leadership {
    is_leader: watch::Receiver<bool>,
    /// Renews the Lease; `None` without leader election.
    renewal: Option<JoinHandle<kube_lease_manager::Result<LeaseManager>>>,
    /// Keeps the channel open without leader election: a closed channel means that the leadership is lost.
    _always_leader: Option<watch::Sender<bool>>,
}

impl Leadership {
    /// Without leader election: this replica is always the leader.
    pub(super) fn without_election() -> Self {
        let (sender, is_leader) = watch::channel(true);
        Self { is_leader, renewal: None, _always_leader: Some(sender) }
    }

    /// Starts to acquire and renew the Lease in the background.
    pub(super) async fn elect(
        client: Client,
        namespace: &str,
        name: &str,
        duration: Duration,
    ) -> Result<Self, RunError> {
        let seconds = duration.as_secs();
        if seconds < MIN_LEASE_SECONDS {
            return Err(RunError::InvalidSetting(format!(
                "--lease-duration must be at least {MIN_LEASE_SECONDS}s, not {seconds}s"
            )));
        }
        let mut builder = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_duration(seconds)
            .with_grace((seconds / 3).max(1));
        // In a pod, HOSTNAME is the pod name. A restarted container needs an identity of its own: the Lease of its
        // predecessor is not released.
        if let Ok(pod) = std::env::var("HOSTNAME") {
            builder = builder.with_identity(format!("{pod}-{}-{}", std::process::id(), started_at_millis()));
        }
        let manager = builder.build().await.map_err(|error| {
            RunError::InvalidSetting(format!(
                "failed to use Lease {namespace}/{name} (--namespace, --lease-name): {error}"
            ))
        })?;
        let (is_leader, renewal) = manager.watch().await;
        Ok(Self { is_leader, renewal: Some(renewal), _always_leader: None })
    }

    /// Whether this replica is the leader. A closed channel means that the renewal has ended: its last value is stale.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.is_leader.clone()
    }

    /// Releases the Lease, so that the next leader need not wait until it expires. Every receiver must be dropped before.
    pub(super) async fn release(self) {
        let Self { is_leader, renewal, .. } = self;
        drop(is_leader);
        if let Some(renewal) = renewal
            && tokio::time::timeout(RELEASE_TIMEOUT, renewal).await.is_err()
        {
            tracing::warn!("failed to release the Lease in time; the next leader waits until it expires");
        }
    }
}

/// Part of the identity, because the first process of every container has the process id 1.
fn started_at_millis() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis())
}
