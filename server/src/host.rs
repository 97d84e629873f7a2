//! What this host gives a server: processors and descriptors.

/// Descriptors we ask for, when the hard limit allows.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS_WANTED, |hard| hard.min(DESCRIPTORS_WANTED));
    if limit.current.is_some_and(|soft| soft < wanted) {
        limit.current = Some(wanted);
        // What is not granted only means fewer clients; the limit is checked again where it is met.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Keeps the calling thread on one processor of those it may use.
pub(crate) fn pin(index: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let Some(&cpu) = processors.get(index % processors.len().max(1)) else { return };
    let mut one = CpuSet::new();
    one.set(cpu);
    if let Err(error) = sched_setaffinity(None, &one) {
        tracing::warn!(cpu, %error, "a shard could not be pinned");
    }
}
