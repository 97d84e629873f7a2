//! Sessions against a real server, frame by frame: what renews a lease and what does not, what ends a session, and what a
//! connection's end does not end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::request::Acquire;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{GrantId, Liveness, Mode, Refusal, Reply, Request, RequestId, ShardId, Wait};
use fairlock_tests::command::Running;
use fairlock_tests::raw::{Raw, exclusive, session};
use fairlock_tests::server::Plan;
use fairlock_tests::{boottime_ns, ways};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

/// G4: only answers that confirm something renew; refusals and other shards never do.
#[test]
fn refusals_do_not_renew_and_confirmations_do() {
    for way in ways::single() {
        let server = way.plan().start();
        let mut holder = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        holder.open(60_000, Liveness::Heartbeat);
        let grant = holder.acquire(b"x").grant;
        let mut raw = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        let opened = raw.call(&Request::Open(session(60_000, Liveness::Heartbeat)));
        assert_eq!(opened.flags, FLAG_RENEWED);
        let alive = raw.call(&Request::Keepalive);
        assert_eq!(alive.flags, FLAG_RENEWED);
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        let refused = raw.call(&Request::Acquire(attempt));
        assert_eq!((refused.refusal(), refused.flags), (Some(Refusal::WouldBlock), 0));
        let brief = Acquire { wait: Wait::Millis(20), ..exclusive(b"x") };
        let timed_out = raw.call(&Request::Acquire(brief));
        assert_eq!((timed_out.refusal(), timed_out.flags), (Some(Refusal::Timeout), FLAG_KEPT));
        let not_held = raw.call(&Request::Release(grant));
        assert_eq!((not_held.refusal(), not_held.flags), (Some(Refusal::NotHeld), 0));
        let granted = raw.call(&Request::Acquire(exclusive(b"y")));
        assert_eq!(granted.flags, FLAG_RENEWED | FLAG_KEPT);
        let released = raw.call(&Request::Release(granted.grant().grant));
        assert_eq!(released.flags, FLAG_RENEWED | FLAG_KEPT);
    }
}

/// G4: a shard that is not the session's home confirms nothing about its lease.
#[test]
fn another_shard_than_the_home_renews_nothing() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).start();
        let mut home = Raw::greeted(&server.tcp(), ShardId(0));
        let (session, secret) = home.open(2000, Liveness::Heartbeat);
        let mut other = Raw::greeted(&server.tcp(), ShardId(1));
        let resumed = other.call(&Request::Resume { session, secret, received: 0 });
        assert!(matches!(resumed.reply(), Reply::Resumed { ttl_ms: 2000, following: 0, .. }), "{resumed:?}");
        assert_eq!(resumed.flags & FLAG_RENEWED, 0);
        assert_eq!(other.call(&Request::Keepalive).flags & FLAG_RENEWED, 0);
        // Talk with the other shard alone does not keep the session: it ends everywhere.
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let arrived = other.call(&Request::Keepalive);
            if arrived.refusal() == Some(Refusal::SessionUnknown) {
                break;
            }
        }
        let over = home.receive();
        assert!(matches!(over.reply(), Reply::Over(Refusal::SessionExpired)), "{over:?}");
    }
}

/// G11: whoever comes while another goes is heard, and so is the end of the one who went: both in one look of the server.
#[test]
fn a_connection_that_comes_in_the_moment_another_goes_is_heard() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(1).start();
        let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
        let (session, secret) = raw.open(60_000, Liveness::Heartbeat);
        for _ in 0..5 {
            fairlock_tests::freeze(server.pid());
            let mut next = Raw::connect(&server.tcp());
            drop(raw);
            server.signal(rustix::process::Signal::CONT);
            next.greet(ShardId::ANY);
            let resumed = next.call(&Request::Resume { session, secret, received: 0 });
            assert!(matches!(resumed.reply(), Reply::Resumed { .. }), "{resumed:?}");
            assert!(matches!(next.call(&Request::Keepalive).reply(), Reply::Alive));
            raw = next;
        }
    }
}

