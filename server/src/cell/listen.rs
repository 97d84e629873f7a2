//! The door for other nodes: a thread that accepts, and a short-lived one for each caller while it introduces itself. Their
//! number is bounded; who comes when all are taken is told so at once, because silence, or a reset, would read as a death.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::words::{NONCE_BYTES, Opening};
use super::{Caller, Introduction, answer};

/// Callers that introduce themselves at the same time.
const CALLERS_MAX: usize = 64;
/// Pause when the kernel gives no descriptor: one may be free then.
const BREATH: Duration = Duration::from_millis(50);
/// Room of a thread for one caller, in bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Takes whoever has introduced itself; it runs on the caller's short-lived thread, one at a time, and should not linger.
pub(crate) type Meet = Box<dyn FnMut(Caller) + Send>;

/// What the threads of a door share.
struct Shared {
    me: Arc<Introduction>,
    limit: Duration,
    /// Gone once the door is closed: nobody is met after that.
    meet: Mutex<Option<Meet>>,
    is_closed: AtomicBool,
    callers: AtomicUsize,
    turned_away: AtomicU64,
    failed: AtomicU64,
}

/// The door. Dropping it closes it.
pub(crate) struct PeerDoor {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for PeerDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerDoor").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PeerDoor {
    /// Opens it: each caller has `limit` to introduce itself.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open(
        listener: TcpListener,
        me: Arc<Introduction>,
        limit: Duration,
        meet: Meet,
    ) -> io::Result<PeerDoor> {
        listener.set_nonblocking(false)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            me,
            limit,
            meet: Mutex::new(Some(meet)),
            is_closed: AtomicBool::new(false),
            callers: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let listener = Arc::new(listener);
        let (accepting, common) = (Arc::clone(&listener), Arc::clone(&shared));
        let accept = move || accept_until_closed(&accepting, &common);
        let thread = Builder::new().name("fairlock-peers".into()).stack_size(STACK_BYTES).spawn(accept)?;
        Ok(PeerDoor { listener, address, shared, thread: Some(thread) })
    }

    #[cfg(test)]
    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(test)]
    /// Callers that were turned away because too many were introducing themselves.
    pub(crate) fn turned_away(&self) -> u64 {
        // Relaxed, as all counts here: a number that is shown.
        self.shared.turned_away.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    /// Callers whose introduction came to nothing.
    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    /// Closes it: nobody is met after this. Introductions under way end by themselves within their limit.
    pub(crate) fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Pairs with the Acquire load of the accepting thread, which the shutdown wakes.
        self.shared.is_closed.store(true, Ordering::Release);
        drop(self.shared.meet.lock().unwrap_or_else(PoisonError::into_inner).take());
        if rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both).is_err() {
            // It cannot be woken, but does nothing for anybody any more; waiting for it could take for ever.
            return;
        }
        if thread.join().is_err() {
            tracing::error!("the thread that accepted peers had panicked");
        }
    }
}

impl Drop for PeerDoor {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept_until_closed(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut is_short = false;
    loop {
        let accepted = listener.accept();
        if shared.is_closed.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((socket, address)) => {
                is_short = false;
                shared.receive(socket, address);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Who gave up before it was its turn; the next may be good.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !is_short {
                    tracing::warn!(%error, "cannot accept peers");
                }
                is_short = true;
                std::thread::sleep(BREATH);
            }
        }
    }
}

impl Shared {
    fn receive(self: &Arc<Shared>, socket: TcpStream, address: SocketAddr) {
        if self.callers.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX {
            self.callers.fetch_sub(1, Ordering::Relaxed);
            return self.turn_away(&socket, address);
        }
        let spare = socket.try_clone();
        let shared = Arc::clone(self);
        let listen = move || {
            let _seat = Seat(Arc::clone(&shared));
            shared.introduce(socket, address);
        };
        let thread = Builder::new().name("fairlock-caller".into()).stack_size(STACK_BYTES).spawn(listen);
        if thread.is_err() {
            self.callers.fetch_sub(1, Ordering::Relaxed);
            if let Ok(socket) = spare {
                self.turn_away(&socket, address);
            }
        }
    }

    fn introduce(&self, socket: TcpStream, address: SocketAddr) {
        match answer(&self.me, socket, self.limit) {
            Ok(caller) => {
                let mut meet = self.meet.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(meet) = meet.as_mut() {
                    meet(caller);
                }
            }
            Err(trouble) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%address, %trouble, "a peer's introduction came to nothing");
            }
        }
    }

    fn turn_away(&self, mut socket: &TcpStream, address: SocketAddr) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%address, "a peer was turned away: too many introduce themselves");
        let busy = Opening { secret: self.me.secret.is_some(), busy: true, nonce: [0; NONCE_BYTES] };
        // The buffer of a new stream takes it at once; should it not arrive, the caller's time limit ends the matter.
        let _ = socket.write(&busy.encode());
        let _ = socket.shutdown(Shutdown::Write);
    }
}

/// One of the places for callers, free again when this is dropped, also by a panic.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}
