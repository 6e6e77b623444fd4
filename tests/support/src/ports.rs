//! Reserves free TCP ports on loopback, for servers that need a fixed port.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, time::Instant};

/// Range of reserved ports. Below the ephemeral ports of Linux (32768 and up), so that no outgoing connection can take
/// a port between the check and the start of the server.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// Connect timeout on loopback; only a listener with a full backlog delays a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit for starting child processes to close inherited copies of a listener.
const INHERITED_CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Ports reserved by this process. Each is reserved once, even before its server listens. A UDP socket on the same
/// number reserves it against other processes of the test kit, also while its server is stopped, so that a server can
/// be restarted.
static RESERVED: Mutex<BTreeMap<u16, UdpSocket>> = Mutex::new(BTreeMap::new());

/// Reserves a loopback address on which no process listens.
pub fn reserve() -> io::Result<SocketAddr> {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let size = RANGE.end - RANGE.start;
    // Start at a different port in each process, because test processes start concurrently.
    let start = u16::try_from(std::process::id().wrapping_mul(7_919) % u32::from(size)).unwrap_or_default();
    for step in 0..size {
        let port = RANGE.start + (start + step) % size;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if reserved.contains_key(&port) {
            continue;
        }
        if let Ok(reservation) = UdpSocket::bind(address)
            && is_closed(address)
        {
            reserved.insert(port, reservation);
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on loopback"))
}

/// Whether no process listens on the address. Checks with a connection instead of binding: every child process that
/// starts meanwhile would inherit the listener until exec, and the port would be in use when its server starts.
fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Waits after closing a listener until no process listens on its address, at most as long as [`rebind`]: a starting
/// child process may hold an inherited copy that still accepts connections.
pub(crate) async fn wait_until_closed(address: SocketAddr) {
    let begun = Instant::now();
    while !is_closed(address) && begun.elapsed() < INHERITED_CLOSE_LIMIT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Binds an address whose listener this process has just closed. A child process that was starting at that moment holds
/// an inherited copy until exec, so binding is retried.
///
/// # Errors
/// The error of binding; for an address in use, only after ten seconds.
pub(crate) async fn rebind(address: SocketAddr) -> io::Result<TcpListener> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < INHERITED_CLOSE_LIMIT => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        process::Command,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;

    /// Starts child processes continuously until dropped.
    struct Children(Arc<AtomicBool>);

    impl Children {
        fn start() -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            for _ in 0..2 {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        Command::new("true").status().expect("a child");
                    }
                });
            }
            Self(stop)
        }
    }

    impl Drop for Children {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn reserved_port_can_be_bound_while_children_start() -> io::Result<()> {
        let _children = Children::start();
        for _ in 0..200 {
            TcpListener::bind(reserve()?).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn closed_port_can_be_rebound_while_children_start() -> io::Result<()> {
        let _children = Children::start();
        let address = reserve()?;
        let mut listener = TcpListener::bind(address).await?;
        for _ in 0..2_000 {
            drop(listener);
            listener = rebind(address).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn ports_are_reserved_once_and_never_in_use() -> io::Result<()> {
        let first = reserve()?;
        let listener = TcpListener::bind(first).await?;
        let others: BTreeSet<_> = (0..50).map(|_| reserve()).collect::<Result<_, _>>()?;
        assert_eq!(others.len(), 50);
        assert!(!others.contains(&listener.local_addr()?));
        assert!(!is_closed(first), "a listener is bound");
        assert!(UdpSocket::bind(first).is_err(), "other processes see the reservation");
        Ok(())
    }
}
