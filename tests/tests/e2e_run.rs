//! `fairlock run` keeps its promise: the child never overlaps the next holder, whatever is frozen, killed or cut off.
//!
//! The children are witnesses: each writes down when it ran, and looks at its start whether another one still runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::command::{Running, fairlock, finish};
use fairlock_tests::proxy::Proxy;
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Io, Plan, lasting_address};
use fairlock_tests::ways::{self, Door};
use fairlock_tests::{WATCHDOG, boottime_ns, eventually, workspace};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough to be there until it is ended.
const FOR_EVER: &str = "600000";

/// What the witnesses wrote.
struct Evidence {
    scratch: Scratch,
}

#[derive(Clone, Debug)]
struct Note {
    word: String,
    label: String,
    pid: i32,
    at_ns: u64,
}

impl Evidence {
    fn new() -> Evidence {
        Evidence { scratch: Scratch::new() }
    }

    fn file(&self) -> PathBuf {
        self.scratch.join("evidence")
    }

    fn notes(&self) -> Vec<Note> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let note = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            Note {
                word: words[0].to_owned(),
                label: words[1].to_owned(),
                pid: words[2].parse().unwrap(),
                at_ns: words[3].parse().unwrap(),
            }
        };
        whole.lines().map(note).collect()
    }

    /// Waits for a note of this witness.
    fn await_note(&self, word: &str, label: &str) -> Note {
        eventually(&format!("{label} says {word}"), || {
            self.notes().into_iter().find(|note| note.word == word && note.label == label)
        })
    }

    /// No witness saw another one.
    fn nobody_saw_another(&self) {
        let notes = self.notes();
        let seen: Vec<&Note> = notes.iter().filter(|note| note.word.starts_with("overlap")).collect();
        assert!(seen.is_empty(), "two at once: {seen:?}");
    }

    /// No witness saw another one, and none wrote while another one was in.
    fn shows_no_overlap(&self) {
        self.nobody_saw_another();
        let notes = self.notes();
        let mut labels: Vec<&str> = notes.iter().map(|note| note.label.as_str()).collect();
        labels.dedup();
        let mut spans: Vec<(u64, u64, &str)> = Vec::new();
        for label in labels {
            let of_label = notes.iter().filter(|note| note.label == label);
            let times: Vec<u64> = of_label.map(|note| note.at_ns).collect();
            spans.push((*times.iter().min().unwrap(), *times.iter().max().unwrap(), label));
        }
        spans.sort_unstable();
        spans.dedup_by_key(|span| span.2.to_owned());
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{} and {} ran at once", pair[0].2, pair[1].2);
        }
    }
}

fn witness(evidence: &Path, label: &str, ms: &str) -> Vec<String> {
    let program = workspace::own_binary("witness");
    [program.to_str().unwrap(), evidence.to_str().unwrap(), label, ms].map(str::to_owned).to_vec()
}

/// `run … x -- witness`, in a process group of its own.
fn run(endpoint: &str, options: &[&str], child: &[String]) -> Running {
    let mut command: Command = fairlock(endpoint, ["run"]);
    command.args(options).arg("x").arg("--").args(child);
    command.process_group(0).stdout(Stdio::null());
    Running::start(command)
}

fn pid(note: &Note) -> Pid {
    Pid::from_raw(note.pid).unwrap()
}

/// Whether a process is there and no zombie.
fn runs(pid: Pid) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
        return false;
    };
    !matches!(stat.rsplit_once(')').unwrap().1.trim_start().chars().next(), Some('Z' | 'X'))
}

fn parent(of: Pid) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", of.as_raw_nonzero())).unwrap();
    let number = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
    Pid::from_raw(number.parse().unwrap()).unwrap()
}

fn waits(endpoint: &str) {
    eventually("the second one waits", || {
        let said = finish(endpoint, ["show", "x", "--json"]).json();
        (said["waiters"].as_array().unwrap().len() == 1).then_some(())
    });
}

/// G18: the front and its group are frozen and the line to the server is cut: the child is dead before the next starts.
/// G4: and nobody told it.
#[test]
fn a_frozen_run_that_is_cut_off_is_dead_before_the_next_holder_starts() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let server = Plan::new(io).start();
        let line = Proxy::to(server.address());
        let evidence = Evidence::new();
        let first = run(&line.endpoint(), &["--ttl", "3s"], &witness(&evidence.file(), "first", FOR_EVER));
        let started = evidence.await_note("start", "first");
        let mut second = run(&server.tcp(), &[], &witness(&evidence.file(), "second", "50"));
        waits(&server.tcp());
        let group = getpgid(Some(pid(&started))).unwrap();
        kill_process_group(first.pid(), Signal::STOP).unwrap();
        kill_process_group(group, Signal::STOP).unwrap();
        line.cut();
        assert_eq!(second.wait(), 0);
        assert!(!runs(pid(&started)), "the first child still exists");
        evidence.shows_no_overlap();
        let _ = kill_process_group(first.pid(), Signal::CONT);
    }
}

