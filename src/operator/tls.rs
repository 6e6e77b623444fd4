//! TLS for the HTTP server; reloads the serving certificate when its files change.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::serve::Listener;
use parking_lot::{Mutex, MutexGuard};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{bounded_tasks::BoundedTasks, metrics::Metrics};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A new handshake aborts the oldest one: a handshake takes milliseconds, so the oldest is a client that does not finish.
const MAX_CONCURRENT_HANDSHAKES: usize = 64;
/// New connections check the files for changes at most this often.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to read a matching pair while the files are being replaced.
const MAX_READ_ATTEMPTS: usize = 10;

#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    /// Certificate and intermediates, PEM.
    pub(super) certificate: PathBuf,
    /// Unencrypted private key, PEM.
    pub(super) key: PathBuf,
}

/// The last usable certificate of its files. Keeps serving it while the files hold one that cannot be used.
pub(super) struct ServingCertificate {
    files: CertificateFiles,
    metrics: Arc<Metrics>,
    state: Mutex<LoadedCertificate>,
}

struct LoadedCertificate {
    config: Arc<ServerConfig>,
    checked_at: Instant,
    /// Digest of the files at the last check, or why they could not be read. Limits warnings to one per change.
    last_read: Result<[u8; 32], String>,
}

impl ServingCertificate {
    /// # Errors
    /// Names the file that cannot be used and why; does not quote its content.
    pub(super) fn load(files: CertificateFiles, metrics: Arc<Metrics>) -> Result<Self, String> {
        let pair = files.read()?;
        let config = Arc::new(files.server_config(&pair)?);
        let state = LoadedCertificate { config, checked_at: Instant::now(), last_read: Ok(pair.digest()) };
        Ok(Self { files, metrics, state: Mutex::new(state) })
    }

