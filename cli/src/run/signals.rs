//! Signals as something to poll for. A signal that was ignored when the program started stays ignored (nohup, a
//! background job of a script), because whoever started it meant the command to ignore it too.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::process::Signal;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that `run` passes on to its command.
pub(crate) const PASSED_ON: [Signal; 9] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::CONT,
    Signal::TSTP,
];

/// Those of them that end what is waiting for a lock.
pub(crate) const ENDING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Caught signals.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    seen: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Catches these, but for those ignored so far.
    pub(crate) fn catch(signals: &[Signal]) -> io::Result<Signals> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let ignored = ignored();
        let mut seen = Vec::new();
        for &signal in signals {
            if ignored & bit(signal) != 0 && signal != Signal::CHILD {
                continue;
            }
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: whoever is woken finds it set.
            signal_hook::flag::register(signal.as_raw(), Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal.as_raw(), waker.try_clone()?)?;
            seen.push((signal, flag));
        }
        Ok(Signals { wake, seen })
    }

    /// Those that arrived since the last look.
    pub(crate) fn take(&self) -> Vec<Signal> {
        let mut sink = [0; 64];
        while matches!((&self.wake).read(&mut sink), Ok(1..)) {}
        // SeqCst, as signal-hook stores it: pairs with the store in the handler.
        let arrived = self.seen.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        arrived.map(|&(signal, _)| signal).collect()
    }

    /// Forgets one that is expected and means nothing.
    pub(crate) fn forget(&self, signal: Signal) {
        for (_, flag) in self.seen.iter().filter(|(known, _)| *known == signal) {
            flag.store(false, Ordering::SeqCst);
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn bit(signal: Signal) -> u64 {
    1_u64 << (signal.as_raw() - 1)
}

/// The set of signals this process ignores, as /proc shows it; none when it cannot be read.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, kill_process};

    #[test]
    fn a_caught_signal_is_seen_once() {
        let signals = Signals::catch(&[Signal::USR2]).expect("caught");
        assert_eq!(signals.take(), []);
        kill_process(getpid(), Signal::USR2).expect("sent to ourselves");
        while signals.take() != [Signal::USR2] {
            std::thread::yield_now();
        }
        assert_eq!(signals.take(), []);
    }

    #[test]
    fn rust_ignores_sigpipe_and_so_it_stays() {
        assert_ne!(ignored() & bit(Signal::PIPE), 0);
    }
}
