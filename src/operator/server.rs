//! `/metrics`, `/livez`, `/readyz`. None of them asks AWS anything.

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

/// Connections at the same time. Probes and scrapers need a handful; without a limit whoever reaches the port could use up
/// the file descriptors that the operator needs for the API server and AWS. For who comes beyond, the oldest has to go: a
/// kubelet's probe that waited behind idle guests would restart the pod.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, the silence before it included. Who asks once a minute keeps the connection. No
/// usual interval between two questions: one that is sent when the connection is closed is lost.
const HEAD_LIMIT: Duration = Duration::from_secs(77);
/// How long a connection is served. Who does not read its answer, or asks without end, would keep its place for ever. No
/// multiple of a usual interval either.
const CONNECTION_LIMIT: Duration = Duration::from_secs(307);
/// How long the answer under way may take when a connection is to end.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// What the endpoints show.
#[derive(Clone)]
pub(super) struct ServerState {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
    /// Who may read the metrics; absent: everybody who reaches them.
    pub(super) metrics_auth: Option<Arc<MetricsAuth>>,
}

/// Serves until `shutdown`.
pub(super) async fn serve<L: Listener>(listener: L, shown: ServerState, shutdown: impl Future<Output = ()> + Send) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shown);
    answer(listener, router, CONNECTIONS, shutdown).await;
}

/// Answers on at most so many connections at the same time until `shutdown`, and ends with the last answer under way. Not
/// `axum::serve`, which limits neither their number nor their time.
async fn answer<L: Listener>(mut listener: L, router: Router, most: usize, shutdown: impl Future<Output = ()> + Send) {
    // Nothing is ever sent: its end is what all connections hear.
    let (stop, stopped) = watch::channel(());
    let mut connections = BoundedTasks::new(most);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.next() => {}
            (io, _) = listener.accept() => connections.admit(converse(io, router.clone(), stopped.clone())),
        }
    }
    drop(listener);
    drop(stop);
    while connections.next().await.is_some() {}
}

/// Answers on one connection until its client has enough, its time is up or the server stops.
async fn converse<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Io,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let mut answers = pin!(http.serve_connection(TokioIo::new(io), TowerToHyperService::new(router)));
    tokio::select! {
        // How a client went is its own affair.
        _ = answers.as_mut() => return,
        _ = stopped.changed() => {}
        () = sleep(CONNECTION_LIMIT) => {}
    }
    answers.as_mut().graceful_shutdown();
    let _ = timeout(LAST_LIMIT, answers).await;
}

async fn metrics(State(shown): State<ServerState>, headers: HeaderMap) -> Response {
    if let Some(metrics_auth) = &shown.metrics_auth
        && let Err((status, why)) = metrics_auth.admit(&headers).await
    {
        return (status, [(WWW_AUTHENTICATE, "Bearer")], why).into_response();
    }
    let kind = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, shown.metrics.text()).into_response()
}

async fn readyz(State(shown): State<ServerState>) -> (StatusCode, &'static str) {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the resources are not listed yet\n")
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

    const MOMENT: Duration = Duration::from_secs(1);

    /// Connections that a test makes; one that is not accepted stays in the channel, as it would in a backlog.
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
        served: JoinHandle<()>,
    }

    impl Server {
        fn with_room_for(most: usize) -> Self {
            let (backlog, arrivals) = mpsc::unbounded_channel();
            let (stop, stopped) = oneshot::channel::<()>();
            let router = Router::new()
                .route("/", get(|| async { "here" }))
                .route("/much", get(|| async { "a lot ".repeat(100_000) }));
            let served = tokio::spawn(answer(Backlog(arrivals), router, most, async {
                let _ = stopped.await;
            }));
            Self { backlog, stop, served }
        }

        async fn told(&self, what: &str) -> DuplexStream {
            let (mut client, server) = duplex(4096);
            client.write_all(what.as_bytes()).await.unwrap();
            self.backlog.send(server).unwrap();
            client
        }

        async fn asked(&self, path: &str) -> DuplexStream {
            self.told(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await
        }
    }

    /// Reads the short answer; the connection stands after it.
    async fn heard(client: &mut DuplexStream) {
        let mut said = Vec::new();
        while !said.ends_with(b"here") {
            assert_ne!(client.read_buf(&mut said).await.unwrap(), 0, "closed after {said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_request_or_asks_no_other_is_sent_away() {
        let server = Server::with_room_for(3);
        let mut standing = server.asked("/").await;
        heard(&mut standing).await;
        let start = Instant::now();
        let (silent, slow) = (server.told("").await, server.told("GET / HTTP/1.1\r\nhost:").await);
        for mut client in [standing, silent, slow] {
            let closed = timeout(HEAD_LIMIT + MOMENT, client.read_to_end(&mut Vec::new())).await;
            assert!(closed.is_ok(), "it is closed in time");
        }
        assert!(start.elapsed() >= HEAD_LIMIT && start.elapsed() < HEAD_LIMIT + MOMENT, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_beyond_the_limit_is_served_and_the_oldest_is_sent_away() {
        let server = Server::with_room_for(2);
        let (mut first, mut second) = (server.asked("/").await, server.asked("/").await);
        heard(&mut first).await;
        heard(&mut second).await;
        let mut third = server.asked("/").await;
        timeout(MOMENT, heard(&mut third)).await.expect("a probe is answered whoever fills the house");
        let closed = timeout(MOMENT, first.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "somebody had to go");
        assert!(timeout(MOMENT, second.read_u8()).await.is_err(), "and nobody else");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answer_is_sent_away() {
        let server = Server::with_room_for(1);
        let mut deaf = server.asked("/much").await;
        sleep(CONNECTION_LIMIT + LAST_LIMIT + MOMENT).await;
        let mut said = Vec::new();
        let closed = timeout(MOMENT, deaf.read_to_end(&mut said)).await;
        assert!(closed.is_ok() && said.len() < 10_000, "{} bytes", said.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stands_does_not_keep_the_server_from_its_end() {
        let server = Server::with_room_for(2);
        let mut standing = server.asked("/").await;
        heard(&mut standing).await;
        server.stop.send(()).unwrap();
        timeout(MOMENT, server.served).await.expect("an end").unwrap();
    }
}
