//! HTTP server for `/metrics`, `/livez` and `/readyz`. No endpoint calls AWS.

use std::{
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
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{sleep, timeout},
};

use super::{bounded_tasks::BoundedTasks, metrics::Metrics, metrics_auth::MetricsAuth};

/// Without a limit, clients could use up the file descriptors that the operator needs for the API server and AWS. A new
/// connection replaces the oldest: the kubelet restarts the pod if its probe has to wait behind idle connections.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may be idle and send the head of a request. A client that scrapes once a minute keeps its connection.
/// Not a usual scrape interval: a request that is sent while the server closes the connection is lost.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(77);
/// Bounds clients that do not read the response. Not a multiple of a usual scrape interval either.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(307);
/// How long the current response may take at shutdown or at the maximum age of the connection.
const GRACEFUL_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct ServerState {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
    /// `None`: `/metrics` needs no token.
    pub(super) metrics_auth: Option<Arc<MetricsAuth>>,
}

/// Serves until `shutdown`.
pub(super) async fn serve<L: Listener>(listener: L, state: ServerState, shutdown: impl Future<Output = ()> + Send) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(state);
    serve_router(listener, router, MAX_CONNECTIONS, shutdown).await;
}

/// Serves until `shutdown`, then completes the current responses. Not `axum::serve`, which limits neither the number nor the
/// age of connections.
async fn serve_router<L: Listener>(
    mut listener: L,
    router: Router,
    max_connections: usize,
    shutdown: impl Future<Output = ()> + Send,
) {
    // Dropping the sender signals the shutdown to all connections.
    let (stop, stopped) = watch::channel(());
    let mut connections = BoundedTasks::new(max_connections);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (io, _) = listener.accept() => connections.spawn(serve_connection(io, router.clone(), stopped.clone())),
        }
    }
    drop(listener);
    drop(stop);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection until the client closes it, it reaches its maximum age, or the server stops.
async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Io,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), TowerToHyperService::new(router)));
    tokio::select! {
        // Ignore client disconnects.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
        () = sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACEFUL_CLOSE_TIMEOUT, connection).await;
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
        time::Instant,
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
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    impl Server {
        fn start(max_connections: usize) -> Self {
            let (backlog, connections) = mpsc::unbounded_channel();
            let (stop, stopped) = oneshot::channel::<()>();
            let router = Router::new()
                .route("/", get(|| async { "ok" }))
                .route("/large", get(|| async { "large ".repeat(100_000) }));
            let task = tokio::spawn(serve_router(Backlog(connections), router, max_connections, async {
                let _ = stopped.await;
            }));
            Self { backlog, stop, task }
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

    /// Reads the response of `/`; the connection stays open.
    async fn read_response(client: &mut DuplexStream) {
        let mut received = Vec::new();
        while !received.ends_with(b"ok") {
            assert_ne!(client.read_buf(&mut received).await.unwrap(), 0, "closed after {received:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_and_slow_requests_are_closed() {
        let server = Server::start(3);
        let mut idle = server.get("/").await;
        read_response(&mut idle).await;
        let start = Instant::now();
        let (silent, slow) = (server.send("").await, server.send("GET / HTTP/1.1\r\nhost:").await);
        for mut client in [idle, silent, slow] {
            let closed = timeout(REQUEST_HEAD_TIMEOUT + MARGIN, client.read_to_end(&mut Vec::new())).await;
            assert!(closed.is_ok(), "it is closed in time");
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= REQUEST_HEAD_TIMEOUT && elapsed < REQUEST_HEAD_TIMEOUT + MARGIN, "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn new_connection_replaces_the_oldest_at_the_limit() {
        let server = Server::start(2);
        let (mut first, mut second) = (server.get("/").await, server.get("/").await);
        read_response(&mut first).await;
        read_response(&mut second).await;
        let mut third = server.get("/").await;
        timeout(MARGIN, read_response(&mut third)).await.expect("a probe is answered at the limit");
        let closed = timeout(MARGIN, first.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "the oldest is closed");
        assert!(timeout(MARGIN, second.read_u8()).await.is_err(), "the other one stays open");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_does_not_read_is_disconnected() {
        let server = Server::start(1);
        let mut client = server.get("/large").await;
        sleep(MAX_CONNECTION_AGE + GRACEFUL_CLOSE_TIMEOUT + MARGIN).await;
        let mut received = Vec::new();
        let closed = timeout(MARGIN, client.read_to_end(&mut received)).await;
        assert!(closed.is_ok() && received.len() < 10_000, "{} bytes", received.len());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_does_not_delay_shutdown() {
        let server = Server::start(2);
        let mut idle = server.get("/").await;
        read_response(&mut idle).await;
        server.stop.send(()).unwrap();
        timeout(MARGIN, server.task).await.expect("it stops").unwrap();
    }
}
