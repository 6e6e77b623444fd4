//! Runs the controllers, leader election and the HTTP server; shuts down gracefully.

use std::{
    error::Error,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt as _, future::join_all};
use kube::{
    Api, Client, Config,
    api::ListParams,
    runtime::{Controller, controller, reflector::Store},
};
use rustls::crypto::aws_lc_rs;
use tokio::{net::TcpListener, sync::watch};

use super::{
    error::RunError,
    leader::Leadership,
    metrics::Metrics,
    metrics_auth::MetricsAuth,
    server::{self, ServerState},
    settings::OperatorSettings,
    telemetry::Telemetry,
    tls::{CertificateFiles, ServingCertificate, TlsListener},
};
use crate::{
    aws::{ClientSettings, IamClients},
    cluster::{
        self, AuthorizationCache, ClusterError, GuardedUser, SecretAccess, TokenReviewer, UserStores, user_stores,
    },
    domain::{
        account,
        secret::{MAC_KEY_BYTES, MacKeys},
    },
    reconcile::{
        self, ClassContext, Context, Installation, ReconcileLanes, Watched, class_error_policy, reconcile_class,
    },
};

/// Bounds how long open HTTP connections delay the shutdown.
const HTTP_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often journals of resources without a finalizer are looked for.
const JOURNAL_COLLECTION_INTERVAL: Duration = Duration::from_hours(1);
/// How often the state of deleted resources and unused roles is dropped from memory.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(15);

/// Runs until a shutdown signal; then completes the running reconciles.
///
/// # Errors
/// Only during startup. Later failures are retried.
pub async fn run(settings: OperatorSettings, metrics: Arc<Metrics>, telemetry: Telemetry) -> Result<(), RunError> {
    let result = run_operator(settings, metrics, &telemetry).await;
    telemetry.shutdown().await;
    result
}

async fn run_operator(
    settings: OperatorSettings,
    metrics: Arc<Metrics>,
    telemetry: &Telemetry,
) -> Result<(), RunError> {
    settings.validate().map_err(RunError::InvalidSetting)?;
    let mut config = Config::infer().await?;
    // Only reconciles retry: a client that repeats a write turns a lost response into a conflict.
    config.default_retry = false;
    let client = cluster::build_client(config, telemetry.is_tracing()).map_err(Box::new)?;
    let ready = Arc::new(AtomicBool::new(false));

    let listener = TcpListener::bind(settings.metrics_bind_address)
        .await
        .map_err(|error| RunError::Listen(settings.metrics_bind_address, error))?;
    let shutdown = shutdown_signal();
    let metrics_auth = settings.requires_metrics_token().then(|| {
        let reviewer = TokenReviewer::new(client.clone(), settings.metrics_audience.clone());
        Arc::new(MetricsAuth::new(reviewer))
    });
    let state = ServerState { metrics: Arc::clone(&metrics), ready: Arc::clone(&ready), metrics_auth };
    let stopped = wait_for_true(shutdown.clone());
    let server = match load_certificate(&settings, &metrics)? {
        Some(certificate) => tokio::spawn(server::serve(TlsListener::new(listener, certificate), state, stopped)),
        None => tokio::spawn(server::serve(listener, state, stopped)),
    };

    let apis = user_apis(&client, &settings.watch_namespaces);
    for api in &apis {
        let listed = api.list(&ListParams::default().limit(1)).await;
        listed.map_err(|error| RunError::from_first_list("AwsDeployUsers", &error))?;
    }
    AuthorizationCache::check_list_access(client.clone())
        .await
        .map_err(|(kind, error)| RunError::from_first_list(kind, &error))?;
    let cluster_id = match settings.cluster_id.clone() {
        Some(id) => id,
        None => cluster::cluster_id(client.clone()).await?,
    };
    let current_user = cluster::current_user(client.clone()).await?;
    let namespace = settings.namespace.as_deref().unwrap_or(client.default_namespace()).to_owned();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster_id,
        current_user,
        namespace,
        namespaces =
            if settings.watch_namespaces.is_empty() { "all".to_owned() } else { settings.watch_namespaces.join(",") },
        leader_elect = settings.leader_elect,
        "starting operator"
    );
    let leadership = if settings.leader_elect {
        Leadership::elect(client.clone(), &namespace, &settings.lease_name, settings.lease_duration).await?
    } else {
        Leadership::without_election()
    };
    let term = LeadershipTerm {
        settings: &settings,
        client,
        current_user,
        namespace,
        cluster_id,
        metrics: &metrics,
        ready: &ready,
    };
    let mut result = Ok(());
    while wait_for_leadership(leadership.watch(), shutdown.clone(), &ready).await {
        // Each term starts with empty caches: another leader may have changed what an earlier term cached.
        match cluster::load_or_create_mac_keys(term.client.clone(), &term.namespace, random_mac_key).await {
            Ok(mac_keys) => {
                Box::pin(term.run(&apis, mac_keys, wait_for_term_end(leadership.watch(), shutdown.clone()))).await;
            }
            Err(error) => {
                result = Err(error.into());
                break;
            }
        }
    }
    // After the last reconcile, so that it does not overlap with reconciles of the next leader.
    leadership.release().await;
    // A client that keeps its connection open must not block the shutdown.
    let _ = tokio::time::timeout(HTTP_SHUTDOWN_TIMEOUT, server).await;
    tracing::info!("stopped operator");
    result
}

