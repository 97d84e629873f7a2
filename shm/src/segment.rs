//! A segment: everything one client and one shard share. Two rings, two words for waking, what the server says about
//! the session, and the grant words.
//!
//! The server creates it, one for each connection, and passes it over the Unix socket; it has no name, so there is
//! nothing to clean up, and no two clients ever share one. Lines are written by one side each (but for grant words), so
//! that no line moves without a reason.

use crate::bell::{Attention, Parking};
use crate::mapping::{Mapping, Shared};
use crate::ring::Ring;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::word::{Leaving, Word};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Slots of a ring: a batch of 64 requests four times over.
pub const RING_SLOTS: usize = 256;
/// Grant words of a segment, 64 bytes each: as many grants as a client can keep cached with one shard.
pub const WORDS: usize = 4096;

/// "FAIRSHM", and a version of the layout that both must have been built for.
const MAGIC: u64 = 0x4d48_5352_4941_4601;
/// Says without a word too much which layout this is: sizes and places that must agree, mixed.
const LAYOUT: u64 = {
    let parts = [
        size_of::<Layout>() as u64,
        core::mem::offset_of!(Layout, status) as u64,
        core::mem::offset_of!(Layout, attention) as u64,
        core::mem::offset_of!(Layout, parking) as u64,
        core::mem::offset_of!(Layout, manners) as u64,
        core::mem::offset_of!(Layout, requests) as u64,
        core::mem::offset_of!(Layout, replies) as u64,
        core::mem::offset_of!(Layout, words) as u64,
    ];
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < parts.len() {
        hash = (hash ^ parts[at]).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
};

/// A ring of a segment.
pub type SegmentRing = Ring<RING_SLOTS>;

#[derive(Debug)]
#[repr(C, align(64))]
struct Preface {
    magic: AtomicU64,
    layout: AtomicU64,
}

/// What the server says about the session. Written by the server alone, and for the client alone: the client could write
/// it too, so that the server never decides anything by it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Status {
    /// Not 0: the session has ended. Release store before any effect of that can be seen by anybody; Acquire load of
    /// every check.
    ended: AtomicU32,
    /// Not 0: the session is not renewed beyond this moment (CLOCK_BOOTTIME, ns), whatever the shard's stamp says.
    renewed_until: AtomicU64,
}

impl Status {
    /// The session has ended; to be called before anybody else can see what follows from that.
    pub fn end(&self) {
        self.ended.store(1, Ordering::Release);
    }

    /// Whether the session has ended.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    /// The session is renewed no more from this moment on.
    pub fn stop_renewing(&self, now_ns: u64) {
        let never = self.renewed_until.load(Ordering::Relaxed) == 0;
        if never {
            // Release: pairs with the Acquire load below.
            self.renewed_until.store(now_ns.max(1), Ordering::Release);
        }
    }

    /// The moment beyond which the session is not renewed, if there is one.
    #[inline]
    pub fn renewed_until(&self) -> Option<u64> {
        match self.renewed_until.load(Ordering::Acquire) {
            0 => None,
            moment => Some(moment),
        }
    }
}

/// What the client says about itself. Believed only as far as it harms nobody else.
#[derive(Debug)]
#[repr(C, align(64))]
struct Manners {
    /// 1: it leaves words by plain stores and has registered for the server's barrier.
    barrier: AtomicU32,
}

/// See the module. Offsets are part of the ABI: [`LAYOUT`] differs when one does.
#[repr(C, align(4096))]
struct Layout {
    preface: Preface,
    status: Status,
    attention: Attention,
    parking: Parking,
    manners: Manners,
    requests: Page<SegmentRing>,
    replies: Page<SegmentRing>,
    words: Page<[Word; WORDS]>,
}

/// Begins at a page of its own.
#[repr(C, align(4096))]
struct Page<T>(T);

#[expect(unsafe_code, reason = "a promise about a type")]
// SAFETY: only atomics and padding; every bit pattern is a value; aligned to a page.
unsafe impl Shared for Layout {}

/// One segment, mapped.
pub struct Segment {
    map: Mapping<Layout>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("status", self.status()).finish_non_exhaustive()
    }
}

/// Why a segment that was passed is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It could not be mapped, or is not what it should be.
    #[error("the shared memory cannot be mapped")]
    Map(#[from] io::Error),
    /// The other side was built for another layout.
    #[error("the server's shared memory has another layout (client and server are of different versions)")]
    Layout,
}

impl Segment {
    /// Bytes of a segment; its pages exist once they are touched.
    pub const BYTES: usize = size_of::<Layout>();

    /// A new segment, and the descriptor with which the client maps it.
    ///
    /// # Errors
    /// No memory or descriptor is left, or the kernel knows no memfd.
    pub fn create() -> io::Result<(Segment, OwnedFd)> {
        let (map, file) = Mapping::<Layout>::create("fairlock-segment")?;
        // Relaxed: the client learns of the segment through a socket.
        map.preface.magic.store(MAGIC, Ordering::Relaxed);
        map.preface.layout.store(LAYOUT, Ordering::Relaxed);
        rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SEAL)?;
        Ok((Segment { map }, file))
    }

    /// Maps a segment that a server passed.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn open(file: &impl AsFd) -> Result<Segment, Unfit> {
        let map = Mapping::<Layout>::open(file, true)?;
        let preface = &map.preface;
        let same = preface.magic.load(Ordering::Relaxed) == MAGIC
            && preface.layout.load(Ordering::Relaxed) == LAYOUT;
        if same { Ok(Segment { map }) } else { Err(Unfit::Layout) }
    }

    /// What the client says.
    #[inline]
    pub fn requests(&self) -> &SegmentRing {
        &self.map.requests.0
    }

    /// What the server says.
    #[inline]
    pub fn replies(&self) -> &SegmentRing {
        &self.map.replies.0
    }

    /// Whether the server looks at the requests by itself.
    #[inline]
    pub fn attention(&self) -> &Attention {
        &self.map.attention
    }

    /// How the client waits for replies.
    #[inline]
    pub fn parking(&self) -> &Parking {
        &self.map.parking
    }

    /// What the server says about the session.
    #[inline]
    pub fn status(&self) -> &Status {
        &self.map.status
    }

    /// A grant word; `None` beyond the last one.
    #[inline]
    pub fn word(&self, index: u32) -> Option<&Word> {
        self.map.words.0.get(index as usize)
    }

    /// The client tells how it leaves words.
    pub fn set_leaving(&self, leaving: Leaving) {
        let barrier = u32::from(leaving == Leaving::Barrier);
        // Release: it comes before the first word that is left so.
        self.map.manners.barrier.store(barrier, Ordering::Release);
    }

    /// How the client leaves words. One that lies delays nobody's locks but those it holds.
    pub fn leaving(&self) -> Leaving {
        if self.map.manners.barrier.load(Ordering::Acquire) == 1 {
            Leaving::Barrier
        } else {
            Leaving::Exchange
        }
    }
}

#[cfg(test)]
mod tests;