/// G18: the line is cut and nothing is frozen: TERM, then KILL, in time; the exit code says that the lock was lost.
#[test]
fn a_run_that_is_cut_off_ends_its_child_in_time_and_says_so() {
    for (options, child) in [
        (&["--ttl", "3s"][..], "exec "),
        (&["--ttl", "3s"][..], "trap '' TERM; "),
        (&["--ttl", "3s", "--on-lost", "kill"][..], "exec "),
    ] {
        eprintln!("--- {options:?} {child}");
        let server = Plan::new(Io::Auto).start();
        let line = Proxy::to(server.address());
        let evidence = Evidence::new();
        let script = format!("{child}{}", witness(&evidence.file(), "first", FOR_EVER).join(" "));
        let shell = ["sh", "-c", &script].map(str::to_owned);
        let mut first = run(&line.endpoint(), options, &shell);
        evidence.await_note("start", "first");
        let mut second = run(&server.tcp(), &[], &witness(&evidence.file(), "second", "50"));
        waits(&server.tcp());
        line.cut();
        assert_eq!(first.wait(), 76, "lost while running");
        assert_eq!(second.wait(), 0);
        evidence.shows_no_overlap();
    }
}

/// G18: a cut that is mended in time costs nothing.
#[test]
fn a_short_cut_is_survived() {
    let server = Plan::new(Io::Auto).start();
    let line = Proxy::to(server.address());
    let evidence = Evidence::new();
    let mut first = run(&line.endpoint(), &["--ttl", "20s"], &witness(&evidence.file(), "first", "1500"));
    evidence.await_note("start", "first");
    line.cut();
    std::thread::sleep(std::time::Duration::from_millis(300));
    line.mend();
    assert_eq!(first.wait(), 0);
    evidence.await_note("end", "first");
}

/// G18: SIGKILL of the front: the child goes on under its supervisor, and the lock with it; the next one starts after it.
#[test]
fn a_child_whose_front_was_killed_keeps_its_lock_until_it_ends() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let evidence = Evidence::new();
        let mut first = run(&endpoint, &["--ttl", "1s"], &witness(&evidence.file(), "first", "4000"));
        evidence.await_note("start", "first");
        let mut second = run(&endpoint, &[], &witness(&evidence.file(), "second", "50"));
        waits(&endpoint);
        kill_process(first.pid(), Signal::KILL).unwrap();
        assert_eq!(first.wait(), 128 + 9);
        assert_eq!(second.wait(), 0);
        evidence.shows_no_overlap();
    }
}

/// G18: on a Unix socket also the supervisor may be killed: the child is ended, then the next one starts.
#[test]
fn a_child_whose_supervisor_was_killed_is_ended_before_the_next_holder_starts() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let evidence = Evidence::new();
        let first = run(&server.unix(), &["--ttl", "1s"], &witness(&evidence.file(), "first", FOR_EVER));
        let child = pid(&evidence.await_note("start", "first"));
        let mut second = run(&server.unix(), &[], &witness(&evidence.file(), "second", "50"));
        waits(&server.unix());
        let supervisor = parent(parent(child));
        assert_ne!(supervisor, first.pid(), "front, supervisor, gate, command");
        kill_process(first.pid(), Signal::KILL).unwrap();
        kill_process(supervisor, Signal::KILL).unwrap();
        assert_eq!(second.wait(), 0);
        assert!(!runs(child));
        evidence.shows_no_overlap();
    }
}

/// G18: the front is killed at any moment of its start; whatever came of it, nothing overlaps and the lock comes free.
#[test]
fn killing_the_front_at_any_moment_leaves_no_overlap() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let evidence = Evidence::new();
        for number in 0..12_u64 {
            let label = format!("killed-{number}");
            let mut front = run(&endpoint, &["--ttl", "1s"], &witness(&evidence.file(), &label, "100"));
            std::thread::sleep(std::time::Duration::from_millis(number * 4));
            let _ = kill_process(front.pid(), Signal::KILL);
            front.wait();
        }
        let mut last = run(&endpoint, &[], &witness(&evidence.file(), "last", "20"));
        assert_eq!(last.wait(), 0);
        evidence.shows_no_overlap();
    }
}

/// G19: on a Unix socket the lock passes when the last descendant is gone, and the front returns with its child.
#[test]
fn a_grandchild_keeps_the_lock_on_a_unix_socket() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let evidence = Evidence::new();
        let mut child = witness(&evidence.file(), "parent", "0");
        child.extend(["--fork".to_owned(), "4000".to_owned()]);
        let mut first = run(&server.unix(), &["--ttl", "500ms"], &child);
        assert_eq!(first.wait(), 0);
        evidence.await_note("start", "parent-grandchild");
        let still =
            evidence.notes().iter().any(|note| note.word == "end" && note.label == "parent-grandchild");
        assert!(!still, "the front returned before the grandchild ended");
        let mut second = run(&server.unix(), &[], &witness(&evidence.file(), "second", "20"));
        assert_eq!(second.wait(), 0);
        let (end, start) =
            (evidence.await_note("end", "parent-grandchild"), evidence.await_note("start", "second"));
        assert!(end.at_ns <= start.at_ns, "the grandchild was still at work");
        assert!(
            evidence.notes().iter().all(|note| !note.word.starts_with("overlap")),
            "{:?}",
            evidence.notes()
        );
    }
}

