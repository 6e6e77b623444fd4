//! The controller: watches resources, runs reconciles, stops gracefully.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    future::{OptionFuture, join_all},
};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    runtime::{
        Controller,
        controller::{self},
        reflector::Store,
    },
};
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
    cluster::{self, AuthorizationCache, GuardedUser, SecretAccess, TokenReviewer, UserStores, user_stores},
    domain::account,
    reconcile::{self, Context, Watched},
};

/// How long whoever reads the metrics at the end of the process may take.
const SERVED_LIMIT: Duration = Duration::from_secs(5);

/// Runs until the process is asked to stop; then finishes the reconciles under way.
///
/// # Errors
/// Only at the start. Once running, faults are waited out.
pub async fn run(settings: OperatorSettings, telemetry: Telemetry) -> Result<(), RunError> {
    let ran = operate(settings, &telemetry).await;
    telemetry.stop().await;
    ran
}

async fn operate(settings: OperatorSettings, telemetry: &Telemetry) -> Result<(), RunError> {
    settings.validate().map_err(RunError::Setting)?;
    let mut config = Config::infer().await?;
    // One layer of retries, ours: a client that repeats writes by itself turns a lost answer into a conflict.
    config.default_retry = false;
    let client = cluster::build_client(config, telemetry.traces()).map_err(Box::new)?;
    let metrics = Arc::new(Metrics::new(settings.metrics_per_resource));
    telemetry.count_in(&metrics);
    let ready = Arc::new(AtomicBool::new(false));

    let listener = TcpListener::bind(settings.metrics_bind_address)
        .await
        .map_err(|error| RunError::Listen(settings.metrics_bind_address, error))?;
    let stop = stop_signal();
    let metrics_auth = settings.metrics_auth.then(|| Arc::new(MetricsAuth::new(TokenReviewer::new(client.clone()))));
    let shown = ServerState { metrics: Arc::clone(&metrics), ready: Arc::clone(&ready), metrics_auth };
    let shutdown = stopped(stop.clone());
    let served = match certificate(&settings, &metrics)? {
        Some(certificate) => tokio::spawn(server::serve(TlsListener::new(listener, certificate), shown, shutdown)),
        None => tokio::spawn(server::serve(listener, shown, shutdown)),
    };

    let apis = apis(&client, &settings.watch_namespaces);
    for api in &apis {
        let listed = api.list(&ListParams::default().limit(1)).await;
        listed.map_err(|error| RunError::from_first_list("AwsDeployUsers", error))?;
    }
    AuthorizationCache::check_list_access(client.clone())
        .await
        .map_err(|(kind, error)| RunError::from_first_list(kind, error))?;
    let cluster_id = match settings.cluster_id.clone() {
        Some(id) => id,
        None => cluster::cluster_id(client.clone()).await?,
    };
    let current_user = cluster::current_user(client.clone()).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster_id,
        current_user,
        namespaces =
            if settings.watch_namespaces.is_empty() { "all".to_owned() } else { settings.watch_namespaces.join(",") },
        leader_elect = settings.leader_elect,
        "starting"
    );
    let leadership = if settings.leader_elect {
        let namespace = settings.lease_namespace.as_deref().unwrap_or(client.default_namespace()).to_owned();
        Leadership::elect(client.clone(), &namespace, &settings.lease_name, settings.lease_duration).await?
    } else {
        Leadership::unquestioned()
    };
    let term =
        LeadershipTerm { settings: &settings, client, current_user, cluster_id, metrics: &metrics, ready: &ready };
    while until_leading(leadership.watch(), stop.clone(), &ready).await {
        // What a leader before us remembers is not ours, and what we remember of an earlier term is old.
        Box::pin(term.lead(&apis, until_over(leadership.watch(), stop.clone()))).await;
    }
    // After the last pass: who comes next must find none under way.
    leadership.release().await;
    // A client that keeps its connection for ever does not keep the process.
    let _ = tokio::time::timeout(SERVED_LIMIT, served).await;
    tracing::info!("stopped; no pass is left unfinished");
    Ok(())
}

