//! HTTP server for `/metrics`, `/livez` and `/readyz`. No endpoint calls AWS.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{metrics::Metrics, metrics_auth::MetricsAuth};

const LIMITS: Limits = Limits { connections: 256, scrapes: 32 };
/// How long a connection may take to send the head of its request.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum age of a connection: bounds clients that do not read the response. Longer than Prometheus' scrape timeout.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// Without limits, clients could use up the file descriptors that the operator needs for the API server and AWS.
#[derive(Clone, Copy)]
struct Limits {
    /// Open connections. A new one replaces the oldest that has not sent its request, and is refused if there is none.
    connections: usize,
    /// Connections with a response of `/metrics`. Less than `connections`: the kubelet restarts the pod if its probes have to
    /// wait for slow scrapers, and only those can occupy a connection for longer than a request takes.
    scrapes: usize,
}

#[derive(Clone)]
pub(super) struct ServerState {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
    /// `None`: `/metrics` needs no token.
    pub(super) metrics_auth: Option<Arc<MetricsAuth>>,
}

/// Serves until `shutdown`.
pub(super) async fn serve<L: Listener>(listener: L, state: ServerState, shutdown: impl Future<Output = ()> + Send) {
    let probes =
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz)).with_state(state.clone());
    let scrapes = Router::new().route("/metrics", get(metrics)).with_state(state);
    serve_routers(listener, probes, scrapes, LIMITS, shutdown).await;
}

/// Serves until `shutdown`, then completes the current responses. Not `axum::serve`, which limits neither the number nor the
/// age of connections.
async fn serve_routers<L: Listener>(
    mut listener: L,
    probes: Router,
    scrapes: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let permits = Arc::new(Semaphore::new(limits.scrapes));
    let router = probes.merge(scrapes.layer(middleware::from_fn_with_state(permits, limit_scrapes)));
    // Dropping the sender signals the shutdown to all connections.
    let (stop, stopped) = watch::channel(());
    let mut connections = Connections::new(limits.connections);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.tasks.join_next() => {}
            (io, _) = listener.accept() => if connections.admit() {
                let progress = Arc::<ConnectionProgress>::default();
                let connection = serve_connection(io, router.clone(), Arc::clone(&progress), stopped.clone());
                connections.spawn(connection, progress);
                // Lets it read a request that was sent already, before the next one may close it.
                tokio::task::yield_now().await;
            },
        }
    }
    drop(listener);
    drop(stop);
    while connections.tasks.join_next().await.is_some() {}
}

/// How far a connection is. It serves one request.
#[derive(Default)]
struct ConnectionProgress {
    /// The head of its request was read.
    is_answered: AtomicBool,
    /// Held until the connection ends, as the client may read the response slowly.
    scrape_permit: Mutex<Option<OwnedSemaphorePermit>>,
}

/// The open connections, at most `max`.
struct Connections {
    max: usize,
    tasks: JoinSet<()>,
    oldest_first: VecDeque<(AbortHandle, Arc<ConnectionProgress>)>,
}

impl Connections {
    fn new(max: usize) -> Self {
        Self { max, tasks: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    /// Whether another connection may be served. At the limit, closes the oldest one without a request, if there is any.
    fn admit(&mut self) -> bool {
        self.oldest_first.retain(|(task, _)| !task.is_finished());
        if self.oldest_first.len() < self.max {
            return true;
        }
        let idle = self.oldest_first.iter().position(|(_, progress)| !progress.is_answered.load(Ordering::Relaxed));
        let Some((task, _)) = idle.and_then(|index| self.oldest_first.remove(index)) else { return false };
        task.abort();
        true
    }

    fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static, progress: Arc<ConnectionProgress>) {
        self.oldest_first.push_back((self.tasks.spawn(connection), progress));
    }
}

/// Serves one request, until the client closes the connection, it reaches its maximum age, or the server stops before the request.
async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Io,
    router: Router,
    progress: Arc<ConnectionProgress>,
    mut stopped: watch::Receiver<()>,
) {
    let service = {
        let progress = Arc::clone(&progress);
        router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
            progress.is_answered.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Arc::clone(&progress));
            next.run(request)
        }))
    };
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().keep_alive(false).timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    let connection = http.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = pin!(timeout(MAX_CONNECTION_AGE, connection));
    tokio::select! {
        // Ignore client disconnects.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
    }
    if progress.is_answered.load(Ordering::Relaxed) {
        let _ = connection.await;
    }
}

/// Admits a limited number of connections to `/metrics`.
async fn limit_scrapes(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(permit) = permits.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes are under way\n").into_response();
    };
    if let Some(progress) = request.extensions().get::<Arc<ConnectionProgress>>() {
        *progress.scrape_permit.lock() = Some(permit);
    }
    next.run(request).await
}

async fn metrics(State(state): State<ServerState>, headers: HeaderMap) -> Response {
    if let Some(metrics_auth) = &state.metrics_auth
        && let Err((status, message)) = metrics_auth.authorize(&headers).await
    {
        return (status, [(WWW_AUTHENTICATE, "Bearer")], message).into_response();
    }
    let content_type = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (content_type, state.metrics.encode()).into_response()
}

