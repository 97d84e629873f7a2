//! A server that a test speaks for, word by word, over real sockets. Every wait of it ends with an error after
//! `PATIENCE`, so that a broken client fails a test instead of hanging it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its own part; a surprise fails the test"
)]

pub(crate) mod memory;

use fairlock_protocol::handshake::{FEATURE_SHM, FEATURE_STANDBY, HELLO};
use fairlock_protocol::reply::{Grant, Refused};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    CellId, DigestKey, FencingToken, Frame, GrantId, Mode, Refusal, Reply, Request, RequestId, Role, Secret,
    SessionId, ShardId, Wait, Welcome, Whereabouts,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const KEY: DigestKey = DigestKey([3, 4]);

/// What a client said, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Hello { shard: u16, epoch: u32 },
    Open { ttl_ms: u32, label: String },
    Resume { received: u64 },
    Acquire { name: Vec<u8>, mode: Mode, wait: Wait },
    Look,
    AcquireAll { names: Vec<Vec<u8>>, wait: Wait },
    Release(u32),
    Convert(u32, Mode),
    Cancel(u64),
    Confirm(u32),
    Keepalive,
    Close,
    Else,
}

/// One frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) id: u64,
    pub(crate) ack: u16,
    pub(crate) said: Said,
}

/// The listening side.
pub(crate) struct Server {
    listener: TcpListener,
}

/// One connection, as the server has it.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
    inbox: Vec<u8>,
    grants: u32,
    /// Heard while something else was waited for.
    early: Vec<Heard>,
    /// The last HELLO asked for memory.
    pub(crate) asked: bool,
    /// It said that it stands by.
    pub(crate) stands_by: bool,
}

/// Starts a server that follows the script on a thread of its own.
pub(crate) fn serve(script: impl FnOnce(Server) + Send + 'static) -> (String, JoinHandle<()>) {
    let (server, endpoint) = listen();
    (endpoint, std::thread::spawn(move || script(server)))
}

/// A server that has yet to be given a script, and where it listens.
pub(crate) fn listen() -> (Server, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    (Server { listener }, endpoint)
}

impl Server {
    /// Accepts a connection, and welcomes it as a node of this role and epoch.
    pub(crate) fn greeted_as(&self, role: Role, epoch: u32) -> Peer<TcpStream> {
        let mut peer = self.accept();
        let hello = peer.hear().unwrap();
        assert!(matches!(hello.said, Said::Hello { .. }), "{hello:?}");
        peer.say(0, 0, &Reply::Welcome(welcome_as(role, epoch, peer.stands_by)));
        peer
    }

    /// Accepts a connection that opens a session at the primary.
    pub(crate) fn opened_as_primary(&self, ttl_ms: u32) -> Peer<TcpStream> {
        let mut peer = self.greeted_as(Role::Primary, 5);
        peer.opened(ttl_ms);
        peer
    }

    /// Whether somebody has connected whom nobody has accepted.
    pub(crate) fn has_caller(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let found = self.listener.accept().is_ok();
        self.listener.set_nonblocking(false).unwrap();
        found
    }

    pub(crate) fn accept(&self) -> Peer<TcpStream> {
        await_caller(&self.listener);
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer::new(stream)
    }

    /// Accepts a connection that opens a session.
    pub(crate) fn opened(&self, ttl_ms: u32) -> Peer<TcpStream> {
        let mut peer = self.accept();
        peer.open(ttl_ms, 1);
        peer
    }

    /// Accepts a connection that resumes; `following` kept replies are said by the script.
    pub(crate) fn resumed(&self, following: u32) -> Peer<TcpStream> {
        let mut peer = self.accept();
        assert!(matches!(peer.hear().unwrap().said, Said::Hello { shard: 0, .. }));
        peer.say(0, 0, &Reply::Welcome(welcome(0, 1)));
        let resume = peer.hear().unwrap();
        assert!(matches!(resume.said, Said::Resume { .. }), "{resume:?}");
        peer.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms: 5000, seen: 0, following });
        peer
    }
}

/// Waits until somebody has connected.
fn await_caller(listener: &impl AsFd) {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let patience = PATIENCE.try_into().unwrap();
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "nobody came");
}

pub(crate) fn welcome(shard: u16, shards: u16) -> Welcome {
    Welcome {
        version: 1,
        shard: ShardId(shard),
        shards,
        role: Role::Standalone,
        features: 1,
        cell: CellId(77),
        epoch: 5,
        ttl_max_ms: 60_000,
        recovering_ms: 0,
        digest_key: KEY,
    }
}

/// What a node of a cell says.
pub(crate) fn welcome_as(role: Role, epoch: u32, stands_by: bool) -> Welcome {
    let features = if stands_by { FEATURE_STANDBY } else { 0 };
    Welcome { role, epoch, features, ..welcome(0, 1) }
}

/// NOT_PRIMARY, and who is.
pub(crate) fn not_primary(epoch: u32, endpoints: &str) -> Reply<'_> {
    let primary = Some(Whereabouts { epoch, endpoints });
    Reply::Refused(Refused { primary, ..Refusal::NotPrimary.into() })
}

/// Whether this is a HELLO with this feature bit.
fn has_bit(frame: &Frame<'_>, bit: u64) -> bool {
    matches!(Request::decode(frame).unwrap(), Request::Hello(hello) if hello.features & bit != 0)
}

pub(crate) fn granted(slot: u32) -> Reply<'static> {
    Reply::Granted(Grant {
        grant: GrantId::from_parts(slot, NonZeroU32::MIN),
        token: FencingToken::from_raw(1000 + u64::from(slot)),
        fence: 999 + u64::from(slot),
        mode: Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered: false,
        proof: None,
    })
}

