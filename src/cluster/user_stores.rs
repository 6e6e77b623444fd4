//! Caches of `AwsDeployUser` resources, filled by watches.

use futures::{Stream, TryStreamExt as _};
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::watch;

use crate::api::AwsDeployUser;

/// A resource that may fail to deserialize: an invalid one is reported and does not stop the watch of the others.
pub type GuardedUser = DeserializeGuard<AwsDeployUser>;

/// A copy of the whole manifest, which `kubectl apply` adds.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Watches the resources of an API. Returns their cache, and a stream of added and changed resources. Notifies `changed` of
/// every event.
///
/// Managed fields and the last-applied manifest are dropped: they are most of an object, and no write needs them.
pub fn watch(
    api: Api<GuardedUser>,
    changed: watch::Sender<()>,
) -> (Store<GuardedUser>, impl Stream<Item = Result<GuardedUser, watcher::Error>> + Send) {
    let (store, writer) = reflector::store();
    let events = watcher(api, watcher::Config::default().any_semantic()).modify(|guarded: &mut GuardedUser| {
        let metadata = match &mut guarded.0 {
            Ok(user) => &mut user.metadata,
            Err(error) => &mut error.metadata,
        };
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
    });
    let events = reflector(writer, events).inspect_ok(move |_| changed.send_replace(()));
    (store, events.applied_objects())
}

/// The caches of all watched namespaces.
#[derive(Default)]
pub struct UserStores {
    stores: Vec<Store<GuardedUser>>,
    changed: watch::Sender<()>,
}

impl UserStores {
    /// `changed` is the sender that the watches of the stores were started with.
    #[must_use]
    pub fn new(stores: Vec<Store<GuardedUser>>, changed: watch::Sender<()>) -> Self {
        Self { stores, changed }
    }

    /// Changes after each event of the watches, deletions included.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Number of resources that match; resources that fail to deserialize match nothing.
    pub fn count(&self, matches: impl Fn(&AwsDeployUser) -> bool) -> usize {
        let matches = |guarded: &GuardedUser| guarded.0.as_ref().is_ok_and(&matches);
        self.stores.iter().map(|store| store.state_filter(matches).len()).sum()
    }

    /// The current state of the resource; `None` if it was deleted, also if another one of its name exists.
    #[must_use]
    pub fn get(&self, user: &AwsDeployUser) -> Option<AwsDeployUser> {
        let (name, namespace) = (user.metadata.name.as_deref()?, user.metadata.namespace.as_deref()?);
        let wanted = ObjectRef::new(name).within(namespace);
        let found = self.stores.iter().find_map(|store| store.get(&wanted))?;
        found.0.as_ref().ok().filter(|found| found.metadata.uid == user.metadata.uid).cloned()
    }

    /// Calls `each` with every resource that deserializes.
    pub fn for_each(&self, mut each: impl FnMut(&AwsDeployUser)) {
        for guarded in self.stores.iter().flat_map(Store::state) {
            if let Ok(user) = &guarded.0 {
                each(user);
            }
        }
    }
}
