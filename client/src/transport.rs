//! Sockets: how one is made, read and written. Nothing here waits; who waits, and for what, is the engine's matter.
//!
//! Every socket is non-blocking, closed on exec, and listed to be closed in forked children; writes raise no signal.

mod link;
mod memory;
mod offer;
mod tcp;
mod unix;

pub(crate) use link::{Link, Road};
pub(crate) use memory::Memory;
#[cfg(test)]
pub(crate) use memory::tests;
pub(crate) use offer::{Offer, Settled};

use crate::builder::Transport;
use crate::clock::timespec;
use crate::endpoint::{Address, Endpoint};
use crate::error::ConnectError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One place to connect to, its name resolved.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr, Address),
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(_, address) => address.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// Whether the same connection is meant.
    pub(crate) fn is_same_place(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Tcp(one, _), Target::Tcp(other, _)) => one == other,
            (Target::Unix(one), Target::Unix(other)) => one == other,
            _ => false,
        }
    }

    /// Whether both are addresses of one host name, or the same.
    pub(crate) fn is_same_node(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Tcp(here, one), Target::Tcp(there, other)) => one == other || here == there,
            _ => self.is_same_place(other),
        }
    }

    /// Whether this address leads here.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        match self {
            Target::Tcp(_, named) => named == address,
            Target::Unix(path) => matches!(address, Address::Unix(other) if other == path),
        }
    }
}

/// What one address of a list means now; names are looked up, which may take its time.
pub(crate) fn places(address: &Address) -> io::Result<Vec<Target>> {
    match address {
        Address::Unix(path) => Ok(vec![Target::Unix(path.clone())]),
        Address::Tcp { host, port } => {
            let found = tcp::addresses(host, *port)?;
            Ok(found.into_iter().map(|found| Target::Tcp(found, address.clone())).collect())
        }
    }
}

/// The places an endpoint means, in order.
pub(crate) fn resolve(endpoint: &Endpoint, transport: Transport) -> Result<Vec<Target>, ConnectError> {
    let mut targets = Vec::new();
    for address in endpoint.addresses() {
        match (address, transport) {
            (Address::Unix(path), Transport::Auto | Transport::Shm | Transport::Unix) => {
                targets.push(Target::Unix(path.clone()));
            }
            (Address::Unix(_), Transport::Tcp) => {
                let text = "the transport tcp does not fit a unix: endpoint; name a tcp: endpoint";
                return Err(ConnectError::Unsupported(text));
            }
            (Address::Tcp { .. }, Transport::Shm) => {
                let text = "shared memory does not reach a tcp: endpoint; name a unix: endpoint";
                return Err(ConnectError::Unsupported(text));
            }
            (Address::Tcp { .. }, Transport::Unix) => {
                let text = "the transport unix does not fit a tcp: endpoint; name a unix: endpoint";
                return Err(ConnectError::Unsupported(text));
            }
            (Address::Tcp { .. }, Transport::Auto | Transport::Tcp) => {
                let found = places(address).map_err(|source| ConnectError::Unreachable {
                    endpoint: address.to_string(),
                    source: Arc::new(source),
                })?;
                targets.extend(found);
            }
        }
    }
    Ok(targets)
}

/// Whether a HELLO to this place asks for shared memory.
pub(crate) fn asks_for_memory(target: &Target, transport: Transport) -> bool {
    matches!((target, transport), (Target::Unix(_), Transport::Auto | Transport::Shm))
}

/// Begins to connect. The second part says whether the connection stands already.
pub(crate) fn begin(target: &Target) -> io::Result<(OwnedFd, bool)> {
    match target {
        Target::Tcp(address, _) => tcp::begin(*address),
        Target::Unix(path) => unix::begin(path),
    }
}

/// Whether a connection that was under way and became writable stands.
pub(crate) fn concluded(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::net::sockopt::socket_error(socket)?.map_err(io::Error::from)
}

/// Writes what the socket takes; `None` when it takes nothing now.
pub(crate) fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(Some(sent)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// As [`write()`], with a descriptor beside the first byte; only over a Unix socket.
pub(crate) fn write_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    pass: BorrowedFd<'_>,
) -> io::Result<Option<usize>> {
    unix::write_with(socket, bytes, pass)
}

/// Reads what has arrived into `room`; `None` when nothing has, 0 at the end of the stream.
pub(crate) fn read(socket: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match recv(socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((_, received)) => return Ok(Some(received)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A counter that wakes a poll.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes whoever polls it, now or next.
    pub(crate) fn ring(&self) {
        // Full (2^64 − 2 rings unheard) still wakes.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets earlier rings.
    pub(crate) fn hear(&self) {
        // Nothing to read means that somebody else heard it.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is ready or `timeout` is over; for ever without one. A signal ends the wait early.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(timespec);
    match poll(fds, timeout.as_ref()) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            // The kernel leaves the results unwritten then; what was there before must not be taken for them.
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a poll found anything on this descriptor: data, room, an error or a hang-up.
pub(crate) fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.revents() != PollFlags::empty()
}
