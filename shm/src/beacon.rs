//! What every client on the host may read of a server: for each shard whether its thread lives, and when it was last
//! known to. Clients map it read-only; the seal keeps them from mapping it otherwise.
//!
//! A shard's thread that dies, also by SIGKILL, leaves a mark here without doing anything: the kernel marks the words of
//! a thread's robust list when it ends. A thread that is frozen leaves no mark, but its stamp stops moving. Both are
//! seen by a client with a load, without asking anybody.

use crate::mapping::{Mapping, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::word::Leaving;
use rustix::fs::{SealFlags, fcntl_add_seals};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Shards a beacon has lines for.
pub const BEACON_SHARDS: usize = 256;
/// "FAIRBCN", and a version.
const MAGIC: u64 = 0x4e43_4252_4941_4601;

/// One shard's line. Written by its thread alone, and by the kernel when that ends.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Line {
    /// The thread's id while it lives; the kernel sets a bit of it at its death (`FUTEX_OWNER_DIED`).
    pub(crate) alive: AtomicU32,
    /// When the thread was last known to serve, CLOCK_BOOTTIME in ns.
    stamp: AtomicU64,
    /// The same moment, CLOCK_MONOTONIC in ns, for a comparison with the kernel's coarse clock.
    steady: AtomicU64,
}

#[repr(C, align(4096))]
struct Layout {
    magic: AtomicU64,
    bytes: AtomicU64,
    /// 1: the server issues barriers before it sleeps over a wanted word. Written once, before anybody maps it.
    barriers: AtomicU32,
    lines: Lines,
}

#[repr(C, align(64))]
struct Lines([Line; BEACON_SHARDS]);

#[expect(unsafe_code, reason = "a promise about a type")]
// SAFETY: only atomics and padding; every bit pattern is a value; aligned to a page.
unsafe impl Shared for Layout {}

/// The server's end: it writes.
pub struct Beacon {
    map: Mapping<Layout>,
    file: OwnedFd,
}

impl fmt::Debug for Beacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beacon").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Beacon {
    /// A new beacon, which nobody but this mapping can ever write. `leaving`: how clients may leave words; by plain stores
    /// only where this process can issue barriers.
    ///
    /// # Errors
    /// No memory or descriptor is left, or the kernel knows no memfd.
    pub fn create(leaving: Leaving) -> io::Result<Beacon> {
        let (map, file) = Mapping::<Layout>::create("fairlock-beacon")?;
        map.bytes.store(size_of::<Layout>() as u64, Ordering::Relaxed);
        map.barriers.store(u32::from(leaving == Leaving::Barrier), Ordering::Relaxed);
        map.magic.store(MAGIC, Ordering::Relaxed);
        fcntl_add_seals(&file, SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        Ok(Beacon { map, file })
    }

    /// What is passed to clients.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// The line of a shard.
    ///
    /// # Panics
    /// Beyond [`BEACON_SHARDS`].
    pub(crate) fn line(&self, shard: u16) -> &Line {
        &self.map.lines.0[usize::from(shard)]
    }

    /// The shard's thread serves at this moment, on both clocks in ns.
    pub fn stamp(&self, shard: u16, boottime_ns: u64, monotonic_ns: u64) {
        let line = self.line(shard);
        // Release: pairs with the Acquire loads of clients. The two may be seen one without the other; each is a moment
        // at which the thread served.
        line.steady.store(monotonic_ns, Ordering::Release);
        line.stamp.store(boottime_ns, Ordering::Release);
    }

    /// The shard's thread ends in order; clients see that it serves no more.
    pub(crate) fn extinguish(&self, shard: u16) {
        self.line(shard).alive.store(0, Ordering::Release);
    }

    pub(crate) fn light(&self, shard: u16, thread: u32) {
        self.line(shard).alive.store(thread, Ordering::Release);
    }
}

/// A client's view of one shard's line.
#[derive(Clone, Debug)]
pub struct Sight {
    map: Arc<Mapping<Layout>>,
    shard: usize,
}

impl Sight {
    /// Maps a beacon that a server passed, for one of its shards.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is none of this version, or what mmap said.
    pub fn open(file: &impl AsFd, shard: u16) -> io::Result<Sight> {
        let map = Mapping::<Layout>::open(file, false)?;
        let known = map.magic.load(Ordering::Relaxed) == MAGIC
            && map.bytes.load(Ordering::Relaxed) == size_of::<Layout>() as u64;
        let shard = usize::from(shard);
        if !known || shard >= BEACON_SHARDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the beacon has another layout"));
        }
        Ok(Sight { map: Arc::new(map), shard })
    }

    /// The same beacon, for another of the server's shards; `None` beyond the last line.
    #[must_use]
    pub fn aimed_at(&self, shard: u16) -> Option<Sight> {
        let shard = usize::from(shard);
        (shard < BEACON_SHARDS).then(|| Sight { map: Arc::clone(&self.map), shard })
    }

    #[inline]
    fn line(&self) -> &Line {
        &self.map.lines.0[self.shard]
    }

    /// How clients of this server may leave words. One that leaves by plain stores must have registered for barriers, too.
    pub fn leaving(&self) -> Leaving {
        // Relaxed: it was written before the beacon was passed, and never changes.
        match self.map.barriers.load(Ordering::Relaxed) {
            1 => Leaving::Barrier,
            _ => Leaving::Exchange,
        }
    }

    /// Whether the shard's thread lives: false from the moment at which the kernel has ended it.
    #[inline]
    pub fn is_alive(&self) -> bool {
        let word = self.line().alive.load(Ordering::Acquire);
        word != 0 && word & libc::FUTEX_OWNER_DIED == 0
    }

    /// When the thread was last known to serve, CLOCK_BOOTTIME in ns.
    #[inline]
    pub fn stamp(&self) -> u64 {
        self.line().stamp.load(Ordering::Acquire)
    }

    /// The same, CLOCK_MONOTONIC in ns.
    #[inline]
    pub fn steady(&self) -> u64 {
        self.line().steady.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
