//! One stream of the ring driver. At most one receive and one send are in flight; the entry, its descriptor and its
//! buffers stay until both have completed, whatever became of the link meanwhile.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::Fd;

use super::super::Reading;
use super::super::outgoing::Outgoing;

/// The receive of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receive {
    /// None in flight.
    Idle,
    /// None in flight, because no buffer was left; the link is in the queue for the next ones.
    Starved,
    /// In flight.
    Flying {
        /// A cancellation is on its way too.
        cancelled: bool,
    },
}

/// Whether the kernel is asked for the peer's end beside the receive.
///
/// A multishot receive on a Unix socket may miss it: when the last bytes and the end come close together, kernels at
/// least up to 6.18 post the bytes and then nothing, for ever (axboe/liburing#1549; the repair, which stable kernels have,
/// closes only a part of the gap: under a flood ends are still missed). A poll for the end alone costs nothing while
/// bytes arrive, and misses nothing. The receives that follow it are single ones, which look at the socket when they begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hangup {
    /// Not needed, or not yet.
    Unasked,
    /// The poll is in flight.
    Asked,
    /// The peer has ended its direction.
    Seen,
}

/// How far the end of a link has come.
#[derive(Debug)]
pub(super) enum Ending {
    /// In use.
    Open,
    /// A send failed and the stream was shut down; what had arrived before is still received, then `Closed`
    /// carries this.
    WriteFailed(io::Error),
    /// The stream is over; `Closed` is due when nothing is in flight.
    Over(Option<io::Error>),
    /// Closed by the owner; queued bytes are still sent.
    Flushing,
    /// All sent; input is discarded until the peer closes too.
    HalfClosed,
    /// Closed by the owner; dropped when nothing is in flight.
    Discarded,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    pub(super) reading: Reading,
    pub(super) receive: Receive,
    pub(super) outgoing: Outgoing,
    /// The front of `outgoing` is with the kernel.
    pub(super) sending: bool,
    pub(super) ending: Ending,
    pub(super) hangup: Hangup,
    is_unix: bool,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Link {
        let family = rustix::net::getsockname(&socket).map(|name| name.address_family());
        Link {
            is_unix: family == Ok(rustix::net::AddressFamily::UNIX),
            hangup: Hangup::Unasked,
            socket,
            reading: Reading::Once,
            receive: Receive::Idle,
            outgoing: Outgoing::default(),
            sending: false,
            ending: Ending::Open,
        }
    }

    pub(super) fn fd(&self) -> Fd {
        Fd(self.socket.as_raw_fd())
    }

    /// Whether the owner still uses it.
    pub(super) fn is_owned(&self) -> bool {
        matches!(self.ending, Ending::Open | Ending::WriteFailed(_))
    }

    /// Whether the kernel holds nothing of it.
    pub(super) fn is_idle(&self) -> bool {
        !self.sending && !matches!(self.receive, Receive::Flying { .. }) && self.hangup != Hangup::Asked
    }

    /// Whether the kernel has yet to be asked for the peer's end, before everything is received by one request.
    pub(super) fn must_ask_for_hangup(&self) -> bool {
        self.is_unix && self.hangup == Hangup::Unasked && self.wanted() == Reading::On
    }

    /// What to receive now, as the owner or the farewell wants it.
    pub(super) fn wanted(&self) -> Reading {
        match self.ending {
            Ending::Open | Ending::WriteFailed(_) => self.reading,
            Ending::HalfClosed => Reading::On,
            Ending::Flushing | Ending::Over(_) | Ending::Discarded => Reading::Off,
        }
    }
}
