//! `/metrics`, `/livez`, `/readyz`. None of them asks AWS anything.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

use super::{guard::Guard, metrics::Metrics};

/// What the endpoints show.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
    /// Who may read the metrics; absent: everybody who reaches them.
    pub(super) guard: Option<Arc<Guard>>,
}

/// Serves until `shutdown`.
pub(super) async fn serve<L: Listener<Addr: std::fmt::Debug>>(
    listener: L,
    shown: Shown,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shown);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    if let Some(guard) = &shown.guard
        && let Err((status, why)) = guard.admit(&headers).await
    {
        return (status, [(WWW_AUTHENTICATE, "Bearer")], why).into_response();
    }
    let kind = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, shown.metrics.text()).into_response()
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the resources are not listed yet\n")
    }
}
