//! On which core something runs. Same-core and cross-core figures differ by a factor, so each is pinned and named.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where two parties of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On different cores.
    Cross,
    /// On the same core.
    Same,
}

impl Place {
    /// The word in a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Place::Cross => "cross core",
            Place::Same => "same core",
        }
    }

    /// The core of the party that is not this program.
    pub fn other_core(self) -> usize {
        match self {
            Place::Cross => allowed().get(1).copied().unwrap_or_else(own_core),
            Place::Same => own_core(),
        }
    }
}

/// The cores this process could use when it started, in order. Pinning narrows what the system tells later.
fn allowed() -> &'static [usize] {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    ALLOWED.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    })
}

/// The core that measuring threads run on.
pub fn own_core() -> usize {
    allowed().first().copied().unwrap_or(0)
}

/// Pins the calling thread, and what it starts from now on, to one core.
pub fn pin(core: usize) {
    allowed();
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("not pinned to core {core}: {error}");
    }
}

/// Lets the calling thread run wherever the process could at its start.
pub fn unpin() {
    let mut set = CpuSet::new();
    for &core in allowed() {
        set.set(core);
    }
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("still pinned: {error}");
    }
}

/// Runs `what` with the calling thread on another core, so that a process it starts is born there.
pub fn born_on<T>(core: usize, what: impl FnOnce() -> T) -> T {
    pin(core);
    let result = what();
    pin(own_core());
    result
}
