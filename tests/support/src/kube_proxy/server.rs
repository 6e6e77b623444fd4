//! The listener and the way of a call.

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

/// Answers that are kept to be served stale.
const ANSWERS_KEPT: usize = 1_000;

type AnyBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why a call has no answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is closed on purpose")
    }
}

impl std::error::Error for Dropped {}

/// What happens to all watches.
#[derive(Clone, Copy, Default)]
struct Streams {
    frozen: bool,
    cuts: u64,
}

struct Engine {
    upstream: Client,
    log: KubeLog,
    rules: KubeRules,
    streams: watch::Sender<Streams>,
    answers: Mutex<HashMap<String, (StatusCode, Bytes)>>,
}

/// A proxy in front of the API server. Stops when dropped.
pub struct KubeProxy {
    engine: Arc<Engine>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl KubeProxy {
    /// Starts on a free loopback port. It speaks to the API server as `kubeconfig` says, so with the rights of the
    /// operator, and writes to `file` the kubeconfig that leads to itself.
    pub async fn start(kubeconfig: &Path, file: &Path) -> Result<Self> {
        crate::install_crypto_provider();
        let what = || format!("make a client of {}", kubeconfig.display());
        let read = Kubeconfig::read_from(kubeconfig)
            .map_err(|source| crate::Error::Kubeconfig { path: kubeconfig.to_owned(), source: Box::new(source) })?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .map_err(|source| crate::Error::Kubeconfig { path: kubeconfig.to_owned(), source: Box::new(source) })?;
        // A retry here would hide from the log what reached the API server.
        config.default_retry = false;
        let upstream = Client::try_from(config).context(what)?;
        let address = ports::reserve().context(|| "find a port for the Kubernetes proxy".into())?;
        let listener = TcpListener::bind(address).await.context(|| format!("listen on {address}"))?;
        let engine = Arc::new(Engine {
            upstream,
            log: KubeLog::default(),
            rules: KubeRules::default(),
            streams: watch::Sender::new(Streams::default()),
            answers: Mutex::default(),
        });
        kubeconfig::write_for_plain_http(file, &format!("http://{address}"))?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&engine)));
        Ok(Self { engine, address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked of it.
    #[must_use]
    pub fn log(&self) -> &KubeLog {
        &self.engine.log
    }

    /// What goes wrong in it.
    #[must_use]
    pub fn rules(&self) -> &KubeRules {
        &self.engine.rules
    }

    /// Watches stay open and tell nothing any more, as a network that swallows packets does.
    pub fn stall_watches(&self) {
        self.engine.streams.send_modify(|streams| streams.frozen = true);
    }

    /// Frozen watches go on where they were.
    pub fn resume_watches(&self) {
        self.engine.streams.send_modify(|streams| streams.frozen = false);
    }

    /// Ends every watch with 410 `Expired`: the client has to list anew.
    pub fn expire_watches(&self) {
        self.engine.streams.send_modify(|streams| streams.cuts += 1);
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
    // An error is a client that went away, or a rule that closed the connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), Way(engine))
        .await;
}

struct Way(Arc<Engine>);

impl Service<Request<Incoming>> for Way {
    type Response = Response<AnyBody>;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Dropped>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let engine = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
            // A task of its own: a client that goes away must not stop a call that is on its way.
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
        let question = head.uri.to_string();
        if let Some(answer) = self.strike(Phase::Before, &call, &question).await? {
            self.log.note(seq, |record| record.status = Some(answer.status().as_u16()));
            return Ok(answer);
        }
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        for name in ["content-type", "accept"] {
            if let Some(value) = head.headers.get(name) {
                request.headers_mut().insert(hyper::header::HeaderName::from_static(name), value.clone());
            }
        }
        let Ok(answer) = self.upstream.send(request).await else {
            return Ok(failure(StatusCode::BAD_GATEWAY, "Unreachable"));
        };
        let (answer, body) = answer.into_parts();
        if call.verb == "watch" && answer.status.is_success() {
            self.log.note(seq, |record| record.status = Some(answer.status.as_u16()));
            return Ok(Response::from_parts(clean(answer), self.stream(body)));
        }
        let Ok(body) = body.collect_bytes().await else { return Err(Dropped) };
        let success = answer.status.is_success();
        self.log.note(seq, |record| record.committed = success && record.mutating);
        if success {
            if matches!(call.verb, "get" | "list") {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                if answers.len() < ANSWERS_KEPT || answers.contains_key(&question) {
                    answers.insert(question.clone(), (answer.status, body.clone()));
                }
            }
            if let Some(instead) = self.strike(Phase::AfterCommit, &call, &question).await? {
                self.log.note(seq, |record| record.status = Some(instead.status().as_u16()));
                return Ok(instead);
            }
        }
        self.log.note(seq, |record| record.status = Some(answer.status.as_u16()));
        Ok(Response::from_parts(clean(answer), whole(body)))
    }

    async fn strike(
        &self,
        phase: Phase,
        call: &KubeCall,
        question: &str,
    ) -> std::result::Result<Option<Response<AnyBody>>, Dropped> {
        for effect in self.rules.consult(phase, call) {
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
                    let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (Some((status, body)), "get" | "list") = (answers.get(question), call.verb) {
                        let mut answer = Response::new(whole(body.clone()));
                        *answer.status_mut() = *status;
                        answer
                            .headers_mut()
                            .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
                        return Ok(Some(answer));
                    }
                }
            }
        }
        Ok(None)
    }

    /// A watch, event by event, as long as it is neither frozen nor cut.
    fn stream(&self, body: Body) -> AnyBody {
        let mut streams = self.streams.subscribe();
        let cuts = streams.borrow_and_update().cuts;
        let frames = stream::unfold((body, streams, false), move |(mut body, mut streams, ended)| async move {
            if ended {
                return None;
            }
            let mut broken = false;
            let frame = loop {
                let now = *streams.borrow_and_update();
                if now.cuts > cuts {
                    break Some(expired());
                }
                tokio::select! {
                    biased;
                    changed = streams.changed() => if changed.is_err() { break None },
                    frame = body.frame(), if !now.frozen => match frame {
                        Some(Ok(frame)) => break frame.into_data().ok(),
                        Some(Err(_)) => { broken = true; break None }
                        None => break None,
                    },
                }
            };
            let cut = streams.borrow().cuts > cuts;
            match frame {
                Some(data) => Some((Ok(Frame::data(data)), (body, streams, cut))),
                None if broken => Some((Err(io::Error::other("the watch broke off")), (body, streams, true))),
                None => None,
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// The last word of a watch that has to start anew.
fn expired() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
        "message": "too old resource version", "code": 410});
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}

fn failure(status: StatusCode, reason: &str) -> Response<AnyBody> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": format!("injected: {reason}"), "code": status.as_u16()});
    let mut answer = Response::new(whole(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    answer
}

/// Without what holds for the other connection only.
fn clean(mut head: hyper::http::response::Parts) -> hyper::http::response::Parts {
    for name in ["content-length", "transfer-encoding", "connection", "content-encoding"] {
        head.headers.remove(name);
    }
    head.version = hyper::Version::HTTP_11;
    head
}

fn whole(body: Bytes) -> AnyBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
