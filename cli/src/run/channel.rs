//! A line between two processes of one `run`: whole messages, descriptors beside the first one, an end that is seen.
//!
//! The new process finds its end as stdin, because that is the only descriptor that can be taken up without `unsafe`;
//! what stdin really is comes over the channel.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Longest message in bytes: the longest text is an error message.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Descriptors beside one message: stdin and the write ends of two pipes.
const DESCRIPTORS_MAX: usize = 3;

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

/// What a receive found.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// A message.
    Message(T),
    /// Nothing at the moment.
    Nothing,
    /// The other process is gone or has closed its end.
    Closed,
}

impl Channel {
    /// Both ends: ours, and the stdin of the process to be started.
    pub(crate) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { socket: ours }, theirs))
    }

    /// The end this process found as stdin, and what came with the first message.
    pub(crate) fn of_stdin() -> io::Result<(Channel, Vec<OwnedFd>)> {
        // Above the standard three, so that giving those another meaning does not touch it.
        let channel = Channel { socket: fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)? };
        let (bytes, descriptors) = channel.take(RecvFlags::empty())?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((channel, descriptors))
    }

    /// Sends a message. Never waits: a peer that is stopped long enough to fill its queue misses messages, it does not
    /// stop the sender.
    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors.
    pub(crate) fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut beside, flags)?;
        Ok(())
    }

    /// Takes a message that is there.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Received<T> {
        self.received(RecvFlags::DONTWAIT)
    }

    /// Waits for a message.
    pub(crate) fn wait<T: DeserializeOwned>(&self) -> Received<T> {
        self.received(RecvFlags::empty())
    }

    fn received<T: DeserializeOwned>(&self, flags: RecvFlags) -> Received<T> {
        match self.take(flags) {
            Ok((bytes, _)) if bytes.is_empty() => Received::Closed,
            // Both ends are this very program; what does not read cannot have come from it.
            Ok((bytes, _)) => serde_json::from_slice(&bytes).map_or(Received::Closed, Received::Message),
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Closed,
        }
    }

    fn take(&self, flags: RecvFlags) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let got = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.socket, &mut slices, &mut beside, flags)
        })?;
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        bytes.truncate(got.bytes);
        Ok((bytes, descriptors))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::messages::{Hello, Word};

    #[test]
    fn messages_arrive_whole_and_the_end_is_seen() {
        let (ours, theirs) = Channel::pair().expect("a socket pair");
        let theirs = Channel { socket: theirs };
        ours.send(&Word::Signal(15)).expect("sent");
        ours.send(&Word::Continue(2)).expect("sent");
        assert!(matches!(theirs.receive(), Received::Message(Word::Signal(15))));
        assert!(matches!(theirs.receive(), Received::Message(Word::Continue(2))));
        assert!(matches!(theirs.receive::<Word>(), Received::Nothing));
        drop(ours);
        assert!(matches!(theirs.receive::<Word>(), Received::Closed));
    }

    #[test]
    fn descriptors_travel_with_a_message() {
        let (ours, theirs) = Channel::pair().expect("a socket pair");
        let theirs = Channel { socket: theirs };
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        ours.send_with(&Hello, &[write.as_fd()]).expect("sent");
        drop(write);
        let (bytes, descriptors) = theirs.take(RecvFlags::empty()).expect("received");
        assert!(!bytes.is_empty());
        assert_eq!(descriptors.len(), 1);
        rustix::io::write(&descriptors[0], b"x").expect("written");
        assert_eq!(rustix::io::read(&read, &mut [0; 4]), Ok(1));
    }

    #[test]
    fn a_full_queue_does_not_stop_the_sender() {
        let (ours, _theirs) = Channel::pair().expect("a socket pair");
        let refused = (0..1_000_000).find_map(|_| ours.send(&Word::Signal(1)).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