/// The certificate of the HTTP endpoints, if they are to speak TLS.
fn certificate(settings: &OperatorSettings, metrics: &Arc<Metrics>) -> Result<Option<ServingCertificate>, RunError> {
    let (Some(certificate), Some(key)) = (settings.metrics_tls_cert.clone(), settings.metrics_tls_key.clone()) else {
        return Ok(None);
    };
    let read = ServingCertificate::read(CertificateFiles { certificate, key }, Arc::clone(metrics));
    read.map(Some).map_err(|why| RunError::Setting(format!("--metrics-tls-cert and --metrics-tls-key: {why}")))
}

/// Waits until this replica leads; false when it is asked to stop before, or when nobody keeps the lease. A replica that
/// stands by is ready: it takes over at once, and a rollout must not wait for it to lead.
async fn until_leading(mut leads: watch::Receiver<bool>, mut stop: watch::Receiver<bool>, ready: &AtomicBool) -> bool {
    if *stop.borrow() {
        return false;
    }
    // The last word of a keeper that has ended stands: by it this replica may lead for ever.
    if leads.has_changed().is_err() {
        return keeper_has_ended();
    }
    if *leads.borrow() {
        return true;
    }
    ready.store(true, Ordering::Relaxed);
    tracing::info!("standing by until this replica leads");
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => false,
        led = leads.wait_for(|leads| *leads) => led.is_ok() || keeper_has_ended(),
    }
}

/// Nobody renews the lease any more, nor tells when this replica leads: it never will again. Kubernetes starts it anew.
fn keeper_has_ended() -> bool {
    tracing::error!("the lease keeper has ended; this process ends too, so that it is started anew");
    false
}

/// The end of a term: the process is asked to stop, another replica has the lease, or nobody tells any more who has it. No
/// pass begins after it.
async fn until_over(mut leads: watch::Receiver<bool>, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(stop) => {}
        // Also when nobody tells any more: then the lease is not renewed.
        _ = leads.wait_for(|leads| !*leads) => tracing::warn!("the lease is lost; finishing the reconciles under way"),
    }
}

/// What a term of leadership needs.
struct LeadershipTerm<'a> {
    settings: &'a OperatorSettings,
    client: Client,
    current_user: String,
    cluster_id: String,
    metrics: &'a Arc<Metrics>,
    ready: &'a AtomicBool,
}

