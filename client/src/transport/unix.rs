//! Unix sockets: connections on the same host, and a descriptor sent along.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Connects; over a Unix socket that is done at once or not at all.
pub(super) fn begin(path: &Path) -> io::Result<(OwnedFd, bool)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok((socket.into(), true))
}

/// Writes with a descriptor beside the first byte.
pub(super) fn write_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    pass: BorrowedFd<'_>,
) -> io::Result<Option<usize>> {
    let passed = [pass];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)), "the room was made for one descriptor");
    loop {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(sent) => return Ok(Some(sent)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Descriptors taken off a socket at once; what a peer passes beyond them is closed by the system.
const PASSED_MAX: usize = 2;

/// Reads what has arrived, and with it the descriptors that were passed.
pub(super) fn read_with(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    passed: &mut Vec<OwnedFd>,
) -> io::Result<Option<usize>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            passed.extend(files.take(PASSED_MAX - passed.len().min(PASSED_MAX)));
        }
    }
    Ok(Some(received))
}
