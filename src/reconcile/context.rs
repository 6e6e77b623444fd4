//! What reconciles share: clients, settings, and the caches of resources.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use parking_lot::Mutex;

use super::{
    account_health::AccountHealth, account_limiter::AccountLimiter, cache::ReconcileCaches, claim::ClaimReports,
    error::ReconcileError, first_keys::FirstKeys, priority::ReconcileLanes,
};
use crate::{
    api::{
        AwsDeployUser, Reason,
        user::{PolicyKind, PolicyStatus},
    },
    aws::{AwsError, CallerIdentity, IamClient, IamClients},
    cluster::{AuthorizationCache, ClusterError, ClusterErrorKind, Events, JournalStore, SecretAccess, UserStores},
    domain::{account::Role, plan::EffectVerb, secret::MacKeys, settings::Settings, target::Target},
};

/// Observes reconciles; implemented by the metrics.
pub trait ReconcileObserver: Send + Sync {
    /// A reconcile ended with `ok` or the reason of its first failure.
    fn reconciled(&self, result: &'static str, took: Duration);
    /// An effect was executed, or failed for a reason.
    fn acted(&self, verb: EffectVerb, failure: Option<Reason>);
    /// A key was published.
    fn rotated(&self);
    /// A key was published this long after it was created.
    fn verified(&self, took: Duration);
    /// Whether AWS quarantines the user of this resource.
    fn quarantined(&self, namespace: &str, name: &str, is: bool);
}

/// What every reconcile needs.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// IAM and STS of every account.
    pub accounts: IamClients,
    /// Events.
    pub events: Events,
    /// The operator's own rights.
    pub access: SecretAccess,
    /// Classes and labels of namespaces.
    pub rules: AuthorizationCache,
    /// The resources themselves.
    pub resources: UserStores,
    /// Namespace of the operator: its journals are there, and its name claims resources in their status.
    pub namespace: String,
    /// Id of the cluster, written into ownership tags.
    pub cluster_id: String,
    /// Keys that sign published Secrets.
    pub mac_keys: MacKeys,
    /// Times and limits.
    pub settings: ReconcileSettings,
    /// Observes reconciles.
    pub observer: Arc<dyn ReconcileObserver>,
    pub(super) caches: ReconcileCaches,
    pub(super) limiter: AccountLimiter,
    pub(super) account_health: AccountHealth,
    pub(super) lanes: Arc<ReconcileLanes>,
    pub(super) claim_reports: ClaimReports,
    pub(super) first_keys: FirstKeys,
    /// Differs in each process.
    jitter_seed: RandomState,
    /// Namespaces in which a resource waits for the quota of its class.
    over_quota: Mutex<HashSet<String>>,
}

/// Objects that the controller keeps by watching.
pub struct Watched {
    /// Classes and labels of namespaces.
    pub rules: AuthorizationCache,
    /// The resources themselves.
    pub resources: UserStores,
    /// Receives the changes of resources that are being reconciled.
    pub lanes: Arc<ReconcileLanes>,
}

/// Which of all operators this one is.
pub struct Installation {
    /// Its namespace, which holds the journals.
    pub namespace: String,
    /// The cluster in the ownership tags.
    pub cluster_id: String,
    /// Keys of the MAC of published Secrets.
    pub mac_keys: MacKeys,
}

/// Settings of reconciles.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// What decisions depend on.
    pub protocol: Settings,
    /// How long cached IAM facts are used; every resource is compared with AWS this often.
    pub resync: Duration,
    /// How often the access keys of a user are listed.
    pub key_check: Duration,
    /// Whether users are compared by one listing of the whole account (`GetAccountAuthorizationDetails`).
    pub account_details: bool,
    /// How often the published Secret is read.
    pub secret_check: Duration,
    /// Concurrent reconciles per AWS account.
    pub concurrency: usize,
}

#[cfg(test)]
impl ReconcileSettings {
    /// Everything is read and checked at this interval.
    pub(super) fn every(interval: Duration) -> Self {
        Self {
            protocol: Settings::default(),
            resync: interval,
            key_check: interval,
            account_details: true,
            secret_check: interval,
            concurrency: 1,
        }
    }
}

