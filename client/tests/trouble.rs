//! A client and a server that falls silent, hangs up, breaks locks, or is too busy. Order and state are asserted,
//! never how long anything took.

mod fake;

use fairlock::{AcquireError, Client, ClientState, GuardError, GuardState, LostCause, Refusal, ReleaseError};
use fairlock_protocol::Reply;
use fairlock_protocol::reply::Refused;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fake::{PATIENCE, Said, block_on, granted, refused, serve};
use std::time::Duration;

#[test]
fn a_guard_is_lost_by_its_own_clock_when_the_server_falls_silent() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(1000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        // From here on nothing is answered, on no connection.
        let mut silent = vec![peer];
        let mut next = loop {
            let mut peer = server.accept();
            match peer.hear().unwrap().said {
                Said::Hello { shard: 0xFFFF, .. } => break peer,
                _ => silent.push(peer),
            }
        };
        // The second session, after the first was lost.
        next.say(0, 0, &Reply::Welcome(fake::welcome(0, 1)));
        let open = next.hear().unwrap();
        let session = fairlock_protocol::SessionId::from_raw(0x0500_0000_0002).unwrap();
        let (secret, home) = (fairlock_protocol::Secret(99), fairlock_protocol::ShardId(0));
        next.say(open.id, FLAG_RENEWED, &Reply::Opened { session, secret, ttl_ms: 5000, home });
        next.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let first = client.session();
    let guard = client.lock("held").acquire().unwrap();
    guard.check().unwrap();
    let other = client.clone();
    let waiting = std::thread::spawn(move || other.lock("taken").acquire());
    assert_eq!(block_on(guard.lost()), LostCause::Lease);
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Lease));
    assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Lease)));
    assert_eq!((guard.state(), guard.valid_until()), (GuardState::Lost, None));
    assert!(
        matches!(waiting.join().unwrap(), Err(AcquireError::Lost(LostCause::Lease))),
        "never re-acquired"
    );
    assert_eq!(client.state(), ClientState::Lost);
    let again = client.lock("held").acquire().unwrap();
    assert_ne!(client.session(), first);
    assert_eq!(client.state(), ClientState::Connected);
    again.check().unwrap();
    assert_eq!(guard.release(), Err(ReleaseError::Lost(LostCause::Lease)), "the old guard stays lost");
    drop(again);
    client.close();
    server.join().unwrap();
}

#[test]
fn keepalives_keep_an_idle_guard_valid_beyond_its_first_deadline() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(2000);
        let mut keepalives = 0;
        while let Some(heard) = peer.hear() {
            keepalives += u32::from(heard.said == Said::Keepalive);
            peer.oblige(&heard);
        }
        assert!(keepalives >= 3, "{keepalives}");
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    guard.check().unwrap();
    guard.release().unwrap();
    client.close();
    server.join().unwrap();
}

#[test]
fn a_broken_connection_is_resumed_and_what_was_unanswered_is_said_again_exactly_once() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        let waiting = peer.listen().unwrap();
        drop(peer);
        let mut peer = server.resumed(0);
        let again = peer.listen().unwrap();
        assert_eq!((again.id, &again.said), (waiting.id, &waiting.said));
        assert_eq!(again.ack, 1, "the kept grant arrived before");
        peer.say(again.id, FLAG_KEPT | FLAG_RENEWED, &granted(50));
        let said: Vec<_> = peer.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert!(!said.iter().any(|said| matches!(said, Said::Acquire { .. })), "{said:?}");
    });
    let client = Client::connect(&endpoint).unwrap();
    let held = client.lock("held").acquire().unwrap();
    let guard = client.lock("waiting").acquire().unwrap();
    assert_eq!(guard.token().get(), 1050);
    held.check().unwrap();
    drop((held, guard));
    client.close();
    server.join().unwrap();
}

#[test]
fn kept_replies_come_again_before_anything_is_said_again() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let (first, second) = (peer.listen().unwrap(), peer.listen().unwrap());
        drop(peer);
        let mut peer = server.resumed(1);
        peer.say(first.id, FLAG_KEPT, &granted(60));
        let again = peer.listen().unwrap();
        assert_eq!((again.id, again.ack), (second.id, 1));
        peer.oblige(&again);
        peer.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let (first, second) = (client.lock("1").acquire_async(), client.lock("2").acquire_async());
    assert_eq!(block_on(first).unwrap().token().get(), 1060);
    drop(block_on(second).unwrap());
    client.close();
    server.join().unwrap();
}

