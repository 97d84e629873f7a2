//! The submission and completion rings: how they are set up, entered and counted.
//!
//! Deferred task work makes completions appear only inside an `enter` that asks for events, and the crate's
//! `submit` does not ask. So every entry goes through [`Ring::enter`], which always asks; the kernel's TASKRUN flag tells
//! without a system call whether there is anything to ask for. The crate registers the ring's own descriptor per
//! `Submitter` and forgets it with that borrow, so registering and entering are done here.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

/// Submissions handed over with one `enter`; more wait in user memory.
const SUBMISSIONS: u32 = 256;
/// Completions the kernel can post before it has to keep them aside.
const COMPLETIONS: u32 = 4096;
/// `IORING_REGISTER_RING_FDS` and its opposite, of `linux/io_uring.h`.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update` of `linux/io_uring.h`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// See the module. Bound to the thread that opened it.
pub(super) struct Ring {
    rings: IoUring,
    /// The index the kernel gave the registered ring, where it offers that (5.18).
    registered: Option<u32>,
    /// Flags of every `enter`.
    flags: EnterFlags,
    /// Submissions beyond the ring's size; submitted in order.
    overflow: VecDeque<squeue::Entry>,
    /// Requests whose last completion has not been seen.
    in_flight: u64,
}

impl Ring {
    pub(super) fn open() -> io::Result<Ring> {
        // Without the index array where the kernel knows that (6.6); everything else is indispensable.
        let ring = match build(true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false)?,
            outcome => outcome?,
        };
        require_features(&ring)?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(EnterFlags::NO_IOWAIT, ring.params().is_feature_no_iowait());
        let registered = register(&ring);
        flags.set(EnterFlags::REGISTERED_RING, registered.is_some());
        let mut ring = Ring { rings: ring, registered, flags, overflow: VecDeque::new(), in_flight: 0 };
        // Proves that entering is allowed, too: some profiles forbid that alone.
        ring.enter_once(0, None)?;
        Ok(ring)
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.rings
    }

    /// Queues a request for the next `enter`.
    ///
    /// # Safety
    /// Memory the entry points to stays valid, and is not written by us, until the request's last completion was seen.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        if !self.overflow.is_empty() {
            self.overflow.push_back(entry);
            return;
        }
        // SAFETY: handed on from this function's contract.
        if unsafe { self.rings.submission().push(&entry) }.is_err() {
            self.overflow.push_back(entry);
        }
    }

    /// Queues a request that points to no memory of ours.
    pub(super) fn push_plain(&mut self, entry: PlainEntry) {
        // SAFETY: a `PlainEntry` points to no memory.
        unsafe { self.push(entry.0) }
    }

    /// Submits what is queued, runs deferred work and waits for `want` completions, at most this long.
    pub(super) fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            self.refill();
            let last = self.overflow.is_empty();
            let (want, timeout) = if last { (want, timeout) } else { (0, None) };
            match self.enter_once(want, timeout).map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) => {}
                // Time over, a signal, or completions that must be taken first: the caller looks at what is there.
                Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => return Ok(()),
                Err((_, error)) => return Err(error),
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Whether an `enter` would do anything: something to submit, or work the kernel has put off.
    pub(super) fn has_business(&mut self) -> bool {
        let submission = self.rings.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Whether the kernel has put off work or completions since the last `enter`.
    pub(super) fn has_more(&mut self) -> bool {
        let submission = self.rings.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    pub(super) fn has_completion(&mut self) -> bool {
        !self.rings.completion().is_empty()
    }

    /// The next completion, if there is one.
    pub(super) fn completion(&mut self) -> Option<cqueue::Entry> {
        let completion = self.rings.completion().next()?;
        if !cqueue::more(completion.flags()) {
            assert!(self.in_flight > 0, "a completion has a request");
            self.in_flight -= 1;
        }
        Some(completion)
    }

    /// Requests whose last completion has not been seen.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn refill(&mut self) {
        while let Some(entry) = self.overflow.front() {
            // SAFETY: `push` was promised that its memory stays valid until the last completion.
            if unsafe { self.rings.submission().push(entry) }.is_err() {
                return;
            }
            self.overflow.pop_front();
        }
    }

    fn enter_once(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let submit = self.rings.submission().len();
        let time = timeout.map(Timespec::from);
        let args = match &time {
            Some(time) => SubmitArgs::new().timespec(time),
            None => SubmitArgs::new(),
        };
        let fd = self.registered.map_or_else(|| i64::from(self.rings.as_raw_fd()), i64::from);
        // SAFETY: `args` is the kernel's extended argument (EXT_ARG is set), it and the time it points to live
        // until the call returns, and the queued entries are valid by the contract of `push`.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                submit,
                want,
                self.flags.bits(),
                ptr::from_ref(&args),
                mem::size_of_val(&args),
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            let mut update = RingUpdate { offset: index, reserved: 0, data: 0 };
            // A failure leaves one of 16 places of this thread taken; nothing can be done about it here.
            let _ = register_call(&self.rings, UNREGISTER_RING_FDS, &mut update);
        }
    }
}

/// A request without any pointer to our memory, which can therefore be queued safely.
pub(super) struct PlainEntry(squeue::Entry);

impl PlainEntry {
    pub(super) fn accept(entry: opcode::AcceptMulti) -> PlainEntry {
        PlainEntry(entry.build())
    }

    pub(super) fn poll(entry: opcode::PollAdd) -> PlainEntry {
        PlainEntry(entry.build())
    }

    pub(super) fn receive(entry: opcode::RecvMulti) -> PlainEntry {
        PlainEntry(entry.build())
    }

    /// A receive that takes its buffer from a group.
    pub(super) fn receive_once(fd: io_uring::types::Fd, group: u16) -> PlainEntry {
        let entry = opcode::Recv::new(fd, ptr::null_mut(), 0).buf_group(group).build();
        PlainEntry(entry.flags(squeue::Flags::BUFFER_SELECT))
    }

    pub(super) fn cancel(entry: opcode::AsyncCancel) -> PlainEntry {
        PlainEntry(entry.build())
    }

    pub(super) fn cancel_all(entry: opcode::AsyncCancel2) -> PlainEntry {
        PlainEntry(entry.build())
    }

    pub(super) fn user_data(self, bits: u64) -> PlainEntry {
        PlainEntry(self.0.user_data(bits))
    }
}

fn build(without_array: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    if without_array {
        builder.setup_no_sqarray();
    }
    builder.build(SUBMISSIONS)
}

/// Deferred task run (6.1) implies nearly everything; a kernel with features taken out is refused all the same.
fn require_features(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let opcodes = [
        opcode::AcceptMulti::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let params = ring.params();
    let complete = params.is_feature_nodrop()
        && params.is_feature_ext_arg()
        && params.is_feature_fast_poll()
        && opcodes.iter().all(|code| probe.is_supported(*code));
    if complete { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) }
}

/// Registers the ring's descriptor with this thread: `enter` then needs no look-up.
fn register(ring: &IoUring) -> Option<u32> {
    let data = u64::try_from(ring.as_raw_fd()).expect("a descriptor is not negative");
    let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data };
    register_call(ring, REGISTER_RING_FDS, &mut update).ok().map(|()| update.offset)
}

fn register_call(ring: &IoUring, operation: libc::c_uint, update: &mut RingUpdate) -> io::Result<()> {
    let update: *mut RingUpdate = update;
    // SAFETY: `update` is one `io_uring_rsrc_update`, as both operations expect, and lives until the call returns.
    let outcome =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), operation, update, 1) };
    if outcome == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
