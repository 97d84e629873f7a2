//! The end of a server and what the next one makes of it: a clean stop, a crash, and a state directory that is gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::request::Acquire;
use fairlock_protocol::{FencingToken, Liveness, Refusal, Reply, Request, ShardId, Wait};
use fairlock_tests::metrics::get;
use fairlock_tests::raw::{Raw, exclusive, session};
use fairlock_tests::server::{Io, Plan, Server};
use fairlock_tests::{boottime_ns, eventually, ways};
use rustix::process::Signal;
use std::time::Duration;

fn client(server: &Server, ttl_ms: u32) -> Raw {
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    raw.open(ttl_ms, Liveness::Heartbeat);
    raw
}

fn token_of(raw: &mut Raw, name: &[u8]) -> FencingToken {
    raw.acquire(name).token.unwrap()
}

/// G15: after a crash nothing is granted until the longest lease is over. G2: then the tokens are higher.
#[test]
fn after_a_crash_nothing_is_granted_until_old_leases_are_over() {
    for &io in ways::drivers() {
        let server = Plan::new(io).admin().start();
        let mut holder = client(&server, 1000);
        let before = token_of(&mut holder, b"x");
        // The last moment at which this holder can have been renewed.
        let asked_ns = boottime_ns();
        holder.call(&Request::Keepalive);
        let server = server.crash().start();
        let recovering_ms = server.ready["recovering_ms"].as_u64().unwrap();
        assert!(recovering_ms > 0, "{}", server.ready);
        assert!(recovering_ms < 1500, "the longest lease was 1 s: {recovering_ms} ms");
        let mut next = client(&server, 60_000);
        let after = loop {
            let arrived = next.call(&Request::Acquire(exclusive(b"x")));
            match arrived.reply() {
                Reply::Granted(grant) => break grant.token.unwrap(),
                Reply::Refused(refused) => {
                    assert_eq!(refused.refusal, Refusal::Recovering);
                    assert!(refused.retry_after_ms > 0, "it says when to come back");
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => panic!("{other:?}"),
            }
        };
        let held_ms = (boottime_ns() - asked_ns) / 1_000_000;
        assert!(
            held_ms >= 990,
            "the old holder was sure of its lock for 990 ms, it passed on after {held_ms}"
        );
        assert!(after > before && after.epoch_number() > before.epoch_number());
        eventually("healthy", || (get(server.admin(), "/healthz").0 == 200).then_some(()));
    }
}

/// G25: while nothing can be granted the probe says so.
#[test]
fn a_server_in_quarantine_is_not_healthy() {
    let server = Plan::new(Io::Auto).admin().start();
    let mut holder = client(&server, 20_000);
    token_of(&mut holder, b"x");
    let server = server.crash().start();
    assert_eq!(get(server.admin(), "/healthz").0, 503);
    let mut next = client(&server, 1000);
    let arrived = next.call(&Request::Acquire(exclusive(b"x")));
    assert_eq!(arrived.refusal(), Some(Refusal::Recovering));
}

/// G16: a clean stop leaves nothing to wait for. G2: and tokens go on.
#[test]
fn after_a_clean_stop_the_next_server_grants_at_once() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let mut holder = client(&server, 60_000);
        let before = token_of(&mut holder, b"x");
        holder.call(&Request::Close);
        let (plan, status) = server.stop();
        assert_eq!(status.code(), Some(0));
        let server = plan.start();
        assert_eq!(server.ready["recovering_ms"], 0);
        let mut next = client(&server, 1000);
        assert!(token_of(&mut next, b"x") > before);
    }
}

/// G16: a stop waits for holders, tells them, and grants nothing new.
#[test]
fn a_stop_waits_for_those_who_hold_and_lets_nobody_in() {
    for &io in ways::drivers() {
        let mut server = Plan::new(io).argument("--drain").argument("60s").start();
        let mut holder = client(&server, 60_000);
        let held = holder.acquire(b"x").grant;
        let mut other = client(&server, 60_000);
        server.signal(Signal::TERM);
        let told = holder.receive();
        assert!(matches!(told.reply(), Reply::Draining), "{told:?}");
        let arrived = other.call(&Request::Acquire(exclusive(b"y")));
        assert_eq!(arrived.refusal(), Some(Refusal::Draining));
        assert!(server.is_running(), "somebody holds a lock");
        // From its release on the server may end at any moment; whether it still hears a CLOSE does not matter.
        holder.release(held);
        let status = server.wait();
        assert_eq!(status.code(), Some(0));
    }
}

