//! One connection of a lane: a socket, and the road on which its bytes travel, which is the socket itself or the memory
//! that the server passed through it.
//!
//! Where there is memory, bytes on the socket mean "look at the ring", in either direction, and its end is the end of the
//! connection. Who reads and writes hardly knows which road it is.

use super::memory::Memory;
use super::offer::{Offer, Settled};
use super::{read, write};
use crate::dial::Inbox;
use fairlock_protocol::ShardId;
use fairlock_shm::fork::{ClosedInChild, ForkMark, close_in_child};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One connection. Whoever reads or writes holds a share of it, so its number stays its own meanwhile.
#[derive(Debug)]
pub(crate) struct Link {
    /// Taken off the list before the descriptor is closed, so that no child closes another one's number.
    _listing: ClosedInChild,
    /// Always there until the drop.
    socket: Option<OwnedFd>,
    mark: Arc<ForkMark>,
    /// Tells this connection from the ones before it on the same lane.
    pub(crate) number: u64,
    shard: ShardId,
    /// Memory was asked for, and the answer is not there yet.
    offer: Mutex<Option<Offer>>,
    memory: OnceLock<Arc<Memory>>,
    /// It was hung up. SeqCst store in `hang_up` before the sleeper is roused, SeqCst load of one who is about to sleep,
    /// after he announced it.
    down: AtomicBool,
}

/// What a connection begins with.
#[derive(Debug)]
pub(crate) enum Road {
    /// The socket.
    Stream,
    /// The socket, until the server says where the talk goes on.
    Asking,
    /// What was agreed upon when the session was opened.
    Memory(Arc<Memory>),
}

impl Link {
    pub(crate) fn new(
        socket: OwnedFd,
        road: Road,
        shard: ShardId,
        mark: &Arc<ForkMark>,
        number: u64,
    ) -> Link {
        let listing = close_in_child(socket.as_fd());
        let (offer, memory) = match road {
            Road::Stream => (None, None),
            Road::Asking => (Some(Offer::new()), None),
            Road::Memory(memory) => (None, Some(memory)),
        };
        Link {
            _listing: listing,
            socket: Some(socket),
            mark: Arc::clone(mark),
            number,
            shard,
            offer: Mutex::new(offer),
            memory: memory.map_or_else(OnceLock::new, OnceLock::from),
            down: AtomicBool::new(false),
        }
    }

    /// The memory the talk goes through, if it does.
    pub(crate) fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.get()
    }

    /// Whether the HELLO asks for memory.
    pub(crate) fn asks(&self) -> bool {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Writes as much as the road takes.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(memory) = self.memory() {
            let (sent, ring) = memory.send(bytes)?;
            if ring {
                // A socket that takes nothing is readable at the other end already; one that has ended is the tender's
                // matter, who first reads what the ring still says.
                let _ = write(self.as_fd(), &[0]);
            }
            return Ok(sent);
        }
        let mut done = 0;
        while done < bytes.len() {
            match write(self.as_fd(), &bytes[done..])? {
                Some(count) => done += count,
                None => break,
            }
        }
        Ok(done)
    }

    /// Reads what has arrived into the inbox; `None` when nothing has, 0 at the end of the stream.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::Unsupported`] when memory was passed that cannot be used here.
    pub(crate) fn read(&self, inbox: &mut Inbox) -> io::Result<Option<usize>> {
        if let Some(memory) = self.memory() {
            let count = memory.receive(inbox)?;
            return Ok((count > 0).then_some(count));
        }
        let mut offer = self.offer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = offer.as_mut() else {
            drop(offer);
            let received = read(self.as_fd(), inbox.room())?;
            inbox.filled(received.unwrap_or(0));
            return Ok(received);
        };
        let received = asked.read(self.as_fd(), inbox)?;
        let settled = asked.settle(inbox, &self.mark).map_err(io::Error::other)?;
        let Some(settled) = settled else { return Ok(received) };
        *offer = None;
        match settled {
            Settled::Stream(reason) => {
                tracing::info!(%reason, "no shared memory; the connection stays on the socket");
                Ok(received)
            }
            Settled::Unfit(reason) => Err(io::Error::new(io::ErrorKind::Unsupported, reason)),
            Settled::Memory(memory) => {
                let memory = memory
                    .aimed_at(self.shard)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "a shard beyond the beacon"))?;
                let memory = self.memory.get_or_init(|| Arc::new(memory));
                let count = memory.receive(inbox)?;
                Ok((count > 0).then_some(count))
            }
        }
    }

    /// Takes the rings off the socket of a connection that goes through memory. `false`: the other end is gone.
    pub(crate) fn hear(&self) -> bool {
        let mut rings = [0; 256];
        loop {
            match read(self.as_fd(), &mut rings) {
                Ok(None) => return true,
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(_)) => {}
            }
        }
    }

    /// Whether it was hung up; asked by a reader that has announced its sleep.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }

    /// Ends the connection for every copy of the descriptor, wherever it is; whoever polls it, or sleeps on its memory,
    /// wakes.
    pub(crate) fn hang_up(&self) {
        self.down.store(true, Ordering::SeqCst);
        if let Some(memory) = self.memory() {
            memory.close();
            memory.rouse();
        }
        // An error says that the other end has hung up already.
        let _ = shutdown(self.as_fd(), Shutdown::Both);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("the socket leaves only in the drop").as_fd()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.mark.is_child()
            && let Some(socket) = self.socket.take()
        {
            // The hook closed this number before fork returned; by now it may be somebody else's.
            let _ = socket.into_raw_fd();
        }
    }
}
