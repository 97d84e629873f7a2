//! A client that speaks frames and nothing else: no session logic, no retries, and every chance to be wrong on purpose.

use crate::WATCHDOG;
use crate::memory::{MemoryStream, Shared};
use fairlock_protocol::reply::{Grant, Refused};
use fairlock_protocol::request::{Acquire, Open};
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{
    Frame, GrantId, Hello, Liveness, Mode, OwnerId, Priority, Refusal, Reply, Request, RequestId, Resource,
    Secret, SessionId, ShardId, Wait, Welcome,
};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes both ways.
pub(crate) trait Stream: Read + Write + Send {
    /// How long a read may wait.
    fn patience(&mut self, patience: Duration) -> std::io::Result<()>;
    /// How long a write may wait.
    fn insistence(&mut self, patience: Duration) -> std::io::Result<()>;
    /// Another descriptor of the socket beside the memory it goes through, when it does.
    fn socket(&self) -> Option<std::io::Result<UnixStream>> {
        None
    }
    /// The memory it goes through, when it does.
    fn shared(&self) -> Option<&Shared> {
        None
    }
}

impl Stream for TcpStream {
    fn patience(&mut self, patience: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(patience))
    }

    fn insistence(&mut self, patience: Duration) -> std::io::Result<()> {
        self.set_write_timeout(Some(patience))
    }
}

impl Stream for UnixStream {
    fn patience(&mut self, patience: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(patience))
    }

    fn insistence(&mut self, patience: Duration) -> std::io::Result<()> {
        self.set_write_timeout(Some(patience))
    }
}

/// A frame that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which message.
    pub kind: u8,
    /// RENEWED and KEPT.
    pub flags: u8,
    /// What it answers.
    pub request: u64,
    body: Vec<u8>,
}

impl Arrived {
    /// The message.
    ///
    /// # Panics
    /// When the server wrote nonsense.
    pub fn reply(&self) -> Reply<'_> {
        let frame = Frame {
            kind: self.kind,
            flags: self.flags,
            ack: 0,
            request: RequestId(self.request),
            body: &self.body,
        };
        Reply::decode(&frame).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Why it refuses, when it does.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.reply() {
            Reply::Refused(Refused { refusal, .. }) => Some(refusal),
            _ => None,
        }
    }

    /// The grant it brings.
    ///
    /// # Panics
    /// When it brings none.
    pub fn grant(&self) -> Grant {
        match self.reply() {
            Reply::Granted(grant) | Reply::Converted(grant) => grant,
            other => panic!("no grant: {other:?}"),
        }
    }
}

/// An ACQUIRE of `name`, exclusive and for ever.
///
/// # Panics
/// When the name is none.
pub fn exclusive(name: &[u8]) -> Acquire<'_> {
    Acquire {
        resource: Resource::new(b"", name).expect("a name"),
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait: Wait::Forever,
        owner: OwnerId(0),
        reentrant: false,
        notify: false,
        cacheable: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    }
}

/// An OPEN with this lease.
pub fn session(ttl_ms: u32, liveness: Liveness) -> Open<'static> {
    Open {
        ttl_ms,
        liveness,
        predecessor_gone: false,
        pid: 0,
        identity: b"",
        reclaim_key: b"",
        host: b"",
        exe: b"",
        label: b"",
    }
}

/// One connection.
pub struct Raw {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// KEPT frames received on this connection's stream.
    pub kept: u64,
    /// Number of the next request.
    pub next: u64,
    /// What the server said first.
    pub welcome: Option<Welcome>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").field("kept", &self.kept).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Raw {
    fn over(mut stream: impl Stream + 'static) -> Raw {
        stream.patience(WATCHDOG).and_then(|()| stream.insistence(WATCHDOG)).expect("a socket has time-outs");
        Raw { stream: Box::new(stream), received: Vec::new(), kept: 0, next: 1, welcome: None }
    }

