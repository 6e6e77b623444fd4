//! Network of the run: a separate namespace created by the script `run`, isolated from the host.
//!
//! Pods have addresses on a bridge of the node. The address of the Service `kubernetes` is on the node's loopback
//! interface and is forwarded to the API server. This replaces kube-proxy for the only Service that pods need here.

use std::{io, net::SocketAddr};

use awsdeploy_testkit::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::shell::Shell;

/// Address of the node on the bridge.
pub(crate) const NODE: &str = "10.244.0.1";
/// Subnet of the pods.
pub(crate) const PODS: &str = "10.244.0.0/24";
/// Name of the bridge.
pub(crate) const BRIDGE: &str = "cni0";
/// MAC address of the bridge. Otherwise it would use the address of a pod and change it when that pod is deleted, which
/// breaks the connections of other pods.
const MAC: &str = "0a:58:0a:f4:00:01";
/// Address of the Service `kubernetes`: the first of the Service range.
const SERVICE: &str = "10.0.0.1";

/// Creates the interfaces.
pub(crate) async fn start(shell: &Shell) -> Result<()> {
    let commands = format!(
        "ip link set lo up
         ip link add {BRIDGE} address {MAC} type bridge
         ip address add {NODE}/24 dev {BRIDGE}
         ip link set {BRIDGE} up
         ip address add {SERVICE}/32 dev lo"
    );
    shell.run(&commands).await.map(drop)
}

/// Forwards the Service address to the API server until the run ends.
pub(crate) async fn forward_api_server(api_server: SocketAddr) -> io::Result<()> {
    forward((SERVICE, 443), api_server).await.map(drop)
}

/// Forwards an address of the node, which pods can reach, to a server on loopback; returns the address.
pub(crate) async fn forward_to_pods(server: SocketAddr) -> io::Result<SocketAddr> {
    forward((NODE, server.port()), server).await
}

async fn forward(from: (&str, u16), to: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(from).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut outer) = TcpStream::connect(to).await {
                    // Errors are visible to both peers.
                    let _ = copy_bidirectional(&mut inner, &mut outer).await;
                }
            });
        }
    });
    Ok(address)
}
