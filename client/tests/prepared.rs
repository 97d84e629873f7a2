//! Locks that are prepared and taken again and again, from a server that leaves them with the client, or does not.

mod fake;

use fairlock::{AcquireError, Client, GuardError, LostCause, Mode, Refusal, ReleaseError};
use fairlock_protocol::Reply;
use fairlock_shm::word::{Generation, Seen};
use fake::memory::serve_memory;
use fake::{PATIENCE, Said, granted, serve};
use std::sync::mpsc::channel;
use std::time::Duration;

const fn is_shared<T: Send + Sync>() {}
const _: () = {
    is_shared::<fairlock::Lock>();
    is_shared::<fairlock::Held<'static>>();
};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn over_a_socket_it_is_an_ordinary_request_each_time() {
    let (endpoint, server) = serve(|server| {
        assert_eq!(server.opened(5000).oblige_all().len(), 2 * 3 + 1);
    });
    let client = Client::connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    assert_eq!((lock.name(), lock.mode()), (b"x".as_slice(), Mode::EX));
    for token in 1001..1004 {
        let held = lock.acquire().unwrap();
        assert_eq!((held.token().get(), held.fence(), held.check()), (token, token - 1, Ok(())));
        held.valid_for(Duration::from_millis(1)).unwrap();
        held.release().unwrap();
    }
    client.close();
    assert!(matches!(lock.acquire(), Err(AcquireError::Closed)));
    assert!(matches!(client.lock("").prepare(), Err(AcquireError::Closed)));
    server.join().unwrap();
}

#[test]
fn what_stays_with_the_client_is_taken_without_a_word_and_its_token_is_the_same() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        let first = peer.listen().unwrap();
        peer.leave_with(first.id, 1, 1);
        assert_eq!(peer.oblige_all().into_iter().map(|heard| heard.said).collect::<Vec<_>>(), [Said::Close]);
        assert!(peer.stream.segment.word(1).unwrap().entries() >= 2 * 999);
    });
    let client = Client::builder().ttl(MINUTE).connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    for _ in 0..1000 {
        let held = lock.acquire().unwrap();
        assert_eq!((held.token().get(), held.fence(), held.check()), (1001, 1000, Ok(())));
        held.valid_for(Duration::from_secs(1)).unwrap();
        assert!(matches!(held.valid_for(2 * MINUTE), Err(GuardError::TooShort { .. })));
        drop(held);
        let guard = client.lock("x").acquire().unwrap();
        assert_eq!((guard.token().get(), guard.check()), (1001, Ok(())));
        guard.release().unwrap();
    }
    client.close();
    server.join().unwrap();
}

#[test]
fn one_who_leaves_what_is_wanted_says_so_and_asks_the_next_time() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        for generation in 1..=50 {
            let asked = peer.listen().unwrap();
            assert!(matches!(asked.said, Said::Acquire { .. }), "{asked:?}");
            peer.leave_with(asked.id, 1, generation);
            peer.take_back(1, generation);
            // One hint, two when the one after was undone; none when nobody was inside.
            while peer.stream.segment.word(1).unwrap().look(Generation(generation)) != Seen::Neither {}
            let mut next = peer.listen().unwrap();
            while matches!(next.said, Said::Look | Said::Release(1)) {
                peer.oblige(&next);
                next = peer.listen().unwrap();
            }
            assert!(matches!(next.said, Said::Acquire { .. }), "{next:?}");
            peer.oblige(&next);
            let released = peer.listen().unwrap();
            assert!(matches!(released.said, Said::Release(_)), "{released:?}");
            peer.oblige(&released);
        }
        peer.oblige_all();
    });
    let client = Client::builder().ttl(MINUTE).connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    for _ in 0..50 {
        let begun = std::time::Instant::now();
        let first = lock.acquire().unwrap().token();
        loop {
            let held = lock.acquire().unwrap();
            held.check().unwrap();
            let over = held.token() != first;
            held.release().unwrap();
            if over {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the server never got it back");
        }
    }
    client.close();
    server.join().unwrap();
}

