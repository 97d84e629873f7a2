//! The machine line at the top of every program's output: a figure without it cannot be compared.

use std::fs;

/// Processor model, kernel, number of processors and the load at the start, in one line.
pub fn line() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let virtual_machine =
        cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    format!(
        "machine: {}{}, Linux {}, {} processors, load {load}",
        model.trim_start_matches(['\t', ' ', ':']),
        if virtual_machine { " (virtual)" } else { "" },
        release.trim(),
        processors(),
    )
}

/// Processors this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
