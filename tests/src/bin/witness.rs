//! A child of `fairlock run` that writes down when it ran, and looks whether anybody else still does.
//!
//! `witness FILE LABEL MILLISECONDS [--fork MILLISECONDS]`: appends `start LABEL PID NS`, then `beat …` about every
//! millisecond, then `end …`; before it starts it checks that every process which started in FILE and did not end is
//! gone, and appends `overlap …` when one is not. With `--fork` a grandchild goes on as a witness of its own, and this
//! one ends at once. Signals are not caught: being killed leaves a start without an end.

use fairlock_tests::boottime_ns;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, label) = (&arguments[0], &arguments[1]);
    let length = Duration::from_millis(arguments[2].parse().expect("milliseconds"));
    let mut file = File::options().create(true).append(true).open(path).expect("the file can be written");
    let mut note = |word: &str| {
        let line = format!("{word} {label} {} {}\n", std::process::id(), boottime_ns());
        file.write_all(line.as_bytes()).expect("the file can be written");
    };
    let before = std::fs::read_to_string(path).expect("the file can be read");
    note("start");
    for other in unfinished(&before).filter(|&pid| runs(pid)) {
        note(&format!("overlap:{other}"));
    }
    if let Some("--fork") = arguments.get(3).map(String::as_str) {
        let this = std::env::current_exe().expect("a running program has a path");
        let mut grandchild = std::process::Command::new(this);
        grandchild.args([path, &format!("{label}-grandchild"), &arguments[4]]);
        drop(grandchild.spawn().expect("a process can be started"));
    }
    let begun = Instant::now();
    while begun.elapsed() < length {
        note("beat");
        std::thread::sleep(Duration::from_millis(1));
    }
    note("end");
}

/// Processes that started and did not say that they ended; one's own family does not count.
fn unfinished(log: &str) -> impl Iterator<Item = u32> {
    let pid = |line: &str| line.split(' ').nth(2)?.parse::<u32>().ok();
    let ended: Vec<u32> = log.lines().filter(|line| line.starts_with("end ")).filter_map(pid).collect();
    let started: Vec<u32> = log.lines().filter(|line| line.starts_with("start ")).filter_map(pid).collect();
    let parent =
        rustix::process::getppid().and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok());
    started.into_iter().filter(move |pid| !ended.contains(pid) && Some(*pid) != parent)
}

/// Whether a process could still do something: it exists and is no zombie.
fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
