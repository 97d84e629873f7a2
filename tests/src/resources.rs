//! What a process has of the kernel's: descriptors, mappings, memory, time. Read from /proc.

use rustix::process::Pid;
use std::fs;

/// What one process had at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Open descriptors.
    pub descriptors: usize,
    /// Segments that it has mapped.
    pub segments: usize,
    /// Everything it has mapped.
    pub mappings: usize,
    /// Memory of its own and shared that it uses, in bytes.
    pub resident: u64,
    /// Time on processors, in ticks of a hundredth of a second.
    pub ticks: u64,
}

impl Resources {
    /// What a process has now.
    ///
    /// # Panics
    /// When it is gone.
    pub fn of(pid: Pid) -> Resources {
        let home = format!("/proc/{}", pid.as_raw_nonzero());
        let read = |name: &str| {
            fs::read_to_string(format!("{home}/{name}")).unwrap_or_else(|error| panic!("{home}: {error}"))
        };
        let maps = read("maps");
        let status = read("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of KiB");
        let stat = read("stat");
        // The name in parentheses may contain anything; what follows is numbers.
        let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
        let number = |at: usize| numbers.split_whitespace().nth(at)?.parse::<u64>().ok();
        Resources {
            descriptors: fs::read_dir(format!("{home}/fd")).expect("it has a list of them").count(),
            segments: maps.lines().filter(|line| line.contains("fairlock-segment")).count(),
            mappings: maps.lines().count(),
            resident: kib * 1024,
            ticks: number(11).zip(number(12)).map(|(user, system)| user + system).expect("two numbers"),
        }
    }
}
