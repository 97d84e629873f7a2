//! What a grant carries and how it can end, frame by frame: tokens and fences, lock delays, longest holds, notices,
//! successors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::bundle::ItemsBuffer;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::request::{Acquire, AcquireAll, Open};
use fairlock_protocol::{
    FencingToken, GrantId, Liveness, Mode, OwnerId, Refusal, Reply, Request, ShardId, Wait,
};
use fairlock_tests::raw::{Raw, exclusive, session};
use fairlock_tests::server::Server;
use fairlock_tests::ways::Way;
use fairlock_tests::{boottime_ns, eventually, ways};
use std::time::Duration;

fn client(way: Way, server: &Server) -> Raw {
    let mut raw = Raw::greeted(&way.endpoint(server), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    raw
}

/// A resource that checks tokens as the documents say.
#[derive(Default)]
struct Resource(u64);

impl Resource {
    fn accepts(&mut self, grant: &Grant) -> bool {
        let accepted = grant.token.map_or(0, FencingToken::get) > self.0;
        if accepted {
            self.0 = self.0.max(grant.fence);
        }
        accepted
    }
}

/// G35: older tenures are refused once a newer one was seen; co-readers are not.
#[test]
fn a_resource_that_checks_tokens_tells_old_tenures_from_new_ones() {
    for way in ways::single() {
        let server = way.plan().start();
        let (mut one, mut other) = (client(way, &server), client(way, &server));
        let shared = Acquire { mode: Mode::PR, ..exclusive(b"x") };
        let mut resource = Resource::default();
        let written = one.acquire(b"x");
        assert_eq!(written.fence + 1, written.token.unwrap().get());
        assert!(resource.accepts(&written) && resource.accepts(&written));
        one.release(written.grant);
        let read = one.call(&Request::Acquire(shared)).grant();
        let beside = other.call(&Request::Acquire(shared)).grant();
        assert_eq!(read.fence, beside.fence, "one run of readers");
        // The later reader first, then the earlier one, then the writer of before.
        assert!(resource.accepts(&beside) && resource.accepts(&read), "co-readers");
        assert!(!resource.accepts(&written), "an older tenure");
        one.release(read.grant);
        other.release(beside.grant);
        let update = one.call(&Request::Acquire(Acquire { mode: Mode::PW, ..exclusive(b"x") })).grant();
        assert!(resource.accepts(&update) && !resource.accepts(&read) && !resource.accepts(&beside));
        let down =
            one.call(&Request::Convert { grant: update.grant, mode: Mode::PR, wait: Wait::Try }).grant();
        assert_eq!(down.token, update.token, "going down is the same tenure");
        let reader = other.call(&Request::Acquire(shared)).grant();
        assert!(resource.accepts(&reader) && resource.accepts(&down), "the run of readers begins with it");
        let none = one.call(&Request::Acquire(Acquire { mode: Mode::NL, ..exclusive(b"x") })).grant();
        assert_eq!((none.token, none.fence), (None, 0), "NL has no token");
    }
}

#[test]
fn validate_tells_the_present_tenure_from_others() {
    for way in ways::single() {
        let server = way.plan().start();
        let mut raw = client(way, &server);
        let resource = exclusive(b"x").resource;
        let validate = |raw: &mut Raw, token| {
            let arrived = raw.call(&Request::Validate { resource, token });
            let Reply::Validated { current } = arrived.reply() else { panic!("{arrived:?}") };
            current
        };
        let grant = raw.acquire(b"x");
        assert!(validate(&mut raw, grant.token.unwrap()));
        raw.release(grant.grant);
        assert!(!validate(&mut raw, grant.token.unwrap()));
        let next = raw.acquire(b"x");
        assert!(!validate(&mut raw, grant.token.unwrap()) && validate(&mut raw, next.token.unwrap()));
    }
}

/// G36: the delay counts from the expiry.
#[test]
fn a_lock_delay_keeps_others_out_after_an_expiry_only() {
    for way in ways::single() {
        let server = way.plan().start();
        let mut next = client(way, &server);
        let delayed = Acquire { lock_delay_ms: 700, ..exclusive(b"x") };
        let mut polite = client(way, &server);
        let grant = polite.call(&Request::Acquire(delayed)).grant();
        polite.call(&Request::Release(grant.grant));
        let grant = next.acquire(b"x");
        next.release(grant.grant);
        let grant = polite.call(&Request::Acquire(delayed)).grant();
        assert!(grant.token.is_some());
        polite.call(&Request::Close);
        let grant = next.acquire(b"x");
        next.release(grant.grant);

        let mut lost = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
        lost.open(1000, Liveness::Heartbeat);
        let asked_ns = boottime_ns();
        lost.call(&Request::Acquire(delayed)).grant();
        drop(lost);
        let grant = next.acquire(b"x");
        let after_ms = (boottime_ns() - asked_ns) / 1_000_000;
        assert!(after_ms >= 1700, "1000 ms of lease and 700 ms of delay: {after_ms} ms");
        assert!(grant.previous_owner_died);
        let late = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        assert_eq!(polite.call(&Request::Acquire(late)).refusal(), Some(Refusal::SessionUnknown));
    }
}

/// G36: a longest hold ends by time, the holder is told, the next one is let in.
#[test]
fn a_longest_hold_ends_the_grant_and_not_the_session() {
    for way in ways::single() {
        let server = way.plan().start();
        let (mut holder, mut next) = (client(way, &server), client(way, &server));
        let asked_ns = boottime_ns();
        let held = holder.call(&Request::Acquire(Acquire { max_hold_ms: 400, ..exclusive(b"x") })).grant();
        let granted = next.acquire(b"x");
        let after_ms = (boottime_ns() - asked_ns) / 1_000_000;
        assert!(after_ms >= 400, "let in after {after_ms} ms of 400");
        let told = holder.receive();
        assert!(matches!(told.reply(), Reply::HoldOver { grant } if grant == held.grant), "{told:?}");
        assert_eq!(holder.call(&Request::Release(held.grant)).refusal(), Some(Refusal::NotHeld));
        next.release(granted.grant);
        holder.acquire(b"x");
    }
}

#[test]
fn who_wants_to_know_is_told_that_his_grant_blocks_somebody() {
    for way in ways::single() {
        let server = way.plan().start();
        let (mut holder, mut waiter) = (client(way, &server), client(way, &server));
        let held = holder.call(&Request::Acquire(Acquire { notify: true, ..exclusive(b"x") })).grant();
        let number = waiter.send(&Request::Acquire(Acquire { mode: Mode::PR, ..exclusive(b"x") }));
        let told = holder.receive();
        let Reply::Blocking { grant, wanted, waiters } = told.reply() else { panic!("{told:?}") };
        assert_eq!((grant, wanted, waiters), (held.grant, Mode::PR, 1));
        holder.release(held.grant);
        waiter.answer(number).grant();
    }
}

/// G34: the successor waits for the old lease, or not at all when nobody can be there.
#[test]
fn a_successor_takes_over_at_the_old_leases_end_or_at_once() {
    for way in ways::single() {
        let server = way.plan().start();
        let named = Open { identity: b"worker 3", reclaim_key: b"key", ..session(2000, Liveness::Heartbeat) };
        for gone in [false, true] {
            let mut old = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
            old.call(&Request::Open(named));
            let held = old.acquire(b"x");
            let mut thief = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
            let foreign = Open { reclaim_key: b"guess", predecessor_gone: true, ..named };
            assert_eq!(thief.call(&Request::Open(foreign)).refusal(), Some(Refusal::Denied));
            let renewed_ns = boottime_ns();
            assert!(matches!(old.call(&Request::Keepalive).reply(), Reply::Alive));
            let mut new = Raw::greeted(&way.endpoint(&server), ShardId::ANY);
            let opened = new.call(&Request::Open(Open { predecessor_gone: gone, ..named }));
            assert!(matches!(opened.reply(), Reply::Opened { .. }), "{opened:?}");
            if !gone {
                let refused = eventually("the old one is told", || old.call(&Request::Keepalive).refusal());
                assert_eq!(refused, Refusal::SessionReplaced);
            }
            // Renewing itself while it waits is a client's duty.
            let number = new.send(&Request::Acquire(exclusive(b"x")));
            let grant = loop {
                match new.frame_within(Duration::from_millis(100)) {
                    Ok(Some(arrived)) if arrived.request == number => break arrived.grant(),
                    _ => new.send(&Request::Keepalive),
                };
            };
            let after_ms = (boottime_ns() - renewed_ns) / 1_000_000;
            assert!(gone || after_ms >= 2000, "the old lease of 2000 ms ended after {after_ms} ms");
            assert!(grant.token > held.token);
            new.call(&Request::Close);
        }
    }
}

/// Asks for several locks at once; the grants, or why not.
fn all_of(raw: &mut Raw, names: &[&str], wait: Wait) -> Result<Vec<GrantId>, Refusal> {
    let items = names.iter().map(|name| (exclusive(name.as_bytes()).resource, Mode::EX)).collect();
    let items = ItemsBuffer::new(items).unwrap();
    let all = AcquireAll { wait, owner: OwnerId(0), items: items.items(), label: b"" };
    let number = raw.send(&Request::AcquireAll(all));
    let mut grants = Vec::new();
    for _ in names {
        let arrived = raw.answer(number);
        match arrived.refusal() {
            Some(refusal) => return Err(refusal),
            None => grants.push(arrived.grant().grant),
        }
    }
    Ok(grants)
}

/// G37: all or none.
#[test]
fn several_locks_are_taken_together_or_not_at_all() {
    for way in ways::single() {
        let server = way.plan().start();
        let (mut one, mut other) = (client(way, &server), client(way, &server));
        let held = one.acquire(b"b");
        assert_eq!(all_of(&mut other, &["a", "b", "c"], Wait::Try), Err(Refusal::WouldBlock));
        assert_eq!(all_of(&mut other, &["a", "b", "c"], Wait::Millis(30)), Err(Refusal::Timeout));
        let (a, c) = (one.acquire(b"a"), one.acquire(b"c"));
        for grant in [a, c, held] {
            one.release(grant.grant);
        }
        let grants = all_of(&mut other, &["c", "a", "b"], Wait::Forever).unwrap();
        assert_eq!(grants.len(), 3);
        assert_eq!(all_of(&mut one, &["b"], Wait::Try), Err(Refusal::WouldBlock));
        for grant in grants {
            other.release(grant);
        }
    }
}

/// G37: two that want the same locks, named in whatever order, do not wait for each other.
#[test]
fn those_who_want_the_same_locks_do_not_wait_for_each_other() {
    for way in ways::single() {
        let server = way.plan().start();
        std::thread::scope(|scope| {
            for names in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
                let mut raw = client(way, &server);
                scope.spawn(move || {
                    for _ in 0..60 {
                        for grant in all_of(&mut raw, &names, Wait::Forever).unwrap() {
                            raw.release(grant);
                        }
                    }
                });
            }
        });
    }
}
