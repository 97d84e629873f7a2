//! The processes below the supervisor. It is their subreaper, so whatever the command starts stays below it, also when
//! it left the process group; only a walk through /proc finds those.
//!
//! A process may fork or end while one looks. A walk that met such a change is repeated; killing goes on round by
//! round until a quiet walk finds nobody.

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group, test_kill_process_group};
use std::collections::HashMap;
use std::fs;

/// Walks until one is quiet: more than this many changes in a row are a fork storm, and the next round comes soon.
const WALKS_MAX: usize = 8;

/// One living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: Pid,
    /// Its process group.
    pub(crate) group: i32,
}

/// What /proc says about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: i32,
    group: i32,
}

/// Reads a line of /proc/PID/stat. The name in it may hold spaces and brackets, so the last bracket counts.
fn parse(line: &str) -> Option<Stat> {
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some(Stat { state, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// Everybody alive below this process but `except`, whose own children count; `None` when /proc is not there.
fn living(except: Option<Pid>) -> Option<Vec<Process>> {
    let mut before = walk(except)?;
    for _ in 0..WALKS_MAX {
        let now = walk(except)?;
        if now == before {
            break;
        }
        before = now;
    }
    Some(before)
}

fn walk(except: Option<Pid>) -> Option<Vec<Process>> {
    let mut below: HashMap<i32, Vec<(i32, Stat)>> = HashMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some(stat) = parse(&String::from_utf8_lossy(&line)) {
            below.entry(stat.parent).or_default().push((pid, stat));
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![getpid().as_raw_pid()];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in below.remove(&parent).unwrap_or_default() {
            parents.push(pid);
            let alive = !matches!(stat.state, b'Z' | b'X');
            if let Some(pid) = Pid::from_raw(pid).filter(|&pid| alive && Some(pid) != except) {
                found.push(Process { pid, group: stat.group });
            }
        }
    }
    found.sort_unstable_by_key(|process| process.pid.as_raw_pid());
    Some(found)
}

/// Whether nobody of the group is alive. Zombies do not count: they do nothing and hold nothing.
pub(crate) fn group_is_gone(group: Pid, gate: Option<Pid>) -> bool {
    match living(gate) {
        Some(found) => found.iter().all(|process| process.group != group.as_raw_pid()),
        None => test_kill_process_group(group).is_err(),
    }
}

/// Whether nobody below is alive but the gate.
pub(crate) fn all_are_gone(group: Option<Pid>, gate: Option<Pid>) -> bool {
    match living(gate) {
        Some(found) => found.is_empty(),
        None => group.is_none_or(|group| test_kill_process_group(group).is_err()),
    }
}

/// Asks everybody to end: the group, and those who left it.
pub(crate) fn terminate(group: Option<Pid>, gate: Option<Pid>) {
    signal_all(group, gate, Signal::TERM);
    // A stopped process would not notice before it is continued, and then only to be killed.
    signal_all(group, gate, Signal::CONT);
}

/// One round of KILL; whoever was being forked meanwhile is met by the next.
pub(crate) fn kill(group: Option<Pid>, gate: Option<Pid>) {
    signal_all(group, gate, Signal::KILL);
}

fn signal_all(group: Option<Pid>, gate: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Nobody there is what is wanted; nobody may be signalled after a setuid is what cannot be helped.
        let _ = kill_process_group(group, signal);
    }
    let in_group = |process: &Process| group.is_some_and(|group| group.as_raw_pid() == process.group);
    for process in living(gate).unwrap_or_default() {
        if !in_group(&process) || signal == Signal::KILL {
            let _ = kill_process(process.pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_stat_line_reads_whatever_the_program_calls_itself() {
        let stat = parse("42 (evil) Z 1 (x) S 7 8 9 0").expect("reads");
        assert_eq!(stat, Stat { state: b'S', parent: 7, group: 8 });
        assert_eq!(parse("42 (x"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_child_is_found_by_group_until_it_is_gone() {
        let mut child =
            Command::new("sleep").arg("60").stdin(Stdio::null()).process_group(0).spawn().expect("spawned");
        let group = Pid::from_child(&child);
        assert!(!group_is_gone(group, None));
        assert!(group_is_gone(group, Some(group)), "the gate does not count");
        kill_process_group(group, Signal::KILL).expect("our own child");
        while !group_is_gone(group, None) {
            std::thread::yield_now();
        }
        child.wait().expect("reaped");
    }
}
