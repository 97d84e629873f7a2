//! A planned restart: SIGTERM, the same or a new binary, a start. What was held and waited for goes on as though nothing
//! had been; what cannot be gone on from is said, and waited for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, Guard, GuardState};
use fairlock_protocol::request::Acquire;
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{Liveness, Mode, OwnerId, Refusal, Reply, Request, Resource, ShardId, Wait};
use fairlock_tests::command::{Running, fairlock, finish};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::{Io, Plan, Server, lasting_address};
use fairlock_tests::ways::Way;
use fairlock_tests::{eventually, ways};
use rustix::process::Signal;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

/// A plan whose server is found again, and stops without waiting for anybody.
fn plan(way: Way) -> Plan {
    way.plan().at(lasting_address()).argument("--drain").argument("0")
}

fn restart(server: Server) -> Server {
    let (plan, status) = server.stop();
    assert_eq!(status.code(), Some(0), "{}", plan.log());
    let server = plan.start();
    assert_eq!(server.ready["recovering_ms"], 0, "nothing is waited for: {}\n{}", server.ready, plan.log());
    server
}

fn client(way: Way, server: &Server) -> Client {
    Client::builder()
        .ttl(Duration::from_mins(1))
        .transport(way.transport())
        .connect(way.endpoint(server))
        .unwrap()
}

/// Asks for `name` in a thread, and says who was let in.
fn queue_up(way: Way, server: &Server, name: &'static str, who: u32, let_in: &mpsc::Sender<(u32, Guard)>) {
    let (client, let_in) = (client(way, server), let_in.clone());
    std::thread::spawn(move || {
        let guard = client.lock(name).acquire().unwrap();
        let _ = let_in.send((who, guard));
    });
    queued(&way.endpoint(server), name, who as usize);
}

fn queued(endpoint: &str, name: &str, count: usize) {
    eventually("so many wait", || {
        let shown = finish(endpoint, ["show", name, "--json"]).json();
        shown["waiters"].as_array().filter(|waiters| waiters.len() == count).map(drop)
    });
}

/// Waits until every session that holds the lock or waits for it has a connection again.
fn is_back(endpoint: &str, name: &str) {
    eventually("everybody is back", || {
        let shown = finish(endpoint, ["show", name, "--json"]).json();
        let here = |list: &str| {
            let entries = shown[list].as_array().unwrap();
            entries.iter().all(|entry| entry["transport"] != "away")
        };
        (here("holders") && here("waiters")).then_some(())
    });
}

/// G55: a planned restart takes nothing from anybody: guards stay valid with their tokens, queues keep their order, and
/// tokens go on rising. Twice in a row.
#[test]
fn holders_and_waiters_notice_no_planned_restart() {
    for way in ways::of_clients() {
        let server = plan(way).start();
        let holder = client(way, &server);
        let names = ["a", "b", "c", "d"];
        let guards: Vec<Guard> = names.iter().map(|name| holder.lock(name).acquire().unwrap()).collect();
        let tokens: Vec<u64> = guards.iter().map(|guard| guard.token().get()).collect();
        let (let_in, order) = mpsc::channel();
        (1..=3).for_each(|who| queue_up(way, &server, "a", who, &let_in));
        let mut server = server;
        for _ in 0..2 {
            server = restart(server);
            is_back(&way.endpoint(&server), "a");
            for (guard, token) in guards.iter().zip(&tokens) {
                guard.check().unwrap_or_else(|error| panic!("{way:?}: {error}\n{}", server.plan.log()));
                assert_eq!(guard.token().get(), *token);
                // The other shard may be a moment later.
                eventually("the guard is seen again", || (guard.state() == GuardState::Valid).then_some(()));
            }
            assert!(order.try_recv().is_err(), "nobody is let in beside the holder");
        }
        drop(guards);
        let mut last = tokens[0];
        for expected in 1..=3 {
            let (who, guard) = order.recv_timeout(fairlock_tests::WATCHDOG).unwrap();
            assert_eq!(who, expected, "first come, first served");
            assert!(guard.token().get() > last && guard.check().is_ok());
            last = guard.token().get();
        }
        assert!(holder.lock("b").try_acquire().unwrap().token().get() > tokens[1]);
    }
}

