//! What a server does when there is too much of something: descriptors, connections, unread answers, sessions, locks. Who
//! has a session goes on; what was given back is used again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::{Liveness, Refusal, Reply, Request, Resource, ShardId};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::{Io, Plan, Server};
use fairlock_tests::{eventually, ways};
use std::net::TcpStream;
use std::time::Duration;

fn good_client(server: &Server) -> Raw {
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    raw
}

fn works(raw: &mut Raw) {
    let grant = raw.acquire(b"still works").grant;
    raw.release(grant);
}

/// G28: a server out of descriptors keeps those who are in, and takes newcomers when there is room again.
#[test]
fn a_server_without_descriptors_keeps_its_clients() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let mut server = Plan::new(io).denied("--nofile").denied("64").start();
        let mut good = good_client(&server);
        let held = good.acquire(b"held").grant;
        let crowd: Vec<TcpStream> =
            (0..200).filter_map(|_| TcpStream::connect(server.address()).ok()).collect();
        for _ in 0..50 {
            works(&mut good);
        }
        drop(crowd);
        good.release(held);
        // The crowd's descriptors come free as fast as the server notices that it has gone.
        let mut newcomer =
            eventually("there is room again", || Raw::try_greeted(&server.tcp(), ShardId::ANY));
        newcomer.open(60_000, Liveness::Heartbeat);
        works(&mut newcomer);
        assert!(server.is_running(), "{}", server.plan.log());
    }
}

/// G28: a flood from an address costs the silent ones of that address, never one with a session.
#[test]
fn a_flood_from_one_address_harms_no_client_of_it() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let limits = "[limits]\nunbound_connections = 64\nunbound_connections_per_address = 32\n";
        let server = Plan::new(io).configuration(limits).start();
        let mut good = good_client(&server);
        let held = good.acquire(b"held").grant;
        let mut flood: Vec<Raw> = (0..300).map(|_| Raw::connect(&server.tcp())).collect();
        works(&mut good);
        works(&mut good_client(&server));
        // The oldest silent one was told to make room.
        let last = flood[0].until_closed().pop();
        let refusal = last.and_then(|last| last.refusal());
        assert!(matches!(refusal, None | Some(Refusal::Busy)), "{refusal:?}");
        drop(flood);
        good.release(held);
    }
}

/// G27: who asks and never reads is asked for no more; nobody else waits, and its session lives on. G29: nor does what
/// is not read take memory without end.
#[test]
fn a_slow_reader_waits_alone_and_keeps_its_session() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let server = Plan::new(io).start();
        let mut good = good_client(&server);
        let mut slow = Raw::greeted(&server.tcp(), ShardId::ANY);
        let (session, secret) = slow.open(60_000, Liveness::Heartbeat);
        let held = slow.acquire(b"slow holds").grant;
        let before = server.resident_bytes();
        // Each STATUS is answered with some hundred bytes that nobody reads.
        let mut asked = Vec::new();
        Request::Status.encode(fairlock_protocol::RequestId(77), 1, &mut asked);
        let burst = asked.repeat(4096);
        slow.insist(Duration::from_millis(500));
        let mut bursts = 0;
        while slow.send_bytes(&burst).is_ok() {
            bursts += 1;
            assert!(bursts < 20_000, "the server takes requests without end");
        }
        let growth = server.resident_bytes().saturating_sub(before);
        assert!(growth < 32 * 1024 * 1024, "a client that does not read costs {growth} bytes");
        works(&mut good);
        works(&mut good_client(&server));
        let mut back = Raw::greeted(&server.tcp(), ShardId::ANY);
        let resumed = back.call(&Request::Resume { session, secret, received: 1 });
        assert!(matches!(resumed.reply(), Reply::Resumed { .. }), "{resumed:?}");
        back.kept = 1;
        back.next = 1000;
        back.release(held);
    }
}

/// G29: a thousand sessions that say nothing are cheap, and end when their clients do.
#[test]
fn a_thousand_idle_sessions_are_carried() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let server = Plan::new(io).start();
        let before = server.resident_bytes();
        let mut sessions: Vec<Raw> = (0..1000)
            .map(|number| {
                let mut raw = good_client(&server);
                raw.acquire(format!("idle {number}").as_bytes());
                raw
            })
            .collect();
        let status = sessions[0].call(&Request::Status);
        let Reply::Status(status) = status.reply() else { panic!("{status:?}") };
        assert_eq!((status.sessions, status.grants, status.connections), (1000, 1000, 1000));
        let each = server.resident_bytes().saturating_sub(before) / 1000;
        eprintln!("{each} bytes a session with its connection and a lock");
        assert!(each < 64 * 1024, "{each} bytes a session");
        for raw in &mut sessions {
            raw.call(&Request::Close);
        }
        let mut last = good_client(&server);
        let status = last.call(&Request::Status);
        let Reply::Status(status) = status.reply() else { panic!("{status:?}") };
        assert_eq!((status.sessions, status.grants), (1, 0));
    }
}

