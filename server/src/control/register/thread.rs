//! A register that is asked from a thread that must not wait.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use fairlock_replication::{Answer, Ask, Register};

/// A thread that asks a register, one ask at a time. Dropping it waits for the answer that is still to come, at most
/// the register's own limit; nothing is told afterwards.
pub struct RegisterThread {
    asks: Option<mpsc::Sender<Ask>>,
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// There is an ask without an answer; the new one was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the register has not answered the ask before")
    }
}

impl std::error::Error for Busy {}

impl RegisterThread {
    /// Starts the thread. It calls `answered` once for each ask, and is free again by then.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(
        mut register: Box<dyn Register>,
        mut answered: impl FnMut(Answer) + Send + 'static,
    ) -> io::Result<RegisterThread> {
        let (sender, asks) = mpsc::channel::<Ask>();
        let busy = Arc::new(AtomicBool::new(false));
        let working = Arc::clone(&busy);
        let thread = std::thread::Builder::new().name("register".into()).spawn(move || {
            for ask in asks {
                let answer = register.answer(&ask);
                // Release: pairs with the exchange in `ask`, so that the next ask comes after this one was done.
                working.store(false, Ordering::Release);
                answered(answer);
            }
        })?;
        Ok(RegisterThread { asks: Some(sender), busy, thread: Some(thread) })
    }

    /// Asks; never waits.
    ///
    /// # Errors
    /// [`Busy`]: the ask before has no answer yet, or the thread is gone because its callback panicked.
    pub fn ask(&mut self, ask: Ask) -> Result<(), Busy> {
        // Acquire: pairs with the store of the thread. It is the only other writer, and only ever clears.
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(Busy);
        }
        match &self.asks {
            Some(asks) if asks.send(ask).is_ok() => Ok(()),
            _ => Err(Busy),
        }
    }

    /// Whether an ask has no answer yet.
    pub fn is_busy(&self) -> bool {
        // Relaxed: a hint; `ask` decides.
        self.busy.load(Ordering::Relaxed)
    }
}

impl Drop for RegisterThread {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its thread; here is nobody to pass it on to.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for RegisterThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterThread").field("busy", &self.is_busy()).finish_non_exhaustive()
    }
}
