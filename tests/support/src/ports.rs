//! Free TCP ports on loopback, for servers that must be told their port.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, time::Instant};

/// Where ports are taken from. Below the range from which Linux takes the ports of outgoing connections (32768 and up):
/// nothing but another server can take one between our look and the start of the server.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// How long a connection on loopback may take; only a listener whose queue is full lets one wait.
const LOOK: Duration = Duration::from_secs(1);

/// How long a starting child process may hold a copy of a listener.
const COPIES_GONE: Duration = Duration::from_secs(10);

/// Ports handed out by this process. None is given twice, even before its server listens. A UDP socket of the same number
/// keeps each from other programs of this kind, also while its server is down: a server that comes back finds its port.
static TAKEN: Mutex<BTreeMap<u16, UdpSocket>> = Mutex::new(BTreeMap::new());

/// A loopback address whose port nobody listens on.
pub fn reserve() -> io::Result<SocketAddr> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let size = RANGE.end - RANGE.start;
    // Processes that start at the same time begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(7_919) % u32::from(size)).unwrap_or_default();
    for step in 0..size {
        let port = RANGE.start + (start + step) % size;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if taken.contains_key(&port) {
            continue;
        }
        if let Ok(claim) = UdpSocket::bind(address)
            && is_quiet(address)
        {
            taken.insert(port, claim);
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on loopback"))
}

/// Whether nobody listens there. It is asked by a connection: a listener of ours would outlive the look in every child
/// process that starts meanwhile, which holds a copy of each descriptor until it runs its program, and the server that the
/// port is for would find it in use.
fn is_quiet(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, LOOK).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Waits until nobody listens where a listener of this process was closed just now, at most as long as [`rebind`]
/// would: until then connections are taken by the copy that a starting child process holds.
pub(crate) async fn wait_until_closed(address: SocketAddr) {
    let begun = Instant::now();
    while !is_quiet(address) && begun.elapsed() < COPIES_GONE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Listens where a listener of this process was closed just now. A child process that was starting at that moment holds a
/// copy of that one until it runs its program; nothing tells when it does.
///
/// # Errors
/// What binding says; for an address in use, only after ten seconds.
pub(crate) async fn rebind(address: SocketAddr) -> io::Result<TcpListener> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < COPIES_GONE => {
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

    /// Child processes that start and end without pause until it is dropped.
    struct Children(Arc<AtomicBool>);

    impl Children {
        fn start() -> Self {
            let over = Arc::new(AtomicBool::new(false));
            for _ in 0..2 {
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        Command::new("true").status().expect("a child");
                    }
                });
            }
            Self(over)
        }
    }

    impl Drop for Children {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_free_port_can_be_listened_on_while_children_start() -> io::Result<()> {
        let _children = Children::start();
        for _ in 0..200 {
            TcpListener::bind(reserve()?).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_closed_port_opens_again_while_children_start() -> io::Result<()> {
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
    async fn no_port_is_given_twice_nor_one_in_use() -> io::Result<()> {
        let first = reserve()?;
        let listener = TcpListener::bind(first).await?;
        let others: BTreeSet<_> = (0..50).map(|_| reserve()).collect::<Result<_, _>>()?;
        assert_eq!(others.len(), 50);
        assert!(!others.contains(&listener.local_addr()?));
        assert!(!is_quiet(first), "somebody listens there");
        assert!(UdpSocket::bind(first).is_err(), "other programs see that it is taken");
        Ok(())
    }
}