#[test]
fn a_guard_is_suspended_while_its_server_is_away_and_valid_again_after_the_resume() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let (endpoint, server) = serve(move |server| {
        let mut peer = server.opened(20_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        drop(peer);
        let mut silent = server.accept();
        silent.hear();
        wait.recv_timeout(PATIENCE).unwrap();
        drop(silent);
        server.resumed(0).oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    while guard.state() != GuardState::Suspended {
        std::thread::sleep(Duration::from_millis(1));
    }
    guard.check().unwrap();
    assert_eq!(client.state(), ClientState::Suspended);
    go_on.send(()).unwrap();
    while guard.state() != GuardState::Valid {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(guard);
    client.close();
    server.join().unwrap();
}

#[test]
fn a_session_the_server_no_longer_knows_is_lost_with_all_it_held() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(20_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        peer.listen().unwrap();
        drop(peer);
        let mut peer = server.accept();
        peer.hear();
        peer.say(0, 0, &Reply::Welcome(fake::welcome(0, 1)));
        let resume = peer.hear().unwrap();
        peer.say(resume.id, 0, &refused(Refusal::SessionUnknown));
        assert_eq!(peer.hear(), None, "there is nobody to say good-bye to");
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("held").acquire().unwrap();
    let waited = client.lock("taken").acquire();
    let unknown = LostCause::Session(Refusal::SessionUnknown);
    assert!(matches!(waited, Err(AcquireError::Lost(cause)) if cause == unknown), "{waited:?}");
    assert_eq!(guard.check(), Err(GuardError::Lost(unknown)));
    drop(guard);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_busy_server_is_asked_again_under_the_same_number() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let first = peer.listen().unwrap();
        let busy = Refused { retry_after_ms: 20, ..Refusal::Busy.into() };
        peer.say(first.id, 0, &Reply::Refused(busy));
        let again = peer.listen().unwrap();
        assert_eq!((again.id, &again.said), (first.id, &first.said));
        peer.oblige(&again);
        peer.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    drop(client.lock("x").acquire().unwrap());
    client.close();
    server.join().unwrap();
}

#[test]
fn a_broken_lock_is_void_before_it_is_confirmed() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        peer.say(0, FLAG_KEPT, &Reply::Broken { grant: grant.grant, forced: false });
        let said: Vec<_> = peer.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said, [Said::Confirm(1), Said::Close], "and is not released as well");
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Broken));
    assert_eq!(guard.release(), Err(ReleaseError::Lost(LostCause::Broken)));
    client.close();
    server.join().unwrap();
}

#[test]
fn a_killed_session_voids_its_guards_and_then_closes() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        peer.say(0, FLAG_KEPT, &Reply::KillAnnounced);
        let close = peer.listen().unwrap();
        assert_eq!(close.said, Said::Close);
        peer.oblige(&close);
        assert_eq!(peer.listen(), None);
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let callback = move |notice| sender.send(notice).unwrap_or(());
    let client = Client::builder().on_notice(callback).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Killed));
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(fairlock::Notice::Killed));
    drop(guard);
    client.close();
    server.join().unwrap();
}

#[test]
fn a_grant_that_comes_after_the_deadline_is_never_a_guard() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(1000);
        let late = peer.listen().unwrap();
        // Nothing is renewed; the lease is over before this is said.
        std::thread::sleep(Duration::from_millis(1500));
        peer.say(late.id, FLAG_KEPT | FLAG_RENEWED, &granted(5));
        while peer.hear().is_some() {}
    });
    let client = Client::connect(&endpoint).unwrap();
    let late = client.lock("x").acquire();
    assert!(matches!(late, Err(AcquireError::Lost(LostCause::Lease))), "{late:?}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn garbage_in_the_middle_of_the_talk_costs_the_connection_not_the_locks() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        let waiting = peer.listen().unwrap();
        std::io::Write::write_all(&mut peer.stream, &[0xFF; 64]).unwrap();
        let mut peer2 = server.resumed(0);
        let again = peer2.listen().unwrap();
        assert_eq!(again.id, waiting.id);
        peer2.oblige(&again);
        peer2.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let held = client.lock("held").acquire().unwrap();
    drop(client.lock("other").acquire().unwrap());
    held.check().unwrap();
    drop(held);
    client.close();
    server.join().unwrap();
}

#[test]
fn a_try_that_is_not_answered_ends_with_the_deadline_and_its_late_grant_goes_back() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(20_000);
        let tried = peer.listen().unwrap();
        let cancel = peer.listen().unwrap();
        assert_eq!(cancel.said, Said::Cancel(tried.id));
        peer.say(tried.id, FLAG_KEPT | FLAG_RENEWED, &granted(8));
        peer.oblige(&cancel);
        let said = peer.oblige_all();
        assert!(said.iter().any(|heard| heard.said == Said::Release(8)), "{said:?}");
    });
    let client = Client::builder().deadline(Duration::from_secs(1)).connect(&endpoint).unwrap();
    assert!(matches!(client.lock("x").try_acquire(), Err(AcquireError::Unanswered { .. })));
    drop(block_on(client.lock("y").acquire_async()).unwrap());
    drop(client);
    server.join().unwrap();
}
