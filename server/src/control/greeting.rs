//! Connections on the Unix socket until their HELLO is whole: who they are, which shard they want, and the one
//! descriptor they may bring, the read end of a pipe that hangs up when their last descendant is gone.
//!
//! The control thread does this, not a shard, because descriptors travel with bytes and only `recvmsg` takes them. The
//! pipe must come with the HELLO or with what is sent together with it; later the connection belongs to a shard, which
//! takes bytes alone. A HELLO is answered by the shard; only what cannot reach one is refused here.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fairlock_protocol::handshake::FEATURE_SHM;
use fairlock_protocol::limits::{AUTH_BYTES_MAX, HANDSHAKE_TIME};
use fairlock_protocol::reply::Refused;
use fairlock_protocol::wire::HEADER_BYTES;
use fairlock_protocol::{Frame, Malformed, Refusal, Reply, Request, RequestId, ShardId, Tick};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown};

use crate::connection::{Peer, UnixPeer};
use crate::driver::peer::{PeerCredentials, peer_credentials, peer_pidfd};
use crate::lanes::Adoption;

/// Bytes of the longest HELLO: its header, 44 bytes of fields, and the credential.
const HELLO_BYTES_MAX: usize = HEADER_BYTES + 44 + AUTH_BYTES_MAX;
/// Bytes taken at once. What follows the HELLO in the same piece travels on with it.
const RECEIVE_BYTES: usize = 8192;
/// Descriptors there is room for; one more than one is enough to see that there are too many.
const DESCRIPTOR_ROOM: usize = 4;

const _: () = assert!(RECEIVE_BYTES >= HELLO_BYTES_MAX, "a HELLO arrives in one piece");

/// What happened at the door, for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DoorCounts {
    /// Connections accepted.
    pub(crate) accepted: u64,
    /// Connections refused: not a client of ours, or not of this version.
    pub(crate) refused: u64,
    /// Connections ended because they were silent too long, or to make room.
    pub(crate) dropped: u64,
}

/// A connection whose HELLO is not whole yet.
#[derive(Debug)]
struct Greeting {
    socket: OwnedFd,
    credentials: PeerCredentials,
    pidfd: OwnedFd,
    pipe: Option<OwnedFd>,
    received: Vec<u8>,
    until: Tick,
}

/// All of them, oldest first: numbers and deadlines rise together.
#[derive(Debug)]
pub(super) struct Greetings {
    open: BTreeMap<u64, Greeting>,
    accepted: u64,
    most: usize,
    refused: u64,
    dropped: u64,
}

/// How far one connection came.
enum Progress {
    /// Its HELLO is not whole.
    More,
    /// It wants to speak to this shard, through shared memory or not.
    Wants(ShardId, bool),
    /// It is over without a word: the peer is gone.
    Gone,
    /// It is refused.
    Refused(Refusal, String),
}

/// A connection that has introduced itself.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The shard it wants to speak to.
    pub(super) shard: ShardId,
    /// It would rather speak through shared memory.
    pub(super) wants_memory: bool,
    /// The connection.
    pub(super) adoption: Box<Adoption>,
}

impl Greetings {
    /// A door with room for `most` connections that have not introduced themselves.
    pub(super) fn new(most: usize) -> Greetings {
        assert!(most > 0, "the configuration was checked");
        Greetings { open: BTreeMap::new(), accepted: 0, most, refused: 0, dropped: 0 }
    }

    /// A new connection; it may cost the oldest silent one its place.
    pub(super) fn accept(&mut self, socket: OwnedFd, now: Tick) {
        self.accepted += 1;
        // Right after accepting: a peer that ended already is nobody, and its pid may soon be another's.
        let (Ok(credentials), Ok(pidfd)) = (peer_credentials(&socket), peer_pidfd(&socket)) else {
            self.dropped += 1;
            tracing::debug!("a connection was dropped: its process is gone or not visible from here");
            return;
        };
        if self.open.len() >= self.most {
            let silent = self.open.iter().find(|(_, greeting)| greeting.received.is_empty());
            let victim = silent.or(self.open.first_key_value()).map(|(id, _)| *id);
            self.dropped += u64::from(victim.and_then(|id| self.open.remove(&id)).is_some());
        }
        let until = now.after(HANDSHAKE_TIME);
        let greeting = Greeting { socket, credentials, pidfd, pipe: None, received: Vec::new(), until };
        self.open.insert(self.accepted, greeting);
        assert!(self.open.len() <= self.most, "one came, one went");
    }

    /// Takes what has arrived on one connection. A whole HELLO takes the connection away, to the shard it names.
    pub(super) fn receive(&mut self, id: u64) -> Option<Greeted> {
        let greeting = self.open.get_mut(&id)?;
        let progress = greeting.progress();
        if matches!(progress, Progress::More) {
            return None;
        }
        let greeting = self.open.remove(&id)?;
        match progress {
            Progress::Wants(shard, wants_memory) => {
                return Some(Greeted { shard, wants_memory, adoption: Box::new(greeting.adoption()) });
            }
            Progress::Refused(refusal, detail) => self.refuse(&greeting, refusal, &detail),
            Progress::More | Progress::Gone => {}
        }
        None
    }

    /// Refuses a connection whose HELLO named a shard that does not exist.
    pub(super) fn refuse_adoption(&mut self, adoption: &Adoption, refusal: Refusal, detail: &str) {
        self.refused += 1;
        answer(&adoption.socket, refusal, detail);
    }

