//! What the ring driver does with completions. Each changes the state of one entry; `settle` then does what that state
//! asks for: receive again, send the rest, half-close, or let go.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{cqueue, opcode, types};
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::super::listening::{REST_TIME, Refusal, peer_address, shut_down};
use super::super::slots::Key;
use super::super::token::{Purpose, Token};
use super::super::{Event, LinkId, Reading, WatchId};
use super::UringDriver;
use super::buffers::GROUP;
use super::links::{Ending, Hangup, Receive};
use super::ring::PlainEntry;

impl UringDriver {
    pub(super) fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let (purpose, key) = Token::split(completion.user_data());
        let more = cqueue::more(completion.flags());
        match purpose {
            Purpose::Receive => self.received(key, completion, events),
            Purpose::Send => self.sent(key, outcome_of(completion), events),
            Purpose::Accept => self.accepted(key, outcome_of(completion), more, events),
            Purpose::Hangup => self.hung_up(key, events),
            Purpose::Watch => self.watch_ended(key, outcome_of(completion), events),
            // The token of the waker says it all; only the request must live on.
            Purpose::Wake if !more => self.observe_wake(),
            Purpose::Wake | Purpose::Cancel => {}
        }
    }

    fn received(&mut self, key: Key, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let outcome = outcome_of(completion);
        let len = *outcome.as_ref().unwrap_or(&0);
        let chunk = cqueue::buffer_select(completion.flags()).map(|buffer| self.buffers.lend(buffer, len));
        let link = self.links.get_mut(key).expect("an entry outlives its requests");
        if !cqueue::more(completion.flags()) {
            link.receive = Receive::Idle;
        }
        match chunk {
            Some(chunk) if len > 0 && link.is_owned() => {
                events.push(Event::Received { link: LinkId(key), chunk });
                if link.reading == Reading::Once {
                    link.reading = Reading::Off;
                    // Still in flight only if it began when everything was wanted.
                    self.cancel_receive(key);
                }
            }
            Some(chunk) => self.buffers.give_back(chunk),
            None => assert!(len == 0, "received bytes lie in a buffer"),
        }
        match outcome {
            Ok(0) => self.stream_over(key, None),
            // Of these a receive that is still wanted starts again.
            Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOBUFS) => {
                let link = self.links.get_mut(key).expect("an entry outlives its requests");
                if link.receive == Receive::Idle {
                    link.receive = Receive::Starved;
                    self.starved.push_back(key);
                }
            }
            Err(error) => self.stream_over(key, Some(error.into())),
        }
        self.settle(key, events);
    }

    fn sent(&mut self, key: Key, outcome: Result<usize, Errno>, events: &mut Vec<Event>) {
        let link = self.links.get_mut(key).expect("an entry outlives its requests");
        assert!(link.sending, "a completion has a send");
        link.sending = false;
        match outcome {
            Ok(taken) if taken > 0 => {
                link.outgoing.advance(taken);
                if matches!(link.ending, Ending::Open) && link.outgoing.take_drained() {
                    events.push(Event::Drained { link: LinkId(key) });
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            failed => {
                link.outgoing.clear();
                shut_down(&link.socket, Shutdown::Both);
                let error = failed.err().unwrap_or(Errno::PIPE);
                match link.ending {
                    Ending::Open => link.ending = Ending::WriteFailed(error.into()),
                    Ending::Flushing | Ending::HalfClosed => self.discard(key),
                    Ending::WriteFailed(_) | Ending::Over(_) | Ending::Discarded => {}
                }
            }
        }
        self.settle(key, events);
    }

    /// The peer has ended its direction, or the poll for that was cancelled: what is left is received chunk by chunk.
    fn hung_up(&mut self, key: Key, events: &mut Vec<Event>) {
        let link = self.links.get_mut(key).expect("an entry outlives its requests");
        link.hangup = Hangup::Seen;
        self.cancel_receive(key);
        self.settle(key, events);
    }

    /// The stream is over, by the peer's will or an error: nothing will be received any more.
    fn stream_over(&mut self, key: Key, error: Option<io::Error>) {
        let Some(link) = self.links.get_mut(key) else { return };
        let error = match mem::replace(&mut link.ending, Ending::Discarded) {
            Ending::Open => error,
            Ending::WriteFailed(cause) => Some(cause),
            Ending::Over(first) => first,
            Ending::Flushing if error.is_none() => {
                // A peer that has only ended its own direction may well wait for the rest of ours.
                link.ending = Ending::Flushing;
                return;
            }
            Ending::Flushing | Ending::HalfClosed | Ending::Discarded => return self.discard(key),
        };
        link.ending = Ending::Over(error);
        self.stop(key);
    }

    /// Drops a link as soon as nothing of it is in flight; its owner hears no more of it.
    pub(super) fn discard(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.ending = Ending::Discarded;
        self.stop(key);
    }

    /// Makes what is in flight complete: the shutdown ends both directions, the cancellation spares the bytes that
    /// are still to be read.
    fn stop(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        shut_down(&link.socket, Shutdown::Both);
        let (sending, asked) = (link.sending, link.hangup == Hangup::Asked);
        self.cancel_receive(key);
        if sending {
            self.cancel(Token::new(Purpose::Send, key));
        }
        if asked {
            self.cancel(Token::new(Purpose::Hangup, key));
        }
    }

    /// Does what the state of a link asks for.
    pub(super) fn settle(&mut self, key: Key, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(key) else { return };
        if matches!(link.ending, Ending::WriteFailed(_)) && link.reading == Reading::Off {
            // Nobody reads, so no receive will find the end.
            self.stream_over(key, None);
        }
        let Some(link) = self.links.get_mut(key) else { return };
        match link.ending {
            Ending::Over(_) | Ending::Discarded => {
                if link.is_idle() {
                    self.let_go(key, events);
                }
                return;
            }
            Ending::Flushing if link.outgoing.is_empty() => {
                shut_down(&link.socket, Shutdown::Write);
                link.ending = Ending::HalfClosed;
            }
            _ => {}
        }
        let receives = link.receive == Receive::Idle && link.wanted() != Reading::Off;
        let sends = !link.sending && !link.outgoing.is_empty();
        if receives {
            self.start_receive(key);
        }
        if sends {
            self.start_send(key);
        }
    }

    fn let_go(&mut self, key: Key, events: &mut Vec<Event>) {
        let link = self.links.remove(key).expect("looked up by the caller");
        assert!(link.is_idle(), "the kernel holds nothing of a link that goes");
        if let Ending::Over(error) = link.ending {
            drop(link.socket);
            events.push(Event::Closed { link: LinkId(key), error });
        }
    }

    pub(super) fn start_receive(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        assert!(!matches!(link.receive, Receive::Flying { .. }), "one receive is in flight");
        link.receive = Receive::Flying { cancelled: false };
        let (fd, asks) = (link.fd(), link.must_ask_for_hangup());
        let entry = match link.wanted() {
            Reading::On if link.hangup != Hangup::Seen => {
                PlainEntry::receive(opcode::RecvMulti::new(fd, GROUP))
            }
            _ => PlainEntry::receive_once(fd, GROUP),
        };
        if asks {
            link.hangup = Hangup::Asked;
            let mask = u32::from(rustix::event::PollFlags::RDHUP.bits());
            let poll = PlainEntry::poll(opcode::PollAdd::new(fd, mask));
            self.ring.push_plain(poll.user_data(Token::new(Purpose::Hangup, key).bits()));
        }
        self.ring.push_plain(entry.user_data(Token::new(Purpose::Receive, key).bits()));
    }

    pub(super) fn start_send(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        assert!(!link.sending, "one send is in flight");
        link.sending = true;
        let bytes = link.outgoing.next();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(link.fd(), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        let entry = entry.user_data(Token::new(Purpose::Send, key).bits());
        // SAFETY: `bytes` is the front buffer of `outgoing`, which is neither moved, changed nor freed while `sending`
        // is set; that is cleared by this request's completion only, and the link stays until then.
        unsafe { self.ring.push(entry) };
    }

    pub(super) fn cancel_receive(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.receive == (Receive::Flying { cancelled: false }) {
            link.receive = Receive::Flying { cancelled: true };
            self.cancel(Token::new(Purpose::Receive, key));
        }
    }

    pub(super) fn cancel(&mut self, request: Token) {
        let entry = PlainEntry::cancel(opcode::AsyncCancel::new(request.bits()));
        self.ring.push_plain(entry.user_data(Token::plain(Purpose::Cancel).bits()));
    }

    fn accepted(&mut self, key: Key, outcome: Result<usize, Errno>, more: bool, events: &mut Vec<Event>) {
        let socket = outcome.map(adopt);
        let listener = self.listeners.get_mut(key).expect("an entry outlives its requests");
        listener.accepting = more;
        match socket {
            Ok(socket) if listener.stopped => shut_down(&socket, Shutdown::Both),
            // A peer that is gone already has no address; there is nobody to serve.
            Ok(socket) => {
                if let Ok(peer) = rustix::net::getpeername(&socket) {
                    events.push(Event::Accepted { socket, peer: peer_address(peer) });
                }
            }
            Err(_) if listener.stopped => {}
            Err(error) => {
                let goes_on = match Refusal::of(error) {
                    Refusal::Nobody | Refusal::ThisOne => true,
                    Refusal::NoDescriptor => {
                        self.reserve.log(error);
                        self.reserve.turn_away(&listener.socket)
                    }
                    Refusal::Exhausted => {
                        self.reserve.log(error);
                        false
                    }
                };
                if !goes_on {
                    listener.resting_until = Some(Instant::now() + REST_TIME);
                }
            }
        }
        if listener.stopped && !listener.accepting {
            self.listeners.remove(key);
        } else if !listener.accepting && listener.resting_until.is_none() {
            self.start_accept(key);
        }
    }

    fn watch_ended(&mut self, key: Key, outcome: Result<usize, Errno>, events: &mut Vec<Event>) {
        let watch = self.watches.get(key).expect("an entry outlives its requests");
        let ended = watch.wanted && (outcome.is_ok() || watch.is_ready());
        if watch.wanted && !ended {
            // The kernel could not poll (no memory); nothing is known about the descriptor yet.
            return self.observe_watch(key);
        }
        self.watches.remove(key);
        if ended {
            events.push(Event::Gone { watch: WatchId(key) });
        }
    }

    pub(super) fn observe_watch(&mut self, key: Key) {
        let Some(watch) = self.watches.get(key) else { return };
        let mask = u32::from(watch.flags().bits());
        let entry = PlainEntry::poll(opcode::PollAdd::new(raw(&watch.fd), mask));
        self.ring.push_plain(entry.user_data(Token::new(Purpose::Watch, key).bits()));
    }

    pub(super) fn observe_wake(&mut self) {
        let mask = u32::from(rustix::event::PollFlags::IN.bits());
        let fd = types::Fd(self.sleeper.eventfd().as_raw_fd());
        let entry = PlainEntry::poll(opcode::PollAdd::new(fd, mask).multi(true));
        self.ring.push_plain(entry.user_data(Token::plain(Purpose::Wake).bits()));
    }

    pub(super) fn start_accept(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        assert!(!listener.accepting, "one accept is in flight");
        listener.accepting = true;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = PlainEntry::accept(opcode::AcceptMulti::new(raw(&listener.socket)).flags(flags));
        self.ring.push_plain(entry.user_data(Token::new(Purpose::Accept, key).bits()));
    }
}

/// Owns the descriptor of a completed accept. Every completion is seen once, so it is adopted once.
pub(super) fn adopt(fd: usize) -> OwnedFd {
    let fd = i32::try_from(fd).expect("a descriptor is an int");
    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: &OwnedFd) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

/// A completion's result: a count or a descriptor, or the error.
pub(super) fn outcome_of(completion: &cqueue::Entry) -> Result<usize, Errno> {
    let result = completion.result();
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}
