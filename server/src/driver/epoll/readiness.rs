//! What the epoll driver does when descriptors are ready: accept, read a fair share, write the backlog, and end links.

use std::io;
use std::mem;
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::super::listening::{ACCEPT_FLAGS, ACCEPTS_PER_PASS, REST_TIME, Refusal, peer_address, shut_down};
use super::super::slots::Key;
use super::super::token::{Purpose, Token};
use super::super::{CHUNK_BYTES, Event, LinkId, Reading, WatchId};
use super::links::Ending;
use super::{EpollDriver, data};

/// Chunks one link fills in one pass at most, 64 KiB.
const CHUNKS_PER_PASS: usize = 4;

/// What a read of one link came to.
enum Outcome {
    /// Go on another time.
    Later,
    /// No chunk is left.
    NoChunk,
    /// The stream is over.
    End(Option<io::Error>),
}

impl EpollDriver {
    /// Serves what `epoll_wait` reported, beginning where the last pass ran out of chunks.
    pub(super) fn take_ready(&mut self, events: &mut Vec<Event>) {
        let ready = mem::take(&mut self.ready);
        let share = (self.pool.left() / ready.len().max(1)).clamp(1, CHUNKS_PER_PASS);
        let had_chunks = self.pool.left() > 0;
        let first = self.turn % ready.len().max(1);
        let mut ran_dry = false;
        for event in ready[first..].iter().chain(&ready[..first]) {
            let flags = event.flags;
            let (purpose, key) = Token::split(event.data.u64());
            match purpose {
                Purpose::Accept => self.accept(key, events),
                Purpose::Receive => {
                    self.serve(key, flags, share, had_chunks, events);
                    ran_dry |= self.pool.left() == 0;
                    // Those served before the chunks ran out come last next time.
                    self.turn = self.turn.wrapping_add(usize::from(!ran_dry));
                }
                Purpose::Watch => self.watch_ended(key, events),
                // The token of the waker says it all.
                Purpose::Wake => {}
                Purpose::Send | Purpose::Cancel | Purpose::Hangup => {
                    unreachable!("not a purpose of this driver")
                }
            }
        }
        if !ran_dry {
            self.turn = 0;
        }
        self.ready = ready;
    }

    fn accept(&mut self, key: Key, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_PER_PASS {
            let Some(listener) = self.listeners.get_mut(key) else { return };
            let error = match rustix::net::acceptfrom_with(&listener.socket, ACCEPT_FLAGS) {
                Ok((socket, peer)) => {
                    events.push(Event::Accepted { socket, peer: peer_address(peer) });
                    continue;
                }
                Err(error) => error,
            };
            let goes_on = match Refusal::of(error) {
                Refusal::Nobody => return,
                Refusal::ThisOne => continue,
                Refusal::NoDescriptor => self.reserve.turn_away(&listener.socket),
                Refusal::Exhausted => false,
            };
            self.reserve.log(error);
            if !goes_on {
                let _ = epoll::delete(&self.epoll, &listener.socket);
                listener.resting_until = Some(Instant::now() + REST_TIME);
            }
            return;
        }
    }

    fn watch_ended(&mut self, key: Key, events: &mut Vec<Event>) {
        if let Some(fd) = self.watches.remove(key) {
            let _ = epoll::delete(&self.epoll, &fd);
            events.push(Event::Gone { watch: WatchId(key) });
        }
    }

    fn serve(
        &mut self,
        key: Key,
        flags: EventFlags,
        share: usize,
        had_chunks: bool,
        events: &mut Vec<Event>,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let wanted = link.wanted();
        let gone = EventFlags::HUP | EventFlags::ERR;
        if wanted.contains(EventFlags::OUT) && flags.intersects(EventFlags::OUT | gone) {
            match link.write_queued() {
                Ok(()) => {
                    if matches!(link.ending, Ending::Open) && link.outgoing.take_drained() {
                        events.push(Event::Drained { link: LinkId(key) });
                    }
                    self.finish_flushing(key);
                }
                Err(error) => self.write_failed(key, error),
            }
        }
        if wanted.contains(EventFlags::IN) && flags.intersects(EventFlags::IN | gone) {
            match self.read(key, share, events) {
                Outcome::Later => {}
                // Chunks that went to other links of this pass will be back for the next; only when the caller
                // keeps them all would the readiness be reported again and again for nothing.
                Outcome::NoChunk if had_chunks => {}
                Outcome::NoChunk => {
                    if let Some(link) = self.links.get_mut(key) {
                        link.starved = true;
                        self.starved.push(key);
                    }
                }
                Outcome::End(error) => return self.end(key, error, events),
            }
        }
        self.narrow(key, flags, wanted);
    }