    fn refuse(&mut self, greeting: &Greeting, refusal: Refusal, detail: &str) {
        self.refused += 1;
        let PeerCredentials { pid, uid, .. } = greeting.credentials;
        tracing::debug!(pid, uid, refusal = refusal.name(), detail, "connection refused");
        answer(&greeting.socket, refusal, detail);
    }

    /// Ends connections that had their time.
    pub(super) fn expire(&mut self, now: Tick) {
        while let Some(oldest) = self.open.first_entry() {
            if now < oldest.get().until {
                return;
            }
            oldest.remove();
            self.dropped += 1;
        }
    }

    /// When to call [`Greetings::expire`].
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.open.first_key_value().map(|(_, greeting)| greeting.until)
    }

    /// What to wait on.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.open.iter().map(|(id, greeting)| (*id, greeting.socket.as_fd()))
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// What happened so far.
    pub(super) fn counts(&self) -> DoorCounts {
        DoorCounts { accepted: self.accepted, refused: self.refused, dropped: self.dropped }
    }
}

impl Greeting {
    fn progress(&mut self) -> Progress {
        loop {
            match self.receive() {
                Ok(0) => return Progress::Gone,
                Ok(_) => {}
                Err(ReceiveError::Kernel(Errno::INTR)) => continue,
                Err(ReceiveError::Kernel(Errno::AGAIN)) => return Progress::More,
                Err(ReceiveError::Kernel(_)) => return Progress::Gone,
                Err(ReceiveError::Descriptors(what)) => {
                    return Progress::Refused(Refusal::BadRequest, what.to_string());
                }
            }
            match hello_shard(&self.received) {
                Ok(None) => {}
                Ok(Some((shard, memory))) => return Progress::Wants(shard, memory),
                Err(progress) => return progress,
            }
        }
    }

    /// One piece, with the descriptors that came with it.
    fn receive(&mut self) -> Result<usize, ReceiveError> {
        let start = self.received.len();
        assert!(start < HELLO_BYTES_MAX, "a longer HELLO was refused");
        self.received.resize(start + RECEIVE_BYTES, 0);
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_ROOM))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut room);
        let outcome = {
            let piece = self.received.get_mut(start..).unwrap_or_default();
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(piece)], &mut ancillary, flags)
        };
        let bytes = outcome.as_ref().map_or(0, |message| message.bytes);
        self.received.truncate(start + bytes);
        // Whatever came is owned here, so that every refusal closes it.
        let mut came: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                came.extend(descriptors);
            }
        }
        let message = outcome.map_err(ReceiveError::Kernel)?;
        let too_many = message.flags.contains(ReturnFlags::CTRUNC) || came.len() > 1;
        if let Some(descriptor) = came.pop() {
            if too_many || self.pipe.is_some() {
                return Err(ReceiveError::Descriptors("more than one descriptor came with the HELLO"));
            }
            if !is_read_end(&descriptor) {
                return Err(ReceiveError::Descriptors("the descriptor is not the read end of a pipe"));
            }
            self.pipe = Some(descriptor);
        } else if too_many {
            return Err(ReceiveError::Descriptors("the descriptors that came cannot be taken"));
        }
        Ok(message.bytes)
    }

    fn adoption(self) -> Adoption {
        let Greeting { socket, credentials, pidfd, pipe, received, .. } = self;
        let peer = Peer::Unix(Box::new(UnixPeer { credentials, pidfd, pipe }));
        Adoption { socket, received, peer, segment: None }
    }
}

enum ReceiveError {
    Kernel(Errno),
    Descriptors(&'static str),
}

/// The shard the HELLO at the front of `received` names, once it is whole, and whether it asks for shared memory.
fn hello_shard(received: &[u8]) -> Result<Option<(ShardId, bool)>, Progress> {
    let refused = |error: Malformed| Progress::Refused(error.refusal(), error.to_string());
    let Some((frame, _)) = Frame::split(received).map_err(refused)? else {
        if received.len() >= HELLO_BYTES_MAX {
            return Err(Progress::Refused(
                Refusal::BadRequest,
                "the first frame is longer than a HELLO".into(),
            ));
        }
        return Ok(None);
    };
    let Request::Hello(hello) = Request::decode(&frame).map_err(refused)? else {
        return Err(Progress::Refused(Refusal::BadRequest, "the first frame is not a HELLO".into()));
    };
    match hello.agree() {
        Ok(_) => Ok(Some((hello.shard, hello.features & FEATURE_SHM != 0))),
        Err(refusal) => {
            let (min, max, ours) =
                (hello.version_min, hello.version_max, fairlock_protocol::handshake::VERSION);
            let detail = format!("the server speaks version {ours}, the client {min} to {max}");
            Err(Progress::Refused(refusal, detail))
        }
    }
}

/// Only a pipe hangs up when its last writer is gone, and only its read end tells.
fn is_read_end(descriptor: &OwnedFd) -> bool {
    let is_pipe = rustix::fs::fstat(descriptor)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    let flags = rustix::fs::fcntl_getfl(descriptor);
    is_pipe && flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDONLY)
}

/// The last word on a connection. A fresh socket has room for it; a peer that cannot take it learns from the end.
fn answer(socket: &OwnedFd, refusal: Refusal, detail: &str) {
    let mut out = Vec::new();
    Reply::Refused(Refused { detail, ..refusal.into() }).encode(RequestId::NOTICE, 0, &mut out);
    let sent: io::Result<usize> =
        rustix::net::send(socket, &out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(Into::into);
    if let Err(error) = sent {
        tracing::debug!(%error, "a refusal could not be sent");
    }
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}
