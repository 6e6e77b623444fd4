//! Caches of `AwsDeployUser` resources, filled by watches.

use std::{collections::HashSet, sync::Arc};

use futures::{Stream, TryStreamExt as _};
use kube::{
    Api, Resource as _,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::watch;

use super::guarded::{Guarded, watch_config};
use crate::api::AwsDeployUser;

/// A resource that may be incomplete: one that cannot be read is reported and affects no other.
pub type GuardedUser = Guarded<AwsDeployUser>;

/// Watches the resources of an API. Returns their cache, and a stream of added and changed resources. Notifies `changed` of
/// every event.
pub fn watch(
    api: Api<GuardedUser>,
    changed: watch::Sender<()>,
) -> (Store<GuardedUser>, impl Stream<Item = Result<GuardedUser, watcher::Error>> + Send) {
    let (store, writer) = reflector::store();
    let events = watcher(api, watch_config()).modify(|guarded: &mut GuardedUser| guarded.meta_mut().labels = None);
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

    /// Number of resources that match, by what can be read of them.
    pub fn count(&self, matches: impl Fn(&AwsDeployUser) -> bool) -> usize {
        let matches = |guarded: &GuardedUser| guarded.object().is_some_and(&matches);
        self.stores.iter().map(|store| store.state_filter(matches).len()).sum()
    }

    /// The current state of the resource; `None` if it was deleted, also if another one of its name exists.
    #[must_use]
    pub fn get(&self, resource: &ObjectRef<GuardedUser>) -> Option<Arc<GuardedUser>> {
        self.find(resource).filter(|found| found.meta().uid == resource.extra.uid)
    }

    /// Whether the resource of a watched namespace exists and is not being deleted.
    #[must_use]
    pub fn is_live(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let found = self.find(&ObjectRef::new(name).within(namespace));
        found.is_some_and(|found| found.meta().uid.as_deref() == Some(uid) && found.meta().deletion_timestamp.is_none())
    }

    /// The resource of this name, whatever its UID.
    fn find(&self, resource: &ObjectRef<GuardedUser>) -> Option<Arc<GuardedUser>> {
        self.stores.iter().find_map(|store| store.get(resource))
    }

    /// UIDs of all resources, of those that cannot be read too.
    #[must_use]
    pub fn uids(&self) -> HashSet<String> {
        self.stores.iter().flat_map(Store::state).filter_map(|user| user.meta().uid.clone()).collect()
    }

    /// Calls `each` with what can be read of every resource.
    pub fn for_each(&self, mut each: impl FnMut(&AwsDeployUser)) {
        for guarded in self.stores.iter().flat_map(Store::state) {
            if let Some(user) = guarded.object() {
                each(user);
            }
        }
    }
}
