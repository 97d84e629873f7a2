//! The server's side of shared memory, by a client that speaks raw frames through a ring: attaching, locks, words, and
//! what is passed on when a client goes.

use fairlock_protocol::{Liveness, Mode, Reply, Request, ShardId};
use fairlock_shm::word::{Entry, Holder, Leaving};
use fairlock_tests::keeper::{cached, client, queued, take};
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::Plan;
use fairlock_tests::ways::drivers;

// G42: a queue of clients through rings and TCP, in order.
#[test]
fn locks_are_taken_waited_for_and_passed_on_through_rings() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (mut first, mut second) = (client(&server), client(&server));
        let mut third = Raw::greeted(&server.tcp(), ShardId::ANY);
        third.open(60_000, Liveness::Heartbeat);
        for round in 0..50 {
            let held = first.acquire(b"x");
            let wait = second.send(&Request::Acquire(exclusive(b"x")));
            queued(&mut first, b"x", 1);
            let last = third.send(&Request::Acquire(exclusive(b"x")));
            queued(&mut first, b"x", 2);
            first.release(held.grant);
            let next = second.answer(wait).grant();
            assert!(next.token > held.token, "round {round}");
            second.release(next.grant);
            let next = third.answer(last).grant();
            third.release(next.grant);
        }
    }
}

#[test]
fn more_requests_than_the_ring_has_slots_are_all_answered() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut raw = client(&server);
        let names: Vec<String> = (0..900).map(|n| format!("{n:0200}")).collect();
        let mut grants = Vec::new();
        for name in &names {
            raw.send(&Request::Acquire(exclusive(name.as_bytes())));
        }
        while grants.len() < names.len() {
            if let Reply::Granted(grant) = raw.receive().reply() {
                grants.push(grant.grant);
            }
        }
        for grant in grants {
            raw.release(grant);
        }
    }
}

// G43: kept, entered again, taken back.
#[test]
fn a_grant_that_nobody_else_wants_stays_and_comes_back_when_somebody_does() {
    for &io in drivers() {
        let server = Plan::new(io).admin().start();
        let (mut keeper, mut other) = (client(&server), client(&server));
        let (granted, index, generation) = cached(&mut keeper, b"mine");
        let segment = keeper.shared().segment;
        let word = segment.word(index).unwrap();
        assert!(word.is_held(generation, Holder::GRANTED));
        assert!(!word.leave(generation, Leaving::Exchange));
        for _ in 0..100 {
            assert_eq!(word.enter(generation, Holder::new(1), Leaving::Exchange), Entry::Entered);
            assert!(!word.leave(generation, Leaving::Exchange));
        }
        // Free: somebody else gets it at once, without a word from its keeper.
        let next = take(&mut other, b"mine");
        assert!(next.token > granted.token && !next.previous_owner_died);
        assert_eq!(word.enter(generation, Holder::new(1), Leaving::Exchange), Entry::Refused);
        other.release(next.grant);
        // Held: he waits until it is left.
        let (_, index, generation) = cached(&mut keeper, b"mine");
        let word = segment.word(index).unwrap();
        let wait = other.send(&Request::Acquire(exclusive(b"mine")));
        queued(&mut keeper, b"mine", 1);
        assert!(word.leave(generation, Leaving::Exchange), "somebody waits");
        keeper.send(&Request::Look);
        other.answer(wait).grant();
        let page = get(server.admin(), "/metrics").1;
        assert_eq!(metric(&page, "overtakes_total"), Some(0.0), "{page}");
    }
}

#[test]
fn a_word_that_is_left_without_a_hint_is_found_all_the_same() {
    // A holder whose plain store raced with the server's wish sees nobody waiting and says nothing; the server comes by
    // with its next pass, for whatever reason.
    let server = Plan::new(drivers()[0]).start();
    let (mut keeper, mut other) = (client(&server), client(&server));
    let (_, index, generation) = cached(&mut keeper, b"quiet");
    let wait = other.send(&Request::Acquire(exclusive(b"quiet")));
    queued(&mut keeper, b"quiet", 1);
    let shared = keeper.shared();
    assert!(shared.segment.word(index).unwrap().leave(generation, Leaving::Exchange));
    other.answer(wait).grant();
}

// G44: what was kept and what was held.
#[test]
fn a_client_that_goes_gives_back_what_it_kept_and_bequeaths_what_it_held() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let mut other = client(&server);
        let mut keeper = client(&server);
        let (_, index, generation) = cached(&mut keeper, b"free");
        assert!(!keeper.shared().segment.word(index).unwrap().leave(generation, Leaving::Exchange));
        let _held = cached(&mut keeper, b"held");
        let waits = [b"free", b"held"].map(|name| other.send(&Request::Acquire(exclusive(name))));
        let free = other.answer(waits[0]).grant();
        assert!(!free.previous_owner_died);
        let shared = keeper.shared();
        assert!(!shared.segment.status().has_ended());
        drop(keeper);
        let held = other.answer(waits[1]).grant();
        assert!(held.previous_owner_died);
        assert!(shared.segment.status().has_ended(), "that stood there before");
    }
}

// G46: a dead server is seen without asking it.
#[test]
fn the_beacon_is_stamped_and_shows_the_death_of_the_server() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let raw = client(&server);
        let sight = raw.shared().sight;
        assert!(sight.is_alive());
        let first = sight.stamp();
        fairlock_tests::eventually("a stamp", || (sight.stamp() > first).then_some(()));
        drop(server.crash());
        assert!(!sight.is_alive(), "the kernel said so before the parent could know");
    }
}

#[test]
fn operators_see_what_is_held_and_what_only_stays() {
    let server = Plan::new(drivers()[0]).start();
    let mut keeper = client(&server);
    let (_, index, generation) = cached(&mut keeper, b"seen");
    let state = |raw: &mut Raw| {
        let resource = exclusive(b"seen").resource;
        let shown = raw.call(&Request::Show { cursor: 0, resource });
        let Reply::Shown(page) = shown.reply() else { panic!("{shown:?}") };
        let entry = page.entries().next().expect("a holder");
        (format!("{:?}", entry.standing), entry.transport.name(), entry.mode)
    };
    assert_eq!(state(&mut keeper), ("Held".into(), "shm", Mode::EX));
    let segment = keeper.shared().segment;
    let word = segment.word(index).unwrap();
    assert!(!word.leave(generation, Leaving::Exchange));
    // Entered once more, it outlives one look for words that nobody enters.
    assert_eq!(word.enter(generation, Holder::new(1), Leaving::Exchange), Entry::Entered);
    assert!(!word.leave(generation, Leaving::Exchange));
    assert_eq!(state(&mut keeper), ("Cached".into(), "shm", Mode::EX));
    let listed = keeper.call(&Request::List { cursor: 0, prefix: b"seen" });
    let Reply::Listed(page) = listed.reply() else { panic!("{listed:?}") };
    let entry = page.entries().next().expect("the name");
    assert_eq!((entry.holders, entry.cached, entry.waiters), (1, 1, 0));
    // Nobody enters it for a while: it is taken back.
    fairlock_tests::eventually("the idle word", || {
        let shown = keeper.call(&Request::Show { cursor: 0, resource: exclusive(b"seen").resource });
        let Reply::Shown(page) = shown.reply() else { panic!("{shown:?}") };
        page.entries().next().is_none().then_some(())
    });
}
