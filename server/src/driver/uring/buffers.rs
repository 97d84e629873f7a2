//! The receive buffers the kernel picks from: 256 of 16 KiB behind a ring of 16-byte entries, in one mapping. A buffer
//! is either with the kernel or lent out as a [`Chunk`]; [`Lent`] keeps the books, and what it says makes the accesses
//! here sound.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::super::chunks::{Chunk, Lent};
use super::super::{CHUNK_BYTES, CHUNKS};
use super::ring::Ring;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

const BUFFER_BYTES: usize = CHUNK_BYTES * CHUNKS as usize;
const ENTRY_BYTES: usize = size_of::<BufRingEntry>() * CHUNKS as usize;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(4096), "the entries behind the buffers begin on a page");

/// See the module. Must outlive every receive of the ring it is registered with.
pub(super) struct Buffers {
    base: NonNull<u8>,
    lent: Lent,
    /// The mapping must stay, because the kernel may still write to it.
    is_kept: bool,
    /// Our copy of the ring's tail: entries ever given to the kernel.
    tail: u16,
}

impl Buffers {
    /// Maps the buffers, registers them and gives them all to the kernel.
    pub(super) fn register(ring: &Ring) -> io::Result<Buffers> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), BUFFER_BYTES + ENTRY_BYTES, protection, flags) }?;
        let base = NonNull::new(base.cast::<u8>()).expect("a mapping is not at address 0");
        let mut buffers = Buffers { base, lent: Lent::none(), is_kept: false, tail: 0 };
        // A forked child must neither copy the buffers nor take pages from under the kernel's feet.
        // SAFETY: the range is the mapping just made; the advice concerns children only.
        unsafe { madvise(base.as_ptr().cast(), BUFFER_BYTES + ENTRY_BYTES, Advice::LinuxDontFork) }?;
        let entries = buffers.entries() as u64;
        // SAFETY: the entries are mapped, page-aligned and large enough, and the owner of the ring keeps this mapping
        // until the ring is gone.
        unsafe { ring.ring().submitter().register_buf_ring_with_flags(entries, CHUNKS, GROUP, 0) }?;
        (0..CHUNKS).for_each(|buffer| buffers.provide(buffer));
        Ok(buffers)
    }

    /// Takes the buffer a completion names out of the kernel's hands, with so many bytes in it.
    pub(super) fn lend(&mut self, buffer: u16, len: usize) -> Chunk {
        let chunk = Chunk::new(buffer, len);
        self.lent.lend(buffer);
        chunk
    }

    #[expect(clippy::needless_pass_by_value, reason = "giving back ends the ownership of the buffer")]
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.lent.take_back(chunk.buffer());
        self.provide(chunk.buffer());
    }

    /// Buffers the kernel has, as far as its completions have been seen.
    pub(super) fn left(&self) -> usize {
        self.lent.left()
    }

    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        assert!(self.lent.is_out(chunk.buffer()), "a chunk of another driver");
        let range = chunk.range();
        assert!(range.end <= BUFFER_BYTES, "a chunk lies in the pool");
        // SAFETY: the range was checked to lie in the mapping.
        let start = unsafe { self.base.add(range.start) };
        // SAFETY: the bytes are mapped and initialised (anonymous memory), and the kernel does not write them while
        // the buffer is lent; it is taken back only through `&mut self`.
        unsafe { slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// Leaves the mapping behind when this is dropped.
    pub(super) fn keep_mapped(&mut self) {
        self.is_kept = true;
    }

    fn entries(&self) -> *mut BufRingEntry {
        // SAFETY: the entries lie in the same mapping, directly behind the buffers.
        let entries = unsafe { self.base.add(BUFFER_BYTES) };
        entries.as_ptr().cast()
    }

    fn provide(&mut self, buffer: u16) {
        let start = usize::from(buffer) * CHUNK_BYTES;
        // SAFETY: `buffer` is one of the pool's, so its start lies in the mapping.
        let address = unsafe { self.base.add(start) }.as_ptr() as u64;
        let index = usize::from(self.tail % CHUNKS);
        // SAFETY: the index is below the number of entries.
        let entry = unsafe { self.entries().add(index) };
        // SAFETY: there are as many entries as buffers and each buffer is in at most one, so the kernel has consumed
        // this entry and does not read it before the tail says so; page-aligned memory is aligned for it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(u32::try_from(CHUNK_BYTES).expect("16 KiB"));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the argument is the first entry of the ring, which is mapped and initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries()) };
        // SAFETY: the tail is mapped and aligned, and is written by this thread only and read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Pairs with the kernel's acquire load of the tail: it sees the entry written above.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // SAFETY: the mapping is ours alone, and the driver drops it after the ring and only when no request is in
        // flight.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), BUFFER_BYTES + ENTRY_BYTES) };
    }
}
