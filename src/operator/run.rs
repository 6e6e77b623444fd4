//! The controller: watches resources, runs passes, stops gracefully.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::Store,
        watcher,
    },
};
use tokio::{net::TcpListener, sync::watch};
use tracing::Instrument;

use super::{
    metrics::Metrics,
    server::{self, Shown},
    settings::OperatorSettings,
};
use crate::{
    api::AwsDeployUser,
    aws::{Connection, Iam},
    cluster::{self, ClusterError},
    reconcile::{self, Context},
};

type Guarded = DeserializeGuard<AwsDeployUser>;

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No cluster.
    #[error("no Kubernetes cluster is configured: {0}. Set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Config(#[from] kube::config::InferConfigError),
    /// No client.
    #[error("the Kubernetes client cannot be set up: {0}")]
    Client(#[from] Box<kube::Error>),
    /// The cluster refuses something that is needed from the start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No CRD.
    #[error(
        "the cluster does not know AwsDeployUser: {0}. Install the CRDs first: they come with the Helm chart, or kubectl apply -f crds/"
    )]
    Crd(String),
    /// The address is taken.
    #[error("cannot listen on {0} (--metrics-addr): {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
}

impl RunError {
    /// The first list tells whether the CRD is there, whether we may read it, and whether there is an API server at all.
    fn of_first_list(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::Crd(status.message.clone()),
            error => Self::Cluster(ClusterError::listing(&error)),
        }
    }
}

/// Runs until the process is asked to stop; then finishes the passes under way.
///
/// # Errors
/// Only at the start. Once running, faults are waited out.
pub async fn run(settings: OperatorSettings) -> Result<(), RunError> {
    if !(settings.aws_rate.is_finite() && settings.aws_rate > 0.0) {
        return Err(RunError::Setting(format!("--aws-rate must be greater than 0, not {}", settings.aws_rate)));
    }
    let mut config = Config::infer().await?;
    // One layer of retries, ours: a client that repeats writes by itself turns a lost answer into a conflict.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(Box::new)?;
    let metrics = Arc::new(Metrics::default());
    let ready = Arc::new(AtomicBool::new(false));

    let listener = TcpListener::bind(settings.metrics_addr)
        .await
        .map_err(|error| RunError::Listen(settings.metrics_addr, error))?;
    let stop = stop_signal();
    let shown = Shown { metrics: Arc::clone(&metrics), ready: Arc::clone(&ready) };
    let served = tokio::spawn(server::serve(listener, shown, stopped(stop.clone())));

    let apis = apis(&client, &settings.watch_namespaces);
    for api in &apis {
        api.list(&ListParams::default().limit(1)).await.map_err(RunError::of_first_list)?;
    }
    let cluster_id = match settings.cluster_id.clone() {
        Some(id) => id,
        None => cluster::cluster_id(client.clone()).await?,
    };
    let whoami = cluster::whoami(client.clone()).await?;
    let iam = Iam::connect(Connection { rate: settings.aws_rate, observer: Arc::clone(&metrics) as _ }).await;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster_id,
        whoami,
        namespaces =
            if settings.watch_namespaces.is_empty() { "all".to_owned() } else { settings.watch_namespaces.join(",") },
        allow_without_class = settings.allow_without_class,
        "starting"
    );
    let context = Arc::new(Context::new(
        client,
        iam,
        whoami,
        &settings.secrets_cluster_role,
        cluster_id,
        settings.passes(),
        Arc::clone(&metrics) as _,
    ));

    let concurrency = settings.concurrency;
    let mut synced = Vec::new();
    let mut runs = Vec::new();
    for api in apis {
        let controller = Controller::new(api, watcher::Config::default().any_semantic())
            .with_config(controller::Config::default().concurrency(concurrency))
            .graceful_shutdown_on(stopped(stop.clone()));
        synced.push(controller.store());
        let stream = controller.run(pass, |_, _, _| Action::await_change(), Arc::clone(&context));
        runs.push(stream.for_each(|result| async move {
            if let Err(error) = result {
                // The watch mends itself; this tells why nothing happens meanwhile.
                tracing::warn!(%error, "watching AwsDeployUsers");
            }
        }));
    }
    let stores = synced.clone();
    let remembered = Arc::clone(&context);
    let listed = async {
        let _ = join_all(synced.iter().map(Store::wait_until_ready)).await;
        ready.store(true, Ordering::Relaxed);
        tracing::info!(resources = stores.iter().map(|store| store.state().len()).sum::<usize>(), "listed");
        let mut stop = stop.clone();
        loop {
            let uids: HashSet<String> =
                stores.iter().flat_map(Store::state).filter_map(|user| user.meta().uid.clone()).collect();
            metrics.resources.set(i64::try_from(uids.len()).unwrap_or(i64::MAX));
            remembered.keep_only(&uids);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(15)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    };
    futures::join!(join_all(runs), listed);
    let _ = served.await;
    tracing::info!("stopped; no pass is left unfinished");
    Ok(())
}

async fn pass(user: Arc<Guarded>, context: Arc<Context>) -> Result<Action, std::convert::Infallible> {
    let user = match &user.0 {
        Ok(user) => user,
        Err(error) => {
            // One resource that cannot be read must not stop the others.
            tracing::warn!(name = ?error.metadata.name, namespace = ?error.metadata.namespace, %error, "a resource cannot be read");
            return Ok(Action::await_change());
        }
    };
    let span = tracing::info_span!(
        "pass",
        namespace = user.metadata.namespace.as_deref().unwrap_or_default(),
        name = user.metadata.name.as_deref().unwrap_or_default(),
    );
    // A defect that panics costs one resource a minute, not the others their operator.
    let next = std::panic::AssertUnwindSafe(Box::pin(reconcile::reconcile(user, &context)))
        .catch_unwind()
        .instrument(span)
        .await;
    Ok(Action::requeue(next.unwrap_or(Duration::from_mins(1))))
}

fn apis(client: &Client, namespaces: &[String]) -> Vec<Api<Guarded>> {
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

/// True once the process was asked to stop.
fn stop_signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            if let Ok(mut terminate) = signal(SignalKind::terminate()) {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        tracing::info!("asked to stop; finishing the passes under way");
        let _ = sender.send(true);
        // The sender stays: a closed channel would look like a stop to nobody.
        std::future::pending::<()>().await;
    });
    receiver
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
