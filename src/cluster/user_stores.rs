//! The resources themselves, kept by a watch.

use futures::Stream;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};

use crate::api::AwsDeployUser;

/// A resource as it came: one that cannot be read is told of, and stops no other.
pub type GuardedUser = DeserializeGuard<AwsDeployUser>;

/// `kubectl apply` keeps a copy of the whole manifest here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Watches the resources of an API: where they are kept, and each one that is new or has changed.
///
/// Of thousands of resources only what is looked at is kept: who has set which field when is most of an object, and
/// nothing that is written back needs it.
pub fn watch(
    api: Api<GuardedUser>,
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
    (store, reflector(writer, events).applied_objects())
}

/// The resources that the operator looks after, as its controllers keep them.
#[derive(Default)]
pub struct UserStores(Vec<Store<GuardedUser>>);

impl UserStores {
    /// The resources of these stores.
    #[must_use]
    pub fn new(stores: Vec<Store<GuardedUser>>) -> Self {
        Self(stores)
    }

    /// How many fit.
    pub fn count(&self, fits: impl Fn(&AwsDeployUser) -> bool) -> usize {
        let fits = |guarded: &GuardedUser| guarded.0.as_ref().is_ok_and(&fits);
        self.0.iter().map(|store| store.state_filter(fits).len()).sum()
    }

    /// The resource as it is now; `None` when it is gone.
    #[must_use]
    pub fn get(&self, user: &AwsDeployUser) -> Option<AwsDeployUser> {
        let (name, namespace) = (user.metadata.name.as_deref()?, user.metadata.namespace.as_deref()?);
        let wanted = ObjectRef::new(name).within(namespace);
        let found = self.0.iter().find_map(|store| store.get(&wanted))?;
        found.0.as_ref().ok().filter(|found| found.metadata.uid == user.metadata.uid).cloned()
    }

    /// Does something with each.
    pub fn for_each(&self, mut each: impl FnMut(&AwsDeployUser)) {
        for guarded in self.0.iter().flat_map(Store::state) {
            if let Ok(user) = &guarded.0 {
                each(user);
            }
        }
    }
}
