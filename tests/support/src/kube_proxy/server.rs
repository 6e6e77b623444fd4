//! Listener and request handling.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    call::KubeCall,
    log::KubeLog,
    rules::{Effect, KubeRules},
};
use crate::{
    Result,
    aws_proxy::{HoldOutcome, Phase},
    error::Context as _,
    kubeconfig, ports,
};

/// Responses that are kept for stale reads.
const MAX_CACHED_RESPONSES: usize = 1_000;

type AnyBody = UnsyncBoxBody<Bytes, io::Error>;

/// Closes the connection without a response.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is closed by a fault rule")
    }
}

impl std::error::Error for Dropped {}

/// State of all watches.
#[derive(Clone, Copy, Default)]
struct WatchControl {
    stalled: bool,
    expirations: u64,
}

struct Engine {
    upstream: Client,
    log: KubeLog,
    rules: KubeRules,
    watches: watch::Sender<WatchControl>,
    responses: Mutex<HashMap<String, (StatusCode, Bytes)>>,
}

/// A proxy in front of the API server. Stops when dropped.
pub struct KubeProxy {
    engine: Arc<Engine>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl KubeProxy {
    /// Starts on a free loopback port. Connects to the API server with `kubeconfig`, so with the permissions of the
    /// operator, and writes a kubeconfig for the proxy with the same namespace to `file`.
    pub async fn start(kubeconfig: &Path, file: &Path) -> Result<Self> {
        crate::install_crypto_provider();
        let what = || format!("create a client from {}", kubeconfig.display());
        let read = Kubeconfig::read_from(kubeconfig)
            .map_err(|source| crate::Error::Kubeconfig { path: kubeconfig.to_owned(), source: Box::new(source) })?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .map_err(|source| crate::Error::Kubeconfig { path: kubeconfig.to_owned(), source: Box::new(source) })?;
        // A retry here would hide calls from the log.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let upstream = Client::try_from(config).context(what)?;
        let address = ports::reserve().context(|| "find a port for the Kubernetes proxy".into())?;
        let listener = TcpListener::bind(address).await.context(|| format!("listen on {address}"))?;
        let engine = Arc::new(Engine {
            upstream,
            log: KubeLog::default(),
            rules: KubeRules::default(),
            watches: watch::Sender::new(WatchControl::default()),
            responses: Mutex::default(),
        });
        kubeconfig::write_for_plain_http(file, &format!("http://{address}"), &namespace)?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&engine)));
        Ok(Self { engine, address, accepting })
    }

    /// The address of the proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The log of calls.
    #[must_use]
    pub fn log(&self) -> &KubeLog {
        &self.engine.log
    }

    /// The fault rules.
    #[must_use]
    pub fn rules(&self) -> &KubeRules {
        &self.engine.rules
    }

    /// Keeps watches open without delivering events, like a network that drops packets.
    pub fn stall_watches(&self) {
        self.engine.watches.send_modify(|watches| watches.stalled = true);
    }

    /// Resumes stalled watches.
    pub fn resume_watches(&self) {
        self.engine.watches.send_modify(|watches| watches.stalled = false);
    }

    /// Ends every watch with 410 `Expired`, which forces clients to list again.
    pub fn expire_watches(&self) {
        self.engine.watches.send_modify(|watches| watches.expirations += 1);
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.engine.rules.abort();
    }
}

async fn accept(listener: TcpListener, engine: Arc<Engine>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&engine)));
                }
                // Out of descriptors, or the peer was gone already: the listener itself is fine.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, engine: Arc<Engine>) {
    let _ = stream.set_nodelay(true);
    // Errors are client disconnects, or a rule closed the connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), ProxyService(engine))
        .await;
}

struct ProxyService(Arc<Engine>);

impl Service<Request<Incoming>> for ProxyService {
    type Response = Response<AnyBody>;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Dropped>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let engine = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
            // A separate task, so that a client disconnect does not cancel a call that was already sent.
            tokio::spawn(async move { engine.serve(head, body).await }).await.map_err(|_| Dropped)?
        })
    }
}

