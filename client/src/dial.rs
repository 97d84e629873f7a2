//! First words, spoken by a thread that has nothing else to do: connect, HELLO, OPEN, one answer each; over the socket
//! until the server says that the talk goes on in shared memory.
//!
//! Used to open a session and for an operator's questions. Taking a session up again after a broken connection is
//! not done here, because leases run meanwhile and nobody may sit and wait for one socket.

use crate::clock;
use crate::error::ConnectError;
use crate::session::Fault;
use crate::transport::{self, Memory, Offer, Settled, Target};
use fairlock_protocol::handshake::FEATURE_SHM;
use fairlock_protocol::limits::FRAME_BYTES_MAX;
use fairlock_protocol::{
    Class, Frame, Hello, Malformed, Refusal, Reply, Request, RequestId, ShardId, Tick, Welcome,
};
use fairlock_shm::bell::Waiting;
use fairlock_shm::fork::ForkMark;
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a wait looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// Pause before the nodes of a cell are asked once more, none of which took us: one may be about to take over.
const NEXT_NODE_PAUSE: Duration = Duration::from_millis(5);
/// How long one of several nodes may take to answer at first, before the next is asked: twice that in the next round, and so on.
const PATIENCE: Duration = Duration::from_millis(400);
/// Bytes read at once at first; frames are mostly small, pages are not.
const INBOX_BYTES: usize = 16 * 1024;

/// Bytes received and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Forgets everything, for another connection.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room for more; never more than a largest frame and what came with it.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.clear();
        }
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end * 2 >= self.bytes.len() {
                let larger = (self.bytes.len() * 2).clamp(INBOX_BYTES, 2 * FRAME_BYTES_MAX);
                self.bytes.resize(larger, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were put into the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.bytes.len(), "no more is received than there was room for");
    }

    /// Takes these bytes in, however little room there is.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let count = room.len().min(bytes.len());
            assert!(count > 0, "what is taken in at once fits beside a largest frame");
            let (now, later) = bytes.split_at(count);
            room[..count].copy_from_slice(now);
            self.filled(count);
            bytes = later;
        }
    }

    /// The first whole frame, not yet taken, and its length.
    pub(crate) fn frame(&self) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
        Frame::split(&self.bytes[self.start..self.end])
    }

    /// The frame of this length is dealt with.
    pub(crate) fn taken(&mut self, length: usize) {
        self.start += length;
        assert!(self.start <= self.end, "only what was received can be taken");
    }
}

/// One connection whose owner waits for each answer.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: OwnedFd,
    /// Where the talk goes on, if not on the socket.
    pub(crate) memory: Option<Memory>,
    pub(crate) inbox: Inbox,
    pub(crate) endpoint: String,
    /// When whatever is under way must be done, and how long it was given.
    pub(crate) until: Tick,
    pub(crate) allowed: Duration,
    /// Number of the newest question, and how many kept answers were received.
    pub(crate) sent: u64,
    pub(crate) kept: u64,
}

impl Wire {
    /// Connects, within `allowed`, unless `wanted` says no meanwhile.
    pub(crate) fn connect(
        target: &Target,
        allowed: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Wire, ConnectError> {
        let endpoint = target.to_string();
        let until = clock::now().after(allowed);
        let unreachable = |source: io::Error| ConnectError::Unreachable {
            endpoint: endpoint.clone(),
            source: Arc::new(source),
        };
        let (socket, stands) = transport::begin(target).map_err(unreachable)?;
        let wire = Wire {
            socket,
            memory: None,
            inbox: Inbox::default(),
            endpoint,
            until,
            allowed,
            sent: 0,
            kept: 0,
        };
        if !stands {
            wire.wait(PollFlags::OUT, wanted)?;
            let endpoint = wire.endpoint.clone();
            transport::concluded(wire.socket.as_fd())
                .map_err(|source| ConnectError::Unreachable { endpoint, source: Arc::new(source) })?;
        }
        Ok(wire)
    }

    /// Gives what comes next so much time.
    pub(crate) fn allow(&mut self, allowed: Duration) {
        self.allowed = allowed;
        self.until = clock::now().after(allowed);
    }

    fn wait(&self, what: PollFlags, wanted: &dyn Fn() -> bool) -> Result<(), ConnectError> {
        loop {
            let left = self.until.since(clock::now());
            if left.is_zero() {
                return Err(ConnectError::TimedOut { endpoint: self.endpoint.clone(), after: self.allowed });
            }
            if !wanted() {
                return Err(ConnectError::Closed);
            }
            let mut fds = [PollFd::new(&self.socket, what)];
            transport::wait(&mut fds, Some(left.min(LOOK_AROUND))).map_err(|source| self.broken(source))?;
            if transport::is_ready(&fds[0]) {
                return Ok(());
            }
        }
    }

    /// Waits until there may be something to read.
    fn wait_for_bytes(&self, wanted: &dyn Fn() -> bool) -> Result<(), ConnectError> {
        let Some(memory) = &self.memory else { return self.wait(PollFlags::IN, wanted) };
        memory.announce(Waiting::Socket);
        if memory.is_ready() {
            return Ok(());
        }
        self.wait(PollFlags::IN, wanted)?;
        let mut rings = [0; 256];
        match transport::read(self.socket.as_fd(), &mut rings) {
            // Its last words may stand in the ring.
            Ok(Some(0)) if !memory.is_ready() => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.broken(source)),
        }
    }

