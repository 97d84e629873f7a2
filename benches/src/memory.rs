//! A stream to a server through shared memory, as thin as the raw protocol: what the client library adds is the
//! difference to this.

use crate::stream::Manner;
use fairlock_protocol::handshake::FEATURE_SHM;
use fairlock_protocol::{Frame, Reply};
use fairlock_shm::bell::Waiting;
use fairlock_shm::ring::{Receiver, Sender};
use fairlock_shm::segment::Segment;
use fairlock_shm::wait;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the features stand in a HELLO.
const FEATURES_AT: usize = 32;
/// Looks between two looks whether the server is still there.
const LOOKS: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Memory {
    socket: UnixStream,
    manner: Manner,
    segment: Option<Segment>,
    requests: Sender,
    replies: Receiver,
}

impl Memory {
    /// Connects; the memory comes with the answer to HELLO.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(path: &Path, manner: Manner) -> io::Result<Memory> {
        let (requests, replies) = (Sender::default(), Receiver::default());
        Ok(Memory { socket: UnixStream::connect(path)?, manner, segment: None, requests, replies })
    }

    /// The memory, once the server has said anything.
    pub fn segment(&self) -> Option<&Segment> {
        self.segment.as_ref()
    }

    fn map(&mut self) -> io::Result<Segment> {
        let mut bytes = [0; 4096];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::net::recvmsg(&self.socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut files: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors);
            }
        }
        let frame = Frame::split(&bytes[..received.bytes]).ok().flatten();
        let reply = frame.as_ref().and_then(|(frame, _)| Reply::decode(frame).ok());
        match (reply, files.first()) {
            (Some(Reply::Segment { .. }), Some(file)) => Segment::open(file).map_err(io::Error::other),
            (reply, _) => Err(io::Error::other(format!("no memory: {reply:?}"))),
        }
    }

    /// Whatever has arrived, at least a byte; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.segment.is_none() {
            self.segment = Some(self.map()?);
        }
        let segment = self.segment.as_ref().ok_or(ErrorKind::NotConnected)?;
        let ring = segment.replies();
        let mut looks = 0_u32;
        while !self.replies.is_ready(ring) {
            match self.manner {
                Manner::Spinning => std::hint::spin_loop(),
                Manner::Sleeping => {
                    segment.parking().announce(Waiting::Futex);
                    if !self.replies.is_ready(ring) {
                        wait::park(segment.parking(), Some(Duration::from_secs(1)));
                    }
                    segment.parking().announce(Waiting::Looking);
                }
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS) && self.is_over() {
                return Ok(0);
            }
        }
        let mut count = 0;
        while into.len() - count >= fairlock_shm::ring::SLOT_BYTES
            && let Some(piece) = self.replies.receive(ring).map_err(io::Error::other)?
        {
            let bytes = piece.bytes();
            into[count..count + bytes.len()].copy_from_slice(bytes);
            count += bytes.len();
        }
        self.replies.give_back(ring);
        Ok(count)
    }

    fn is_over(&self) -> bool {
        let mut bells = [0; 64];
        matches!(rustix::net::recv(&self.socket, &mut bells, RecvFlags::DONTWAIT), Ok((0, _)))
    }

    /// Writes everything.
    ///
    /// # Errors
    /// What the system says.
    pub fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(segment) = &self.segment else {
            let mut hello = bytes.to_vec();
            hello[FEATURES_AT] |= u8::try_from(FEATURE_SHM).expect("a low bit");
            return self.socket.write_all(&hello);
        };
        while !bytes.is_empty() {
            let sent = self.requests.send(segment.requests(), bytes).map_err(io::Error::other)?;
            bytes = &bytes[sent..];
            if segment.attention().must_ring() {
                // A full socket is a bell that is ringing already.
                let _ = rustix::net::send(&self.socket, &[0], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
            if sent == 0 {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}