/// G11: a disconnection releases nothing; the lease does, and not before its time. G1: so nobody holds beside it.
#[test]
fn a_client_that_is_cut_off_keeps_its_lock_until_its_lease_ends() {
    for way in ways::single() {
        let server = way.plan().start();
        let mut holder = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        holder.open(2000, Liveness::Heartbeat);
        let asked_ns = boottime_ns();
        let held = holder.acquire(b"x");
        drop(holder);
        let mut waiter = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        waiter.open(60_000, Liveness::Heartbeat);
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        assert_eq!(waiter.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::WouldBlock));
        let granted = waiter.acquire(b"x");
        let waited_ms = (boottime_ns() - asked_ns) / 1_000_000;
        assert!(waited_ms >= 2000, "the lease ran {waited_ms} ms of 2000");
        assert!(granted.token > held.token && granted.previous_owner_died);
    }
}

/// G7: a waiter keeps its place through disconnection and resume. G8: and gets its one outcome.
#[test]
fn a_waiter_keeps_its_place_through_a_disconnection() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut holder = Raw::greeted(&endpoint, ShardId::ANY);
        holder.open(60_000, Liveness::Heartbeat);
        let held = holder.acquire(b"x");
        let mut first = Raw::greeted(&endpoint, ShardId::ANY);
        let (session, secret) = first.open(60_000, Liveness::Heartbeat);
        let number = first.send(&Request::Acquire(exclusive(b"x")));
        first.call(&Request::Keepalive);
        drop(first);
        let mut second = Raw::greeted(&endpoint, ShardId::ANY);
        second.open(60_000, Liveness::Heartbeat);
        let later = second.send(&Request::Acquire(exclusive(b"x")));
        second.call(&Request::Keepalive);
        holder.release(held.grant);
        let mut back = Raw::greeted(&endpoint, ShardId::ANY);
        let resumed = back.call(&Request::Resume { session, secret, received: 0 });
        assert!(matches!(resumed.reply(), Reply::Resumed { .. }), "{resumed:?}");
        // The same request again: it is answered once, whether it was granted meanwhile or still waits.
        let granted = back.answer(number).grant();
        back.next = number + 1000;
        assert!(second.frame_within(Duration::from_millis(50)).is_err(), "who came later waits");
        back.release(granted.grant);
        assert!(second.answer(later).grant().token > granted.token);
    }
}

/// G8: an answer that was lost comes again, and a request that is repeated is done once.
#[test]
fn a_lost_answer_comes_again_and_a_repeated_request_is_done_once() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut raw = Raw::greeted(&endpoint, ShardId::ANY);
        let (session, secret) = raw.open(60_000, Liveness::Heartbeat);
        let number = raw.send(&Request::Acquire(exclusive(b"x")));
        let granted = raw.answer(number).grant();
        drop(raw);
        let mut back = Raw::greeted(&endpoint, ShardId::ANY);
        let resumed = back.call(&Request::Resume { session, secret, received: 0 });
        let Reply::Resumed { seen, following, .. } = resumed.reply() else { panic!("{resumed:?}") };
        assert!(seen >= number && following == 1);
        assert_eq!(back.answer(number).grant(), granted, "the same answer");
        back.kept = 0;
        back.send_numbered(number, &Request::Acquire(exclusive(b"x")));
        assert_eq!(
            back.answer(number).grant(),
            granted,
            "asked again before it was acknowledged: the same answer"
        );
        back.kept = 1;
        back.next = number + 1;
        back.release(granted.grant);
    }
}

