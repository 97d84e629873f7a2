//! A byte stream through shared memory for the raw client: HELLO goes out on the socket with the wish for memory, what
//! follows goes through the rings. It looks again and again instead of sleeping, and never believes the server less than
//! the protocol allows.

use crate::raw::Stream;
use fairlock_protocol::handshake::FEATURE_SHM;
use fairlock_protocol::{Frame, Reply};
use fairlock_shm::beacon::Sight;
use fairlock_shm::bell::Waiting;
use fairlock_shm::ring::{Receiver, Sender};
use fairlock_shm::segment::Segment;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the features stand in a HELLO.
const FEATURES_AT: usize = 32;

/// Where things lie in a segment, in bytes from its beginning.
pub mod places {
    /// What the server says about the session.
    pub const STATUS: u64 = 64;
    /// Whether the server looks at the ring by itself.
    pub const ATTENTION: u64 = 128;
    /// How the client waits.
    pub const PARKING: u64 = 192;
    /// How the client leaves words.
    pub const MANNERS: u64 = 256;
    /// How far the server has read; the slots follow, a line each.
    pub const REQUESTS: u64 = 4096;
    /// How far the client has read; the slots follow, a line each.
    pub const REPLIES: u64 = REQUESTS + 5 * 4096;
    /// The grant words, a line each.
    pub const WORDS: u64 = REPLIES + 5 * 4096;
    /// Bytes of a line.
    pub const LINE: u64 = 64;
}

/// What a client and a shard share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The descriptor with which it was passed.
    pub file: Arc<OwnedFd>,
    /// The shard's line of the beacon.
    pub sight: Sight,
}

impl Shared {
    /// Writes any bytes anywhere, as a client may that has its memory's file.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&*self.file, bytes, at)?)
    }

    /// The word of eight bytes that lies there.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn read(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        rustix::io::pread(&*self.file, &mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// See the module.
#[derive(Debug)]
pub struct MemoryStream {
    socket: UnixStream,
    shared: Option<Shared>,
    requests: Sender,
    replies: Receiver,
    patience: Duration,
    insistence: Duration,
    /// Since when the ring has been full.
    full_since: Option<Instant>,
    left: Vec<u8>,
}

impl MemoryStream {
    /// Connects; memory comes with the answer to HELLO.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(path: &str) -> io::Result<MemoryStream> {
        let (requests, replies) = (Sender::default(), Receiver::default());
        let socket = UnixStream::connect(path)?;
        let (patience, insistence) = (crate::WATCHDOG, crate::WATCHDOG);
        let (shared, full_since, left) = (None, None, Vec::new());
        Ok(MemoryStream { socket, shared, requests, replies, patience, insistence, full_since, left })
    }

    /// Takes SEGMENT and its two descriptors.
    fn map(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(self.patience))?;
        let mut bytes = [0; 4096];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors);
            }
        }
        let (frame, _) =
            Frame::split(&bytes[..received.bytes]).ok().flatten().ok_or(ErrorKind::UnexpectedEof)?;
        let Ok(Reply::Segment { reason, .. }) = Reply::decode(&frame) else {
            return Err(io::Error::other(format!("no SEGMENT: {frame:?}")));
        };
        let [segment, beacon] = <[OwnedFd; 2]>::try_from(files)
            .map_err(|files| io::Error::other(format!("{} descriptors: {reason}", files.len())))?;
        let sight = Sight::open(&beacon, 0)?;
        let mapped = Arc::new(Segment::open(&segment).map_err(io::Error::other)?);
        self.shared = Some(Shared { segment: mapped, file: Arc::new(segment), sight });
        Ok(())
    }

    fn ring(&self) -> io::Result<()> {
        match rustix::net::send(&self.socket, &[0], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the server has hung up; bells are taken away.
    fn is_over(&self) -> bool {
        let mut bells = [0; 64];
        loop {
            match rustix::net::recv(&self.socket, &mut bells, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return true,
                Ok(_) => {}
                Err(errno) => return errno != rustix::io::Errno::AGAIN,
            }
        }
    }
}

impl Write for MemoryStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(shared) = &self.shared else {
            let mut hello = bytes.to_vec();
            if let Some(features) = hello.get_mut(FEATURES_AT) {
                *features |= u8::try_from(FEATURE_SHM).expect("a low bit");
            }
            return self.socket.write(&hello);
        };
        let sent = self.requests.send(shared.segment.requests(), bytes).map_err(io::Error::other)?;
        if shared.segment.attention().must_ring() {
            self.ring()?;
        }
        if sent == 0 && !bytes.is_empty() {
            if self.is_over() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            if self.full_since.get_or_insert_with(Instant::now).elapsed() > self.insistence {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
            return Err(ErrorKind::Interrupted.into());
        }
        self.full_since = None;
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for MemoryStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.shared.is_none() {
            self.map()?;
        }
        let begun = Instant::now();
        while self.left.is_empty() {
            let shared = self.shared.as_ref().ok_or(ErrorKind::NotConnected)?;
            let ring = shared.segment.replies();
            while let Some(piece) = self.replies.receive(ring).map_err(io::Error::other)? {
                self.left.extend_from_slice(piece.bytes());
            }
            self.replies.give_back(ring);
            if self.left.is_empty() {
                if self.is_over() && !self.replies.is_ready(ring) {
                    return Ok(0);
                }
                if begun.elapsed() > self.patience {
                    return Err(ErrorKind::TimedOut.into());
                }
                shared.segment.parking().announce(Waiting::Futex);
                if !self.replies.is_ready(ring) {
                    fairlock_shm::wait::park(shared.segment.parking(), Some(Duration::from_millis(2)));
                }
                shared.segment.parking().announce(Waiting::Looking);
            }
        }
        let length = room.len().min(self.left.len());
        room[..length].copy_from_slice(&self.left[..length]);
        self.left.drain(..length);
        Ok(length)
    }
}

impl Stream for MemoryStream {
    fn patience(&mut self, patience: Duration) -> io::Result<()> {
        self.patience = patience;
        Ok(())
    }

    fn insistence(&mut self, patience: Duration) -> io::Result<()> {
        self.insistence = patience;
        Ok(())
    }

    fn socket(&self) -> Option<io::Result<UnixStream>> {
        Some(self.socket.try_clone())
    }

    fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }
}
