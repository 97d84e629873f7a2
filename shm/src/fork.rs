//! What a process must know about being a copy. After fork the child has the parent's memory and descriptors, but
//! not its session: two processes acting for one session would each release what the other holds.
//!
//! Two things see to it, neither of which needs the child's help. A [`ForkMark`] is a page that the kernel fills
//! with zeroes in every child (`MADV_WIPEONFORK`), so that a load tells parent from child even where no hook runs (a
//! raw clone). And a hook of `pthread_atfork` closes, in the child, the descriptors that were named here, so that the
//! parent's death or shutdown is not hidden by copies of its sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Bytes mapped for one mark: the smallest page of any machine we run on; the kernel rounds up.
const PAGE_BYTES: usize = 4096;
/// What the page says in the process that made it; a wiped page says 0.
const OURS: u64 = 0x4641_4952_4c4f_434b;
/// Descriptors that can be closed in a child. Those beyond it stay open there until exec (all are CLOEXEC); the mark
/// keeps the child from using them all the same.
pub const CLOSED_IN_CHILD_MAX: usize = 1024;
/// A place of the table that names no descriptor.
const EMPTY: RawFd = -1;

/// Tells a process from its forked children.
#[derive(Debug)]
pub struct ForkMark {
    page: NonNull<AtomicU64>,
}

// SAFETY: the page is reached only as an atomic, and unmapped only by the drop of its one owner.
#[expect(unsafe_code, reason = "a raw pointer to memory of our own is neither Send nor Sync by itself")]
unsafe impl Send for ForkMark {}
// SAFETY: as above; every access is an atomic load.
#[expect(unsafe_code, reason = "a raw pointer to memory of our own is neither Send nor Sync by itself")]
unsafe impl Sync for ForkMark {}

#[expect(unsafe_code, reason = "mapping a page and reading it")]
impl ForkMark {
    /// Marks this process.
    ///
    /// # Errors
    /// What mmap or madvise said; kernels before 4.14 do not know `MADV_WIPEONFORK`.
    pub fn new() -> io::Result<ForkMark> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping at an address the kernel chooses touches nothing that exists.
        let address = unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(address.cast::<AtomicU64>()).ok_or_else(io::Error::last_os_error)?;
        let mark = ForkMark { page };
        // SAFETY: the range is exactly the mapping made above, private and anonymous as the advice demands.
        let advised = unsafe { libc::madvise(address, PAGE_BYTES, libc::MADV_WIPEONFORK) };
        if advised != 0 {
            return Err(io::Error::last_os_error());
        }
        // Relaxed: fork itself orders it; the child sees zeroes, the parent its own store.
        mark.word().store(OURS, Ordering::Relaxed);
        Ok(mark)
    }

    /// Whether this process is a copy of the one that made the mark. One load.
    #[inline]
    pub fn is_child(&self) -> bool {
        // Relaxed: the word changes only by fork, which is in no thread's past twice.
        self.word().load(Ordering::Relaxed) != OURS
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped readable and writable from `new` to `drop`, is aligned to a page, and all-zero
        // bytes are a valid AtomicU64; it is only ever reached through this shared reference.
        unsafe { self.page.as_ref() }
    }
}

#[expect(unsafe_code, reason = "unmapping the page")]
impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference to it outlives its owner.
        let unmapped = unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES) };
        assert_eq!(unmapped, 0, "a mapping of our own can be given back");
    }
}

/// Descriptors a child closes. Each entry is written by [`close_in_child`] and [`ClosedInChild::drop`] in the
/// parent, and read by the hook in the child, which has one thread and sees what was there at the fork.
static TABLE: [AtomicI32; CLOSED_IN_CHILD_MAX] = [const { AtomicI32::new(EMPTY) }; CLOSED_IN_CHILD_MAX];

/// A descriptor that forked children close; dropping it (before the descriptor is closed) ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the descriptor off the list"]
pub struct ClosedInChild {
    place: Option<usize>,
}

impl ClosedInChild {
    /// Whether the table had room.
    pub fn is_listed(&self) -> bool {
        self.place.is_some()
    }
}

/// Has every child forked from now on close this descriptor first of all. When the table is full it does not.
pub fn close_in_child(descriptor: BorrowedFd<'_>) -> ClosedInChild {
    if !hook_is_installed() {
        return ClosedInChild { place: None };
    }
    let raw = descriptor.as_raw_fd();
    // Relaxed on failure, Release on success: pairs with the Acquire load in the hook of a thread that forks.
    let claims =
        |entry: &AtomicI32| entry.compare_exchange(EMPTY, raw, Ordering::Release, Ordering::Relaxed).is_ok();
    ClosedInChild { place: TABLE.iter().position(claims) }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        if let Some(entry) = self.place.and_then(|place| TABLE.get(place)) {
            // Release: pairs with the Acquire load in the hook.
            entry.store(EMPTY, Ordering::Release);
        }
    }
}

/// Installs the hook once for the life of the process.
#[expect(unsafe_code, reason = "pthread_atfork is not in the standard library")]
fn hook_is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: the function given lives as long as the program and does only what is allowed between fork and
        // exec in a program with threads: atomic loads and close(2).
        let installed = unsafe { libc::pthread_atfork(None, None, Some(close_listed)) };
        installed == 0
    })
}

/// Runs in the child, before fork returns there. Async-signal-safe: no lock, no allocation.
extern "C" fn close_listed() {
    for entry in &TABLE {
        // Acquire: pairs with the Release stores of whoever listed the descriptor.
        let raw = entry.load(Ordering::Acquire);
        if raw != EMPTY {
            close_raw(raw);
            entry.store(EMPTY, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "closing by number what the parent owns by value")]
fn close_raw(raw: RawFd) {
    // SAFETY: in the child this number is a copy of the parent's listed descriptor. Its owner in the copied memory
    // never closes it there: owners read the fork mark first and let go of the number without closing.
    let _ = unsafe { libc::close(raw) };
}

#[cfg(test)]
pub(crate) mod tests;