/// G9: a withdrawn waiter is gone at once. G8: and has one outcome, whoever wins the race.
#[test]
fn a_withdrawn_request_is_never_granted() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut holder = Raw::greeted(&endpoint, ShardId::ANY);
        holder.open(60_000, Liveness::Heartbeat);
        let mut waiter = Raw::greeted(&endpoint, ShardId::ANY);
        waiter.open(60_000, Liveness::Heartbeat);
        let mut outcomes = [0, 0];
        for round in 0..200 {
            let held = holder.acquire(b"x").grant;
            let number = waiter.send(&Request::Acquire(exclusive(b"x")));
            // The withdrawal and the release race, in this order or that.
            let withdrawal = if round % 2 == 0 {
                let withdrawal = waiter.send(&Request::Cancel(RequestId(number)));
                holder.release(held);
                withdrawal
            } else {
                holder.release(held);
                waiter.send(&Request::Cancel(RequestId(number)))
            };
            let outcome = waiter.answer(number);
            let withdrawn = waiter.answer(withdrawal);
            let Reply::Withdrawn { was_waiting } = withdrawn.reply() else { panic!("{withdrawn:?}") };
            match outcome.reply() {
                Reply::Granted(grant) => {
                    assert!(!was_waiting, "granted and withdrawn");
                    outcomes[0] += 1;
                    waiter.release(grant.grant);
                }
                Reply::Refused(refused) => {
                    assert!(was_waiting && refused.refusal == Refusal::Cancelled, "{refused:?}");
                    outcomes[1] += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        eprintln!("granted {}, withdrawn {}", outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0] + outcomes[1], 200);
        holder.acquire(b"x");
    }
}

/// G14: CLOSE gives everything back, on every shard.
#[test]
fn a_closed_session_gives_everything_back() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).start();
        let mut connections =
            [Raw::greeted(&server.tcp(), ShardId(0)), Raw::greeted(&server.tcp(), ShardId(1))];
        let (session, secret) = connections[0].open(60_000, Liveness::Heartbeat);
        connections[1].call(&Request::Resume { session, secret, received: 0 });
        let key = connections[0].welcome.unwrap().digest_key;
        let names: Vec<String> = (0..20).map(|number| format!("closed {number}")).collect();
        for name in &names {
            let shard = key.digest(exclusive(name.as_bytes()).resource).shard(2);
            connections[usize::from(shard.0)].acquire(name.as_bytes());
        }
        assert!(matches!(connections[0].call(&Request::Close).reply(), Reply::Closed));
        let mut next = [Raw::greeted(&server.unix(), ShardId(0)), Raw::greeted(&server.unix(), ShardId(1))];
        let (session, secret) = next[0].open(60_000, Liveness::Heartbeat);
        next[1].call(&Request::Resume { session, secret, received: 0 });
        for name in &names {
            let shard = key.digest(exclusive(name.as_bytes()).resource).shard(2);
            let granted = next[usize::from(shard.0)].acquire(name.as_bytes());
            assert!(!granted.previous_owner_died, "it closed, it did not die");
        }
    }
}

/// G12: on a Unix socket the end of the pipe's last holder is the end of the session, and nothing else is.
#[test]
fn a_session_lives_as_long_as_somebody_holds_its_pipe() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        let mut holder = Raw::greeted_with_pipe(&server.socket(), read_end.as_fd());
        drop(read_end);
        holder.open(200, Liveness::Inherit);
        let held = holder.acquire(b"x");
        drop(holder);
        let mut waiter = Raw::greeted(&server.unix(), ShardId::ANY);
        waiter.open(60_000, Liveness::Heartbeat);
        let number = waiter.send(&Request::Acquire(exclusive(b"x")));
        assert!(
            waiter.frame_within(Duration::from_millis(600)).is_err(),
            "three leases of silence end nothing"
        );
        drop(write_end);
        let granted = waiter.answer(number).grant();
        assert!(granted.token > held.token && granted.previous_owner_died);
    }
}

/// G26: only the read end of one pipe may come with a HELLO.
#[test]
fn a_descriptor_that_is_no_pipe_ends_the_connection() {
    let server = Plan::new(ways::drivers()[0]).start();
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (descriptor, refused) in [(file.as_fd(), true), (write_end.as_fd(), true), (read_end.as_fd(), false)]
    {
        let mut raw = Raw::connect_with(&server.socket(), descriptor);
        let arrived = raw.receive();
        assert_eq!(arrived.refusal(), refused.then_some(Refusal::BadRequest), "{arrived:?}");
        assert_eq!(refused, !matches!(arrived.reply(), Reply::Welcome(_)));
    }
}

