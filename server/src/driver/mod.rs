//! The two I/O drivers of a shard thread behind one small trait: `io_uring` and epoll.
//!
//! A driver moves bytes between sockets and pooled chunks and tells when watched processes and pipes are gone; it knows
//! no frame, session or lock. It is the only code of the server that the simulator does not run, so it decides as
//! little as possible. epoll is not a nicety: default container profiles block `io_uring`. Both drivers pass one
//! conformance suite (`tests`).
//!
//! What a caller should know beyond the signatures:
//! * A driver belongs to the thread that opened it (it is not `Send`; `io_uring` insists on a single issuer).
//! * The [`Waker`] keeps a token as `thread::park` does, so there is no "about to sleep" hook: a `wake` that comes at any
//!   time before a `wait` makes that `wait` report [`Event::Woken`], whatever its patience. Look at the mailboxes after
//!   every `wait` (or after every `Woken`) and nothing is lost.
//! * `wait` may return with no event at all (a stale wake-up, a deadline of its own).
//! * A [`Chunk`] has to be given back with `recycle`, also when its link is gone; dropping it loses the buffer.
//! * `close(.., Flush::Queued)` lingers: after the queued bytes are written the sending side is shut down and input is
//!   discarded until the peer closes too, one second after the call at most. Closing with unread input would make TCP
//!   reset the connection, and a reset can destroy the last answer on its way.
//! * A failed write drops the backlog and ends the stream; what the peer sent before is still delivered if a read is
//!   armed, then `Closed` carries the error of the write.
//! * The kernel keeps the descriptor limit it finds when an accept of `io_uring` is armed: raise the limit before `listen`.
//! * `listen` may be called for several listeners; `stop_listening` ends them all.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "the shard loop that drives these is built on top of this module")
)]

mod chunks;
mod epoll;
mod farewell;
mod listening;
mod outgoing;
pub(crate) mod peer;
mod slots;
#[cfg(test)]
mod tests;
mod token;
mod uring;
mod waker;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) use chunks::Chunk;
use slots::Key;
pub(crate) use waker::Waker;

/// Bytes of one receive chunk: a batch of 256 frames of 64 bytes arrives in one piece.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;
/// Receive chunks of one driver, 4 MiB in all; `io_uring` wants a power of two.
pub(crate) const CHUNKS: u16 = 256;
/// How long `Flush::Queued` may keep a socket whose peer does not read or does not close.
pub(crate) const FAREWELL_TIME: Duration = Duration::from_secs(1);

const _: () = assert!(CHUNKS.is_power_of_two(), "the kernel masks the index of a provided buffer");

/// One byte stream of this driver. Never re-used: a stale id reaches nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LinkId(Key);

impl LinkId {
    /// A small dense index, re-used after the link is gone; for tables beside the driver's.
    pub(crate) fn slot(self) -> u32 {
        self.0.slot()
    }
}

/// One watched descriptor of this driver. Never re-used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WatchId(Key);

impl WatchId {
    /// A small dense index, re-used after the watch is over.
    pub(crate) fn slot(self) -> u32 {
        self.0.slot()
    }
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A listener accepted a connection: nonblocking, close-on-exec, not attached yet.
    Accepted {
        /// The connection.
        socket: OwnedFd,
        /// Where it comes from; the unspecified address for a Unix listener.
        peer: SocketAddr,
    },
    /// Bytes arrived; see [`Driver::bytes`] and [`Driver::recycle`].
    Received {
        /// On which link.
        link: LinkId,
        /// Where they lie.
        chunk: Chunk,
    },
    /// The bytes queued on a link have become as few as [`Driver::tell_drained`] asked for.
    Drained {
        /// Which link.
        link: LinkId,
    },
    /// The link is gone and its descriptor closed; the last event of this link.
    Closed {
        /// Which link.
        link: LinkId,
        /// `None` when the peer ended the stream, else what went wrong.
        error: Option<io::Error>,
    },
    /// A watched process ended or a watched pipe hung up. The watch is over.
    Gone {
        /// Which watch.
        watch: WatchId,
    },
    /// [`Waker::wake`] was called since the last `wait`.
    Woken,
}

/// How long [`Driver::wait`] waits when nothing has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    Poll,
    /// Let others run on this core first, then do not wait.
    Yield,
    /// Until something happens, or this long. The epoll driver rounds up to whole milliseconds.
    Sleep(Option<Duration>),
}

/// What a watched descriptor is, and so what says that it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watched {
    /// A pidfd: it becomes readable when the process ends.
    Process,
    /// The read end of a pipe: it hangs up when the last write end is closed. Bytes that somebody writes into it are not
    /// read and mean nothing: whoever writes is alive.
    Pipe,
}

/// What becomes of queued bytes when a link is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// They are written first, for at most [`FAREWELL_TIME`].
    Queued,
    /// They are dropped.
    Discard,
}

/// Which driver to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoChoice {
    /// `io_uring` where the kernel lets us, else epoll.
    Auto,
    /// `io_uring` or an error.
    Uring,
    /// epoll.
    Epoll,
}

