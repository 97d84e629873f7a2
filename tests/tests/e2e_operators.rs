//! Operators take locks away: told first and let in on the holder's word, or at once when forced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::{Liveness, Reply, Request, ShardId};
use fairlock_tests::command::{Running, fairlock, finish};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::{eventually, ways};
use std::process::Stdio;
use std::time::Duration;

fn run(endpoint: &str, script: &str) -> Running {
    let mut command = fairlock(endpoint, ["run", "x", "--ttl", "2s", "--", "sh", "-c", script]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Running::start(command)
}

fn holder_of(endpoint: &str) -> String {
    eventually("somebody holds x", || {
        let said = finish(endpoint, ["show", "x", "--json"]).json();
        said["holders"][0]["session"].as_str().map(str::to_owned)
    })
}

/// G24: `break` reaches `run`, which ends its child first; then the next one is let in.
#[test]
fn break_ends_the_child_before_the_next_one_is_let_in() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let (log, ready) = (scratch.join("log"), scratch.join("ready"));
        let script = format!(
            "trap 'echo first out >> {}; exit 9' TERM; : > {}; while :; do sleep 0.02; done",
            log.display(),
            ready.display()
        );
        let mut first = run(&endpoint, &script);
        eventually("the trap is set", || ready.exists().then_some(()));
        let mut second = run(&endpoint, &format!("echo second in >> {}", log.display()));
        eventually("the second one waits", || {
            let said = finish(&endpoint, ["show", "x", "--json"]).json();
            (!said["waiters"].as_array().unwrap().is_empty()).then_some(())
        });
        let broken = finish(&endpoint, ["break", "x"]);
        assert_eq!(broken.code, 0, "{}", broken.stderr);
        assert_eq!((first.wait(), second.wait()), (76, 0));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "first out\nsecond in\n");
    }
}

/// G24: a session is ended the same way.
#[test]
fn session_kill_ends_the_child_and_passes_everything_on() {
    for way in ways::all() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut first = run(&endpoint, "while :; do sleep 0.02; done");
        let session = holder_of(&endpoint);
        let killed = finish(&endpoint, ["session", "kill", &session]);
        assert_eq!(killed.code, 0, "{}", killed.stderr);
        assert_eq!(first.wait(), 76);
        assert_eq!(finish(&endpoint, ["run", "x", "--", "true"]).code, 0);
        assert_eq!(finish(&endpoint, ["session", "kill", &session]).code, 66, "it is gone");
    }
}

/// G24: a holder that does not answer loses its lock at its lease's end, not before; forced, at once.
#[test]
fn a_holder_that_does_not_confirm_loses_its_lease() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        for force in [false, true] {
            let mut deaf = Raw::greeted(&endpoint, ShardId::ANY);
            deaf.open(2000, Liveness::Heartbeat);
            let held = deaf.acquire(b"x").grant;
            let mut next = Raw::greeted(&endpoint, ShardId::ANY);
            next.open(60_000, Liveness::Heartbeat);
            let number = next.send(&Request::Acquire(exclusive(b"x")));
            next.call(&Request::Keepalive);
            let mut operator = Raw::greeted(&endpoint, ShardId::ANY);
            let broke = operator.call(&Request::Break { resource: exclusive(b"x").resource, force });
            assert!(matches!(broke.reply(), Reply::Broke { holders: 1 }), "{broke:?}");
            let told = deaf.receive();
            assert!(
                matches!(told.reply(), Reply::Broken { grant, forced } if grant == held && forced == force),
                "{told:?}"
            );
            // It goes on to renew, and does not confirm. From a fifth of the lease on nothing renews it any more.
            let granted = loop {
                deaf.send(&Request::Keepalive);
                if let Ok(Some(arrived)) = next.frame_within(Duration::from_millis(20)) {
                    break arrived.grant();
                }
            };
            assert_eq!(next.kept, 1, "{number}");
            next.release(granted.grant);
        }
    }
}

/// G24: the holder's word lets the next one in.
#[test]
fn a_confirmed_break_lets_the_next_one_in() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut holder = Raw::greeted(&endpoint, ShardId::ANY);
        holder.open(60_000, Liveness::Heartbeat);
        let held = holder.acquire(b"x").grant;
        let mut next = Raw::greeted(&endpoint, ShardId::ANY);
        next.open(60_000, Liveness::Heartbeat);
        let number = next.send(&Request::Acquire(exclusive(b"x")));
        next.call(&Request::Keepalive);
        assert_eq!(finish(&endpoint, ["break", "x"]).code, 0);
        assert!(matches!(holder.receive().reply(), Reply::Broken { forced: false, .. }));
        assert!(next.frame_within(Duration::from_millis(50)).is_err(), "the holder has not confirmed");
        holder.send(&Request::Confirm(held));
        next.answer(number).grant();
    }
}
