//! One stream of the epoll driver: what its owner wants of it, what epoll observes of it, and how it ends.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::super::Reading;
use super::super::outgoing::Outgoing;

/// How far the end of a link has come.
#[derive(Debug)]
pub(super) enum Ending {
    /// In use.
    Open,
    /// A write failed and the stream was shut down; what had arrived before is still read, then `Closed` carries this.
    WriteFailed(io::Error),
    /// Closed by the owner; queued bytes are still written.
    Flushing,
    /// All written; input is discarded until the peer closes too.
    HalfClosed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    pub(super) reading: Reading,
    pub(super) outgoing: Outgoing,
    pub(super) ending: Ending,
    /// What epoll observes; `None` when the socket is not registered. A superset of what is wanted.
    pub(super) observed: Option<EventFlags>,
    /// No chunk was left for it.
    pub(super) starved: bool,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Link {
        let (outgoing, ending) = (Outgoing::default(), Ending::Open);
        Link { socket, reading: Reading::Once, outgoing, ending, observed: None, starved: false }
    }

    /// Changes what the owner wants, unless the owner has closed the link.
    pub(super) fn read(&mut self, reading: Reading) {
        if matches!(self.ending, Ending::Open | Ending::WriteFailed(_)) {
            self.reading = reading;
        }
    }

    /// A write failed and no read will find the end: `Closed` is due at once.
    pub(super) fn is_over_unread(&self) -> bool {
        matches!(self.ending, Ending::WriteFailed(_)) && self.reading == Reading::Off
    }

    /// Which readiness is of use now.
    pub(super) fn wanted(&self) -> EventFlags {
        let reads = match self.ending {
            Ending::Open | Ending::WriteFailed(_) => self.reading != Reading::Off && !self.starved,
            Ending::Flushing => false,
            Ending::HalfClosed => true,
        };
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, reads);
        wanted.set(EventFlags::OUT, !self.outgoing.is_empty());
        wanted
    }

    /// Reads once into `space`. `None`: nothing is there now. `Some(Ok(0))`: the peer ended the stream.
    pub(super) fn receive(&self, space: &mut [u8]) -> Option<Result<usize, Errno>> {
        loop {
            match rustix::net::recv(&self.socket, &mut *space, RecvFlags::DONTWAIT) {
                Ok((len, _)) => return Some(Ok(len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Writes from `out`, with nothing queued before it; what the socket does not take becomes the queue.
    pub(super) fn write_first(&mut self, out: &mut Vec<u8>) -> Result<(), Errno> {
        assert!(self.outgoing.is_empty(), "queued bytes go first");
        let taken = self.write(out)?;
        if taken == out.len() {
            out.clear();
        } else {
            self.outgoing.push(out);
            self.outgoing.advance(taken);
        }
        Ok(())
    }

    /// Writes queued bytes as far as the socket takes them.
    pub(super) fn write_queued(&mut self) -> Result<(), Errno> {
        while !self.outgoing.is_empty() {
            let offered = self.outgoing.next().len();
            let taken = self.write(self.outgoing.next())?;
            self.outgoing.advance(taken);
            if taken < offered {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while taken < bytes.len() {
            match rustix::net::send(&self.socket, &bytes[taken..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            {
                Ok(len) => taken += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}
