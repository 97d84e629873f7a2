//! Offering shared memory to a client on this host: a segment of its own and the beacon, passed with one frame before
//! its connection goes to its shard.
//!
//! What cannot be had is refused with a reason, and the talk stays on the socket: a client loses speed, nothing else.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fairlock_protocol::{Reply, RequestId};
use fairlock_shm::beacon::Beacon;
use fairlock_shm::segment::Segment;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::clock;

/// Answers a client that asked for shared memory. `Ok(None)`: it was told why there is none.
///
/// # Errors
/// The answer could not be sent; the connection is of no use.
pub(super) fn offer(socket: &OwnedFd, beacon: Option<&Beacon>) -> io::Result<Option<Arc<Segment>>> {
    let Some(beacon) = beacon else {
        refuse(socket, "the server has no beacon; its log says why")?;
        return Ok(None);
    };
    let made = Segment::create().and_then(|(segment, file)| {
        // A kernel that lets no more descriptors travel (ETOOMANYREFS: others do not fetch theirs) passes nothing at all.
        pass(socket, &file, beacon)?;
        Ok(Arc::new(segment))
    });
    match made {
        Ok(segment) => Ok(Some(segment)),
        Err(error) => {
            tracing::warn!(%error, "no segment could be made or passed; a client stays on its socket");
            refuse(socket, &format!("the server cannot share memory: {error}"))?;
            Ok(None)
        }
    }
}

fn refuse(socket: &OwnedFd, reason: &str) -> io::Result<()> {
    send(socket, reason, &mut SendAncillaryBuffer::default())
}

fn pass(socket: &OwnedFd, segment: &OwnedFd, beacon: &Beacon) -> io::Result<()> {
    let passed = [segment.as_fd(), beacon.file().as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)), "the room was made for two descriptors");
    send(socket, "", &mut control)
}

/// Nothing was sent on this socket before, so a frame of a few dozen bytes is taken whole.
fn send(socket: &OwnedFd, reason: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
    let mut frame = Vec::new();
    Reply::Segment { clock_ns: clock::now().0, reason }.encode(RequestId::NOTICE, 0, &mut frame);
    let sent = sendmsg(socket, &[IoSlice::new(&frame)], control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
