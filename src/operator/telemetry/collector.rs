//! HTTP client for the OTLP collector.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::runtime::Handle;

use super::Error;

/// Sends spans from the SDK's export thread through a client that needs a Tokio runtime.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
    /// Whether the last request failed.
    failing: Arc<AtomicBool>,
}

impl CollectorClient {
    /// Sends nothing yet.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, Error> {
        let config = ClientConfig::builder();
        let config = match ca_file {
            Some(file) => config.with_root_certificates(root_certificates(file)?),
            None if url.starts_with("https") => config.with_native_roots()?,
            None => config.with_root_certificates(RootCertStore::empty()),
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth()).https_or_http().enable_http1();
        let client = HyperClient::new(connector.build(), timeout, None);
        Ok(Self { client, runtime: Handle::current(), failing: Arc::default() })
    }

    /// Logs only changes: exports are retried every few seconds.
    fn log_outcome(&self, failure: Option<String>) {
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => {
                tracing::warn!(error, "failed to export spans, dropping them until the collector accepts them");
            }
            None if was_failing => tracing::info!("exporting spans again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let response = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        let response = response.unwrap_or_else(|error| Err(error.into()));
        self.log_outcome(match &response {
            Ok(response) if response.status().is_success() => None,
            // The body is not logged: it may quote spans.
            Ok(response) => Some(format!("the collector responded with {}", response.status())),
            Err(error) => Some(root_cause(&**error)),
        });
        response
    }
}

fn root_certificates(file: &Path) -> Result<RootCertStore, String> {
    let invalid = |why: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| invalid(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| invalid(&"not PEM"))?).map_err(|error| invalid(&error))?;
    }
    if roots.is_empty() {
        return Err(invalid(&"contains no PEM certificate"));
    }
    Ok(roots)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
