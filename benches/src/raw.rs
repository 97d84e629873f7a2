//! The protocol without the client library: frames in, frames out, as thin as a client can be. What the library adds is
//! the difference to this.

use crate::stream::{Door, Manner, Stream};
use fairlock_protocol::reply::{self, Grant};
use fairlock_protocol::request::{Acquire, Open};
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{
    Frame, GrantId, Hello, Liveness, Mode, OwnerId, Priority, Reply, Request, RequestId, Resource, Secret,
    SessionId, ShardId, Wait,
};
use std::io;

/// Room for everything one batch can bring back.
const INBOUND_BYTES: usize = 512 * 1024;

/// One connection that acts for a session of its own.
#[derive(Debug)]
pub struct Raw {
    stream: Stream,
    out: Vec<u8>,
    inbound: Vec<u8>,
    start: usize,
    end: usize,
    requests: u64,
    received: u16,
}

/// What a session is taken up with on another connection.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    session: SessionId,
    secret: Secret,
}

/// A name of 16 bytes for a number.
pub fn name(number: u64) -> [u8; 16] {
    let mut name = *b"lock/00000000000";
    let mut rest = number;
    for digit in name[5..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Raw {
    /// A connection that speaks to an echo: frames without a handshake.
    ///
    /// # Errors
    /// What the system says.
    pub fn bare(door: &Door, manner: Manner) -> io::Result<Raw> {
        let stream = Stream::connect(door, manner)?;
        let inbound = vec![0; INBOUND_BYTES];
        Ok(Raw { stream, out: Vec::new(), inbound, start: 0, end: 0, requests: 0, received: 0 })
    }

    /// Connects to a server and opens a session.
    ///
    /// # Errors
    /// What the system says; a refusal by its name.
    pub fn open(door: &Door, manner: Manner, ttl_ms: u32) -> io::Result<Raw> {
        Raw::open_as(door, manner, ttl_ms, Liveness::Heartbeat)
    }

    /// As [`Raw::open`], with what ends the session.
    ///
    /// # Errors
    /// As [`Raw::open`].
    pub fn open_as(door: &Door, manner: Manner, ttl_ms: u32, liveness: Liveness) -> io::Result<Raw> {
        Raw::with_ticket(door, manner, ttl_ms, liveness).map(|(raw, _)| raw)
    }

    /// As [`Raw::open_as`], with what [`Raw::resume`] takes.
    ///
    /// # Errors
    /// As [`Raw::open`].
    pub fn with_ticket(
        door: &Door,
        manner: Manner,
        ttl_ms: u32,
        liveness: Liveness,
    ) -> io::Result<(Raw, Ticket)> {
        let mut raw = Raw::greeted(door, manner)?;
        raw.put(&Request::Open(Open {
            ttl_ms,
            liveness,
            predecessor_gone: false,
            pid: std::process::id(),
            identity: b"",
            reclaim_key: b"",
            host: b"bench",
            exe: b"bench",
            label: b"",
        }));
        raw.send()?;
        let ticket = raw.reply(|_, reply| match *reply {
            Reply::Opened { session, secret, .. } => Some(Ticket { session, secret }),
            _ => None,
        })?;
        Ok((raw, ticket))
    }

    /// Connects and takes up a session that has received nothing so far, as a client does that has lost its connection.
    ///
    /// # Errors
    /// As [`Raw::open`].
    pub fn resume(door: &Door, manner: Manner, ticket: Ticket) -> io::Result<Raw> {
        let mut raw = Raw::greeted(door, manner)?;
        let Ticket { session, secret } = ticket;
        // It belongs to the connection, not to the session, whose requests are numbered from 1 on.
        Request::Resume { session, secret, received: 0 }.encode(RequestId::NOTICE, 0, &mut raw.out);
        raw.send()?;
        raw.reply(|_, reply| matches!(reply, Reply::Resumed { .. }).then_some(()))?;
        Ok(raw)
    }

    fn greeted(door: &Door, manner: Manner) -> io::Result<Raw> {
        let mut raw = Raw::bare(door, manner)?;
        Request::Hello(Hello::to(ShardId(0))).encode(RequestId::NOTICE, 0, &mut raw.out);
        raw.send()?;
        raw.reply(|_, reply| matches!(reply, Reply::Welcome(_)).then_some(()))?;
        Ok(raw)
    }

    /// Appends a request; nothing is sent yet.
    pub fn put(&mut self, request: &Request<'_>) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        request.encode(id, self.received, &mut self.out);
        id
    }

    /// Appends an exclusive ACQUIRE.
    pub fn put_acquire(&mut self, name: &[u8], wait: Wait) -> RequestId {
        let resource = Resource::new(b"", name).expect("names here have 16 bytes");
        self.put(&Request::Acquire(Acquire {
            resource,
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait,
            owner: OwnerId(0),
            reentrant: false,
            notify: false,
            cacheable: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        }))
    }

    /// Sends what was put.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.put(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next frame, undecoded, through `look`.
    ///
    /// # Errors
    /// What the system says, or that the stream ended.
    pub fn frame<T>(&mut self, look: impl FnOnce(&Frame<'_>) -> T) -> io::Result<T> {
        loop {
            let unread = &self.inbound[self.start..self.end];
            if let Some((frame, length)) = Frame::split(unread).map_err(|error| wrong(&error.to_string()))? {
                self.start += length;
                if frame.kind == reply::kind::NOTE_MEMBERS {
                    // Whoever speaks raw knows the nodes already.
                    continue;
                }
                if frame.flags & FLAG_KEPT != 0 {
                    self.received = self.received.wrapping_add(1);
                }
                return Ok(look(&frame));
            }
            self.inbound.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let count = self.stream.take(&mut self.inbound[self.end..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.end += count;
        }
    }

    /// The next reply, through `pick`, which says `None` to one it did not expect.
    ///
    /// # Errors
    /// As [`Raw::frame`]; the unexpected reply.
    pub fn reply<T>(&mut self, pick: impl FnOnce(RequestId, &Reply<'_>) -> Option<T>) -> io::Result<T> {
        self.frame(|frame| match Reply::decode(frame) {
            Ok(reply) => pick(frame.request, &reply).ok_or_else(|| wrong(&format!("unexpected {reply:?}"))),
            Err(error) => Err(wrong(&error.to_string())),
        })?
    }

    /// The next reply, which is a grant.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn granted(&mut self) -> io::Result<Grant> {
        self.reply(|_, reply| if let Reply::Granted(grant) = reply { Some(*grant) } else { None })
    }

    /// The next reply, which says that a grant was given back.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn released(&mut self) -> io::Result<()> {
        self.reply(|_, reply| matches!(reply, Reply::Released { .. }).then_some(()))
    }

    /// Takes a lock and waits for it.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn acquire(&mut self, name: &[u8]) -> io::Result<Grant> {
        self.put_acquire(name, Wait::Forever);
        self.send()?;
        self.granted()
    }

    /// Gives a lock back and waits for the answer.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn release(&mut self, grant: GrantId) -> io::Result<()> {
        self.put(&Request::Release(grant));
        self.send()?;
        self.released()
    }

    /// Renews the session and waits for the answer.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn keep_alive(&mut self) -> io::Result<()> {
        self.put(&Request::Keepalive);
        self.send()?;
        self.reply(|_, reply| matches!(reply, Reply::Alive).then_some(()))
    }

    /// Takes the locks of these numbers, in batches, and keeps them.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn hold(&mut self, numbers: std::ops::Range<u64>) -> io::Result<()> {
        const BATCH: usize = 256;
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let mut asked = 0;
            for number in numbers.by_ref().take(BATCH) {
                self.put_acquire(&name(number), Wait::Try);
                asked += 1;
            }
            self.send()?;
            for _ in 0..asked {
                self.granted()?;
            }
        }
        Ok(())
    }

    /// The server's overtakes since its start.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn overtakes(&mut self) -> io::Result<u64> {
        self.counts().map(|(_, overtakes)| overtakes)
    }

    /// Grants that are held at the server, and its overtakes since its start.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub fn counts(&mut self) -> io::Result<(u64, u64)> {
        self.put(&Request::Status);
        self.send()?;
        self.reply(|_, reply| match reply {
            Reply::Status(status) => Some((status.grants, status.overtakes_total)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_sixteen_bytes_and_differs_from_the_next() {
        assert_eq!(&name(42), b"lock/00000000042");
        assert_ne!(name(9_999_999), name(10_000_000));
    }
}