#[test]
fn a_thread_that_is_inside_is_refused_and_another_one_waits() {
    let (asked, is_asked) = channel();
    let (endpoint, server) = serve_memory(move |server| {
        let mut peer = server.opened(60_000);
        let first = peer.listen().unwrap();
        peer.leave_with(first.id, 1, 1);
        let other = peer.listen().unwrap();
        assert!(matches!(other.said, Said::Acquire { .. }), "{other:?}");
        asked.send(()).unwrap();
        peer.take_back(1, 1);
        peer.leave_with(other.id, 2, 1);
        peer.oblige_all();
    });
    let client = Client::builder().ttl(MINUTE).connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    for _ in 0..2 {
        // First of a grant, then of its word alone.
        let held = lock.acquire().unwrap();
        assert!(matches!(lock.acquire(), Err(AcquireError::Refused(Refusal::AlreadyHeld))));
        assert!(matches!(lock.try_acquire(), Err(AcquireError::Refused(Refusal::WouldBlock))));
        let again = client.lock("x").acquire();
        assert!(matches!(again, Err(AcquireError::Refused(Refusal::AlreadyHeld))), "{again:?}");
        let all = client.lock_all([("x", Mode::PR), ("y", Mode::EX)]).acquire();
        assert!(matches!(all, Err(AcquireError::Refused(Refusal::AlreadyHeld))), "{all:?}");
        drop(held);
    }
    let held = lock.acquire().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| lock.acquire().unwrap().token().get());
        is_asked.recv_timeout(PATIENCE).unwrap();
        held.check().unwrap();
        drop(held);
        assert_eq!(other.join().unwrap(), 1002);
    });
    client.close();
    server.join().unwrap();
}

#[test]
fn a_forced_end_and_the_end_of_the_session_are_seen_by_the_next_check() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        let first = peer.listen().unwrap();
        peer.leave_with(first.id, 1, 1);
        let break_now = peer.listen().unwrap();
        assert_eq!(peer.stream.segment.word(1).unwrap().void(Generation(1)), Seen::Held);
        peer.oblige(&break_now);
        // The hint of one who left a word that was taken from him.
        assert_eq!(peer.listen().unwrap().said, Said::Look);
        let end_now = peer.listen().unwrap();
        peer.stream.segment.status().end();
        peer.oblige(&end_now);
        peer.oblige_all();
    });
    let client = Client::builder().ttl(MINUTE).connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    drop(lock.acquire().unwrap());
    let held = lock.acquire().unwrap();
    let _other = client.lock("break now").acquire().unwrap();
    assert_eq!(held.check(), Err(GuardError::Lost(LostCause::Broken)));
    assert_eq!(held.valid_for(Duration::ZERO), Err(GuardError::Lost(LostCause::Broken)));
    assert_eq!(held.release(), Err(ReleaseError::Lost(LostCause::Broken)));
    let last = client.lock("end now").acquire();
    assert_eq!(last.unwrap_err().refusal(), Refusal::SessionExpired);
    client.close();
    server.join().unwrap();
}

#[test]
fn a_broken_lock_is_entered_no_more_and_confirmed_when_the_one_inside_has_left() {
    let (confirms, is_confirmed) = channel();
    let (endpoint, server) = serve_memory(move |server| {
        let mut peer = server.opened(60_000);
        let first = peer.listen().unwrap();
        peer.leave_with(first.id, 1, 1);
        let signal = peer.listen().unwrap();
        let word =
            |peer: &fake::Peer<fake::memory::Rings>| peer.stream.segment.word(1).unwrap().look(Generation(1));
        assert_eq!(word(&peer), Seen::Held);
        peer.stream.segment.word(1).unwrap().want();
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        peer.say(0, 0, &Reply::Broken { grant: grant.grant, forced: false });
        peer.oblige(&signal);
        let mut said = Vec::new();
        while let Some(heard) = peer.listen() {
            if heard.said == Said::Confirm(1) {
                assert_eq!(word(&peer), Seen::Free, "it was left before");
                confirms.send(()).unwrap();
            }
            peer.oblige(&heard);
            said.push(heard.said);
        }
        assert!(said.contains(&Said::Confirm(1)), "{said:?}");
        let asked = said.iter().filter(|said| matches!(said, Said::Acquire { name, .. } if name == b"x"));
        assert_eq!(asked.count(), 1, "{said:?}");
    });
    let builder = Client::builder().ttl(MINUTE).confirm_when_released(true);
    let client = builder.connect(&endpoint).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    drop(lock.acquire().unwrap());
    let held = lock.acquire().unwrap();
    let signal = client.lock("signal").acquire().unwrap();
    assert_eq!(held.check(), Err(GuardError::Lost(LostCause::Broken)));
    std::thread::sleep(Duration::from_millis(50));
    drop(held);
    assert_ne!(lock.acquire().unwrap().token().get(), 1001);
    is_confirmed.recv_timeout(PATIENCE).unwrap();
    drop(signal);
    client.close();
    server.join().unwrap();
}
