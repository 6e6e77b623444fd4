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
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// What the endpoints show.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
}

/// Serves until `shutdown`.
pub(super) async fn serve(
    listener: TcpListener,
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

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shown.metrics.text())
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the resources are not listed yet\n")
    }
}