impl LeadershipTerm<'_> {
    /// Runs reconciles until it is over, and returns when the last one has ended.
    async fn lead(&self, apis: &[Api<GuardedUser>], over: impl Future<Output = ()>) {
        let settings = self.settings;
        let mut over = std::pin::pin!(over);
        let (rules, watching) = AuthorizationCache::watch(self.client.clone());
        let mut watching = std::pin::pin!(watching);
        // Before the first list has ended every class seems to be gone: no pass begins.
        tokio::select! {
            () = &mut over => return,
            () = &mut watching => return,
            () = rules.wait_until_ready() => {}
        }
        let (stores, controllers): (Vec<_>, Vec<_>) = apis
            .iter()
            .map(|api| {
                let (store, changes) = user_stores::watch(api.clone());
                // No limit here: it would be one for all accounts together, and one of them could use it up.
                let controller = Controller::for_stream(changes, store.clone());
                (store, controller.reconcile_all_on(rules.debounced_changes()))
            })
            .unzip();
        let watched = Watched { rules, resources: UserStores::new(stores.clone()) };
        let accounts = IamClients::connect(ClientSettings {
            calls_per_second: settings.aws_rate,
            observer: Arc::clone(self.metrics) as _,
            session_name: account::session_name(&self.cluster_id),
        })
        .await;
        let context = Arc::new(Context::new(
            self.client.clone(),
            watched,
            accounts,
            SecretAccess::new(
                self.client.clone(),
                self.current_user.clone(),
                settings.secrets_cluster_role.clone(),
                settings.restarts_cluster_role.clone(),
            ),
            self.cluster_id.clone(),
            settings.reconcile_settings(),
            Arc::clone(self.metrics) as _,
        ));
        let (end, ended) = watch::channel(false);
        let closing = Arc::clone(&context);
        let over = async move {
            over.await;
            closing.close();
            let _ = end.send(true);
            // The sender stays until all have heard of it.
            end.closed().await;
        };
        let mut runs = Vec::new();
        for controller in controllers {
            let controller = controller.graceful_shutdown_on(stopped(ended.clone()));
            let stream = controller.run(reconcile::reconcile, reconcile::error_policy, Arc::clone(&context));
            runs.push(stream.for_each(|result| async move {
                match result {
                    // A failed reconcile has reported itself: in the status, in the log and in Events.
                    Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                    // The watch recovers by itself; the line explains why nothing happens meanwhile.
                    Err(error) => tracing::warn!(%error, "failed to watch AwsDeployUsers"),
                }
            }));
        }
        let reports = settings.class_status.then(|| reconcile::report_on_classes(Arc::clone(&context)));
        self.metrics.leads(stores.clone());
        let mut ended = ended;
        let listed = async move {
            let _ = join_all(stores.iter().map(Store::wait_until_ready)).await;
            self.ready.store(true, Ordering::Relaxed);
            tracing::info!(resources = stores.iter().map(|store| store.state().len()).sum::<usize>(), "listed");
            loop {
                let uids: HashSet<String> =
                    stores.iter().flat_map(Store::state).filter_map(|user| user.meta().uid.clone()).collect();
                context.keep_only(&uids);
                context.keep_accounts();
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(15)) => {}
                    _ = ended.wait_for(|ended| *ended) => break,
                }
            }
        };
        // What is watched is kept up to date for as long as a pass may look at it.
        tokio::select! {
            () = watching => {}
            () = async { OptionFuture::from(reports).await; std::future::pending().await } => {}
            _ = async { futures::join!(over, join_all(runs), listed) } => {}
        }
        self.metrics.stands_by();
    }
}

fn apis(client: &Client, namespaces: &[String]) -> Vec<Api<GuardedUser>> {
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
        tracing::info!("asked to stop; finishing the reconciles under way");
        let _ = sender.send(true);
        // The sender stays: a closed channel would look like a stop to nobody.
        std::future::pending::<()>().await;
    });
    receiver
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_lease_keeper_that_ends_while_this_replica_leads_ends_the_process() {
        let ((_stop, stop), ready) = (watch::channel(false), AtomicBool::new(false));
        let (keeper, leads) = watch::channel(true);
        let keeper = tokio::spawn(async move {
            let _keeper = keeper;
            std::future::pending::<()>().await;
        });
        assert!(until_leading(leads.clone(), stop.clone(), &ready).await);
        assert_eq!(until_over(leads.clone(), stop.clone()).now_or_never(), None, "it leads");
        keeper.abort();
        assert!(keeper.await.is_err());
        assert_eq!(until_over(leads.clone(), stop.clone()).now_or_never(), Some(()), "nobody renews the lease");
        assert_eq!(until_leading(leads, stop, &ready).now_or_never(), Some(false), "no other term begins");
    }

    #[tokio::test]
    async fn a_lease_keeper_that_ends_while_this_replica_stands_by_ends_the_process() {
        let ((_stop, stop), ready) = (watch::channel(false), AtomicBool::new(false));
        let (keeper, leads) = watch::channel(false);
        let mut waiting = std::pin::pin!(until_leading(leads, stop, &ready));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(keeper);
        assert!(!waiting.await);
    }

    #[tokio::test]
    async fn without_election_this_replica_leads_until_it_is_asked_to_stop() {
        let ((stop, stopping), ready) = (watch::channel(false), AtomicBool::new(false));
        let leadership = Leadership::unquestioned();
        assert!(until_leading(leadership.watch(), stopping.clone(), &ready).await);
        let mut over = std::pin::pin!(until_over(leadership.watch(), stopping.clone()));
        assert_eq!(over.as_mut().now_or_never(), None);
        stop.send(true).unwrap();
        over.await;
        assert!(!until_leading(leadership.watch(), stopping, &ready).await);
    }
}
