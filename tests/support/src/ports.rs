//! Free TCP ports on loopback, for servers that must be told their port.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
};

/// Where ports are taken from. Below the range from which Linux takes the ports of outgoing connections (32768 and up):
/// nothing but another server can take one between our look and the start of the server.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// Ports handed out by this process. None is given twice, even before its server listens. A UDP socket of the same number
/// keeps each from other programs of this kind, also while its server is down: a server that comes back finds its port.
static TAKEN: Mutex<BTreeMap<u16, UdpSocket>> = Mutex::new(BTreeMap::new());

/// A loopback address whose port nobody listens on.
pub fn free() -> io::Result<SocketAddr> {
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
            && TcpListener::bind(address).is_ok()
        {
            taken.insert(port, claim);
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on loopback"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_in_use() -> io::Result<()> {
        let first = free()?;
        let listener = TcpListener::bind(first)?;
        let others: BTreeSet<_> = (0..50).map(|_| free()).collect::<Result<_, _>>()?;
        assert_eq!(others.len(), 50);
        assert!(!others.contains(&listener.local_addr()?));
        assert!(UdpSocket::bind(first).is_err(), "other programs see that it is taken");
        Ok(())
    }
}