    /// Connects, and says nothing yet.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(endpoint: &str) -> Raw {
        Raw::try_connect(endpoint).unwrap_or_else(|error| panic!("{endpoint}: {error}"))
    }

    /// Connects, and says nothing yet.
    ///
    /// # Errors
    /// When nobody listens or nobody accepts.
    pub fn try_connect(endpoint: &str) -> std::io::Result<Raw> {
        if let Some(path) = endpoint.strip_prefix("shm:") {
            return Ok(Raw::over(MemoryStream::connect(path)?));
        }
        if let Some(path) = endpoint.strip_prefix("unix:") {
            return Ok(Raw::over(UnixStream::connect(path)?));
        }
        let address = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Raw::over(stream))
    }

    /// What it shares with the server, over an endpoint `shm:PATH`.
    ///
    /// # Panics
    /// Over another endpoint, or before the server has said anything.
    pub fn shared(&self) -> Shared {
        self.stream.shared().cloned().expect("it was welcomed through shared memory")
    }

    /// Another descriptor of the socket on which a client with shared memory rings.
    ///
    /// # Panics
    /// Over another endpoint than `shm:PATH`.
    pub fn bell(&self) -> UnixStream {
        let socket = self.stream.socket().expect("it goes through shared memory");
        socket.expect("a descriptor is left")
    }

    /// Connects and is welcomed by this shard.
    pub fn greeted(endpoint: &str, shard: ShardId) -> Raw {
        let mut raw = Raw::connect(endpoint);
        raw.greet(shard);
        raw
    }

    /// Connects and is welcomed, with these feature bits beside the usual ones.
    ///
    /// # Panics
    /// When it is not.
    pub fn greeted_with(endpoint: &str, shard: ShardId, features: u64) -> Raw {
        let mut raw = Raw::connect(endpoint);
        let plain = Hello::to(shard);
        let hello = Hello { features: plain.features | features, ..plain };
        raw.send_numbered(0, &Request::Hello(hello));
        raw.take_welcome();
        raw
    }

    /// Connects and is welcomed; `None` when the server turns the connection away.
    pub fn try_greeted(endpoint: &str, shard: ShardId) -> Option<Raw> {
        let mut raw = Raw::try_connect(endpoint).ok()?;
        raw.send_numbered(0, &Request::Hello(Hello::to(shard)));
        let arrived = raw.next_frame()?;
        let Reply::Welcome(welcome) = arrived.reply() else { return None };
        raw.welcome = Some(welcome);
        Some(raw)
    }

    /// Says HELLO and takes the WELCOME.
    ///
    /// # Panics
    /// When there is none.
    pub fn greet(&mut self, shard: ShardId) {
        self.send_numbered(0, &Request::Hello(Hello::to(shard)));
        self.take_welcome();
    }

    fn take_welcome(&mut self) {
        let arrived = self.receive();
        let Reply::Welcome(welcome) = arrived.reply() else { panic!("no WELCOME: {arrived:?}") };
        self.welcome = Some(welcome);
    }

    /// Connects to a Unix socket with a HELLO that brings the read end of a pipe.
    ///
    /// # Panics
    /// When it is not welcomed.
    pub fn greeted_with_pipe(path: &std::path::Path, pipe: BorrowedFd<'_>) -> Raw {
        let mut raw = Raw::connect_with(path, pipe);
        raw.take_welcome();
        raw
    }

    /// Connects to a Unix socket and says HELLO with a descriptor beside it.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect_with(path: &std::path::Path, descriptor: BorrowedFd<'_>) -> Raw {
        let stream = UnixStream::connect(path).expect("the server listens");
        let mut hello = Vec::new();
        Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut hello);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)), "one fits");
        let sent = rustix::net::sendmsg(
            &stream,
            &[IoSlice::new(&hello)],
            &mut control,
            rustix::net::SendFlags::empty(),
        );
        assert_eq!(sent, Ok(hello.len()), "a short frame goes out whole");
        Raw::over(stream)
    }

    /// From here on a write that waits longer than this is an error.
    ///
    /// # Panics
    /// Never: a socket has a time-out.
    pub fn insist(&mut self, patience: Duration) {
        self.stream.insistence(patience).expect("a socket has a time-out");
    }

    /// Sends bytes as they are. An error is the server's right: it may have closed already.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request with this number and the ack that is due.
    pub fn send_numbered(&mut self, number: u64, request: &Request<'_>) {
        let ack = u16::try_from(self.kept & 0xFFFF).expect("masked");
        let mut bytes = Vec::new();
        request.encode(RequestId(number), ack, &mut bytes);
        let _ = self.stream.write_all(&bytes);
    }

    /// Sends a request and gives its number.
    pub fn send(&mut self, request: &Request<'_>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.send_numbered(number, request);
        number
    }

    /// The next frame; `None` when the server ended the connection.
    ///
    /// # Panics
    /// When nothing comes.
    pub fn next_frame(&mut self) -> Option<Arrived> {
        self.frame_within(WATCHDOG).expect("the server says something or ends the connection")
    }

    /// The next frame within a time: `Ok(None)` when the connection ended, `Err` when nothing came.
    ///
    /// # Errors
    /// Nothing came in time.
    ///
    /// # Panics
    /// When the server's bytes are no frame.
    pub fn frame_within(&mut self, patience: Duration) -> Result<Option<Arrived>, Silence> {
        self.stream.patience(patience).expect("a socket has a time-out");
        loop {
            if let Some((frame, length)) = Frame::split(&self.received).expect("the server writes frames") {
                let request = frame.request.0;
                let arrived =
                    Arrived { kind: frame.kind, flags: frame.flags, request, body: frame.body.to_vec() };
                self.received.drain(..length);
                self.kept += u64::from(arrived.flags & FLAG_KEPT != 0);
                return Ok(Some(arrived));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Silence);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn receive(&mut self) -> Arrived {
        self.next_frame().expect("the connection goes on")
    }

    /// The answer to a request; what comes before it is passed over.
    pub fn answer(&mut self, number: u64) -> Arrived {
        loop {
            let arrived = self.receive();
            if arrived.request == number {
                return arrived;
            }
        }
    }

    /// Sends a request and takes its answer.
    pub fn call(&mut self, request: &Request<'_>) -> Arrived {
        let number = self.send(request);
        self.answer(number)
    }

    /// Opens a session.
    ///
    /// # Panics
    /// When it is refused.
    pub fn open(&mut self, ttl_ms: u32, liveness: Liveness) -> (SessionId, Secret) {
        let arrived = self.call(&Request::Open(session(ttl_ms, liveness)));
        match arrived.reply() {
            Reply::Opened { session, secret, .. } => (session, secret),
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Takes a lock, waiting for ever.
    pub fn acquire(&mut self, name: &[u8]) -> Grant {
        self.call(&Request::Acquire(exclusive(name))).grant()
    }

    /// Gives a grant back.
    ///
    /// # Panics
    /// When it is refused.
    pub fn release(&mut self, grant: GrantId) {
        let arrived = self.call(&Request::Release(grant));
        assert!(matches!(arrived.reply(), Reply::Released { .. }), "{arrived:?}");
    }

    /// Reads until the server ends the connection; gives what came before that.
    pub fn until_closed(&mut self) -> Vec<Arrived> {
        std::iter::from_fn(|| self.next_frame()).collect()
    }

    /// The connection is ended by the server, and the last it says is this refusal.
    ///
    /// # Panics
    /// When it is not so.
    pub fn is_refused_and_closed(&mut self, refusal: Refusal) {
        let last = self.until_closed().pop().expect("it says why before it closes");
        assert_eq!(last.refusal(), Some(refusal), "{:?}", last.reply());
    }
}

/// Nothing came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence;
