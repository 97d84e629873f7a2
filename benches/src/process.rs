//! A process that is measured: what it costs, and how it is kept quiet while something else is measured on its core.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub struct Measured {
    child: Child,
}

impl Measured {
    /// Takes charge of a child.
    pub fn new(child: Child) -> Measured {
        Measured { child }
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, so that its core is free for another measurement.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end, and waits; after `patience` it is killed.
    pub fn end(&mut self, patience: Duration) {
        self.signal(Signal::TERM);
        let until = Instant::now() + patience;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // An error means that it is gone, which the next read of its stream says more clearly.
            let _ = kill_process(pid, signal);
        }
    }

    /// Time its threads have run so far.
    ///
    /// # Errors
    /// What reading `/proc` says.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            ns += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(ns))
    }

    /// Memory that is resident, in bytes.
    ///
    /// # Errors
    /// What reading `/proc` says.
    pub fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0);
        Ok(kib * 1024)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
