//! The network of the run: a namespace of its own, which `run` has made, so that nothing outside reaches it or is reached.
//!
//! Pods have addresses of a bridge on the node. The address of the Service `kubernetes` is on the node's loopback, and
//! what comes there goes to the API server: what kube-proxy does elsewhere, for the one Service that a pod needs here.

use std::{io, net::SocketAddr};

use awsdeploy_testkit::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::shell::Shell;

/// The node's address on the bridge of the pods.
pub(crate) const NODE: &str = "10.244.0.1";
/// The addresses of pods.
pub(crate) const PODS: &str = "10.244.0.0/24";
/// The bridge.
pub(crate) const BRIDGE: &str = "cni0";
/// The bridge's own, since it would take that of a pod, and change it when the pod goes: the others would talk to nobody.
const MAC: &str = "0a:58:0a:f4:00:01";
/// Where pods look for the API server: the first address of the control plane's Service range.
const SERVICE: &str = "10.0.0.1";

/// Makes the interfaces.
pub(crate) async fn set_up(shell: &Shell) -> Result<()> {
    let commands = format!(
        "ip link set lo up
         ip link add {BRIDGE} address {MAC} type bridge
         ip address add {NODE}/24 dev {BRIDGE}
         ip link set {BRIDGE} up
         ip address add {SERVICE}/32 dev lo"
    );
    shell.quiet(&commands).await.map(drop)
}

/// Passes connections to the Service's address on to the API server, until the run ends.
pub(crate) async fn serve_api(api_server: SocketAddr) -> io::Result<()> {
    forward((SERVICE, 443), api_server).await.map(drop)
}

/// Passes connections to an address of the node, which pods reach, on to a server on loopback; returns that address.
pub(crate) async fn expose(server: SocketAddr) -> io::Result<SocketAddr> {
    forward((NODE, server.port()), server).await
}

async fn forward(from: (&str, u16), to: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(from).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut outer) = TcpStream::connect(to).await {
                    // A connection that breaks is its two ends' concern.
                    let _ = copy_bidirectional(&mut inner, &mut outer).await;
                }
            });
        }
    });
    Ok(address)
}