/// G1: who holds beyond the drain time is respected by the next server, which knows of him and keeps nobody else waiting.
#[test]
fn who_holds_beyond_the_drain_time_is_waited_for_after_the_restart() {
    let server = Plan::new(Io::Auto).argument("--drain").argument("100ms").start();
    let mut holder = client(&server, 2000);
    let before = token_of(&mut holder, b"x");
    let (plan, status) = server.stop();
    assert_eq!(status.code(), Some(0));
    let server = plan.start();
    assert_eq!(server.ready["recovering_ms"], 0, "it knows who holds what");
    let mut next = client(&server, 60_000);
    assert!(token_of(&mut next, b"y") > before);
    eventually("granted after the lease", || {
        let arrived = next.call(&Request::Acquire(Acquire { wait: Wait::Try, ..exclusive(b"x") }));
        match arrived.reply() {
            Reply::Granted(grant) => grant.token.filter(|&token| token > before),
            _ => None,
        }
    });
}

/// G15: only leases that were granted count: an unused server restarts without a wait.
#[test]
fn a_crash_that_nobody_felt_costs_nothing() {
    let server = Plan::new(Io::Auto).start();
    let server = server.crash().start();
    assert_eq!(server.ready["recovering_ms"], 0, "no lease was ever granted");
    let mut next = client(&server, 1000);
    token_of(&mut next, b"x");
}

/// G2: tokens rise through every kind of end, also when the state directory is lost.
#[test]
fn tokens_rise_through_crash_stop_and_loss_of_the_directory() {
    let mut server = Plan::new(Io::Auto).start();
    let mut last = None;
    for end in 0..4 {
        let mut raw = client(&server, 200);
        let token = eventually("granted", || {
            let arrived = raw.call(&Request::Acquire(exclusive(b"x")));
            match arrived.reply() {
                Reply::Granted(grant) => grant.token,
                Reply::Refused(refused) if refused.refusal == Refusal::Recovering => None,
                _ => {
                    // A session so short may be over between two calls.
                    raw = client(&server, 200);
                    None
                }
            }
        });
        assert!(Some(token) > last, "{token:?} after {last:?}");
        last = Some(token);
        if end % 2 == 0 {
            server = server.crash().start();
        } else {
            raw.call(&Request::Close);
            server = server.stop().0.start();
        }
    }
    // Nobody restarts so often: the epoch of a lost directory comes from the clock, one step each 64 s.
    let first_of_a_new_cell = token_after_loss(server);
    eprintln!("{last:?}, then {first_of_a_new_cell:?}");
    assert!(first_of_a_new_cell.epoch_number() >= 1);
}

fn token_after_loss(server: Server) -> FencingToken {
    let plan = server.crash();
    std::fs::remove_dir_all(plan.state()).unwrap();
    let server = plan.start();
    assert!(plan.log().contains("new cell"), "it says that it starts a new cell:\n{}", plan.log());
    let mut raw = client(&server, 2000);
    token_of(&mut raw, b"x")
}

/// G15: a client that remembers a later epoch of this cell shows that the server forgot something.
#[test]
fn a_session_of_before_is_unknown_after_a_restart() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
        let (session, secret) = raw.open(200, Liveness::Heartbeat);
        let server = server.crash().start();
        let mut back = Raw::greeted(&server.tcp(), ShardId::ANY);
        let arrived = back.call(&Request::Resume { session, secret, received: 0 });
        assert_eq!(arrived.refusal(), Some(Refusal::SessionUnknown));
    }
}

/// G15: sessions can be opened in the quarantine, so that everybody is ready when it ends.
#[test]
fn sessions_open_in_the_quarantine_and_tries_are_told_why() {
    let server = Plan::new(Io::Auto).start();
    let mut holder = client(&server, 5_000);
    token_of(&mut holder, b"x");
    let server = server.crash().start();
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    let opened = raw.call(&Request::Open(session(5000, Liveness::Heartbeat)));
    assert!(matches!(opened.reply(), Reply::Opened { .. }), "{opened:?}");
    let attempt = Acquire { wait: Wait::Try, ..exclusive(b"y") };
    assert_eq!(raw.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::Recovering));
}
