//! The way to the collector of traces.

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

/// Posts spans. It is asked by a thread outside of the runtime, and does its work inside.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
    /// Its last answer was none, or a refusal.
    away: Arc<AtomicBool>,
}

impl CollectorClient {
    /// Nothing is asked of it yet.
    pub(super) fn new(url: &str, authorities: Option<&Path>, timeout: Duration) -> Result<Self, Error> {
        let config = ClientConfig::builder();
        let config = match authorities {
            Some(file) => config.with_root_certificates(trusted(file)?),
            None if url.starts_with("https") => config.with_native_roots()?,
            None => config.with_root_certificates(RootCertStore::empty()),
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth()).https_or_http().enable_http1();
        let client = HyperClient::new(connector.build(), timeout, None);
        Ok(Self { client, runtime: Handle::current(), away: Arc::default() })
    }

    /// Told once, and once more when it is over: a collector that is away for a day is no line every five seconds.
    fn note(&self, trouble: Option<String>) {
        let was = self.away.swap(trouble.is_some(), Ordering::Relaxed);
        match trouble {
            Some(why) if !was => {
                tracing::warn!("the collector takes no spans, and they are dropped until it does: {why}");
            }
            None if was => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        let answer = answer.unwrap_or_else(|ended| Err(ended.into()));
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(root_cause(&**error)),
        });
        answer
    }
}

fn trusted(file: &Path) -> Result<RootCertStore, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| wrong(&"not PEM"))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate in PEM"));
    }
    Ok(roots)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
