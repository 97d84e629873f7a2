//! Servers in sandboxes that leave them no memory to share, or no barriers: clients are told, served, and people find it
//! in the log.

use fairlock_protocol::handshake::{FEATURE_SHM, Hello};
use fairlock_protocol::{Liveness, Reply, Request, ShardId};
use fairlock_shm::word::Leaving;
use fairlock_tests::keeper::{cached, client, leave, take};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::Plan;
use fairlock_tests::ways::drivers;

// G47: the socket, and one line that says why.
#[test]
fn a_server_that_may_make_no_memory_says_why_and_serves_over_the_socket() {
    for &io in drivers() {
        let mut server = Plan::new(io).denied("--without-memfd").start();
        let mut raw = Raw::connect(&server.unix());
        let hello = Hello { features: FEATURE_SHM, ..Hello::to(ShardId::ANY) };
        raw.send_numbered(0, &Request::Hello(hello));
        let arrived = raw.receive();
        let Reply::Segment { reason, .. } = arrived.reply() else { panic!("{arrived:?}") };
        assert!(!reason.is_empty(), "why there is none");
        let arrived = raw.receive();
        let Reply::Welcome(welcome) = arrived.reply() else { panic!("{arrived:?}") };
        assert_eq!(welcome.features & FEATURE_SHM, 0);
        raw.open(5000, Liveness::Process);
        for _ in 0..10 {
            // A client that would keep it is not kept from asking, but nothing stays with it.
            let grant = take(&mut raw, b"x").grant;
            raw.release(grant);
        }
        assert!(server.is_running());
        assert!(server.plan.log().contains("no memory can be shared"), "{}", server.plan.log());
    }
}

#[test]
fn a_server_without_barriers_has_words_left_by_an_exchange() {
    for &io in drivers() {
        let server = Plan::new(io).denied("--without-membarrier").start();
        let (mut keeper, mut other) = (client(&server), client(&server));
        assert_eq!(keeper.shared().sight.leaving(), Leaving::Exchange);
        for _ in 0..20 {
            let (held, index, generation) = cached(&mut keeper, b"x");
            let wait = other.send(&Request::Acquire(exclusive(b"x")));
            fairlock_tests::keeper::queued(&mut keeper, b"x", 1);
            let segment = keeper.shared().segment;
            assert!(segment.word(index).is_some_and(|word| word.leave(generation, Leaving::Exchange)));
            keeper.send(&Request::Look);
            let next = other.answer(wait).grant();
            assert!(next.token > held.token);
            other.release(next.grant);
        }
        let (_, index, generation) = cached(&mut keeper, b"y");
        leave(&keeper, index, generation);
        take(&mut other, b"y");
        assert!(server.plan.log().contains("membarrier is not to be had"), "{}", server.plan.log());
    }
}

#[test]
fn a_server_with_barriers_says_so() {
    let server = Plan::new(drivers()[0]).start();
    let expected = if fairlock_shm::wait::has_barrier() { Leaving::Barrier } else { Leaving::Exchange };
    assert_eq!(client(&server).shared().sight.leaving(), expected);
}