fn random_mac_key() -> Option<Vec<u8>> {
    let mut key = vec![0; MAC_KEY_BYTES];
    aws_lc_rs::default_provider().secure_random.fill(&mut key).ok().map(|()| key)
}

/// `None`: the HTTP server does not use TLS.
fn load_certificate(
    settings: &OperatorSettings,
    metrics: &Arc<Metrics>,
) -> Result<Option<ServingCertificate>, RunError> {
    let (Some(certificate), Some(key)) = (settings.metrics_tls_cert.clone(), settings.metrics_tls_key.clone()) else {
        return Ok(None);
    };
    let loaded = ServingCertificate::load(CertificateFiles { certificate, key }, Arc::clone(metrics));
    loaded.map(Some).map_err(|why| RunError::InvalidSetting(format!("--metrics-tls-cert and --metrics-tls-key: {why}")))
}

/// Waits until this replica is the leader; false at shutdown or when the Lease is not renewed any more. A standby replica is
/// ready: a rollout must not wait until it becomes the leader.
async fn wait_for_leadership(
    mut is_leader: watch::Receiver<bool>,
    mut shutdown: watch::Receiver<bool>,
    ready: &AtomicBool,
) -> bool {
    if *shutdown.borrow() {
        return false;
    }
    // A closed channel keeps its last value, which may be true.
    if is_leader.has_changed().is_err() {
        return report_renewal_end();
    }
    if *is_leader.borrow() {
        return true;
    }
    ready.store(true, Ordering::Relaxed);
    tracing::info!("standing by until this replica becomes the leader");
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|shutdown| *shutdown) => false,
        elected = is_leader.wait_for(|is_leader| *is_leader) => elected.is_ok() || report_renewal_end(),
    }
}

/// Without the renewal task this process never becomes the leader again; it exits, and Kubernetes restarts it.
fn report_renewal_end() -> bool {
    tracing::error!("renewal of the Lease has ended, exiting so that the container is restarted");
    false
}

/// A term ends at shutdown, or when the Lease is lost or not renewed any more.
async fn wait_for_term_end(mut is_leader: watch::Receiver<bool>, shutdown: watch::Receiver<bool>) {
    tokio::select! {
        () = wait_for_true(shutdown) => {}
        _ = is_leader.wait_for(|is_leader| !*is_leader) => {
            tracing::warn!("lost the Lease, completing running reconciles");
        }
    }
}

/// A period in which this replica is the leader.
struct LeadershipTerm<'a> {
    settings: &'a OperatorSettings,
    client: Client,
    current_user: String,
    namespace: String,
    cluster_id: String,
    metrics: &'a Arc<Metrics>,
    ready: &'a AtomicBool,
}

