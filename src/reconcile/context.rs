//! What passes need and share: Kubernetes, AWS, the settings, and what is remembered of each resource.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;

use super::{
    account_health::AccountHealth, account_limiter::AccountLimiter, cache::ReconcileCaches, error::ReconcileError,
};
use crate::{
    api::Reason,
    aws::{AwsError, CallerIdentity, IamClient, IamClients},
    cluster::{AuthorizationCache, ClusterError, ClusterErrorKind, Events, SecretAccess, UserStores},
    domain::{account::Role, settings::Settings, target::Target},
};

/// Told of what passes do; the metrics listen here.
pub trait ReconcileObserver: Send + Sync {
    /// A pass has come to its end: `ok`, or the reason of its first failure.
    fn passed(&self, result: &'static str, took: Duration);
    /// An effect was done, or failed for a reason.
    fn acted(&self, verb: &'static str, failure: Option<Reason>);
    /// A key was published.
    fn rotated(&self);
    /// So long after it was made a key was published.
    fn verified(&self, took: Duration);
    /// Whether AWS quarantines the user of this resource.
    fn quarantined(&self, namespace: &str, name: &str, is: bool);
}

/// What passes need.
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
    /// Id of the cluster, written into ownership tags.
    pub cluster_id: String,
    /// Times and limits.
    pub settings: ReconcileSettings,
    /// Listener.
    pub observer: Arc<dyn ReconcileObserver>,
    pub(super) caches: ReconcileCaches,
    pub(super) limiter: Arc<AccountLimiter>,
    pub(super) account_health: AccountHealth,
    /// Another one in each process.
    chance: RandomState,
    /// Namespaces in which a resource waits for another one to go.
    crowded: Mutex<HashSet<String>>,
}

/// What the controller keeps by watching.
pub struct Watched {
    /// Classes and labels of namespaces.
    pub rules: AuthorizationCache,
    /// The resources themselves.
    pub resources: UserStores,
}

/// Settings of passes.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// What decisions depend on.
    pub protocol: Settings,
    /// How long IAM facts are believed; every resource is looked at anew this often.
    pub resync: Duration,
    /// How often the access keys of a user are listed.
    pub key_check: Duration,
    /// Whether users are compared by the details of their account, which tell of all of them together.
    pub account_details: bool,
    /// How often the published Secret is looked at.
    pub secret_check: Duration,
    /// Passes at the same time while one account is busy; several share them, and none has less than two.
    pub concurrency: usize,
}

impl Context {
    /// Everything passes need.
    #[must_use]
    pub fn new(
        client: Client,
        watched: Watched,
        accounts: IamClients,
        access: SecretAccess,
        cluster_id: String,
        settings: ReconcileSettings,
        observer: Arc<dyn ReconcileObserver>,
    ) -> Self {
        let limiter = AccountLimiter::new(settings.concurrency.max(1));
        Self {
            events: Events::new(client.clone()),
            access,
            client,
            rules: watched.rules,
            resources: watched.resources,
            accounts,
            cluster_id,
            settings,
            observer,
            caches: ReconcileCaches::default(),
            limiter,
            account_health: AccountHealth::default(),
            chance: RandomState::new(),
            crowded: Mutex::default(),
        }
    }

    /// Forgets what it remembers of resources other than these.
    pub fn keep_only(&self, uids: &HashSet<String>) {
        self.caches.keep(uids);
    }

    /// Drops the sessions of roles that no class and no resource leads to any more.
    pub fn keep_accounts(&self) {
        let classes = self.rules.classes();
        let accounts = classes.known().into_iter().filter_map(|known| known.class.ok()?.spec.account.as_ref());
        let mut wanted: HashSet<Role> = accounts.filter_map(Role::from_class).collect();
        self.resources.for_each(|user| wanted.extend(Role::recorded(user)));
        self.accounts.retain_roles(&wanted);
        self.account_health.keep_only(|role| wanted.contains(role));
    }

    /// Whom AWS takes us for in an account. When it does so again after it has not, all resources are looked at: those of
    /// the account have waited for it.
    pub(super) async fn identity(&self, iam: &IamClient, role: Option<&Role>) -> Result<Arc<CallerIdentity>, AwsError> {
        let identity = iam.caller_identity().await;
        if self.account_health.note(role, identity.is_ok()) {
            self.rules.notify();
        }
        identity
    }

    /// A part of one, by chance for each process and the same for a resource all its life.
    pub(super) fn chance_of(&self, uid: &str) -> f64 {
        const PARTS: u32 = 1 << 20;
        let part = u32::try_from(self.chance.hash_one(uid) % u64::from(PARTS)).unwrap_or_default();
        f64::from(part) / f64::from(PARTS)
    }

    /// No pass begins any more; those under way come to their end.
    pub fn close(&self) {
        self.limiter.close();
    }

    /// Notes who waits for room, and wakes them when there is some.
    pub(super) fn keep_room(&self, target: &Target, waits: bool, left: bool) {
        let namespace = &target.owner.namespace;
        let mut crowded = self.crowded.lock().unwrap_or_else(PoisonError::into_inner);
        if waits {
            crowded.insert(namespace.clone());
        } else if left && crowded.remove(namespace) {
            self.rules.notify();
        }
    }

    /// A refusal to read a Secret is told with the command that grants it.
    pub(super) fn secret_error(&self, target: &Target, error: ClusterError) -> ReconcileError {
        if error.kind == ClusterErrorKind::Forbidden {
            return ReconcileError::SecretAccess(self.access.secret_access_denied(&target.owner.namespace, "get"));
        }
        error.into()
    }
}
