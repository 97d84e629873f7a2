//! What the tests of the whole system stand on: real servers and commands as child processes, clients that speak raw
//! frames, witnesses that write down what they saw, and the checkers that read it.
//!
//! Nothing here asserts a longest time of our own code. [`WATCHDOG`] only turns a hang into a failure. Everything a test
//! starts is ended by its `Drop`, also on the way out of a panic, by process id.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a test that cannot go on panics, and that is how it fails")]

pub mod bytes;
pub mod cell;
pub mod certificates;
pub mod cluster;
pub mod command;
pub mod etcd;
pub mod fuzz;
pub mod history;
pub mod invented;
pub mod keeper;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod oracle;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod recorder;
pub mod resources;
pub mod scratch;
pub mod server;
pub mod slow_line;
pub mod ways;
pub mod workspace;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After this long a test that waits for something is hanging.
pub const WATCHDOG: Duration = Duration::from_mins(1);

/// Stops a process and waits until every thread of it stands still: the signal alone leaves those on other processors some
/// time.
pub fn freeze(pid: rustix::process::Pid) {
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::STOP);
    eventually("it stands still", || {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
            return Some(());
        };
        let mut states = tasks.flatten().filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            stat.rsplit_once(')')?.1.trim_start().chars().next()
        });
        states.all(|state| matches!(state, 'T' | 't' | 'Z' | 'X')).then_some(())
    });
}

/// Ends threads that go on until they read this, also when the test fails.
#[derive(Debug)]
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until `probe` gives something.
///
/// # Panics
/// When it has given nothing for [`WATCHDOG`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < WATCHDOG, "hangs: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nanoseconds on CLOCK_BOOTTIME, which every process of a machine shares.
pub fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.expect("the clock starts at 0") * 1_000_000_000 + ns.expect("a part of a second")
}
