//! TLS of the HTTP endpoints, with a certificate that may change while the operator runs.

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

/// A handshake takes milliseconds; who has not finished it after this long is not going to.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes under way. One more ends the oldest of them: an honest client is never the oldest for long.
const HANDSHAKES: usize = 64;
/// The files are looked at for a new connection, but no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a pair is read again that was replaced while it was read.
const READS: usize = 10;

/// Where the certificate is.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    /// The certificate and those between it and its authority, PEM.
    pub(super) certificate: PathBuf,
    /// Its private key, PEM.
    pub(super) key: PathBuf,
}

/// The certificate as it was last read from its files. What replaces it there and cannot be used is told, and not used.
pub(super) struct ServingCertificate {
    files: CertificateFiles,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    looked: Instant,
    /// What was found at the last look, good or bad: a digest, or why the files cannot be read.
    found: Result<[u8; 32], String>,
}

impl ServingCertificate {
    /// Reads the files. The error says what is wrong with them; it quotes nothing of them.
    pub(super) fn read(files: CertificateFiles, metrics: Arc<Metrics>) -> Result<Self, String> {
        let pair = files.read()?;
        let state = State { config: Arc::new(files.config(&pair)?), looked: Instant::now(), found: Ok(pair.digest()) };
        Ok(Self { files, metrics, state: Mutex::new(state) })
    }

