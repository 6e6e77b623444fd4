//! HTTPS on loopback: a client that exposes the server certificate, and a TLS listener.

use std::{io, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

use crate::{Result, error::Context as _, pki::Identity};

/// A client that trusts one CA and verifies one server name.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A persistent connection for any number of requests.
pub struct TlsConnection {
    sender: http1::SendRequest<Empty<Bytes>>,
    name: ServerName<'static>,
    certificate: Vec<u8>,
}

impl TlsClient {
    /// Trusts the CA certificate `authority` (PEM) and verifies the server name `name`.
    pub fn new(authority: &str, name: &str) -> Result<Self> {
        let what = || "configure the CA".to_owned();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(io::Error::other).context(what)?;
        roots.add(authority).map_err(io::Error::other).context(what)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)
            .context(what)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other).context(what)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Connects and verifies the server certificate.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsConnection> {
        let what = || format!("connect to {address} over TLS");
        let tcp = TcpStream::connect(address).await.context(what)?;
        let stream = self.connector.connect(self.name.clone(), tcp).await.context(what)?;
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = peer.map(|certificate| certificate.to_vec()).unwrap_or_default();
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other).context(what)?;
        tokio::spawn(connection);
        Ok(TlsConnection { sender, name: self.name.clone(), certificate })
    }
}

impl TlsConnection {
    /// The server certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Sends a GET request with an optional bearer token; returns status and body.
    pub async fn get(&mut self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        let what = || format!("get {path} over TLS");
        let mut request = Request::get(path).header(header::HOST, self.name.to_str().as_ref());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(io::Error::other).context(what)?;
        let response = self.sender.send_request(request).await.map_err(io::Error::other).context(what)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(io::Error::other).context(what)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// A TLS listener that drops failed handshakes.
pub(crate) struct TlsServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsServer {
    /// Serves `identity` on `listener`.
    pub(crate) fn new(listener: TcpListener, identity: &Identity) -> Result<Self> {
        let what = || "configure the server certificate".to_owned();
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)
            .context(what)?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.map_err(io::Error::other).context(what)?],
                key.map_err(io::Error::other).context(what)?,
            )
            .map_err(io::Error::other)
            .context(what)?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

impl axum::serve::Listener for TlsServer {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Handshakes are sequential, because the operator is the only client.
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