    /// TLS configuration for a new connection. Reloads changed files first; reloading on demand needs no background task.
    async fn current_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        {
            let mut state = self.lock();
            if state.checked_at.elapsed() < MIN_RELOAD_INTERVAL {
                return Arc::clone(&state.config);
            }
            // Set before the files are read, so that concurrent connections do not wait for them.
            state.checked_at = Instant::now();
        }
        let certificate = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || certificate.reload()).await;
        Arc::clone(&self.lock().config)
    }

    fn reload(&self) {
        let pair = self.files.read();
        let read = pair.as_ref().map(CertificatePair::digest).map_err(Clone::clone);
        if self.lock().last_read == read {
            return;
        }
        let config = pair.and_then(|pair| self.files.server_config(&pair));
        let mut state = self.lock();
        state.last_read = read;
        self.metrics.set_certificate_usable(config.is_ok());
        match config {
            Ok(config) => {
                state.config = Arc::new(config);
                tracing::info!(file = %self.files.certificate.display(), "reloaded serving certificate");
            }
            Err(error) => tracing::warn!(%error, "failed to reload serving certificate, keeping the previous one"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LoadedCertificate> {
        // Fields are replaced as a whole, so a panic cannot leave them inconsistent.
        self.state.lock()
    }
}

/// Content of the two files.
struct CertificatePair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificatePair {
    fn digest(&self) -> [u8; 32] {
        let sha256 = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        sha256(&[sha256(&self.certificate), sha256(&self.key)].concat())
    }
}

impl CertificateFiles {
    /// Reads a matching pair. The kubelet replaces a mounted Secret by switching a symbolic link, possibly between two reads.
    fn read(&self) -> Result<CertificatePair, String> {
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
        for _ in 0..MAX_READ_ATTEMPTS {
            let certificate = read(&self.certificate)?;
            let key = read(&self.key)?;
            if read(&self.certificate)? == certificate {
                return Ok(CertificatePair { certificate, key });
            }
        }
        Err(format!("{} changed during {MAX_READ_ATTEMPTS} reads", self.certificate.display()))
    }

    fn server_config(&self, pair: &CertificatePair) -> Result<ServerConfig, String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        // Errors of the parser are dropped: they quote the line that it cannot read.
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{certificate} is not PEM"))?;
        if chain.is_empty() {
            return Err(format!("{certificate} contains no PEM certificate"));
        }
        let private = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|_| format!("{key} contains no unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{key} is not the key of the certificate in {certificate}")
                }
                error => format!("failed to use {certificate} and {key}: {error}"),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Accepts TLS connections. Handshakes run concurrently, so that a slow client does not block others.
pub(super) struct TlsListener {
    tcp: TcpListener,
    certificate: Arc<ServingCertificate>,
    handshake_timeout: Duration,
    handshakes: BoundedTasks<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, certificate: ServingCertificate) -> Self {
        let certificate = Arc::new(certificate);
        let handshakes = BoundedTasks::new(MAX_CONCURRENT_HANDSHAKES);
        Self { tcp, certificate, handshake_timeout: HANDSHAKE_TIMEOUT, handshakes }
    }

    fn spawn_handshake(&mut self, stream: TcpStream, peer: SocketAddr) {
        let (certificate, limit) = (Arc::clone(&self.certificate), self.handshake_timeout);
        self.handshakes.spawn(async move {
            let accept = async { TlsAcceptor::from(certificate.current_config().await).accept(stream).await };
            match timeout(limit, accept).await {
                Ok(Ok(stream)) => return Some((stream, peer)),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
            }
            None
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, peer) = Listener::accept(&mut self.tcp) => self.spawn_handshake(stream, peer),
                Some(handshake) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = handshake {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use awsdeploy_testkit::{
        pki::{CertificateAuthority, Identity},
        secret_mount::AtomicDirectory,
        tls::TlsClient,
    };
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const NAME: &str = "metrics.test";

    struct Mount {
        _run: awsdeploy_testkit::run_dir::RunDir,
        directory: AtomicDirectory,
        files: CertificateFiles,
    }

    impl Mount {
        fn new(first: &Identity) -> Self {
            let run = awsdeploy_testkit::run_dir::RunDir::create().unwrap();
            let at = |name: &str| Path::new(run.path()).join("tls").join(name);
            let files = CertificateFiles { certificate: at("tls.crt"), key: at("tls.key") };
            let directory = AtomicDirectory::new(run.path().join("tls")).unwrap();
            let mut mount = Self { _run: run, directory, files };
            mount.write(&first.certificate, &first.key);
            mount
        }

        fn write(&mut self, certificate: &str, key: &str) {
            let files = BTreeMap::from([("tls.crt".into(), certificate.into()), ("tls.key".into(), key.into())]);
            self.directory.write(&files).unwrap();
        }
    }

    fn load(mount: &Mount) -> Result<ServingCertificate, String> {
        ServingCertificate::load(mount.files.clone(), Arc::new(Metrics::new(false)))
    }

    fn is_refused(certificate: &ServingCertificate) -> bool {
        certificate.metrics.encode().lines().any(|line| line == "awsdeploy_certificate_refused 1")
    }

    #[test]
    fn valid_pair_is_reloaded_and_invalid_one_is_reported() {
        let authority = CertificateAuthority::new().unwrap();
        let [first, second, third] = [(); 3].map(|()| authority.issue_server_certificate([NAME]).unwrap());
        let mut mount = Mount::new(&first);
        let certificate = load(&mount).unwrap();
        let served = || Arc::as_ptr(&certificate.lock().config);
        let before = served();
        certificate.reload();
        assert_eq!(served(), before, "unchanged files");
        for (broken, (cert, key)) in [
            ("another key", (&*second.certificate, &*first.key)),
            ("no certificate", ("", &*first.key)),
            ("no key", (&*second.certificate, "nonsense")),
            ("not PEM", ("-----BEGIN CERTIFICATE-----\nhidden\n", &*first.key)),
        ] {
            mount.write(cert, key);
            certificate.reload();
            assert_eq!(served(), before, "{broken}");
            assert!(is_refused(&certificate), "{broken}");
        }
        mount.write(&third.certificate, &third.key);
        certificate.reload();
        assert_ne!(served(), before);
        assert!(!is_refused(&certificate));
        std::fs::remove_file(&mount.files.key).unwrap();
        certificate.reload();
        assert!(is_refused(&certificate), "a missing file is reported");
    }

    #[test]
    fn errors_name_the_file_and_do_not_quote_its_content() {
        let authority = CertificateAuthority::new().unwrap();
        let [first, second] = [(); 2].map(|()| authority.issue_server_certificate([NAME]).unwrap());
        let mut mount = Mount::new(&first);
        for (cert, key, message) in [
            (&*first.certificate, &*second.key, "tls.key is not the key of the certificate in"),
            (&*first.key, &*first.key, "tls.crt contains no PEM certificate"),
            (&*first.certificate, "hidden", "tls.key contains no unencrypted PEM private key"),
            ("-----BEGIN hidden", &*first.key, "tls.crt is not PEM"),
        ] {
            mount.write(cert, key);
            let error = load(&mount).err().unwrap();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[tokio::test]
    async fn unfinished_handshake_times_out_and_blocks_no_other() {
        let authority = CertificateAuthority::new().unwrap();
        let mount = Mount::new(&authority.issue_server_certificate([NAME]).unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = TlsListener::new(tcp, load(&mount).unwrap());
        let server = tokio::spawn(async move {
            let router = axum::Router::new().route("/", axum::routing::get(|| async { "ok" }));
            axum::serve(listener, router).await
        });
        let mut silent = TcpStream::connect(address).await.unwrap();
        let client = TlsClient::new(authority.certificate(), NAME).unwrap();
        let mut other = client.connect(address).await.unwrap();
        assert_eq!(other.get("/", None).await.unwrap(), (200, "ok".to_owned()));
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "closed without data");
        server.abort();
    }

    #[tokio::test]
    async fn new_handshake_replaces_the_oldest_at_the_limit() {
        let authority = CertificateAuthority::new().unwrap();
        let mount = Mount::new(&authority.issue_server_certificate([NAME]).unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut listener = TlsListener::new(tcp, load(&mount).unwrap());
        listener.handshake_timeout = Duration::from_hours(1);
        let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let mut silent = Vec::new();
        for _ in 0..MAX_CONCURRENT_HANDSHAKES {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let client = TlsClient::new(authority.certificate(), NAME).unwrap();
        assert_eq!(client.connect(address).await.unwrap().get("/", None).await.unwrap().0, 404);
        assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap(), 0, "the oldest is closed");
        server.abort();
    }
}
