//! Cache of classes and namespace labels, filled by watches: a lookup makes no call.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::watch;

use super::{
    error::ClusterError,
    guarded::{Guarded, watch_config},
};
use crate::{
    api::AwsDeployUserClass,
    domain::authorize::{self, ClassEntry},
};

type GuardedClass = Guarded<AwsDeployUserClass>;
type GuardedNamespace = Guarded<PartialObjectMeta<Namespace>>;

/// Further changes within this time are part of the same notification.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// All classes at one moment. Owns them, so that [`ClassEntry`] can borrow.
pub struct ClassSnapshot(Vec<Arc<GuardedClass>>);

impl ClassSnapshot {
    /// All classes, including those that cannot be read.
    #[must_use]
    pub fn entries(&self) -> Vec<ClassEntry<'_>> {
        self.0
            .iter()
            .filter_map(|guarded| {
                let meta = guarded.meta();
                Some(ClassEntry {
                    name: meta.name.as_deref()?,
                    is_default: authorize::is_default(meta.annotations.as_ref()),
                    class: guarded.complete(),
                })
            })
            .collect()
    }
}

/// What decides about authorization besides the resource itself: classes, and labels of namespaces.
pub struct AuthorizationCache {
    classes: Store<GuardedClass>,
    namespaces: Store<GuardedNamespace>,
    changed: Arc<watch::Sender<u64>>,
}

impl AuthorizationCache {
    /// Checks that classes and namespaces can be listed.
    ///
    /// # Errors
    /// The kind that cannot be listed, and why: its CRD or a permission is missing.
    pub async fn check_list_access(client: Client) -> Result<(), (&'static str, kube::Error)> {
        let classes: Api<GuardedClass> = Api::all(client.clone());
        let namespaces: Api<GuardedNamespace> = Api::all(client);
        let first = ListParams::default().limit(1);
        classes.list(&first).await.map_err(|error| ("AwsDeployUserClasses", error))?;
        namespaces.list(&first).await.map_err(|error| ("Namespaces", error))?;
        Ok(())
    }

    /// Creates the cache, and the future that fills it and has to run as long as the cache is used.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()>) {
        let (classes, namespaces) = (Api::all(client.clone()), Api::all(client));
        let (class_store, class_writer) = reflector::store();
        let (namespace_store, namespace_writer) = reflector::store();
        let changed = Arc::new(watch::channel(0).0);
        let classes = reflector(class_writer, watcher(classes, watch_config()).default_backoff());
        let namespaces = watcher(namespaces, watch_config());
        let labels = namespaces.default_backoff().modify(|namespace: &mut GuardedNamespace| {
            // Only labels are used; the rest of all namespaces of a large cluster takes much memory.
            namespace.meta_mut().annotations = None;
        });
        let namespaces = reflector(namespace_writer, labels);
        let cache = Self { classes: class_store, namespaces: namespace_store, changed: Arc::clone(&changed) };
        let run = async move {
            futures::join!(
                notify_changes(classes, &changed, "AwsDeployUserClasses", |class: &GuardedClass| {
                    let meta = class.meta();
                    // A write of the class status must not start a reconcile of every resource.
                    hash_of(&(&meta.uid, meta.generation, authorize::is_default(meta.annotations.as_ref())))
                }),
                notify_changes(namespaces, &changed, "Namespaces", |namespace: &GuardedNamespace| {
                    hash_of(&namespace.meta().labels)
                }),
            );
        };
        (cache, run)
    }

    /// Waits until classes and namespaces are listed. Before that, a missing class may exist.
    pub async fn wait_until_ready(&self) {
        // Fails only when the writers are dropped; they live as long as the future of `watch`.
        let _ = futures::join!(self.classes.wait_until_ready(), self.namespaces.wait_until_ready());
    }

    /// A snapshot of all classes.
    #[must_use]
    pub fn classes(&self) -> ClassSnapshot {
        ClassSnapshot(self.classes.state())
    }

    /// Labels of a namespace. `None` if the watch has not seen the namespace yet, as opposed to one without labels.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let found = self.namespaces.get(&ObjectRef::new(namespace))?;
        Some(found.meta().labels.clone().unwrap_or_default())
    }

    /// Requests a reconcile of all resources, as if a class had changed. Resources with nothing to do make no call.
    pub fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Notified when a class or the labels of a namespace change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One item per change of classes or labels, debounced: an apply of several manifests starts one reconcile of all
    /// resources.
    pub fn debounced_changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        futures::stream::unfold(self.changes(), async |mut changes| {
            changes.changed().await.ok()?;
            tokio::time::sleep(DEBOUNCE).await;
            changes.mark_unchanged();
            Some(((), changes))
        })
    }
}

/// Polls a reflector, and notifies when the `digest` of an object changes.
async fn notify_changes<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    changed: &watch::Sender<u64>,
    kind: &str,
    digest: impl Fn(&K) -> u64,
) {
    let mut events = std::pin::pin!(events);
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        let name = |object: &K| object.meta().name.clone().unwrap_or_default();
        let is_change = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                false
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(name(&object), digest(&object));
                false
            }
            Ok(watcher::Event::InitDone) => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                before != known
            }
            Ok(watcher::Event::Apply(object)) => {
                let now = digest(&object);
                known.insert(name(&object), now) != Some(now)
            }
            Ok(watcher::Event::Delete(object)) => known.remove(&name(&object)).is_some(),
            // The watcher retries by itself; until then changes have no effect.
            Err(error) => {
                let error = ClusterError::from_watch(kind, &error);
                tracing::warn!(%error, kind, "watch failed, retrying");
                false
            }
        };
        if is_change {
            changed.send_modify(|count| *count += 1);
        }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
