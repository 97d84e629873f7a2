//! Memory that two processes see, as a reference to atomics: the one place where an address becomes a type.
//!
//! A mapped file is created and sealed by the server, so that it can neither shrink (which would turn an access into
//! SIGBUS) nor grow. What is mapped is made of atomics alone and every bit pattern is a value of it, so whatever the
//! other process writes, and whenever, is data and no undefined behaviour. Forked children do not inherit a mapping.

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};

/// Types that may lie in memory that another process writes.
///
/// # Safety
/// Every bit pattern is a value of the type, all of it is atomics or types that are `Shared` themselves (or bytes that
/// nobody ever reads), and its alignment is at most a page.
#[expect(unsafe_code, reason = "what the compiler cannot check is promised here, once a type")]
pub(crate) unsafe trait Shared: Sync {}

/// A mapping of one `T`.
pub(crate) struct Mapping<T> {
    memory: MmapRaw,
    of: PhantomData<T>,
}

impl<T> fmt::Debug for Mapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.memory.len())
    }
}

/// What a file must be sealed against before it is believed to keep its size.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl<T: Shared> Mapping<T> {
    /// A new file of the right size, zeroed, sealed against any change of its size and of its seals, and mapped.
    ///
    /// # Errors
    /// No memory or descriptor is left, or the kernel knows no memfd.
    pub(crate) fn create(name: &str) -> io::Result<(Mapping<T>, OwnedFd)> {
        let file = new_memfd(name)?;
        ftruncate(&file, size_of::<T>() as u64)?;
        fcntl_add_seals(&file, SIZE_SEALS)?;
        let mapping = Mapping::map(&file, true)?;
        Ok((mapping, file))
    }

    /// Maps a file that another process created.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it has another size or may change it; what mmap said.
    pub(crate) fn open(file: &impl AsFd, writable: bool) -> io::Result<Mapping<T>> {
        if !fcntl_get_seals(file)?.contains(SIZE_SEALS) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its size is not sealed"));
        }
        if u64::try_from(fstat(file)?.st_size) != Ok(size_of::<T>() as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its size is not that of this version"));
        }
        Mapping::map(file, writable)
    }

    fn map(file: &impl AsFd, writable: bool) -> io::Result<Mapping<T>> {
        assert!(align_of::<T>() <= 4096, "a mapping begins at a page");
        let file = std::os::fd::AsRawFd::as_raw_fd(&file.as_fd());
        let mut options = MmapOptions::new();
        options.len(size_of::<T>());
        let memory = if writable { options.map_raw(file)? } else { options.map_raw_read_only(file)? };
        // A forked child has no business here; touching it there is a fault instead of a second holder.
        memory.advise(Advice::DontFork)?;
        Ok(Mapping { memory, of: PhantomData })
    }
}

impl<T: Shared> Deref for Mapping<T> {
    type Target = T;

    #[inline]
    #[expect(unsafe_code, reason = "the one cast from an address to a type")]
    fn deref(&self) -> &T {
        // SAFETY: the mapping is at least `size_of::<T>()` bytes long (checked in `create` and `open`) and stays so
        // while `self` lives, because the file is sealed; it begins at a page, which satisfies the alignment; every bit
        // pattern is a value of `T` and all access is atomic, by the contract of `Shared`. A mapping that is not
        // writable is reached through types that only load.
        unsafe { &*self.memory.as_ptr().cast::<T>() }
    }
}

/// A memfd that cannot be executed, where the kernel knows that.
fn new_memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Ok(file) => Ok(file),
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        Err(errno) => Err(errno.into()),
    }
}
