//! What both drivers know about listeners and sockets: how a socket is prepared and ended, what a failed accept means,
//! and the reserve descriptor. When descriptors run out, a listener that is left alone keeps its peers hanging in the
//! backlog; so one descriptor is kept aside, given up to accept a peer, who then sees an end, and taken back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags};

/// How long a listener rests when it can neither accept nor turn away.
pub(super) const REST_TIME: Duration = Duration::from_millis(10);
/// Connections accepted or turned away from one listener in one pass, so that links are served in between.
pub(super) const ACCEPTS_PER_PASS: usize = 64;
/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What accepted sockets are born with.
pub(super) const ACCEPT_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Makes a stream socket nonblocking and, for TCP, without delay.
pub(super) fn prepare(socket: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    match rustix::net::sockopt::set_tcp_nodelay(socket, true) {
        // A Unix socket has no such option; a connection that is over already will say so when it is read.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends the stream for every holder of the socket, also for one that a forked child still has open; closing alone would
/// not. Fails only when the peer was faster.
pub(super) fn shut_down(socket: impl AsFd, how: Shutdown) {
    let _ = rustix::net::shutdown(socket, how);
}

/// The peer's address as the server knows it. Unix peers have none: they are known by their credentials.
pub(super) fn peer_address(address: Option<SocketAddrAny>) -> SocketAddr {
    let inet = address.and_then(|address| SocketAddr::try_from(address).ok());
    inet.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

/// What a failed accept asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Nobody is waiting.
    Nobody,
    /// That one connection failed; the next may not.
    ThisOne,
    /// No descriptor is left: turn the peer away with the reserve.
    NoDescriptor,
    /// Trouble of the machine: rest, then try again.
    Exhausted,
}

impl Refusal {
    /// Unknown errors count as exhaustion: a listener never ends by itself, and resting cannot spin.
    pub(super) fn of(error: Errno) -> Refusal {
        match error {
            Errno::AGAIN => Refusal::Nobody,
            Errno::MFILE | Errno::NFILE => Refusal::NoDescriptor,
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::INTR
            | Errno::PROTO
            | Errno::PERM
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET
            | Errno::TIMEDOUT => Refusal::ThisOne,
            _ => Refusal::Exhausted,
        }
    }
}

/// The descriptor kept aside, and how often it was needed.
#[derive(Debug)]
pub(super) struct Reserve {
    spare: Option<OwnedFd>,
    turned_away: u64,
    logged_at: Option<Instant>,
}

impl Reserve {
    pub(super) fn new() -> io::Result<Reserve> {
        Ok(Reserve { spare: Some(spare()?), turned_away: 0, logged_at: None })
    }

    /// Accepts and ends up to [`ACCEPTS_PER_PASS`] waiting connections. `true` if the listener can go on, `false` if it
    /// must rest, because another thread took the descriptor meanwhile or the whole machine has none.
    pub(super) fn turn_away(&mut self, listener: &OwnedFd) -> bool {
        for _ in 0..ACCEPTS_PER_PASS {
            self.spare = None;
            let outcome = rustix::net::accept_with(listener, ACCEPT_FLAGS);
            let refusal = match outcome {
                Ok(socket) => {
                    shut_down(&socket, Shutdown::Both);
                    self.turned_away += 1;
                    None
                }
                Err(error) => Some(Refusal::of(error)),
            };
            self.spare = spare().ok();
            match refusal {
                None | Some(Refusal::ThisOne) => {}
                Some(Refusal::Nobody) => return true,
                Some(Refusal::NoDescriptor | Refusal::Exhausted) => return false,
            }
        }
        true
    }

    /// Logs trouble with accepting, once a second at most.
    pub(super) fn log(&mut self, error: Errno) {
        let now = Instant::now();
        if self.logged_at.is_some_and(|at| now < at + LOG_EVERY) {
            return;
        }
        self.logged_at = Some(now);
        let error = io::Error::from(error);
        tracing::warn!(%error, turned_away = self.turned_away, "cannot accept connections; raise the descriptor limit");
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}
