//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager. Without a node, pods
//! stay pending; RBAC, admission policies, garbage collection and service account tokens work as in production.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Request;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use crate::{
    Error, Result,
    error::Context as _,
    kubeconfig,
    pki::{CertificateAuthority, SERVICE_RANGE, generate_signing_key, write_private},
    ports,
    process::{Process, ProcessSpec},
    tools::Tools,
};

/// Kubeconfig of an existing cluster to use instead of starting a control plane.
pub const KUBECONFIG_VARIABLE: &str = "AWSDEPLOY_TEST_KUBECONFIG";

/// Limit for the control plane to become ready. Usually seconds, but longer on a machine that is busy with a build.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Logs writes of the resources of the operator. Level Metadata, so that no Secret data is logged.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
    resources:
      - group: awsdeploy.dev
      - group: ''
        resources: [secrets, events]
      - group: events.k8s.io
      - group: apps
  - level: None
";

/// A control plane: started by the test kit, or an existing cluster.
pub struct ControlPlane {
    kubeconfig: PathBuf,
    client: Client,
    owned: Option<Owned>,
}

/// A control plane that the test kit started.
struct Owned {
    // Dropped, and so stopped, in this order.
    controller_manager: Process,
    api_server: Process,
    etcd: Process,
    server: String,
    address: SocketAddr,
    authority: CertificateAuthority,
    directory: PathBuf,
}

impl ControlPlane {
    /// Starts a control plane with its data, certificates and logs in `directory` and waits until it is ready, or
    /// connects to the cluster of [`KUBECONFIG_VARIABLE`].
    pub async fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        match std::env::var_os(KUBECONFIG_VARIABLE) {
            Some(file) if !file.is_empty() => Self::connect(Path::new(&file)).await,
            _ => Self::start_owned(tools, directory).await,
        }
    }

    /// Connects to an existing cluster.
    pub async fn connect(file: &Path) -> Result<Self> {
        let client = kubeconfig::client(file).await?;
        client.apiserver_version().await.context(|| format!("reach the cluster of {}", file.display()))?;
        Ok(Self { kubeconfig: file.to_owned(), client, owned: None })
    }

    async fn start_owned(tools: &Tools, directory: &Path) -> Result<Self> {
        let directory = directory.join("control-plane");
        fs::create_dir_all(&directory).context(|| format!("create {}", directory.display()))?;
        let authority = CertificateAuthority::new()?;
        let address = ports::reserve().context(|| "find a port for the API server".into())?;
        let server = format!("https://{address}");
        let kubeconfig = directory.join("kubeconfig");
        let controller_manager = directory.join("controller-manager.kubeconfig");
        for (file, user, group) in [
            (&kubeconfig, "awsdeploy-test-admin", Some("system:masters")),
            (&controller_manager, "system:kube-controller-manager", None),
        ] {
            kubeconfig::write_for_certificate(
                file,
                &server,
                authority.certificate(),
                &authority.issue_client_certificate(user, group)?,
            )?;
        }
        write_server_files(&directory, &authority)?;

        // The API server waits for etcd. The controller manager exits if the API server is not ready within ten
        // seconds, so start it last.
        let (etcd, etcd_url) = start_etcd(tools, &directory)?;
        let api_server = Process::start(api_server(tools, &directory, address.port(), &etcd_url))?;
        let client = kubeconfig::client(&kubeconfig).await?;
        wait_until_serving(&api_server, &etcd, &client).await?;
        let controller_manager = Process::start(controller_manager_spec(tools, &directory, &controller_manager))?;
        let owned = Owned { controller_manager, api_server, etcd, server, address, authority, directory };
        owned.wait_until_ready(&client).await?;
        Ok(Self { kubeconfig, client, owned: Some(owned) })
    }

    /// The kubeconfig of a cluster admin.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with cluster-admin permissions.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Writes a kubeconfig with a client certificate to `file`, for a user or a component such as a kubelet.
    pub fn write_user_kubeconfig(&self, user: &str, group: Option<&str>, file: &Path) -> Result<()> {
        let owned = self.owned()?;
        let identity = owned.authority.issue_client_certificate(user, group)?;
        kubeconfig::write_for_certificate(file, &owned.server, owned.authority.certificate(), &identity)
    }

    /// The loopback address of the API server.
    pub fn api_server_address(&self) -> Result<SocketAddr> {
        Ok(self.owned()?.address)
    }

    /// Writes a kubeconfig of a `ServiceAccount` to `file`.
    pub async fn write_service_account_kubeconfig(&self, namespace: &str, name: &str, file: &Path) -> Result<()> {
        kubeconfig::write_for_service_account(&self.kubeconfig, namespace, name, file).await
    }

    /// The audit log of the API server: one JSON object per line, without bodies.
    pub fn audit_log(&self) -> Result<PathBuf> {
        Ok(self.owned()?.directory.join("audit.log"))
    }

    /// The API server, for tests that pause it.
    pub fn api_server(&self) -> Result<&Process> {
        Ok(&self.owned()?.api_server)
    }

    /// The controller manager, for tests that suspend garbage collection.
    pub fn controller_manager(&self) -> Result<&Process> {
        Ok(&self.owned()?.controller_manager)
    }

    /// Kills the API server, restarts it with the same port and data, and waits until it is ready.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        let client = self.client.clone();
        let owned = self.owned.as_mut().ok_or_else(external_cluster)?;
        owned.api_server.restart().await?;
        owned.wait_until_ready(&client).await
    }

    /// Kills all processes. No grace period, because the data is discarded.
    pub async fn stop(self) {
        if let Some(owned) = self.owned {
            owned.stop().await;
        }
    }

    /// Whether this is an existing cluster that the test kit did not start.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.owned.is_none()
    }

    fn owned(&self) -> Result<&Owned> {
        self.owned.as_ref().ok_or_else(external_cluster)
    }
}

