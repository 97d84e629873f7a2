//! A server that was killed and lost its memory: whoever can prove what he held holds it on, and nobody else is let in before
//! every old lease is over.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, Guard};
use fairlock_protocol::handshake::FEATURE_PROOF;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::request::{Acquire, Reassert};
use fairlock_protocol::{Liveness, Mode, Proof, Refusal, Reply, Request, SessionId, ShardId, Wait};
use fairlock_tests::command::finish;
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::{Plan, Server, lasting_address};
use fairlock_tests::ways::Way;
use fairlock_tests::{eventually, ways};
use std::time::Duration;

fn client(way: Way, server: &Server) -> Client {
    Client::builder()
        .ttl(Duration::from_secs(3))
        .transport(way.transport())
        .connect(way.endpoint(server))
        .unwrap()
}

/// G56: guards outlive a kill of the server, with higher tokens and without ever having been lost. G15: nobody else is let
/// in during the quarantine, G1: nor after it beside them.
#[test]
fn guards_outlive_a_killed_server() {
    for way in ways::of_clients() {
        let server = way.plan().at(lasting_address()).start();
        let holder = client(way, &server);
        let guards: Vec<Guard> =
            ["a", "b", "c", "d"].iter().map(|name| holder.lock(*name).acquire().unwrap()).collect();
        let tokens: Vec<u64> = guards.iter().map(|guard| guard.token().get()).collect();
        let server = server.crash().start();
        assert!(server.ready["recovering_ms"].as_u64().unwrap() > 0, "{}", server.ready);
        eventually("everything is held on", || {
            for guard in &guards {
                guard.check().unwrap_or_else(|error| panic!("{way:?}: {error}\n{}", server.plan.log()));
            }
            guards.iter().zip(&tokens).all(|(guard, token)| guard.token().get() > *token).then_some(())
        });
        let other = client(way, &server);
        let refused = other.lock("a").try_acquire().unwrap_err();
        assert!(matches!(refused, fairlock::AcquireError::Refused(Refusal::Recovering)), "{refused:?}");
        let waiting = std::thread::spawn(move || other.lock("free").acquire().map(|guard| (guard, other)));
        let (free, other) = waiting.join().unwrap().unwrap();
        free.check().unwrap();
        for guard in &guards {
            guard.check().unwrap_or_else(|error| panic!("{way:?}: {error}\n{}", server.plan.log()));
        }
        let refused = other.lock("a").try_acquire().unwrap_err();
        assert!(matches!(refused, fairlock::AcquireError::Refused(Refusal::WouldBlock)), "{refused:?}");
        let held = guards[0].token();
        drop(guards);
        assert!(other.lock("a").acquire().unwrap().token() > held);
    }
}

/// A client that shows what others held, on its own connection.
fn claimant(server: &Server) -> Raw {
    let mut raw = Raw::greeted_with(&server.tcp(), ShardId::ANY, FEATURE_PROOF);
    raw.open(5000, Liveness::Heartbeat);
    raw
}

fn claim(session: SessionId, granted: &Grant, name: &'static [u8]) -> Reassert<'static> {
    let acquire = Acquire { mode: granted.mode, wait: Wait::Try, ..exclusive(name) };
    Reassert { session, token: granted.token.unwrap(), proof: granted.proof.unwrap(), acquire }
}

fn alarms(server: &Server) -> String {
    finish(&server.tcp(), ["status", "--json"]).json()["alarms"].to_string()
}

/// G56: a claim counts once, only with its proof and only in the quarantine; what contradicts is refused and alarmed.
#[test]
fn claims_without_proof_or_against_others_are_refused_and_alarmed() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let mut raw = Raw::greeted_with(&server.tcp(), ShardId::ANY, FEATURE_PROOF);
        let (session, _) = raw.open(5000, Liveness::Heartbeat);
        let first = raw.acquire(b"x");
        raw.release(first.grant);
        let second = raw.acquire(b"x");
        let reader = raw.call(&Request::Acquire(Acquire { mode: Mode::PR, ..exclusive(b"y") })).grant();
        let silent = Raw::greeted(&server.tcp(), ShardId::ANY);
        drop(silent);
        let early = claim(session, &first, b"x");
        assert_eq!(raw.call(&Request::Reassert(early)).refusal(), Some(Refusal::NotHeld), "nothing was lost");
        let server = server.crash().start();
        let (mut one, mut other) = (claimant(&server), claimant(&server));

        let it = claim(session, &second, b"x");
        let forged = Reassert { proof: Proof(it.proof.0 ^ 1), ..it };
        let elsewhere =
            Reassert { acquire: Acquire { resource: exclusive(b"z").resource, ..it.acquire }, ..it };
        let stronger = Reassert {
            acquire: Acquire { mode: Mode::EX, ..claim(session, &reader, b"y").acquire },
            ..claim(session, &reader, b"y")
        };
        for wrong in [forged, elsewhere, stronger] {
            assert_eq!(one.call(&Request::Reassert(wrong)).refusal(), Some(Refusal::Denied));
        }
        assert!(alarms(&server).contains("without proof"), "{}", alarms(&server));

        // What no ACQUIRE may ask for no claim may.
        let delayed = Reassert { acquire: Acquire { lock_delay_ms: 60_001, ..it.acquire }, ..it };
        assert_eq!(one.call(&Request::Reassert(delayed)).refusal(), Some(Refusal::BadRequest));

        let granted = one.call(&Request::Reassert(it)).grant();
        assert!(granted.token > second.token && granted.proof.is_some());
        for late in [it, early] {
            assert_eq!(other.call(&Request::Reassert(late)).refusal(), Some(Refusal::StaleToken));
        }
        assert!(alarms(&server).contains("another has claimed"), "{}", alarms(&server));

        let shared = other.call(&Request::Reassert(claim(session, &reader, b"y"))).grant();
        let up = Request::Convert { grant: shared.grant, mode: Mode::EX, wait: Wait::Try };
        assert_eq!(other.call(&up).refusal(), Some(Refusal::Recovering), "another reader may be alive");
        eventually("the quarantine is over", || {
            one.call(&Request::Keepalive);
            other.call(&Request::Keepalive);
            let attempt = Acquire { wait: Wait::Try, ..exclusive(b"free") };
            matches!(other.call(&Request::Acquire(attempt)).reply(), Reply::Granted(_)).then_some(())
        });
        let late = Reassert { acquire: Acquire { resource: exclusive(b"x").resource, ..it.acquire }, ..it };
        assert_eq!(one.call(&Request::Reassert(late)).refusal(), Some(Refusal::NotHeld), "it is too late");
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        assert_eq!(other.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::WouldBlock));
    }
}

/// G56: proofs come to whoever asks for them, and cost others nothing.
#[test]
fn who_asks_for_no_proof_gets_none() {
    for way in ways::single() {
        let server = way.plan().start();
        let mut raw = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        raw.open(5000, Liveness::Heartbeat);
        assert_eq!(raw.acquire(b"x").proof, None);
        let mut raw = Raw::greeted_with(&way.endpoint(&server), ShardId::ANY, FEATURE_PROOF);
        raw.open(5000, Liveness::Heartbeat);
        let granted = raw.acquire(b"y");
        let weaker =
            raw.call(&Request::Convert { grant: granted.grant, mode: Mode::PR, wait: Wait::Try }).grant();
        assert!(granted.proof.is_some() && weaker.proof.is_some() && granted.proof != weaker.proof);
    }
}