/// Bytes in, bytes out, and what else may happen to descriptors. Calls that name a link or a watch that is gone do
/// nothing, because its last event may still lie unread in the caller's list.
pub(crate) trait Driver {
    /// `"uring"` or `"epoll"`.
    fn name(&self) -> &'static str;

    /// Accepts from a bound, listening stream socket from now on, in addition to those already listened to.
    ///
    /// # Errors
    /// What the kernel says to making it nonblocking and observing it.
    fn listen(&mut self, listener: OwnedFd) -> io::Result<()>;

    /// Accepts no more and closes every listener, by the end of the next `wait` at the latest.
    fn stop_listening(&mut self);

    /// Takes a connected stream socket (TCP or Unix), makes it nonblocking, without delay. Reads once: one `Received` or
    /// `Closed`, then nothing until `read_once` or `read_on`.
    ///
    /// # Errors
    /// What the kernel says to making it nonblocking and observing it; the socket is closed then.
    fn attach(&mut self, socket: OwnedFd) -> io::Result<LinkId>;

    /// Reads one more chunk, then nothing.
    fn read_once(&mut self, link: LinkId);

    /// Reads everything from now on.
    fn read_on(&mut self, link: LinkId);

    /// Stops reading; what is already on its way may still be delivered. `read_on` resumes.
    fn pause(&mut self, link: LinkId);

    /// Gives the socket away, to another shard's driver. `None` if the link is gone or about to end.
    ///
    /// # Panics
    /// When a read is armed (legal is: after the one event of `attach` or `read_once`) or bytes are queued.
    fn detach(&mut self, link: LinkId) -> Option<OwnedFd>;

    /// Queues all of `out` behind what is queued already and leaves `out` empty, with some buffer's capacity. Buffers are
    /// swapped, not copied, unless two are queued already. epoll writes at once what the socket takes; `io_uring` with
    /// the next `wait`, one send in flight a link.
    fn send(&mut self, link: LinkId, out: &mut Vec<u8>);

    /// Bytes queued and not yet taken by the kernel; 0 if the link is gone.
    fn backlog(&self, link: LinkId) -> usize;

    /// Tells once, by `Drained`, when at most so many bytes are queued on the link, for a caller that has just seen more.
    /// Asked again before that, the last number counts; a link that ends before says nothing of it.
    fn tell_drained(&mut self, link: LinkId, bytes: usize);

    /// Ends the link; no event follows. Safe at any time, also with a read or a send in flight.
    fn close(&mut self, link: LinkId, flush: Flush);

    /// Tells once when the process or the pipe behind `fd` is gone, then drops it.
    ///
    /// # Errors
    /// What the kernel says to observing it.
    fn watch(&mut self, fd: OwnedFd, watched: Watched) -> io::Result<WatchId>;

    /// Ends a watch; no event follows.
    fn unwatch(&mut self, watch: WatchId);

    /// The bytes of a chunk this driver delivered.
    fn bytes(&self, chunk: &Chunk) -> &[u8];

    /// Gives a chunk back, so that its buffer can receive again.
    fn recycle(&mut self, chunk: Chunk);

    /// Submits what is queued, waits as told, and appends what happened to `events`. The bytes of every `Received` had
    /// arrived when this returns, so a clock read afterwards is later than each of them.
    ///
    /// # Errors
    /// Only what makes the driver useless.
    fn wait(&mut self, patience: Patience, events: &mut Vec<Event>) -> io::Result<()>;

    /// A handle with which other threads end a sleep of this driver.
    fn waker(&self) -> Waker;
}

/// What the caller wants to read of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Off,
    Once,
    On,
}

/// Opens a driver for the calling thread. `Auto` logs in one line which one and why.
///
/// # Errors
/// What the kernel says to creating the driver chosen; `Auto` fails only when epoll fails too.
pub(crate) fn open(choice: IoChoice) -> io::Result<Box<dyn Driver>> {
    match choice {
        IoChoice::Uring => Ok(Box::new(uring::UringDriver::open()?)),
        IoChoice::Epoll => Ok(Box::new(epoll::EpollDriver::open()?)),
        IoChoice::Auto => match uring::UringDriver::open() {
            Ok(driver) => {
                tracing::info!(driver = "uring", "io driver");
                Ok(Box::new(driver))
            }
            Err(error) => {
                let meaning = why_not_uring(&error);
                tracing::warn!(driver = "epoll", %error, meaning, "io driver: io_uring cannot be used");
                Ok(Box::new(epoll::EpollDriver::open()?))
            }
        },
    }
}

/// What an error of opening the ring means to the one who runs the server.
fn why_not_uring(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "EPERM: blocked by a seccomp profile (containers) or by kernel.io_uring_disabled"
        }
        Some(libc::ENOSYS) => "ENOSYS: this kernel is built without io_uring",
        Some(libc::EINVAL | libc::EOPNOTSUPP) => "EINVAL: this kernel is older than 6.1",
        Some(libc::ENOMEM) => "ENOMEM: too little memory, or RLIMIT_MEMLOCK is too low",
        Some(libc::EMFILE | libc::ENFILE) => "EMFILE: no descriptor is left",
        _ => "unexpected: see the error",
    }
}