impl LeadershipTerm<'_> {
    /// Runs the controllers until `term_end`, and returns after the last reconcile.
    async fn run(&self, apis: &[Api<GuardedUser>], mac_keys: MacKeys, term_end: impl Future<Output = ()>) {
        let mut term_end = std::pin::pin!(term_end);
        let (rules, rules_watch) = AuthorizationCache::watch(self.client.clone());
        let mut rules_watch = std::pin::pin!(rules_watch);
        // Before the first list has completed, every class seems to be deleted: no reconcile starts.
        tokio::select! {
            () = &mut term_end => return,
            () = &mut rules_watch => return,
            () = rules.wait_until_ready() => {}
        }
        let users_changed = watch::Sender::default();
        let lanes = Arc::new(ReconcileLanes::default());
        let (stores, controllers): (Vec<_>, Vec<_>) = apis
            .iter()
            .map(|api| {
                let (store, changes) = user_stores::watch(api.clone(), users_changed.clone());
                let lanes = Arc::clone(&lanes);
                let changes = changes.inspect_ok(move |changed| lanes.record_change(changed));
                // Not limited here: the limit would be shared by all accounts, and one of them could use it up.
                let controller = Controller::for_stream(changes, store.clone());
                (store, controller.reconcile_all_on(rules.debounced_changes()))
            })
            .unzip();
        let resources = UserStores::new(stores.clone(), users_changed);
        let context = Arc::new(self.context(Watched { rules, resources, lanes }, mac_keys).await);
        let (end, ended) = watch::channel(false);
        let term_end = async {
            term_end.await;
            context.close();
            let _ = end.send(true);
        };
        let user_controllers = controllers.into_iter().map(|controller| {
            let controller = controller.graceful_shutdown_on(wait_for_true(ended.clone()));
            let results = controller.run(reconcile::reconcile, reconcile::error_policy, Arc::clone(&context));
            results.for_each(|result| log_watch_error("AwsDeployUsers", result))
        });
        let user_controllers = join_all(user_controllers);
        self.metrics.set_leader(stores.clone());
        let class_controller = async {
            if self.settings.class_status {
                // The number of users is not known before.
                let _ = join_all(stores.iter().map(Store::wait_until_ready)).await;
                self.run_class_controller(Arc::clone(&context), ended.clone()).await;
            }
            std::future::pending::<()>().await;
        };
        let class_changes = context.rules.debounced_changes().for_each(async |()| context.record_class_changes());
        let class_changes = async {
            class_changes.await;
            std::future::pending::<()>().await;
        };
        let cleanup = self.drop_unused_state(&stores, &context, ended.clone());
        let collector = self.collect_stale_journals(&stores, &context);
        // The watches run as long as a reconcile may read their stores. A class reconcile is dropped with the term: an
        // account that does not respond must not delay the shutdown.
        tokio::select! {
            () = rules_watch => {}
            () = class_controller => {}
            () = class_changes => {}
            () = collector => {}
            _ = async { futures::join!(term_end, user_controllers, cleanup) } => {}
        }
        self.metrics.set_standby();
    }

    async fn context(&self, watched: Watched, mac_keys: MacKeys) -> Context {
        let settings = self.settings;
        let accounts = IamClients::connect(ClientSettings {
            calls_per_second: settings.aws_rate,
            observer: Arc::clone(self.metrics) as _,
            session_name: account::session_name(&self.cluster_id),
        })
        .await;
        let access = SecretAccess::new(
            self.client.clone(),
            self.current_user.clone(),
            settings.secrets_cluster_role.clone(),
            settings.restarts_cluster_role.clone(),
        );
        Context::new(
            self.client.clone(),
            watched,
            accounts,
            access,
            Installation { namespace: self.namespace.clone(), cluster_id: self.cluster_id.clone(), mac_keys },
            settings.reconcile_settings(),
            Arc::clone(self.metrics) as _,
        )
    }

    /// Updates class status until the end of the term.
    async fn run_class_controller(&self, context: Arc<Context>, ended: watch::Receiver<bool>) {
        let context = Arc::new(ClassContext::new(context));
        Controller::new(Api::all(self.client.clone()), cluster::watch_config())
            .reconcile_all_on(context.triggers())
            .graceful_shutdown_on(wait_for_true(ended))
            .run(reconcile_class, class_error_policy, context)
            .for_each(|result| log_watch_error("AwsDeployUserClasses", result))
            .await;
    }

    /// Marks the replica ready after the first list, then drops what is cached of deleted resources and unused roles.
    async fn drop_unused_state(
        &self,
        stores: &[Store<GuardedUser>],
        context: &Context,
        mut ended: watch::Receiver<bool>,
    ) {
        let _ = join_all(stores.iter().map(Store::wait_until_ready)).await;
        self.ready.store(true, Ordering::Relaxed);
        let count = stores.iter().map(|store| store.state().len()).sum::<usize>();
        tracing::info!(count, "listed AwsDeployUsers");
        loop {
            context.keep_only(&context.resources.uids());
            context.keep_accounts();
            self.metrics.drop_deleted_resources();
            tokio::select! {
                () = tokio::time::sleep(CLEANUP_INTERVAL) => {}
                _ = ended.wait_for(|ended| *ended) => break,
            }
        }
    }

    /// Deletes journals that resources left behind, at the start of the term and each hour. Dropped with the term.
    async fn collect_stale_journals(&self, stores: &[Store<GuardedUser>], context: &Context) {
        // Before the first list has completed, every resource seems to be deleted.
        let _ = join_all(stores.iter().map(Store::wait_until_ready)).await;
        loop {
            reconcile::collect_stale_journals(context, &self.settings.watch_namespaces).await;
            tokio::time::sleep(JOURNAL_COLLECTION_INTERVAL).await;
        }
    }
}