async fn readyz(State(state): State<ServerState>) -> (StatusCode, &'static str) {
    if state.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "AwsDeployUsers are not listed yet\n")
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::{mpsc, oneshot},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::*;

    const MARGIN: Duration = Duration::from_secs(1);

    /// Connections of a test; the channel stands for the backlog of a socket.
    struct Backlog(mpsc::UnboundedReceiver<DuplexStream>);

    impl Listener for Backlog {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (Self::Io, Self::Addr) {
            match self.0.recv().await {
                Some(io) => (io, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<Self::Addr> {
            Ok(())
        }
    }

    struct Server {
        backlog: mpsc::UnboundedSender<DuplexStream>,
        /// Permits the responses of `/slow`.
        release: Arc<Semaphore>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    impl Server {
        fn start(connections: usize, scrapes: usize) -> Self {
            let (backlog, incoming) = mpsc::unbounded_channel();
            let (stop, stopped) = oneshot::channel::<()>();
            let release = Arc::new(Semaphore::new(0));
            let released = Arc::clone(&release);
            let probes = Router::new().route("/", get(|| async { "ok" })).route(
                "/slow",
                get(|| async move {
                    let _ = released.acquire().await;
                    "ok"
                }),
            );
            let scrapes_router = Router::new().route("/large", get(|| async { "large ".repeat(100_000) }));
            let limits = Limits { connections, scrapes };
            let task = tokio::spawn(serve_routers(Backlog(incoming), probes, scrapes_router, limits, async {
                let _ = stopped.await;
            }));
            Self { backlog, release, stop, task }
        }

        async fn send(&self, bytes: &str) -> DuplexStream {
            let (mut client, server) = duplex(4096);
            client.write_all(bytes.as_bytes()).await.unwrap();
            self.backlog.send(server).unwrap();
            client
        }

        async fn get(&self, path: &str) -> DuplexStream {
            self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await
        }
    }

    /// The response, until the server closes the connection.
    async fn response(mut client: DuplexStream) -> String {
        let mut received = Vec::new();
        timeout(MARGIN, client.read_to_end(&mut received)).await.expect("it is closed").unwrap();
        String::from_utf8(received).unwrap()
    }

    fn is_ok(response: &str) -> bool {
        response.starts_with("HTTP/1.1 200") && response.ends_with("ok")
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_closed_after_its_response() {
        let server = Server::start(2, 1);
        let answer = response(server.get("/").await).await;
        assert!(is_ok(&answer) && answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_and_slow_requests_are_closed() {
        let server = Server::start(3, 1);
        let start = Instant::now();
        let (silent, slow) = (server.send("").await, server.send("GET / HTTP/1.1\r\nhost:").await);
        for mut client in [silent, slow] {
            let closed = timeout(REQUEST_HEAD_TIMEOUT + MARGIN, client.read_to_end(&mut Vec::new())).await;
            assert!(closed.is_ok(), "it is closed in time");
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= REQUEST_HEAD_TIMEOUT && elapsed < REQUEST_HEAD_TIMEOUT + MARGIN, "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn flood_closes_idle_connections_and_none_that_is_answered() {
        let server = Server::start(3, 1);
        // The oldest connection: it is answered while the flood passes.
        let slow = server.get("/slow").await;
        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(server.send("").await);
            assert!(is_ok(&response(server.get("/").await).await), "a probe is answered during the flood");
        }
        assert_eq!(response(idle.remove(0)).await, "", "the oldest idle connection is closed");
        server.release.add_permits(1);
        assert!(is_ok(&response(slow).await));
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_refused_while_all_others_are_answered() {
        let server = Server::start(2, 1);
        let slow = [server.get("/slow").await, server.get("/slow").await];
        assert_eq!(response(server.get("/").await).await, "");
        server.release.add_permits(2);
        for client in slow {
            assert!(is_ok(&response(client).await));
        }
        assert!(is_ok(&response(server.get("/").await).await));
    }

    #[tokio::test(start_paused = true)]
    async fn probes_are_answered_while_clients_read_no_metrics() {
        let server = Server::start(4, 2);
        let mut unread = vec![server.get("/large").await, server.get("/large").await];
        for _ in 0..10 {
            let refused = server.get("/large").await;
            assert!(response(refused).await.starts_with("HTTP/1.1 503"), "only two scrapes at a time");
            assert!(is_ok(&response(server.get("/").await).await));
        }
        drop(unread.pop());
        // The paused clock advances when the server has nothing left to do.
        sleep(MARGIN).await;
        let answer = response(server.get("/large").await).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > 600_000, "a scrape that ended returns its permit");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_does_not_read_is_disconnected() {
        let server = Server::start(1, 1);
        let mut client = server.get("/large").await;
        sleep(MAX_CONNECTION_AGE + MARGIN).await;
        let mut received = Vec::new();
        let closed = timeout(MARGIN, client.read_to_end(&mut received)).await;
        assert!(closed.is_ok() && received.len() < 10_000, "{} bytes", received.len());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_responses_and_not_for_idle_clients() {
        let server = Server::start(3, 1);
        let (idle, slow) = (server.send("").await, server.get("/slow").await);
        assert!(is_ok(&response(server.get("/").await).await), "all are accepted");
        server.stop.send(()).unwrap();
        assert_eq!(response(idle).await, "");
        server.release.add_permits(1);
        assert!(is_ok(&response(slow).await));
        timeout(MARGIN, server.task).await.expect("it stops").unwrap();
    }
}