    fn read(&mut self, key: Key, share: usize, events: &mut Vec<Event>) -> Outcome {
        for _ in 0..share {
            let Some(link) = self.links.get_mut(key) else { return Outcome::Later };
            if matches!(link.ending, Ending::HalfClosed) {
                match link.receive(&mut self.scratch) {
                    None => return Outcome::Later,
                    Some(Ok(len)) if len > 0 => continue,
                    Some(_) => return Outcome::End(None),
                }
            }
            let filled = self.pool.fill(|space| link.receive(space).unwrap_or(Err(Errno::AGAIN)));
            match filled {
                None => return Outcome::NoChunk,
                Some(Err(Errno::AGAIN)) => return Outcome::Later,
                Some(Err(error)) => return Outcome::End(Some(error.into())),
                Some(Ok(chunk)) if chunk.len() == 0 => return Outcome::End(None),
                Some(Ok(chunk)) => {
                    // A chunk that was not filled emptied the socket; if not, epoll will say so again.
                    let emptied = chunk.len() < CHUNK_BYTES;
                    events.push(Event::Received { link: LinkId(key), chunk });
                    if link.reading == Reading::Once {
                        link.reading = Reading::Off;
                        if link.is_over_unread() {
                            self.failed.push(key);
                        }
                        return Outcome::Later;
                    }
                    if emptied {
                        return Outcome::Later;
                    }
                }
            }
        }
        Outcome::Later
    }

    /// Stops observing what was reported without being wanted: else a level-triggered event repeats for ever.
    fn narrow(&mut self, key: Key, flags: EventFlags, wanted_before: EventFlags) {
        let Some(link) = self.links.get_mut(key) else { return };
        let wanted = link.wanted();
        let observed = link.observed.unwrap_or(wanted);
        let stale_out = observed.contains(EventFlags::OUT) && !wanted.contains(EventFlags::OUT);
        let unwanted = !wanted_before.contains(EventFlags::IN) && !(flags - EventFlags::OUT).is_empty();
        if stale_out || link.starved || (unwanted && !wanted.contains(EventFlags::IN)) {
            if wanted.is_empty() {
                let _ = epoll::delete(&self.epoll, &link.socket);
                link.observed = None;
            } else if wanted != observed {
                let token = Token::new(Purpose::Receive, key);
                if epoll::modify(&self.epoll, &link.socket, data(token), wanted).is_ok() {
                    link.observed = Some(wanted);
                }
            }
        }
    }

    /// Makes epoll observe at least what is wanted of a link. A link that cannot be observed is a link that failed.
    pub(super) fn observe(&mut self, key: Key) {
        if let Err(error) = self.try_observe(key) {
            self.write_failed(key, error);
        }
    }

    pub(super) fn try_observe(&mut self, key: Key) -> Result<(), Errno> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let wanted = link.wanted();
        let token = Token::new(Purpose::Receive, key);
        match link.observed {
            Some(observed) if observed.contains(wanted) => return Ok(()),
            None if wanted.is_empty() => return Ok(()),
            Some(_) => epoll::modify(&self.epoll, &link.socket, data(token), wanted)?,
            None => epoll::add(&self.epoll, &link.socket, data(token), wanted)?,
        }
        link.observed = Some(wanted);
        Ok(())
    }

    /// After a write of a closing link: when all is written, half-closes and begins to discard input.
    pub(super) fn finish_flushing(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if matches!(link.ending, Ending::Flushing) && link.outgoing.is_empty() {
            shut_down(&link.socket, Shutdown::Write);
            link.ending = Ending::HalfClosed;
        }
        self.observe(key);
    }

    /// A write (or observing) failed: nothing more can be sent, but what the peer sent before is still read.
    pub(super) fn write_failed(&mut self, key: Key, error: Errno) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.outgoing.clear();
        shut_down(&link.socket, Shutdown::Both);
        match link.ending {
            Ending::Open => link.ending = Ending::WriteFailed(error.into()),
            Ending::WriteFailed(_) => {}
            Ending::Flushing | Ending::HalfClosed => return self.drop_link(key),
        }
        if link.reading == Reading::Off || link.observed.is_none() {
            self.failed.push(key);
        }
    }

    /// Drops a link and tells its owner, unless the owner has closed it.
    pub(super) fn end(&mut self, key: Key, error: Option<io::Error>, events: &mut Vec<Event>) {
        let error = match self.links.get_mut(key).map(|link| mem::replace(&mut link.ending, Ending::Open)) {
            None => return,
            Some(Ending::Flushing | Ending::HalfClosed) => return self.drop_link(key),
            Some(Ending::WriteFailed(cause)) => Some(cause),
            Some(Ending::Open) => error,
        };
        self.drop_link(key);
        events.push(Event::Closed { link: LinkId(key), error });
    }

    /// Shuts the stream down and closes the descriptor.
    pub(super) fn drop_link(&mut self, key: Key) {
        let Some(link) = self.links.remove(key) else { return };
        if link.observed.is_some() {
            // Explicitly, because a descriptor inherited elsewhere would keep the registration alive.
            let _ = epoll::delete(&self.epoll, &link.socket);
        }
        shut_down(&link.socket, Shutdown::Both);
    }
}