/// kube retries a failed watch; the log explains why no reconcile starts meanwhile.
fn log_watch_error<T, E: Error + 'static>(
    kind: &str,
    result: Result<T, controller::Error<E, kube::runtime::watcher::Error>>,
) -> Ready<()> {
    match result {
        Err(controller::Error::QueueError(error)) => {
            let error = ClusterError::from_watch(kind, &error);
            tracing::warn!(%error, kind, "watch failed, retrying");
        }
        Err(controller::Error::RunnerError(error)) => tracing::warn!(%error, kind, "controller failed, retrying"),
        _ => {}
    }
    ready(())
}

fn user_apis(client: &Client, namespaces: &[String]) -> Vec<Api<GuardedUser>> {
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

/// True after SIGTERM or Ctrl-C.
fn shutdown_signal() -> watch::Receiver<bool> {
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
        tracing::info!("received shutdown signal, completing running reconciles");
        let _ = sender.send(true);
        // Keeps the channel open: receivers treat a closed channel as a shutdown.
        std::future::pending::<()>().await;
    });
    receiver
}

/// Also returns when the channel is closed.
async fn wait_for_true(mut value: watch::Receiver<bool>) {
    let _ = value.wait_for(|value| *value).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn end_of_renewal_ends_the_process_of_a_leader() {
        let ((_shutdown, shutdown), ready) = (watch::channel(false), AtomicBool::new(false));
        let (sender, is_leader) = watch::channel(true);
        let renewal = tokio::spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        assert!(wait_for_leadership(is_leader.clone(), shutdown.clone(), &ready).await);
        assert_eq!(wait_for_term_end(is_leader.clone(), shutdown.clone()).now_or_never(), None, "it is the leader");
        renewal.abort();
        assert!(renewal.await.is_err());
        assert_eq!(wait_for_term_end(is_leader.clone(), shutdown.clone()).now_or_never(), Some(()), "no renewal");
        assert_eq!(wait_for_leadership(is_leader, shutdown, &ready).now_or_never(), Some(false), "no further term");
    }

    #[tokio::test]
    async fn end_of_renewal_ends_the_process_of_a_standby() {
        let ((_shutdown, shutdown), ready) = (watch::channel(false), AtomicBool::new(false));
        let (renewal, is_leader) = watch::channel(false);
        let mut waiting = std::pin::pin!(wait_for_leadership(is_leader, shutdown, &ready));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(renewal);
        assert!(!waiting.await);
    }

    #[tokio::test]
    async fn replica_without_election_leads_until_shutdown() {
        let ((shutdown, stopping), ready) = (watch::channel(false), AtomicBool::new(false));
        let leadership = Leadership::without_election();
        assert!(wait_for_leadership(leadership.watch(), stopping.clone(), &ready).await);
        let mut term_end = std::pin::pin!(wait_for_term_end(leadership.watch(), stopping.clone()));
        assert_eq!(term_end.as_mut().now_or_never(), None);
        shutdown.send(true).unwrap();
        term_end.await;
        assert!(!wait_for_leadership(leadership.watch(), stopping, &ready).await);
    }
}
