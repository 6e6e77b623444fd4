//! An OTLP trace collector that records every request.

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

/// A received span.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// Name.
    pub name: String,
    /// Trace ID.
    pub trace_id: Vec<u8>,
    /// Span ID.
    pub span_id: Vec<u8>,
    /// Parent span ID; empty for the root span.
    pub parent_span_id: Vec<u8>,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Status message, if the status is an error.
    pub error: Option<String>,
    /// Resource attributes.
    pub resource: BTreeMap<String, String>,
}

impl CollectedSpan {
    /// The value of an attribute; empty if it is not set.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// How a collector responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectorBehavior {
    /// Accepts spans.
    Accepts,
    /// Responds with an error status.
    Rejects(u16),
    /// Never responds.
    Hangs,
}

/// A running collector. Stops when dropped.
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
    /// Starts a collector on loopback.
    pub async fn start(behavior: CollectorBehavior) -> Result<Self> {
        let (address, listener) = listen().await?;
        Ok(Self::serve(format!("http://{address}"), listener, behavior))
    }

    /// Starts a collector with TLS on loopback.
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
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { endpoint, shared, server }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Changes how the collector responds.
    pub fn set_behavior(&self, behavior: CollectorBehavior) {
        *lock(&self.shared.behavior) = behavior;
    }

    /// Number of requests received.
    #[must_use]
    pub fn requests(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// The values of a header in all requests.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let requests = lock(&self.shared.requests);
        let values = requests.iter().filter_map(|request| request.headers.get(name)?.to_str().ok());
        values.map(str::to_owned).collect()
    }

    /// All headers and bodies, for text searches: protobuf does not encode strings.
    #[must_use]
    pub fn text(&self) -> String {
        let requests = lock(&self.shared.requests);
        requests.iter().fold(String::new(), |text, request| {
            text + &format!("{:?}\n{}\n", request.headers, String::from_utf8_lossy(&request.body))
        })
    }

    /// All received spans, including rejected ones.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let requests = lock(&self.shared.requests);
        let decoded = requests.iter().filter_map(|request| ExportTraceServiceRequest::decode(&*request.body).ok());
        decoded.flat_map(|request| request.resource_spans).flat_map(spans_of).collect()
    }

    /// Waits until `found` returns a value for the received spans.
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
    let what = || "start an OTLP collector".to_owned();
    let address = ports::reserve().context(what)?;
    Ok((address, TcpListener::bind(address).await.context(what)?))
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
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