/// G12: liveness that the server cannot see is refused.
#[test]
fn liveness_by_process_needs_the_unix_socket_and_by_pipe_a_pipe() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        for (endpoint, liveness, legal) in [
            (server.tcp(), Liveness::Process, false),
            (server.tcp(), Liveness::Inherit, false),
            (server.unix(), Liveness::Inherit, false),
            (server.unix(), Liveness::Process, true),
            (server.unix(), Liveness::Heartbeat, true),
        ] {
            let mut raw = Raw::greeted(&endpoint, ShardId::ANY);
            let arrived = raw.call(&Request::Open(session(500, liveness)));
            let refusal = (!legal).then_some(Refusal::Unsupported);
            assert_eq!(arrived.refusal(), refusal, "{endpoint} {liveness:?}");
        }
    }
}

/// G5: compatible neighbours are let in together, and nobody passes who waits. G6: nor does a try.
#[test]
fn a_try_does_not_pass_who_waits() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let connect = || {
            let mut raw = Raw::greeted(&endpoint, ShardId::ANY);
            raw.open(60_000, Liveness::Heartbeat);
            raw
        };
        let (mut reader, mut writer, mut late, mut bold) = (connect(), connect(), connect(), connect());
        let shared = Acquire { mode: Mode::PR, ..exclusive(b"x") };
        let read = reader.call(&Request::Acquire(shared)).grant();
        let writing = writer.send(&Request::Acquire(exclusive(b"x")));
        writer.call(&Request::Keepalive);
        let reading = late.send(&Request::Acquire(shared));
        late.call(&Request::Keepalive);
        let attempt = Acquire { wait: Wait::Try, ..shared };
        assert_eq!(bold.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::WouldBlock));
        let bolder = bold.send(&Request::Acquire(shared));
        bold.call(&Request::Keepalive);
        reader.release(read.grant);
        let written = writer.answer(writing).grant();
        assert!(late.frame_within(Duration::from_millis(30)).is_err(), "the reader who came later waits");
        writer.release(written.grant);
        let (one, other) = (late.answer(reading).grant(), bold.answer(bolder).grant());
        assert!(one.token > written.token && other.token > written.token, "both readers at once");
    }
}

/// G10: two conversions that would wait for each other.
#[test]
fn the_second_of_two_crossing_conversions_is_refused() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut clients = [Raw::greeted(&endpoint, ShardId::ANY), Raw::greeted(&endpoint, ShardId::ANY)];
        let shared = Acquire { mode: Mode::PR, ..exclusive(b"x") };
        let grants: Vec<GrantId> = clients
            .iter_mut()
            .map(|raw| {
                raw.open(60_000, Liveness::Heartbeat);
                raw.call(&Request::Acquire(shared)).grant().grant
            })
            .collect();
        let up = |grant| Request::Convert { grant, mode: Mode::EX, wait: Wait::Forever };
        let first = clients[0].send(&up(grants[0]));
        clients[0].call(&Request::Keepalive);
        let second = clients[1].call(&up(grants[1]));
        let Reply::Refused(refused) = second.reply() else { panic!("{second:?}") };
        assert_eq!(refused.refusal, Refusal::Deadlock);
        assert!(refused.cycle.is_some_and(|edge| edge.mode == Mode::EX), "it names the other one");
        clients[1].release(grants[1]);
        assert_eq!(clients[0].answer(first).grant().mode, Mode::EX);
    }
}

/// G33: the client written from the document takes a lock, keeps it while it waits, and gives it back.
#[test]
fn a_client_written_from_the_document_takes_and_gives_back_a_lock() {
    for way in ways::all() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        for name in ["demo", "orders/42", "three"] {
            let mut python = Command::new("python3");
            python.arg(fairlock_tests::workspace::root().join("tests/python_client.py"));
            python.args([&endpoint, name]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut second = Command::new("python3");
            second.arg(fairlock_tests::workspace::root().join("tests/python_client.py"));
            second.args([&endpoint, name, "--wait", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut holder = Running::start(python);
            let line = holder.line();
            assert!(line.contains(r#""event": "granted""#), "{line:?}");
            let refused = Running::start(second).finish();
            assert_eq!(refused.code, 75, "{}", refused.stdout);
            assert!(refused.stdout.contains("code 1:"), "WOULD_BLOCK: {}", refused.stdout);
            drop(holder.stdin());
            let finished = holder.finish();
            assert_eq!(
                (finished.code, finished.stdout.contains("released")),
                (0, true),
                "{}",
                finished.stdout
            );
        }
    }
}
