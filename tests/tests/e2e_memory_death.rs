//! Clients that share memory with a server and vanish, stop, fork or become something else: what they had passes on in
//! the order of the queue, the next holder is told whether somebody died inside, and nothing of them stays in the server.

use fairlock_protocol::{Reply, Request, Wait, request::Acquire};
use fairlock_tests::command::Running;
use fairlock_tests::keeper::{cached, client, leave, queued};
use fairlock_tests::random::{Random, fresh_seed};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::resources::Resources;
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways::drivers;
use fairlock_tests::{eventually, workspace};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A process that shares memory with the server and does this; see the program.
fn sharer(server: &Server, arguments: &[&str]) -> Running {
    let mut command = Command::new(workspace::own_binary("sharer"));
    command.arg(server.shm()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    Running::start(command)
}

fn kill(mut process: Running) {
    process.signal(Signal::KILL);
    process.wait();
}

fn ask(raw: &mut Raw, name: &[u8]) -> u64 {
    raw.send(&Request::Acquire(exclusive(name)))
}

/// Whether nobody has the lock now.
fn is_free(raw: &mut Raw, name: &[u8]) -> bool {
    let arrived = raw.call(&Request::Acquire(Acquire { wait: Wait::Try, ..exclusive(name) }));
    if arrived.refusal().is_some() {
        return false;
    }
    raw.release(arrived.grant().grant);
    true
}

/// Sessions and grants of the server, as it counts them.
fn counts(raw: &mut Raw) -> (u64, u64) {
    let arrived = raw.call(&Request::Status);
    let Reply::Status(status) = arrived.reply() else { panic!("{arrived:?}") };
    (status.sessions, status.grants)
}

/// G44: in queue order, and told of the death.
#[test]
fn a_killed_holder_is_followed_by_the_first_in_the_queue_who_is_told_of_the_death() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (mut first, mut second, mut watcher) = (client(&server), client(&server), client(&server));
        let mut holder = sharer(&server, &["hold", "x"]);
        let token: u64 = holder.line().parse().expect("a token");
        let waits_first = ask(&mut first, b"x");
        queued(&mut watcher, b"x", 1);
        let waits_second = ask(&mut second, b"x");
        queued(&mut watcher, b"x", 2);
        kill(holder);
        let next = first.answer(waits_first).grant();
        assert!(next.previous_owner_died && next.token.is_some_and(|next| next.get() > token));
        first.release(next.grant);
        let last = second.answer(waits_second).grant();
        assert!(!last.previous_owner_died && last.token > next.token);
    }
}

#[test]
fn a_killed_waiter_leaves_the_queue_and_nobody_is_told_of_a_death() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (mut holder, mut last) = (client(&server), client(&server));
        let held = holder.acquire(b"x");
        let mut waiter = sharer(&server, &["wait", "x"]);
        assert_eq!(waiter.line(), "asked");
        queued(&mut holder, b"x", 1);
        let wait = ask(&mut last, b"x");
        queued(&mut holder, b"x", 2);
        kill(waiter);
        queued(&mut holder, b"x", 1);
        holder.release(held.grant);
        assert!(!last.answer(wait).grant().previous_owner_died);
    }
}

#[test]
fn a_client_killed_in_the_middle_of_a_frame_dies_like_any_other() {
    let mut random = Random::from_seed(fresh_seed("deaths in the middle of a frame"));
    for &io in drivers() {
        let mut server = Plan::new(io).start();
        let mut other = client(&server);
        let mut holder = sharer(&server, &["half", "x"]);
        holder.line();
        let wait = ask(&mut other, b"x");
        queued(&mut other, b"x", 1);
        kill(holder);
        let next = other.answer(wait).grant();
        assert!(next.previous_owner_died);
        other.release(next.grant);
        for _ in 0..20 {
            let mut pouring = sharer(&server, &["pour", "x"]);
            assert_eq!(pouring.line(), "pouring");
            std::thread::sleep(Duration::from_micros(random.below(5_000)));
            kill(pouring);
            let grant = other.acquire(b"y").grant;
            other.release(grant);
        }
        eventually("all are gone", || (counts(&mut other) == (1, 0)).then_some(()));
        assert!(server.is_running());
    }
}

/// G44: told exactly when the dead one was inside.
#[test]
fn of_a_thousand_grants_kept_by_the_dead_those_it_was_inside_tell_of_its_death() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut other = client(&server);
        let mut keeper = sharer(&server, &["keep", "k", "1000"]);
        assert_eq!(keeper.line(), "kept");
        kill(keeper);
        for number in 0..1000 {
            let next = other.acquire(format!("k/{number}").as_bytes());
            assert_eq!(next.previous_owner_died, number % 2 == 1, "k/{number}");
            other.release(next.grant);
        }
        assert_eq!(counts(&mut other), (1, 0));
    }
}

