//! How a server is told to stop: by SIGTERM or SIGINT, or by the program it is embedded in. Both end up as a readable
//! descriptor in the one poll of the control thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fairlock_protocol::Tick;
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, pipe_with};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Stops a running server from any thread. Cheap to clone; outlives the server harmlessly.
#[derive(Clone, Debug)]
pub struct Stopper {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    /// Set before the eventfd is written, read after it was read.
    at_once: AtomicBool,
    eventfd: OwnedFd,
}

impl Stopper {
    pub(super) fn new() -> io::Result<Stopper> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stopper { bell: Arc::new(Bell { at_once: AtomicBool::new(false), eventfd }) })
    }

    /// Asks the server to stop as SIGTERM does: new requests are refused with DRAINING, holders have the drain time to
    /// release. Asking again changes nothing.
    pub fn drain(&self) {
        self.ring();
    }

    /// Asks the server to stop without waiting for anybody. What is held or waited for goes on with the next one.
    pub fn stop(&self) {
        // Release, pairs with the Acquire load in `take`.
        self.bell.at_once.store(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        // The only failure is EAGAIN, a counter at its maximum, which wakes as well.
        let _ = rustix::io::write(&self.bell.eventfd, &1_u64.to_ne_bytes());
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }

    /// Takes the request; `true`: at once.
    pub(super) fn take(&self) -> bool {
        let _ = rustix::io::read(&self.bell.eventfd, &mut [0_u8; 8]);
        // Acquire, pairs with the Release store in `stop`.
        self.bell.at_once.load(Ordering::Acquire)
    }
}

/// SIGTERM and SIGINT as bytes in a pipe, from now until it is dropped. Afterwards the signals do nothing: a process
/// that outlives its server decides anew what they mean.
#[derive(Debug)]
pub(super) struct Signals {
    read_end: OwnedFd,
    registered: Vec<SigId>,
}

impl Signals {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn install() -> io::Result<Signals> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut signals = Signals { read_end, registered: Vec::new() };
        for signal in [SIGTERM, SIGINT] {
            let end = write_end.try_clone()?;
            signals.registered.push(signal_hook::low_level::pipe::register(signal, end)?);
        }
        Ok(signals)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }

    /// How many arrived since the last time.
    pub(super) fn take(&self) -> usize {
        rustix::io::read(&self.read_end, &mut [0_u8; 64]).unwrap_or(0)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not in sight.
    Serving,
    /// Shards refuse new requests and holders release.
    Draining {
        /// Until when they may.
        until: Tick,
    },
    /// Shards were told to end.
    Stopping {
        /// Until when they are waited for.
        until: Tick,
    },
}

impl Phase {
    /// Why nothing is granted, in a word.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Phase::Serving => None,
            Phase::Draining { .. } => Some("draining"),
            Phase::Stopping { .. } => Some("stopping"),
        }
    }
}

/// Why a server ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// [`Stopper`].
    Asked,
    /// A shard ended unasked; everything else was stopped too.
    ShardFailed {
        /// Which one.
        shard: u16,
        /// Why; `None` when it ended without a word.
        error: Option<io::Error>,
    },
}

/// How a server ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExitReport {
    /// The next start waits for nothing.
    pub clean: bool,
    /// Sessions that held something; with `clean`, the next start knows them.
    pub live_sessions: u32,
    /// Why it ended.
    pub reason: StopReason,
}

impl ExitReport {
    /// The exit code of the process: 0 after a stop that was asked for, 70 (`EX_SOFTWARE`) after a failure.
    pub const fn exit_code(&self) -> u8 {
        match self.reason {
            StopReason::Signal | StopReason::Asked => 0,
            StopReason::ShardFailed { .. } => 70,
        }
    }
}