/// G19: `--liveness process` releases at the child's exit.
#[test]
fn with_liveness_process_the_lock_passes_at_the_childs_exit() {
    let server = Plan::new(Io::Auto).start();
    let mut command = fairlock(&server.unix(), ["run", "--liveness", "process", "x", "--"]);
    command.args(["sh", "-c", "sleep 30 & exit 3"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = Running::start(command);
    assert_eq!(first.wait(), 3);
    assert_eq!(finish(&server.unix(), ["run", "-w", "20s", "x", "--", "true"]).code, 0);
}

/// G21: a signal while waiting cancels, and the queue forgets the waiter.
#[test]
fn a_signal_while_waiting_cancels_at_once() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let evidence = Evidence::new();
        let holder = run(&endpoint, &[], &witness(&evidence.file(), "holder", FOR_EVER));
        evidence.await_note("start", "holder");
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut waiter = run(&endpoint, &[], &witness(&evidence.file(), "never", "10"));
            waits(&endpoint);
            waiter.signal(signal);
            assert_eq!(waiter.wait(), code);
            eventually("the queue forgot it", || {
                let said = finish(&endpoint, ["show", "x", "--json"]).json();
                said["waiters"].as_array().unwrap().is_empty().then_some(())
            });
        }
        assert!(evidence.notes().iter().all(|note| note.label == "holder"));
        drop(holder);
    }
}

/// G20: a signal to the front goes to the child, and the code is the child's.
#[test]
fn signals_are_passed_on_to_the_child() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let evidence = Evidence::new();
        let ready = evidence.scratch.join("ready");
        let script = format!("trap 'exit 42' TERM; : > {}; while :; do sleep 0.02; done", ready.display());
        let mut first = run(&endpoint, &[], &["sh", "-c", &script].map(str::to_owned));
        eventually("the trap is set", || ready.exists().then_some(()));
        first.signal(Signal::TERM);
        assert_eq!(first.wait(), 42);
        let mut plain = run(&endpoint, &[], &witness(&evidence.file(), "plain", FOR_EVER));
        evidence.await_note("start", "plain");
        plain.signal(Signal::TERM);
        assert_eq!(plain.wait(), 143);
    }
}

/// G11, G12: kill -9 of a holder: on a Unix socket its lock passes at its death, over TCP at its lease's end.
#[test]
fn a_killed_holder_passes_its_lock_on_at_its_death_or_at_its_leases_end() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let ttl = if way.door == Door::Unix { "60s" } else { "2s" };
        let mut command = fairlock(&endpoint, ["hold", "x", "--ttl", ttl]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Running::start(command);
        assert!(holder.line().contains("token"));
        let mut next = fairlock(&endpoint, ["run", "x", "--", "true"]);
        next.stdout(Stdio::null());
        let mut next = Running::start(next);
        waits(&endpoint);
        let killed_ns = boottime_ns();
        holder.signal(Signal::KILL);
        let begun = Instant::now();
        assert_eq!(next.wait(), 0);
        let passed_ms = (boottime_ns() - killed_ns) / 1_000_000;
        match way.door {
            // Its session has no end by time: that it passed at all is its death's doing.
            Door::Unix | Door::Shm => assert!(begun.elapsed() < WATCHDOG),
            // Renewed at latest at its death, at earliest a fifth of the lease before (with a margin for a busy machine).
            Door::Tcp => assert!(passed_ms >= 500, "the lease of 2 s ended {passed_ms} ms after the death"),
        }
    }
}

/// G18, G56: the server is killed and started again under a running command, which goes on: it never overlaps with the next one.
#[test]
fn a_crash_of_the_server_leads_to_no_overlap() {
    for way in ways::single() {
        let server = way.plan().at(lasting_address()).start();
        let endpoint = way.endpoint(&server);
        let evidence = Evidence::new();
        let mut first = run(&endpoint, &["--ttl", "3s"], &witness(&evidence.file(), "first", FOR_EVER));
        evidence.await_note("start", "first");
        let server = server.crash().start();
        assert!(server.ready["recovering_ms"].as_u64().unwrap() > 0);
        let mut second = run(&endpoint, &["--ttl", "3s"], &witness(&evidence.file(), "second", "20"));
        std::thread::sleep(Duration::from_millis(3500));
        assert!(first.is_running(), "the server was shown what it holds");
        first.signal(Signal::TERM);
        assert_eq!(first.wait(), 143);
        assert_eq!(second.wait(), 0);
        evidence.shows_no_overlap();
    }
}