/// G55: what was answered and not acknowledged is answered again. G8: each request still has its one outcome.
#[test]
fn answers_that_were_kept_are_given_again() {
    for way in ways::single() {
        let server = plan(way).start();
        let mut raw = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        let (session, secret) = raw.open(60_000, Liveness::Heartbeat);
        let number = raw.send(&Request::Acquire(exclusive(b"x")));
        let waits = raw.send(&Request::Acquire(Acquire { owner: OwnerId(7), ..exclusive(b"x") }));
        // Nothing is said after this, so its arrival is never acknowledged.
        let granted = raw.answer(number).grant();
        queued(&way.endpoint(&server), "x", 1);
        let server = restart(server);
        let mut back = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        let resumed = back.call(&Request::Resume { session, secret, received: 0 });
        assert!(
            matches!(resumed.reply(), Reply::Resumed { following: 1, seen, .. } if seen >= waits),
            "{resumed:?}"
        );
        let again = back.answer(number);
        assert_eq!((again.grant(), again.flags & FLAG_KEPT), (granted, FLAG_KEPT));
        back.next = waits + 1000;
        back.release(granted.grant);
        assert!(back.answer(waits).grant().token > granted.token, "its place in the queue was kept");
    }
}

/// G55: a stop that ran out of patience keeps what is still held. G1: whoever does not come back is waited for.
#[test]
fn who_does_not_come_back_keeps_his_lease_once() {
    for &io in ways::drivers() {
        let server = Plan::new(io).argument("--drain").argument("100ms").start();
        let mut holder = Raw::greeted(&server.tcp(), ShardId::ANY);
        holder.open(5000, Liveness::Heartbeat);
        let before = holder.acquire(b"x").token;
        let server = restart(server);
        let mut next = Raw::greeted(&server.tcp(), ShardId::ANY);
        next.open(60_000, Liveness::Heartbeat);
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        assert_eq!(next.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::WouldBlock));
        let granted = next.acquire(b"x");
        assert!(granted.token > before && granted.previous_owner_died);
    }
}

fn with_holders(server: &Server, name: &str, is: impl Fn(&[serde_json::Value]) -> bool) {
    eventually("the holders are as expected", || {
        let shown = finish(&server.unix(), ["show", name, "--json"]).json();
        is(shown["holders"].as_array().unwrap()).then_some(())
    });
}

/// G55: the process of a session is watched again once it is back, so its death is seen although its lease is long.
#[test]
fn a_process_is_watched_again_after_a_restart() {
    for &io in ways::drivers() {
        let server =
            Plan::new(io).argument("--drain").argument("0").configuration("ttl_max = \"1h\"\n").start();
        let hold = |transport: &str| {
            let arguments = ["hold", transport, "--ttl", "1h", "--transport", transport];
            let mut command = fairlock(&server.unix(), arguments);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut holder = Running::start(command);
            holder.line();
            (transport.to_owned(), holder)
        };
        let all = ["unix", "shm"].map(hold);
        let server = restart(server);
        for (name, mut holder) in all {
            with_holders(&server, &name, |holders| holders[0]["transport"] == "unix");
            holder.signal(Signal::KILL);
            holder.wait();
            with_holders(&server, &name, <[_]>::is_empty);
        }
    }
}

/// A server with a lock that is held, stopped; and the plan to start the next one.
fn stopped_with_a_holder(plan: &Plan) -> Plan {
    let server = plan.start();
    let mut holder = Raw::greeted(&server.tcp(), ShardId::ANY);
    holder.open(5000, Liveness::Heartbeat);
    holder.acquire(b"x");
    let (plan, status) = server.stop();
    assert_eq!(status.code(), Some(0));
    assert!(plan.state().join("snapshot.0").exists());
    plan
}