impl Engine {
    async fn serve(
        self: Arc<Self>,
        head: hyper::http::request::Parts,
        body: Bytes,
    ) -> std::result::Result<Response<AnyBody>, Dropped> {
        let call = KubeCall::parse(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &body);
        let seq = self.log.open(&call);
        let uri = head.uri.to_string();
        if let Some(response) = self.apply_rules(Phase::Before, &call, &uri).await? {
            self.log.note(seq, |record| record.status = Some(response.status().as_u16()));
            return Ok(response);
        }
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        for name in ["content-type", "accept"] {
            if let Some(value) = head.headers.get(name) {
                request.headers_mut().insert(hyper::header::HeaderName::from_static(name), value.clone());
            }
        }
        let Ok(response) = self.upstream.send(request).await else {
            return Ok(failure(StatusCode::BAD_GATEWAY, "Unreachable"));
        };
        let (response, body) = response.into_parts();
        if call.verb == "watch" && response.status.is_success() {
            self.log.note(seq, |record| record.status = Some(response.status.as_u16()));
            return Ok(Response::from_parts(without_hop_headers(response), self.stream(body)));
        }
        let Ok(body) = body.collect_bytes().await else { return Err(Dropped) };
        let success = response.status.is_success();
        self.log.note(seq, |record| record.committed = success && record.mutating);
        if success {
            if matches!(call.verb, "get" | "list") {
                let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
                if responses.len() < MAX_CACHED_RESPONSES || responses.contains_key(&uri) {
                    responses.insert(uri.clone(), (response.status, body.clone()));
                }
            }
            if let Some(replacement) = self.apply_rules(Phase::AfterCommit, &call, &uri).await? {
                self.log.note(seq, |record| record.status = Some(replacement.status().as_u16()));
                return Ok(replacement);
            }
        }
        self.log.note(seq, |record| record.status = Some(response.status.as_u16()));
        Ok(Response::from_parts(without_hop_headers(response), full_body(body)))
    }

    async fn apply_rules(
        &self,
        phase: Phase,
        call: &KubeCall,
        uri: &str,
    ) -> std::result::Result<Option<Response<AnyBody>>, Dropped> {
        for effect in self.rules.effects_for(phase, call) {
            match effect {
                Effect::Drop => return Err(Dropped),
                Effect::Delay(time) => tokio::time::sleep(time).await,
                Effect::Answer(status, reason) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    return Ok(Some(failure(status, reason)));
                }
                Effect::Pause(pause) => {
                    if pause.hold().await == HoldOutcome::Abort {
                        return Err(Dropped);
                    }
                }
                Effect::StaleRead => {
                    let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (Some((status, body)), "get" | "list") = (responses.get(uri), call.verb) {
                        let mut response = Response::new(full_body(body.clone()));
                        *response.status_mut() = *status;
                        response
                            .headers_mut()
                            .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
                        return Ok(Some(response));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Forwards a watch until it is stalled or expired.
    fn stream(&self, body: Body) -> AnyBody {
        let mut watches = self.watches.subscribe();
        let expirations = watches.borrow_and_update().expirations;
        let frames = stream::unfold((body, watches, false), move |(mut body, mut watches, ended)| async move {
            if ended {
                return None;
            }
            let mut broken = false;
            let frame = loop {
                let now = *watches.borrow_and_update();
                if now.expirations > expirations {
                    break Some(expired_event());
                }
                tokio::select! {
                    biased;
                    changed = watches.changed() => if changed.is_err() { break None },
                    frame = body.frame(), if !now.stalled => match frame {
                        Some(Ok(frame)) => break frame.into_data().ok(),
                        Some(Err(_)) => { broken = true; break None }
                        None => break None,
                    },
                }
            };
            let expired_now = watches.borrow().expirations > expirations;
            match frame {
                Some(data) => Some((Ok(Frame::data(data)), (body, watches, expired_now))),
                None if broken => Some((Err(io::Error::other("the watch was interrupted")), (body, watches, true))),
                None => None,
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// The final event of an expired watch.
fn expired_event() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
        "message": "too old resource version", "code": 410});
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}

fn failure(status: StatusCode, reason: &str) -> Response<AnyBody> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": format!("injected: {reason}"), "code": status.as_u16()});
    let mut response = Response::new(full_body(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// Removes hop-by-hop headers.
fn without_hop_headers(mut head: hyper::http::response::Parts) -> hyper::http::response::Parts {
    for name in ["content-length", "transfer-encoding", "connection", "content-encoding"] {
        head.headers.remove(name);
    }
    head.version = hyper::Version::HTTP_11;
    head
}

fn full_body(body: Bytes) -> AnyBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