fn external_cluster() -> Error {
    Error::Unexpected(format!("not supported with an existing cluster; unset {KUBECONFIG_VARIABLE}"))
}

impl Owned {
    /// Waits for /readyz, and for the default service account, which shows that the controller manager works.
    async fn wait_until_ready(&self, client: &Client) -> Result<()> {
        wait_until_serving(&self.api_server, &self.etcd, client).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let account = async || accounts.get_opt("default").await.is_ok_and(|account| account.is_some());
        self.controller_manager.wait_until_ready(START_LIMIT, account).await
    }

    async fn stop(self) {
        tokio::join!(self.controller_manager.kill(), self.api_server.kill(), self.etcd.kill());
    }
}

/// Waits for /readyz of the API server. Fails immediately if the API server or etcd exits.
async fn wait_until_serving(api_server: &Process, etcd: &Process, client: &Client) -> Result<()> {
    let is_ready = async || match Request::get("/readyz").body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    };
    let serving = api_server.wait_until_ready(START_LIMIT, is_ready);
    tokio::select! {
        biased;
        served = serving => served,
        died = etcd.wait_until_ready(START_LIMIT, async || false) => died,
    }
}

fn write_server_files(directory: &Path, authority: &CertificateAuthority) -> Result<()> {
    let server = authority.issue_api_server_certificate()?;
    let (private, public) = generate_signing_key()?;
    for (name, content) in [
        ("ca.crt", authority.certificate()),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
        ("service-account.key", &private),
        ("service-account.pub", &public),
        ("audit-policy.yaml", AUDIT_POLICY),
    ] {
        write_private(&directory.join(name), content)?;
    }
    Ok(())
}

fn start_etcd(tools: &Tools, directory: &Path) -> Result<(Process, String)> {
    let port = || ports::reserve().context(|| "find a port for etcd".into());
    let (client, peer) = (format!("http://{}", port()?), format!("http://{}", port()?));
    let spec = ProcessSpec::new("etcd", tools.program("etcd"), directory.join("etcd.log"))
        .arguments(["--data-dir", &directory.join("etcd").to_string_lossy()])
        .arguments(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .arguments(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arguments(["--initial-cluster", &format!("default={peer}")])
        .arguments(["--unsafe-no-fsync", "--log-level", "warn"]);
    Ok((Process::start(spec)?, client))
}

fn api_server(tools: &Tools, directory: &Path, port: u16, etcd: &str) -> ProcessSpec {
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    ProcessSpec::new("kube-apiserver", tools.program("kube-apiserver"), directory.join("kube-apiserver.log"))
        .arguments(["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"])
        .arguments(["--secure-port", &port.to_string(), "--endpoint-reconciler-type", "none"])
        .arguments(["--etcd-servers", etcd, "--service-cluster-ip-range", SERVICE_RANGE])
        .arguments(["--authorization-mode", "Node,RBAC", "--allow-privileged"])
        .arguments(["--client-ca-file", &file("ca.crt"), "--cert-dir", &file("certificates")])
        .arguments(["--tls-cert-file", &file("server.crt"), "--tls-private-key-file", &file("server.key")])
        .arguments(["--service-account-issuer", "https://kubernetes.default.svc.cluster.local"])
        .arguments(["--service-account-key-file", &file("service-account.pub")])
        .arguments(["--service-account-signing-key-file", &file("service-account.key")])
        .arguments(["--audit-policy-file", &file("audit-policy.yaml"), "--audit-log-path", &file("audit.log")])
}

fn controller_manager_spec(tools: &Tools, directory: &Path, kubeconfig: &Path) -> ProcessSpec {
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    ProcessSpec::new(
        "kube-controller-manager",
        tools.program("kube-controller-manager"),
        directory.join("kube-controller-manager.log"),
    )
    .arguments(["--kubeconfig", &kubeconfig.to_string_lossy()])
    .arguments(["--secure-port", "0", "--leader-elect=false", "--use-service-account-credentials"])
    .arguments(["--service-account-private-key-file", &file("service-account.key")])
    .arguments(["--root-ca-file", &file("ca.crt")])
    .arguments(["--kube-api-qps", "200", "--kube-api-burst", "400"])
}