/// What is done to a snapshot, and how the server is started after that.
type Change = (&'static str, fn(Plan) -> Plan);

/// G55, G15: a snapshot that cannot be gone on from is said in the log and by `status`, and its leases are waited for.
#[test]
fn a_snapshot_that_cannot_be_used_is_said_and_its_leases_are_waited_for() {
    let quick = || Plan::new(Io::Auto).argument("--drain").argument("0");
    let changes: [Change; 4] = [
        ("damaged", |plan| {
            let file = plan.state().join("snapshot.0");
            let mut bytes = std::fs::read(&file).unwrap();
            bytes.truncate(bytes.len() - 9);
            std::fs::write(&file, bytes).unwrap();
            plan
        }),
        ("missing", |plan| {
            std::fs::remove_file(plan.state().join("snapshot.0")).unwrap();
            plan
        }),
        ("of 1 shards, this server has 2", |plan| plan.shards(2)),
        ("namespaces", |plan| plan.configuration("[namespace.batch]\ndiscipline = \"phase\"\n")),
    ];
    for (what, change) in changes {
        let plan = change(stopped_with_a_holder(&quick()));
        let server = plan.start();
        assert!(server.ready["recovering_ms"].as_u64().unwrap() > 4000, "{what}: {}", server.ready);
        let log = plan.log();
        assert!(log.contains("cannot be used") && log.contains(what), "{what}:\n{log}");
        let status = finish(&server.tcp(), ["status", "--json"]).json();
        let alarms = status["alarms"].as_array().unwrap();
        assert!(alarms.iter().any(|alarm| alarm.as_str().unwrap().contains("snapshot")), "{status}");
        let mut next = Raw::greeted(&server.tcp(), ShardId::ANY);
        next.open(5000, Liveness::Heartbeat);
        let welcome = next.welcome.unwrap();
        let is_here = |name: &String| {
            let resource = Resource::new(b"", name.as_bytes()).unwrap();
            welcome.digest_key.digest(resource).shard(welcome.shards) == welcome.shard
        };
        let name = (0..1000).map(|number| format!("x{number}")).find(is_here).unwrap();
        let asked = next.call(&Request::Acquire(exclusive(name.as_bytes())));
        assert_eq!(asked.refusal(), Some(Refusal::Recovering));
    }
}

/// G55, G15: a snapshot is used once. A crash right after the start counts as one.
#[test]
fn a_crash_before_the_first_frame_is_a_crash() {
    let plan = stopped_with_a_holder(&Plan::new(Io::Auto).argument("--drain").argument("0"));
    let snapshot = plan.state().join("snapshot.0");
    let server = plan.start();
    assert_eq!(server.ready["recovering_ms"], 0);
    assert!(!snapshot.exists(), "it is gone before the first frame");
    let server = server.crash().start();
    assert!(server.ready["recovering_ms"].as_u64().unwrap() > 4000, "{}", server.ready);
    assert!(!snapshot.exists());
}

/// G55: requests that come while the server drains are done by the next one.
#[test]
fn a_request_that_met_a_stopping_server_is_granted_by_the_next() {
    let plan = Plan::new(Io::Auto).at(lasting_address()).argument("--drain").argument("1s");
    let server = plan.start();
    let way = Way { io: Io::Auto, door: ways::Door::Tcp, shards: 1 };
    let holder = client(way, &server);
    let guard = holder.lock("x").acquire().unwrap();
    server.signal(Signal::TERM);
    let asker = std::thread::spawn({
        let holder = holder.clone();
        move || holder.lock("y").mode(Mode::PR).acquire().unwrap().check()
    });
    let mut server = server;
    server.wait();
    let _server = plan.start();
    asker.join().unwrap().unwrap();
    guard.check().unwrap();
}

/// G15: a backup of the state directory that is put back is found out by whoever remembers more, and nothing is granted then.
#[test]
fn an_old_backup_of_the_state_directory_is_found_out() {
    let plan = stopped_with_a_holder(&Plan::new(Io::Auto).argument("--drain").argument("0"));
    let backup: Vec<_> =
        ["state", "snapshot.0"].map(|name| (name, std::fs::read(plan.state().join(name)).unwrap())).into();
    // Two more runs, of which the second is remembered by a client.
    let (plan, _) = plan.start().stop();
    let server = plan.start();
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    let (session, secret) = raw.open(5000, Liveness::Heartbeat);
    let (plan, _) = server.stop();
    for (name, bytes) in backup {
        std::fs::write(plan.state().join(name), bytes).unwrap();
    }
    let server = plan.start();
    assert_eq!(server.ready["recovering_ms"], 0, "it looks like any other directory: {}", plan.log());
    let mut back = Raw::greeted(&server.tcp(), ShardId::ANY);
    let arrived = back.call(&Request::Resume { session, secret, received: 0 });
    assert_eq!(arrived.refusal(), Some(Refusal::SessionUnknown));
    back.open(5000, Liveness::Heartbeat);
    assert_eq!(back.call(&Request::Acquire(exclusive(b"y"))).refusal(), Some(Refusal::Recovering));
    let status = finish(&server.tcp(), ["status", "--json"]).json();
    assert!(status["alarms"].to_string().contains("it is old"), "{status}");
}