impl Context {
    /// Whether some resource has a managed policy.
    pub(super) fn has_managed_policies(&self) -> bool {
        let is_managed = |policy: &PolicyStatus| policy.kind == PolicyKind::Managed;
        let has =
            |user: &AwsDeployUser| user.status.as_ref().is_some_and(|status| status.policies.iter().any(is_managed));
        self.resources.count(has) > 0
    }

    /// A context with empty caches.
    #[must_use]
    pub fn new(
        client: Client,
        watched: Watched,
        accounts: IamClients,
        access: SecretAccess,
        installation: Installation,
        settings: ReconcileSettings,
        observer: Arc<dyn ReconcileObserver>,
    ) -> Self {
        let limiter = AccountLimiter::new(settings.concurrency);
        Self {
            events: Events::new(client.clone()),
            access,
            client,
            rules: watched.rules,
            resources: watched.resources,
            accounts,
            namespace: installation.namespace,
            cluster_id: installation.cluster_id,
            mac_keys: installation.mac_keys,
            settings,
            observer,
            caches: ReconcileCaches::default(),
            limiter,
            account_health: AccountHealth::default(),
            lanes: watched.lanes,
            claim_reports: ClaimReports::default(),
            first_keys: FirstKeys::default(),
            jitter_seed: RandomState::new(),
            over_quota: Mutex::default(),
        }
    }

    /// Drops the caches of all resources but these.
    pub fn keep_only(&self, uids: &HashSet<String>) {
        self.caches.keep(uids);
        self.claim_reports.keep(uids);
    }

    /// Drops the sessions of roles that no class and no resource names.
    pub fn keep_accounts(&self) {
        let classes = self.rules.classes();
        let accounts = classes.entries().into_iter().filter_map(|known| known.class.ok()?.spec.account.as_ref());
        let mut wanted: HashSet<Role> = accounts.filter_map(Role::from_class).collect();
        self.resources.for_each(|user| wanted.extend(Role::recorded(user)));
        self.accounts.retain_roles(&wanted);
        self.account_health.retain(|role| wanted.contains(role));
    }

    /// The caller identity in an account. When an account recovers, all resources are reconciled: its own have waited for it.
    pub(super) async fn identity(&self, iam: &IamClient, role: Option<&Role>) -> Result<Arc<CallerIdentity>, AwsError> {
        let identity = iam.caller_identity().await;
        if self.account_health.record(role, identity.is_ok()) {
            self.rules.notify();
        }
        identity
    }

    /// A fraction of one for a resource, constant in this process and different in the next one.
    pub(super) fn jitter_of(&self, uid: &str) -> f64 {
        const PARTS: u32 = 1 << 20;
        let part = u32::try_from(self.jitter_seed.hash_one(uid) % u64::from(PARTS)).unwrap_or_default();
        f64::from(part) / f64::from(PARTS)
    }

    /// Starts no further reconcile; those under way finish.
    pub fn close(&self) {
        self.limiter.close();
    }

    /// Records that a resource waits for its class's quota, and reconciles all resources when one of its namespace is deleted.
    pub(super) fn record_quota_wait(&self, target: &Target, is_over_quota: bool, is_finalized: bool) {
        let namespace = &target.owner.namespace;
        let mut over_quota = self.over_quota.lock();
        if is_over_quota {
            over_quota.insert(namespace.clone());
        } else if is_finalized && over_quota.remove(namespace) {
            self.rules.notify();
        }
    }

    /// Whether the ownership tags name another resource of the namespace that is deleted or being deleted.
    pub(super) fn is_owner_ending(&self, target: &Target, tags: &BTreeMap<String, String>) -> bool {
        let owner = &target.owner;
        owner.neighbour(tags).is_some_and(|(name, uid)| !self.resources.is_live(&owner.namespace, name, uid))
    }

    /// The journal of a resource.
    pub(super) fn journals<'a>(&self, target: &'a Target) -> JournalStore<'a> {
        JournalStore::new(self.client.clone(), &self.namespace, target)
    }

    /// Adds the command that grants access to a refused read of a Secret.
    pub(super) fn secret_error(&self, target: &Target, error: ClusterError) -> ReconcileError {
        if error.kind == ClusterErrorKind::Forbidden {
            return ReconcileError::SecretAccess(self.access.secret_access_denied(&target.owner.namespace, "get"));
        }
        error.into()
    }
}
