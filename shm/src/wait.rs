//! Sleeping and waking on a segment's word, and the barrier that makes plain stores of other processes visible.

use crate::bell::Parking;
use rustix::thread::futex::{self, Flags, Timespec};
use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
use std::time::Duration;

/// Sleeps while the client's word says that it does, at most this long. Returns early whenever it likes. One thread of a
/// client at a time: the word is set back and one sleeper woken for all of them.
pub fn park(parking: &Parking, timeout: Option<Duration>) {
    let (word, asleep) = parking.futex();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    // Not private: the waker is another process. Every error means "look again", which is what follows anyway.
    let _ = futex::wait(word, Flags::empty(), asleep, timeout.as_ref());
}

/// Wakes whoever sleeps on the client's word. The word was changed before, so that a sleeper on his way does not sleep.
pub fn unpark(parking: &Parking) {
    let (word, _) = parking.futex();
    let _ = futex::wake(word, Flags::empty(), 1);
}

/// This process's plain stores become visible at a server's [`barrier`]. `false`: not to be had here.
pub fn accept_barriers() -> bool {
    let known = membarrier_query().contains(MembarrierQuery::REGISTER_GLOBAL_EXPEDITED);
    known && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Whether [`barrier`] is to be had: some sandboxes forbid it.
pub fn has_barrier() -> bool {
    membarrier_query().contains(MembarrierQuery::GLOBAL_EXPEDITED)
        && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// Every process that has called [`accept_barriers`] has passed a full barrier when this returns. Costs microseconds, on
/// every processor that runs one of them.
pub fn barrier() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}