pub(crate) fn refused(refusal: Refusal) -> Reply<'static> {
    Reply::Refused(refusal.into())
}

impl<S: Read + Write> Peer<S> {
    pub(crate) fn new(stream: S) -> Peer<S> {
        Peer { stream, inbox: Vec::new(), grants: 0, early: Vec::new(), asked: false, stands_by: false }
    }

    /// HELLO, WELCOME, OPEN, OPENED, on shard 0 of `shards`.
    pub(crate) fn open(&mut self, ttl_ms: u32, shards: u16) {
        assert!(matches!(self.hear().unwrap().said, Said::Hello { shard: 0xFFFF, .. }));
        self.welcome_and_open(ttl_ms, shards);
    }

    /// WELCOME, OPEN, OPENED.
    pub(crate) fn welcome_and_open(&mut self, ttl_ms: u32, shards: u16) {
        self.say(0, 0, &Reply::Welcome(welcome(0, shards)));
        self.opened(ttl_ms);
    }

    /// OPEN, OPENED.
    pub(crate) fn opened(&mut self, ttl_ms: u32) {
        let open = self.hear().unwrap();
        self.opens(&open, ttl_ms);
    }

    /// OPENED.
    pub(crate) fn opens(&mut self, open: &Heard, ttl_ms: u32) {
        assert!(matches!(open.said, Said::Open { .. }), "{open:?}");
        let session = SessionId::from_raw(0x0500_0000_0001).unwrap();
        let opened = Reply::Opened { session, secret: Secret(99), ttl_ms, home: ShardId(0) };
        self.say(open.id, FLAG_RENEWED, &opened);
    }

    pub(crate) fn say(&mut self, id: u64, flags: u8, reply: &Reply<'_>) {
        let mut bytes = Vec::new();
        reply.encode(RequestId(id), flags, &mut bytes);
        // A client that has gone is the script's business only when it listens.
        let _ = self.stream.write_all(&bytes);
    }

    /// The next frame; `None` when the client has hung up.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        if self.early.is_empty() { self.hear_next() } else { Some(self.early.remove(0)) }
    }

    fn hear_next(&mut self) -> Option<Heard> {
        loop {
            if let Some((frame, length)) = Frame::split(&self.inbox).unwrap() {
                self.asked |= has_bit(&frame, FEATURE_SHM);
                self.stands_by |= has_bit(&frame, FEATURE_STANDBY);
                let heard = Heard { id: frame.request.0, ack: frame.ack, said: said(&frame) };
                self.inbox.drain(..length);
                return Some(heard);
            }
            let mut room = [0; 4096];
            match self.stream.read(&mut room) {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the client said nothing: {error}"),
            }
        }
    }

    /// The next frame that is no keepalive; those are answered.
    pub(crate) fn listen(&mut self) -> Option<Heard> {
        loop {
            let heard = self.hear()?;
            if heard.said != Said::Keepalive {
                return Some(heard);
            }
            self.say(heard.id, FLAG_RENEWED, &Reply::Alive);
        }
    }

    /// Answers one frame as a server does when nothing stands in the way.
    pub(crate) fn oblige(&mut self, heard: &Heard) {
        match heard.said {
            Said::Acquire { .. } => {
                self.grants += 1;
                let slot = self.grants;
                self.say(heard.id, FLAG_KEPT | FLAG_RENEWED, &granted(slot));
            }
            Said::AcquireAll { ref names, .. } => {
                for _ in names {
                    self.grants += 1;
                    let slot = self.grants;
                    self.say(heard.id, FLAG_KEPT | FLAG_RENEWED, &granted(slot));
                }
            }
            Said::Release(_) => {
                self.say(heard.id, FLAG_KEPT | FLAG_RENEWED, &Reply::Released { remaining: 0 });
            }
            Said::Cancel(_) => self.say(heard.id, FLAG_KEPT, &Reply::Withdrawn { was_waiting: false }),
            Said::Keepalive => self.say(heard.id, FLAG_RENEWED, &Reply::Alive),
            Said::Close => self.say(heard.id, 0, &Reply::Closed),
            _ => {}
        }
    }

    /// Obliges until the client hangs up; what it said, keepalives left out.
    pub(crate) fn oblige_all(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(heard) = self.listen() {
            self.oblige(&heard);
            all.push(heard);
        }
        all
    }
}

fn said(frame: &Frame<'_>) -> Said {
    assert!(frame.kind == HELLO || frame.request.0 > 0, "only a HELLO has no number");
    match Request::decode(frame).unwrap() {
        Request::Hello(hello) => Said::Hello { shard: hello.shard.0, epoch: hello.epoch },
        Request::Open(open) => {
            Said::Open { ttl_ms: open.ttl_ms, label: String::from_utf8(open.label.to_vec()).unwrap() }
        }
        Request::Resume { secret, received, .. } => {
            assert_eq!(secret, Secret(99));
            Said::Resume { received }
        }
        Request::Acquire(acquire) => Said::Acquire {
            name: acquire.resource.name.as_bytes().to_vec(),
            mode: acquire.mode,
            wait: acquire.wait,
        },
        Request::AcquireAll(all) => Said::AcquireAll {
            names: all.items.iter().map(|(resource, _)| resource.name.as_bytes().to_vec()).collect(),
            wait: all.wait,
        },
        Request::Release(grant) => Said::Release(grant.slot()),
        Request::Convert { grant, mode, .. } => Said::Convert(grant.slot(), mode),
        Request::Cancel(target) => Said::Cancel(target.0),
        Request::Confirm(grant) => Said::Confirm(grant.slot()),
        Request::Keepalive => Said::Keepalive,
        Request::Look => Said::Look,
        Request::Close => Said::Close,
        _ => Said::Else,
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

/// Waits until it is so.
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it never came to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}