#[test]
fn a_stopped_client_keeps_its_locks_disturbs_nobody_and_goes_on() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (mut waiter, mut other) = (client(&server), client(&server));
        let mut holder = sharer(&server, &["hold", "x"]);
        holder.line();
        holder.signal(Signal::STOP);
        let wait = ask(&mut waiter, b"x");
        // Four times its lease: its process is what keeps its session alive.
        assert!(waiter.frame_within(Duration::from_millis(1200)).is_err(), "it is still inside");
        for _ in 0..100 {
            let grant = other.acquire(b"y").grant;
            other.release(grant);
        }
        holder.signal(Signal::CONT);
        std::io::Write::write_all(&mut holder.stdin().expect("piped"), b"\n").expect("it reads");
        assert_eq!(holder.line(), "released");
        assert!(!waiter.answer(wait).grant().previous_owner_died);
    }
}

#[test]
fn a_client_that_becomes_another_program_is_over() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut other = client(&server);
        let mut holder = sharer(&server, &["exec", "x"]);
        holder.line();
        let next = other.acquire(b"x");
        assert!(next.previous_owner_died);
        assert!(holder.is_running(), "its process lives, and is something else");
        eventually("its memory goes", || (Resources::of(server.pid()).segments == 1).then_some(()));
    }
}

#[test]
fn a_child_with_copies_of_its_descriptors_does_not_keep_a_session_alive() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut other = client(&server);
        let before = Resources::of(server.pid());
        let mut holder = sharer(&server, &["bequeath", "x"]);
        let line = holder.line();
        let heir = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).and_then(Pid::from_raw);
        let heir = heir.unwrap_or_else(|| panic!("no child in {line:?}"));
        assert!(!is_free(&mut other, b"x"));
        kill(holder);
        let next = other.acquire(b"x");
        assert!(next.previous_owner_died);
        eventually("nothing of it stays in the server", || {
            let now = Resources::of(server.pid());
            let same = (now.segments, now.descriptors) == (before.segments, before.descriptors);
            same.then_some(())
        });
        assert!(std::fs::exists(format!("/proc/{}", heir.as_raw_nonzero())).expect("/proc is there"));
        kill_process(heir, Signal::KILL).expect("it sleeps");
    }
}

/// G44: what was said before counts.
#[test]
fn who_exits_without_closing_has_died_and_who_releases_in_the_same_breath_has_not() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut other = client(&server);
        for _ in 0..20 {
            for (what, died) in [("leave", true), ("breath", false)] {
                let mut holder = sharer(&server, &[what, "x"]);
                holder.line();
                let next = other.acquire(b"x");
                assert_eq!(next.previous_owner_died, died, "{what}");
                other.release(next.grant);
            }
        }
    }
}

/// A client that keeps two grants, one of which it is inside, and vanishes.
fn vanish(server: &Server, number: usize) {
    let mut raw = client(server);
    raw.acquire(format!("held/{}", number % 7).as_bytes());
    let name = format!("kept/{number}");
    let (_, word, generation) = cached(&mut raw, name.as_bytes());
    if number.is_multiple_of(2) {
        leave(&raw, word, generation);
    }
}

/// So many connections that vanish, and so many processes that are killed.
fn die(server: &Server, connections: usize, processes: usize) {
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for number in 0..connections / 2 {
                    vanish(server, 2 * number + half);
                }
            });
        }
    });
    let names: Vec<String> = (0..processes).map(|number| format!("process/{number}")).collect();
    for names in names.chunks(25) {
        let mut running: Vec<_> = names.iter().map(|name| sharer(server, &["hold", name])).collect();
        for process in &mut running {
            process.line();
        }
        for process in &running {
            process.signal(Signal::KILL);
        }
    }
}

/// G44: nothing stays in the server.
#[test]
fn ten_thousand_deaths_leave_nothing_behind() {
    for &io in drivers() {
        let mut server = Plan::new(io).start();
        let mut watcher = client(&server);
        let rest = |watcher: &mut Raw| {
            eventually("all are gone", || {
                if counts(watcher) != (1, 0) {
                    return None;
                }
                // What the last one had is closed in the pass that counted it as gone, or the one after.
                let had = Resources::of(server.pid());
                counts(watcher);
                let has = Resources::of(server.pid());
                ((has.descriptors, has.segments) == (had.descriptors, had.segments)).then_some(has)
            })
        };
        // Whatever grows once has grown then.
        die(&server, 1000, 50);
        let before = rest(&mut watcher);
        let begun = std::time::Instant::now();
        die(&server, 10_000, 300);
        let after = rest(&mut watcher);
        let time = begun.elapsed();
        eprintln!("{io:?}: 10 300 deaths in {time:?}, from {before:?} to {after:?}");
        assert_eq!((after.descriptors, after.segments), (before.descriptors, 1));
        assert!(after.mappings <= before.mappings + 8, "mappings");
        assert!(after.resident < before.resident + 4 * 1024 * 1024, "memory");
        assert!(server.is_running());
    }
}
