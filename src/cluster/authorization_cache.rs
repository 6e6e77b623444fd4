//! Classes and the labels of namespaces, kept by a watch: looking one up asks nothing of the API server.

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
    api::{ListParams, PostParams},
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::watch;

use super::error::ClusterError;
use crate::{
    api::{AwsDeployUserClass, AwsDeployUserClassStatus, MANAGER},
    domain::authorize::{self, ClassEntry},
};

type GuardedClass = DeserializeGuard<AwsDeployUserClass>;
type NamespaceMeta = PartialObjectMeta<Namespace>;

/// How long further changes are waited for.
const MOMENT: Duration = Duration::from_millis(100);

/// Classes as the cluster has them. Hold it as long as what is borrowed from it.
pub struct ClassSnapshot(Vec<Arc<GuardedClass>>);

impl ClassSnapshot {
    /// All classes, also those that cannot be read.
    #[must_use]
    pub fn known(&self) -> Vec<ClassEntry<'_>> {
        self.0
            .iter()
            .filter_map(|guarded| {
                let meta = guarded.meta();
                Some(ClassEntry {
                    name: meta.name.as_deref()?,
                    is_default: authorize::is_default(meta.annotations.as_ref()),
                    class: guarded.0.as_ref().map_err(|error| error.error.as_str()),
                })
            })
            .collect()
    }
}

/// What is watched beside the resources themselves.
pub struct AuthorizationCache {
    classes: Store<GuardedClass>,
    namespaces: Store<NamespaceMeta>,
    changed: Arc<watch::Sender<u64>>,
}

impl AuthorizationCache {
    /// Looks whether what is watched can be watched.
    ///
    /// # Errors
    /// The kind that cannot be listed, and why: CRDs or rights are missing.
    pub async fn check_list_access(client: Client) -> Result<(), (&'static str, kube::Error)> {
        let classes: Api<AwsDeployUserClass> = Api::all(client.clone());
        let namespaces: Api<Namespace> = Api::all(client);
        let first = ListParams::default().limit(1);
        classes.list_metadata(&first).await.map_err(|error| ("AwsDeployUserClasses", error))?;
        namespaces.list_metadata(&first).await.map_err(|error| ("Namespaces", error))?;
        Ok(())
    }

    /// Begins to watch. The future has to be run for as long as the rules are used.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()>) {
        let (classes, namespaces) = (Api::all(client.clone()), Api::all(client));
        let (class_store, class_writer) = reflector::store();
        let (namespace_store, namespace_writer) = reflector::store();
        let changed = Arc::new(watch::channel(0).0);
        let config = || watcher::Config::default().any_semantic();
        let classes = reflector(class_writer, watcher(classes, config()).default_backoff());
        let labels = watcher(namespaces, config()).default_backoff().modify(|namespace: &mut NamespaceMeta| {
            // Of all namespaces of a large cluster only what is looked at is kept.
            namespace.metadata.annotations = None;
            namespace.metadata.managed_fields = None;
        });
        let namespaces = reflector(namespace_writer, labels);
        let rules = Self { classes: class_store, namespaces: namespace_store, changed: Arc::clone(&changed) };
        let run = async move {
            futures::join!(
                follow(classes, &changed, "AwsDeployUserClasses", |class: &GuardedClass| {
                    let meta = class.meta();
                    // A class that this operator reports on must not wake everybody.
                    digest(&(&meta.uid, meta.generation, authorize::is_default(meta.annotations.as_ref())))
                }),
                follow(namespaces, &changed, "Namespaces", |namespace: &NamespaceMeta| {
                    digest(&namespace.metadata.labels)
                }),
            );
        };
        (rules, run)
    }

    /// Waits until both were listed. Before that an absent class is not known to be absent.
    pub async fn wait_until_ready(&self) {
        // The writers live as long as the future that is run beside this.
        let _ = futures::join!(self.classes.wait_until_ready(), self.namespaces.wait_until_ready());
    }

    /// The classes at this moment.
    #[must_use]
    pub fn classes(&self) -> ClassSnapshot {
        ClassSnapshot(self.classes.state())
    }

    /// Labels of a namespace; `None` if the watch has not shown it yet, which is not a namespace without labels.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let found = self.namespaces.get(&ObjectRef::new(namespace))?;
        Some(found.metadata.labels.clone().unwrap_or_default())
    }

    /// Has all resources looked at again, as if a class had changed. Those with nothing to do cost no call.
    pub fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Changes whenever a class or the labels of a namespace do.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One item for each time that classes or labels have changed. A change is followed by others: a moment is waited
    /// for them, so that all resources are looked at once.
    pub fn debounced_changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        futures::stream::unfold(self.changes(), async |mut changes| {
            changes.changed().await.ok()?;
            tokio::time::sleep(MOMENT).await;
            changes.mark_unchanged();
            Some(((), changes))
        })
    }
}

/// Keeps a store up to date and tells of changes of what `seen` looks at.
async fn follow<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    changed: &watch::Sender<u64>,
    kind: &str,
    seen: impl Fn(&K) -> u64,
) {
    let mut events = std::pin::pin!(events);
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        let name = |object: &K| object.meta().name.clone().unwrap_or_default();
        let news = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                false
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(name(&object), seen(&object));
                false
            }
            Ok(watcher::Event::InitDone) => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                before != known
            }
            Ok(watcher::Event::Apply(object)) => {
                let now = seen(&object);
                known.insert(name(&object), now) != Some(now)
            }
            Ok(watcher::Event::Delete(object)) => known.remove(&name(&object)).is_some(),
            // The watch mends itself; this tells why nothing happens meanwhile.
            Err(error) => {
                tracing::warn!(%error, kind, "watching");
                false
            }
        };
        if news {
            changed.send_modify(|count| *count += 1);
        }
    }
}

fn digest(seen: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    seen.hash(&mut hasher);
    hasher.finish()
}

/// Writes what the operator found about classes.
pub struct ClassStatusWriter {
    api: Api<AwsDeployUserClass>,
}

impl ClassStatusWriter {
    /// Reports on classes.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// Writes the status, on condition that the class is as it was read.
    pub async fn write(
        &self,
        class: &AwsDeployUserClass,
        status: AwsDeployUserClassStatus,
    ) -> Result<(), ClusterError> {
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut class = class.clone();
        class.metadata.managed_fields = None;
        class.status = Some(status);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = self.api.replace_status(&name, &params, &class).await;
        written
            .map(drop)
            .map_err(|error| ClusterError::of(format!("update status of AwsDeployUserClass {name}"), &error))
    }
}
