//! A collector of traces: takes what the operator sends by OTLP and keeps every byte of it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
    serve::Listener,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::status::StatusCode as Outcome,
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Result, error::Context as _, pki::Identity, ports, tls::TlsServer, wait::eventually};

/// A span as it was received.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// Its name.
    pub name: String,
    /// Id of the trace.
    pub trace_id: Vec<u8>,
    /// Id of the span.
    pub span_id: Vec<u8>,
    /// Id of the span that it is a part of; empty for the root of a trace.
    pub parent_span_id: Vec<u8>,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// What is said of its failure, if it is marked as failed.
    pub error: Option<String>,
    /// Attributes of who has sent it.
    pub resource: BTreeMap<String, String>,
}

impl CollectedSpan {
    /// An attribute, or nothing.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// How a collector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectorBehavior {
    /// Takes spans.
    Accepts,
    /// Refuses them with a status.
    Rejects(u16),
    /// Never answers.
    Hangs,
}

/// A running collector. Dropping it ends it.
pub struct Collector {
    endpoint: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    behavior: Mutex<CollectorBehavior>,
    requests: Mutex<Vec<Request>>,
}

struct Request {
    headers: HeaderMap,
    body: Bytes,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    /// Starts one on loopback.
    pub async fn start(behavior: CollectorBehavior) -> Result<Self> {
        let (address, listener) = listen().await?;
        Ok(Self::serve(format!("http://{address}"), listener, behavior))
    }

    /// Starts one on loopback that speaks TLS and shows this certificate.
    pub async fn start_with_tls(behavior: CollectorBehavior, identity: &Identity) -> Result<Self> {
        let (address, listener) = listen().await?;
        Ok(Self::serve(format!("https://{address}"), TlsServer::new(listener, identity)?, behavior))
    }

    fn serve<L>(endpoint: String, listener: L, behavior: CollectorBehavior) -> Self
    where
        L: Listener,
        L::Addr: Debug,
    {
        let shared = Arc::new(Shared { behavior: Mutex::new(behavior), requests: Mutex::default() });
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { endpoint, shared, server }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to be.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Answers otherwise from now on.
    pub fn set_behavior(&self, behavior: CollectorBehavior) {
        *lock(&self.shared.behavior) = behavior;
    }

    /// How often it was asked.
    #[must_use]
    pub fn requests(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// The values of a header of all requests.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let requests = lock(&self.shared.requests);
        let values = requests.iter().filter_map(|request| request.headers.get(name)?.to_str().ok());
        values.map(str::to_owned).collect()
    }

    /// All that was received, for a search: strings stand in protobuf as they are.
    #[must_use]
    pub fn text(&self) -> String {
        let requests = lock(&self.shared.requests);
        requests.iter().fold(String::new(), |text, request| {
            text + &format!("{:?}\n{}\n", request.headers, String::from_utf8_lossy(&request.body))
        })
    }

    /// Every span that was received, those too that it has refused.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let requests = lock(&self.shared.requests);
        let decoded = requests.iter().filter_map(|request| ExportTraceServiceRequest::decode(&*request.body).ok());
        decoded.flat_map(|request| request.resource_spans).flat_map(spans_of).collect()
    }

    /// Waits until the spans that were received answer a question.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        found: impl Fn(&[CollectedSpan]) -> Option<T>,
    ) -> Result<T> {
        eventually(what, limit, || std::future::ready(found(&self.spans()))).await
    }
}

async fn listen() -> Result<(SocketAddr, TcpListener)> {
    let what = || "start a collector of traces".to_owned();
    let address = ports::reserve().context(what)?;
    Ok((address, TcpListener::bind(address).await.context(what)?))
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    lock(&shared.requests).push(Request { headers, body });
    let behavior = *lock(&shared.behavior);
    match behavior {
        CollectorBehavior::Accepts => StatusCode::OK,
        CollectorBehavior::Rejects(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        CollectorBehavior::Hangs => std::future::pending().await,
    }
}

fn spans_of(sent: opentelemetry_proto::tonic::trace::v1::ResourceSpans) -> Vec<CollectedSpan> {
    let resource = texts(sent.resource.map(|resource| resource.attributes).unwrap_or_default());
    let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans
        .map(|span| CollectedSpan {
            name: span.name,
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            attributes: texts(span.attributes),
            error: span.status.filter(|status| status.code() == Outcome::Error).map(|status| status.message),
            resource: resource.clone(),
        })
        .collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter().filter_map(|pair| Some((pair.key, text(pair.value?.value?))));
    pairs.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
