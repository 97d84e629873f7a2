//! Ends the sleep of a shard thread from another thread, for the price of a load when it does not sleep.
//!
//! The word is the token of `thread::park`: AWAKE, ASLEEP or NOTIFIED. Waking leaves NOTIFIED behind, and only a waker
//! that finds ASLEEP pays for a write to the eventfd. Falling asleep succeeds from AWAKE only, so a wake-up between the
//! owner's last look at its mailbox and its sleep is not lost, and the owner needs no second look.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const NOTIFIED: u32 = 2;

#[derive(Debug)]
struct Bell {
    /// Written by the owner (AWAKE, ASLEEP) and by wakers (NOTIFIED), only by read-modify-write operations.
    state: AtomicU32,
    eventfd: OwnedFd,
}

/// Wakes one driver. Cheap to clone; outlives the driver harmlessly.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    bell: Arc<Bell>,
}

impl Waker {
    /// Makes the owner's present or next `wait` report `Event::Woken`. Call it after the message is in the mailbox.
    pub(crate) fn wake(&self) {
        // The load below may skip everything only if the owner has yet to take the token *and* will then see the
        // message. The message was stored before this fence, the owner reads it after the fence in `take_token`, which
        // follows its swap. SeqCst fences are totally ordered: if the owner's came first, its swap is visible here and the
        // load does not return the old NOTIFIED; if ours came first, the message is visible there. Pairs with
        // `Sleeper::take_token`.
        fence(Ordering::SeqCst);
        if self.bell.state.load(Ordering::Relaxed) == NOTIFIED {
            return;
        }
        // Release: the message before this is seen by the owner's Acquire swap in `take_token` or `fall_asleep`.
        if self.bell.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // The only failure is EAGAIN, a counter at its maximum, which wakes as well.
            let _ = rustix::io::write(&self.bell.eventfd, &1_u64.to_ne_bytes());
        }
    }
}

/// The owner's side, one a driver.
#[derive(Debug)]
pub(super) struct Sleeper {
    bell: Arc<Bell>,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<Sleeper> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Sleeper { bell: Arc::new(Bell { state: AtomicU32::new(AWAKE), eventfd }) })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker { bell: Arc::clone(&self.bell) }
    }

    /// What becomes readable with a wake-up. Observed by edges and never read: its count does not matter, and an
    /// 8-byte counter outlasts the hardware.
    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }

    /// Announces a sleep. `false`: somebody has called already, do not sleep. Every `true` is followed by `take_token`.
    #[must_use]
    pub(super) fn fall_asleep(&self) -> bool {
        // Acquire, pairs with the Release swap in `Waker::wake`. A waker that comes after this finds ASLEEP and rings.
        let before = self
            .bell
            .state
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .unwrap_or_else(|s| s);
        assert_ne!(before, ASLEEP, "one owner sleeps once");
        before == AWAKE
    }

    /// Ends a sleep, if there was one, and takes the token: `true` if somebody called since the last time.
    #[must_use]
    pub(super) fn take_token(&self) -> bool {
        // AWAKE read here without an order is harmless: a token set meanwhile is taken by the next call, and
        // ASLEEP is written by this thread alone.
        if self.bell.state.load(Ordering::Relaxed) == AWAKE {
            return false;
        }
        // Acquire, pairs with the Release swap in `Waker::wake`.
        let called = self.bell.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED;
        // Pairs with the fence in `Waker::wake`: see there.
        fence(Ordering::SeqCst);
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_sleep_prevents_it_and_is_reported_once() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        waker.wake();
        waker.wake();
        assert!(!sleeper.fall_asleep());
        assert!(sleeper.take_token());
        assert!(!sleeper.take_token());
        assert!(sleeper.fall_asleep());
        assert!(!sleeper.take_token(), "nobody called");
    }

    #[test]
    fn the_eventfd_is_written_for_a_sleeper_only() {
        let sleeper = Sleeper::new().unwrap();
        let mut count = [0; 8];
        sleeper.waker().wake();
        assert_eq!(rustix::io::read(sleeper.eventfd(), &mut count).unwrap_err(), rustix::io::Errno::AGAIN);
        assert!(sleeper.take_token() && sleeper.fall_asleep());
        sleeper.waker().wake();
        sleeper.waker().wake();
        rustix::io::read(sleeper.eventfd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert!(sleeper.take_token());
    }
}