    /// Reads what has arrived; `None` when nothing has, 0 at the end of the stream.
    fn read(&mut self) -> io::Result<Option<usize>> {
        if let Some(memory) = &self.memory {
            let count = memory.receive(&mut self.inbox)?;
            return Ok((count > 0).then_some(count));
        }
        let received = transport::read(self.socket.as_fd(), self.inbox.room())?;
        self.inbox.filled(received.unwrap_or(0));
        Ok(received)
    }

    /// Writes what the road takes; `None` when it takes nothing now.
    fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(memory) = &self.memory else { return transport::write(self.socket.as_fd(), bytes) };
        let (sent, ring) = memory.send(bytes)?;
        if ring {
            transport::write(self.socket.as_fd(), &[0])?;
        }
        Ok((sent > 0).then_some(sent))
    }

    fn broken(&self, source: io::Error) -> ConnectError {
        ConnectError::Broken { endpoint: self.endpoint.clone(), source: Arc::new(source) }
    }

    /// What a fault of the server means to whoever connects.
    pub(crate) fn fault(&self, fault: Fault, expected: &'static str) -> ConnectError {
        let endpoint = self.endpoint.clone();
        match fault {
            Fault::Malformed(source) => ConnectError::NotFairlock { endpoint, source },
            Fault::OutOfTurn(said) => ConnectError::OutOfTurn { endpoint, said, expected },
        }
    }

    /// Sends these bytes, and with the first of them a descriptor.
    pub(crate) fn send(
        &mut self,
        mut bytes: &[u8],
        mut pass: Option<&OwnedFd>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), ConnectError> {
        while !bytes.is_empty() {
            let sent = match pass.take() {
                Some(pass) => transport::write_with(self.socket.as_fd(), bytes, pass.as_fd()),
                None => self.write(bytes),
            };
            match sent.map_err(|source| self.broken(source))? {
                Some(sent) => bytes = &bytes[sent..],
                None if self.memory.is_some() => {
                    // A ring has no way to say that there is room again; first words hardly fill one.
                    std::thread::sleep(Duration::from_millis(1));
                    self.wait(PollFlags::OUT, wanted)?;
                }
                None => self.wait(PollFlags::OUT, wanted)?,
            }
        }
        Ok(())
    }

    /// Asks one question; the number it got.
    pub(crate) fn ask(
        &mut self,
        request: &Request<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<u64, ConnectError> {
        let mut out = Vec::new();
        self.sent += 1;
        let ack = u16::try_from(self.kept & 0xFFFF).expect("masked to 16 bits");
        request.encode(RequestId(self.sent), ack, &mut out);
        self.send(&out, None, wanted)?;
        Ok(self.sent)
    }

    /// Waits for one frame that is no notice, or is a refusal, and shows it with its flags and its number.
    pub(crate) fn answer<R>(
        &mut self,
        wanted: &dyn Fn() -> bool,
        look: impl FnOnce(&Reply<'_>, u8, u64) -> R,
    ) -> Result<R, ConnectError> {
        loop {
            let malformed = |source| ConnectError::NotFairlock { endpoint: self.endpoint.clone(), source };
            if let Some((frame, length)) = self.inbox.frame().map_err(malformed)? {
                let reply = Reply::decode(&frame).map_err(malformed)?;
                if matches!(reply, Reply::Draining | Reply::Blocking { .. } | Reply::Members(_)) {
                    self.inbox.taken(length);
                    continue;
                }
                let seen = look(&reply, frame.flags, frame.request.0);
                self.inbox.taken(length);
                return Ok(seen);
            }
            match self.read() {
                Ok(Some(0)) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(Some(_)) => {}
                Ok(None) => self.wait_for_bytes(wanted)?,
                Err(source) => return Err(self.broken(source)),
            }
        }
    }

    /// HELLO and WELCOME. `asks`: the talk may go on in shared memory, which the process with this mark maps; then also
    /// why it does not.
    pub(crate) fn greet(
        &mut self,
        hello: Hello<'_>,
        pass: Option<&OwnedFd>,
        asks: Option<&Arc<ForkMark>>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(Welcome, Option<String>), ConnectError> {
        let features = if asks.is_some() { FEATURE_SHM } else { 0 };
        let offer = Offer::new();
        let mut out = Vec::new();
        let hello = Hello { features: hello.features | features, ..hello };
        Request::Hello(hello).encode(RequestId::NOTICE, 0, &mut out);
        self.send(&out, pass, wanted)?;
        let mut reason = None;
        if let Some(mark) = asks {
            match self.settled(offer, mark, wanted)? {
                Settled::Memory(memory) => self.memory = Some(memory),
                Settled::Stream(why) => reason = Some(why),
                Settled::Unfit(reason) => {
                    let endpoint = self.endpoint.clone();
                    return Err(ConnectError::NoSharedMemory { endpoint, reason });
                }
            }
        }
        let welcome = self.welcomed(wanted)?;
        if let Some(memory) = self.memory.take() {
            self.memory = memory.aimed_at(welcome.shard);
            if self.memory.is_none() {
                let (endpoint, reason) = (self.endpoint.clone(), "a shard beyond the beacon".to_owned());
                return Err(ConnectError::NoSharedMemory { endpoint, reason });
            }
        }
        Ok((welcome, reason))
    }

    /// Waits until the server says where the talk goes on.
    fn settled(
        &mut self,
        mut offer: Offer,
        mark: &Arc<ForkMark>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Settled, ConnectError> {
        loop {
            match offer.read(self.socket.as_fd(), &mut self.inbox) {
                Ok(Some(0)) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(Some(_)) => {}
                Ok(None) => self.wait(PollFlags::IN, wanted)?,
                Err(source) => return Err(self.broken(source)),
            }
            let settled = offer.settle(&mut self.inbox, mark);
            if let Some(settled) = settled.map_err(|source| self.fault(source.into(), "SEGMENT"))? {
                return Ok(settled);
            }
        }
    }

    fn welcomed(&mut self, wanted: &dyn Fn() -> bool) -> Result<Welcome, ConnectError> {
        let endpoint = self.endpoint.clone();
        self.answer(wanted, |reply, _, _| match *reply {
            Reply::Welcome(welcome) => Ok(welcome),
            Reply::Refused(refused) => Err(ConnectError::Refused {
                endpoint,
                refusal: refused.refusal,
                detail: refused.detail.to_owned(),
            }),
            _ => Err(ConnectError::OutOfTurn { endpoint, said: "something else", expected: "WELCOME" }),
        })?
    }
}

/// Tries the targets in their order until one of them takes us or `allowed` is over. One that cannot be reached, or
/// that says it is not the one to ask, leads to the next; refusals for the moment are waited out as long as there is time.
/// Before each round it is asked anew what the targets are: a node that was asked may have named another.
pub(crate) fn first_that<R>(
    targets: &dyn Fn() -> Vec<Target>,
    allowed: Duration,
    wanted: &dyn Fn() -> bool,
    mut attempt: impl FnMut(&Target, Duration) -> Result<R, ConnectError>,
) -> Result<R, ConnectError> {
    let mut tried: Vec<String> = Vec::new();
    let until = clock::now().after(allowed);
    for turn in 0_u32.. {
        let mut last = ConnectError::Closed;
        let mut pause = None;
        let round = targets();
        let patience = if round.len() > 1 { PATIENCE.saturating_mul(1 << turn.min(8)) } else { allowed };
        assert!(!round.is_empty(), "an endpoint has a member");
        for (index, target) in round.iter().enumerate() {
            let name = target.to_string();
            if !tried.contains(&name) {
                tried.push(name);
            }
            let others = u32::try_from(round.len() - index).unwrap_or(u32::MAX);
            let share = until.since(clock::now()) / others;
            // One that stands still must not use up the time of those who would answer.
            let is_cut_short = patience < share;
            match attempt(target, share.min(patience).max(Duration::from_millis(1))) {
                Ok(done) => return Ok(done),
                Err(error @ ConnectError::Closed) => return Err(error),
                Err(error) => {
                    if is_cut_short && matches!(error, ConnectError::TimedOut { .. }) {
                        pause = pause.or(Some(NEXT_NODE_PAUSE));
                    }
                    match error.refusal().map(|refusal| (refusal, refusal.class())) {
                        Some((Refusal::NotPrimary, _)) => pause = pause.or(Some(NEXT_NODE_PAUSE)),
                        Some((_, Class::Retry)) => pause = Some(LOOK_AROUND / 2),
                        _ => {}
                    }
                    last = error;
                }
            }
        }
        match pause {
            Some(pause) if clock::now().after(pause) < until && wanted() => std::thread::sleep(pause),
            _ => return Err(last.among(&tried)),
        }
    }
    unreachable!("the time is over long before the turns are")
}

/// A shard number as a server's WELCOME gives it must exist at that server.
pub(crate) fn shard_of(welcome: &Welcome) -> Result<ShardId, Fault> {
    if welcome.shard.0 < welcome.shards {
        Ok(welcome.shard)
    } else {
        Err(Fault::OutOfTurn("a shard beyond its own number of shards"))
    }
}
