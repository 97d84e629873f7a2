//! TCP: names to addresses, and sockets without delay.

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long sent bytes may stay unacknowledged before the system gives a connection up: one default lease. The home
/// connection is watched by its keepalives, sooner; this is for the others.
const UNACKNOWLEDGED_MS: u32 = 5000;
/// After this long without a byte the system asks whether the other end is there: for a connection on which somebody
/// only waits.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// What a host name means now; at least one address.
pub(super) fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// Begins to connect.
pub(super) fn begin(address: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&socket, UNACKNOWLEDGED_MS)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_AFTER))?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok((socket.into(), true)),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            Ok((socket.into(), false))
        }
        Err(error) => Err(error),
    }
}
