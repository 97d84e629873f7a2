//! The first words about shared memory: a HELLO that asked for it is answered, on the socket, by a SEGMENT with two
//! descriptors, by a SEGMENT with a reason why there is none, or, by a server that knows nothing of it, by WELCOME.
//!
//! What was passed is used only if both sides read the same clock: stamps of a server in another time namespace would
//! mean nothing here.

use super::memory::Memory;
use super::unix;
use crate::clock;
use crate::dial::Inbox;
use fairlock_protocol::reply::kind;
use fairlock_protocol::{Malformed, Reply, Tick};
use fairlock_shm::fork::ForkMark;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A question that is under way.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Read before HELLO was sent.
    since: Tick,
    passed: Vec<OwnedFd>,
}

/// How it was answered.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The talk goes on there.
    Memory(Memory),
    /// The talk goes on over the socket, for this reason.
    Stream(String),
    /// What was passed is not to be used, for this reason; the connection leads nowhere.
    Unfit(String),
}

impl Offer {
    /// To be made before the HELLO is sent.
    pub(crate) fn new() -> Offer {
        Offer { since: clock::now(), passed: Vec::new() }
    }

    /// Reads what has arrived, and keeps the descriptors that came with it.
    pub(crate) fn read(&mut self, socket: BorrowedFd<'_>, inbox: &mut Inbox) -> io::Result<Option<usize>> {
        let received = unix::read_with(socket, inbox.room(), &mut self.passed)?;
        inbox.filled(received.unwrap_or(0));
        Ok(received)
    }

    /// Looks whether the answer is there. Takes a SEGMENT out of the inbox, and with descriptors everything after it:
    /// those bytes only ring.
    pub(crate) fn settle(
        &mut self,
        inbox: &mut Inbox,
        mark: &Arc<ForkMark>,
    ) -> Result<Option<Settled>, Malformed> {
        let Some((frame, length)) = inbox.frame()? else { return Ok(None) };
        if frame.kind != kind::SEGMENT {
            return Ok(Some(Settled::Stream("the server does not offer it".to_owned())));
        }
        let Reply::Segment { clock_ns, reason } = Reply::decode(&frame)? else { return Ok(None) };
        if !reason.is_empty() {
            let reason = reason.to_owned();
            inbox.taken(length);
            return Ok(Some(Settled::Stream(reason)));
        }
        inbox.clear();
        Ok(Some(self.map(Tick(clock_ns), mark)))
    }

    fn map(&mut self, clock: Tick, mark: &Arc<ForkMark>) -> Settled {
        let passed = std::mem::take(&mut self.passed);
        let Ok(files) = <[OwnedFd; 2]>::try_from(passed) else {
            return Settled::Unfit("its descriptors did not arrive".to_owned());
        };
        if !(self.since..=clock::now()).contains(&clock) {
            return Settled::Unfit("the server's clock is another one (a time namespace)".to_owned());
        }
        Memory::map(files, mark).map_or_else(Settled::Unfit, Settled::Memory)
    }
}