    /// What to shake hands with. Looks at the files first, if nobody has a moment ago: whoever needs a certificate asks for
    /// it here, so that nothing has to run while nobody does. Connections that stand keep theirs.
    async fn current(self: &Arc<Self>) -> Arc<ServerConfig> {
        {
            let mut state = self.lock();
            if state.looked.elapsed() < LOOK_EVERY {
                return Arc::clone(&state.config);
            }
            // Those who come meanwhile need not wait for the files.
            state.looked = Instant::now();
        }
        let looking = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || looking.look()).await;
        Arc::clone(&self.lock().config)
    }

    fn look(&self) {
        let pair = self.files.read();
        let found = pair.as_ref().map(CertificatePair::digest).map_err(Clone::clone);
        if self.lock().found == found {
            return;
        }
        let config = pair.and_then(|pair| self.files.config(&pair));
        let mut state = self.lock();
        state.found = found;
        self.metrics.certificate(config.is_ok());
        match config {
            Ok(config) => {
                state.config = Arc::new(config);
                tracing::info!(file = %self.files.certificate.display(), "new connections get the new certificate");
            }
            Err(why) => tracing::warn!("the certificate that was read before is kept: {why}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// What the two files hold.
struct CertificatePair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificatePair {
    fn digest(&self) -> [u8; 32] {
        let of = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        of(&[of(&self.certificate), of(&self.key)].concat())
    }
}

impl CertificateFiles {
    /// Reads both. A kubelet turns a link from the old directory to the new one, and may do so between the two reads.
    fn read(&self) -> Result<CertificatePair, String> {
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
        for _ in 0..READS {
            let certificate = read(&self.certificate)?;
            let key = read(&self.key)?;
            if read(&self.certificate)? == certificate {
                return Ok(CertificatePair { certificate, key });
            }
        }
        Err(format!("{} changes all the time", self.certificate.display()))
    }

    fn config(&self, pair: &CertificatePair) -> Result<ServerConfig, String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        // Errors of the parser quote the line that it cannot read.
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{certificate} is not PEM"))?;
        if chain.is_empty() {
            return Err(format!("{certificate} holds no certificate in PEM"));
        }
        let private = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|_| format!("{key} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{key} is not the key of the certificate in {certificate}")
                }
                error => format!("{certificate} and {key} cannot be used: {error}"),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Accepts connections and shakes hands with each by itself: who is slow keeps nobody waiting.
pub(super) struct TlsListener {
    tcp: TcpListener,
    certificate: Arc<ServingCertificate>,
    limit: Duration,
    handshakes: BoundedTasks<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, certificate: ServingCertificate) -> Self {
        let certificate = Arc::new(certificate);
        Self { tcp, certificate, limit: HANDSHAKE_LIMIT, handshakes: BoundedTasks::new(HANDSHAKES) }
    }

    fn shake_hands(&mut self, stream: TcpStream, peer: SocketAddr) {
        let (certificate, limit) = (Arc::clone(&self.certificate), self.limit);
        self.handshakes.admit(async move {
            let shaken = timeout(limit, async { TlsAcceptor::from(certificate.current().await).accept(stream).await });
            match shaken.await {
                Ok(Ok(stream)) => return Some((stream, peer)),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
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
                (stream, peer) = Listener::accept(&mut self.tcp) => self.shake_hands(stream, peer),
                Some(shaken) = self.handshakes.next() => {
                    if let Ok(Some(connection)) = shaken {
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

    fn certificate(mount: &Mount) -> Result<ServingCertificate, String> {
        ServingCertificate::read(mount.files.clone(), Arc::new(Metrics::new(false)))
    }

    fn refused(certificate: &ServingCertificate) -> bool {
        certificate.metrics.text().lines().any(|line| line == "awsdeploy_certificate_refused 1")
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_told_and_left() {
        let authority = CertificateAuthority::new().unwrap();
        let [first, second, third] = [(); 3].map(|()| authority.issue_server_certificate([NAME]).unwrap());
        let mut mount = Mount::new(&first);
        let certificate = certificate(&mount).unwrap();
        let served = || Arc::as_ptr(&certificate.lock().config);
        let before = served();
        certificate.look();
        assert_eq!(served(), before, "nothing has changed");
        for (broken, (cert, key)) in [
            ("another key", (&*second.certificate, &*first.key)),
            ("no certificate", ("", &*first.key)),
            ("no key", (&*second.certificate, "nonsense")),
            ("not PEM", ("-----BEGIN CERTIFICATE-----\nhidden\n", &*first.key)),
        ] {
            mount.write(cert, key);
            certificate.look();
            assert_eq!(served(), before, "{broken}");
            assert!(refused(&certificate), "{broken}");
        }
        mount.write(&third.certificate, &third.key);
        certificate.look();
        assert_ne!(served(), before);
        assert!(!refused(&certificate));
        std::fs::remove_file(&mount.files.key).unwrap();
        certificate.look();
        assert!(refused(&certificate), "a lost file is told too");
    }

    #[test]
    fn what_is_wrong_is_said_by_the_name_of_the_file_and_without_its_content() {
        let authority = CertificateAuthority::new().unwrap();
        let [first, second] = [(); 2].map(|()| authority.issue_server_certificate([NAME]).unwrap());
        let mut mount = Mount::new(&first);
        for (cert, key, told) in [
            (&*first.certificate, &*second.key, "tls.key is not the key of the certificate in"),
            (&*first.key, &*first.key, "tls.crt holds no certificate in PEM"),
            (&*first.certificate, "hidden", "tls.key holds no private key in PEM"),
            ("-----BEGIN hidden", &*first.key, "tls.crt is not PEM"),
        ] {
            mount.write(cert, key);
            let error = certificate(&mount).err().unwrap();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[tokio::test]
    async fn who_does_not_finish_a_handshake_keeps_nobody_waiting_and_is_sent_away() {
        let authority = CertificateAuthority::new().unwrap();
        let mount = Mount::new(&authority.issue_server_certificate([NAME]).unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut listener = TlsListener::new(tcp, certificate(&mount).unwrap());
        // A machine may be busy for longer than an honest client needs.
        listener.limit = Duration::from_secs(5);
        let server = tokio::spawn(async move {
            let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
            axum::serve(listener, router).await
        });
        let mut silent = TcpStream::connect(address).await.unwrap();
        let client = TlsClient::new(authority.certificate(), NAME).unwrap();
        let mut honest = client.connect(address).await.unwrap();
        assert_eq!(honest.get("/", None).await.unwrap(), (200, "here".to_owned()));
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "closed without a word");
        server.abort();
    }

    #[tokio::test]
    async fn a_crowd_of_silent_clients_loses_its_oldest_and_lets_others_in() {
        let authority = CertificateAuthority::new().unwrap();
        let mount = Mount::new(&authority.issue_server_certificate([NAME]).unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut listener = TlsListener::new(tcp, certificate(&mount).unwrap());
        listener.limit = Duration::from_hours(1);
        let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let mut bounded_tasks = Vec::new();
        for _ in 0..HANDSHAKES {
            bounded_tasks.push(TcpStream::connect(address).await.unwrap());
        }
        let client = TlsClient::new(authority.certificate(), NAME).unwrap();
        assert_eq!(client.connect(address).await.unwrap().get("/", None).await.unwrap().0, 404);
        assert_eq!(bounded_tasks[0].read(&mut [0; 1]).await.unwrap(), 0, "the oldest had to go");
        server.abort();
    }
}