/// Takes and gives back 10 000 locks at a time, over one connection.
fn round(raw: &mut Raw, round: u32) {
    let mut grants = Vec::new();
    for part in 0..20 {
        // At most 1024 answers may be without an acknowledgement, so they come in parts.
        let names: Vec<String> =
            (0..500).map(|number| format!("round {round} lock {}", part * 500 + number)).collect();
        let sent: Vec<u64> =
            names.iter().map(|name| raw.send(&Request::Acquire(exclusive(name.as_bytes())))).collect();
        grants.extend(sent.into_iter().map(|number| raw.answer(number).grant().grant));
    }
    for part in grants.chunks(500) {
        let sent: Vec<u64> = part.iter().map(|&grant| raw.send(&Request::Release(grant))).collect();
        for number in sent {
            assert!(matches!(raw.answer(number).reply(), Reply::Released { .. }));
        }
    }
}

/// G29: memory follows what is held, not what was ever held.
#[test]
fn memory_is_used_again_after_a_hundred_thousand_locks() {
    for &io in ways::drivers() {
        eprintln!("--- {io:?}");
        let server = Plan::new(io).start();
        let mut raw = good_client(&server);
        round(&mut raw, 0);
        round(&mut raw, 1);
        let before = server.resident_bytes();
        for number in 2..10 {
            round(&mut raw, number);
        }
        let after = server.resident_bytes();
        eprintln!("{before} bytes after 20 000 locks, {after} after 100 000");
        let growth = after.saturating_sub(before);
        assert!(growth < 4 * 1024 * 1024, "80 000 locks that are free again cost {growth} bytes");
        let arrived = raw.call(&Request::Status);
        let Reply::Status(status) = arrived.reply() else { panic!("{arrived:?}") };
        assert_eq!((status.locks, status.grants, status.overtakes_total), (0, 0, 0));
        assert!(status.grants_total >= 100_000);
    }
}

/// G29: quotas are refusals, and what is refused takes nothing away.
#[test]
fn a_session_that_wants_too_much_is_refused_and_goes_on() {
    let limits = "[limits]\nlocks_per_session = 10\nwaiters_per_resource = 2\nsessions = 8\n";
    for &io in ways::drivers() {
        let server = Plan::new(io).configuration(limits).start();
        let mut greedy = good_client(&server);
        for number in 0..10 {
            greedy.acquire(format!("lock {number}").as_bytes());
        }
        let arrived = greedy.call(&Request::Acquire(exclusive(b"one more")));
        assert_eq!(arrived.refusal(), Some(Refusal::Quota));
        let mut waiters: Vec<Raw> = (0..3).map(|_| good_client(&server)).collect();
        let name = exclusive(b"lock 0");
        for waiter in &mut waiters[..2] {
            waiter.send(&Request::Acquire(name));
            waiter.call(&Request::Keepalive);
        }
        let arrived = waiters[2].call(&Request::Acquire(name));
        assert_eq!(arrived.refusal(), Some(Refusal::QueueFull));
        let _full: Vec<Raw> = (0..4).map(|_| good_client(&server)).collect();
        let mut ninth = Raw::greeted(&server.tcp(), ShardId::ANY);
        let open = Request::Open(fairlock_tests::raw::session(500, Liveness::Heartbeat));
        assert_eq!(ninth.call(&open).refusal(), Some(Refusal::Quota));
        let shown =
            ninth.call(&Request::Show { cursor: 0, resource: Resource::new(b"", b"lock 0").unwrap() });
        let Reply::Shown(page) = shown.reply() else { panic!("{shown:?}") };
        assert_eq!(page.entries().count(), 3, "one holder, two waiters");
    }
}

/// G27: answers that nobody acknowledges are kept up to a bound, then the stream is told to wait.
#[test]
fn answers_without_acknowledgement_are_bounded() {
    let server = Plan::new(Io::Auto).start();
    let mut raw = good_client(&server);
    let mut refused = 0;
    for number in 0..1100_u32 {
        raw.kept = 0;
        let name = format!("never acknowledged {number}");
        let arrived = raw.call(&Request::Acquire(exclusive(name.as_bytes())));
        if arrived.refusal().is_some() {
            assert_eq!(arrived.refusal(), Some(Refusal::Busy));
            refused += 1;
        }
    }
    assert_eq!(refused, 1100 - 1024);
    raw.kept = 1024;
    raw.call(&Request::Keepalive);
    raw.acquire(b"acknowledged at last");
}
