//! A client and a server that share memory: how they come to it, how answers arrive, what ends a guard.

mod fake;

use fairlock::{Client, ClientState, ConnectError, GuardState, Liveness, LostCause, Refusal, Transport};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Reply, RequestId};
use fake::memory::{now_ns, pass, serve_memory};
use fake::{PATIENCE, Said, block_on, eventually, granted};
use rustix::time::ClockId;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn said_segment(reason: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Reply::Segment { clock_ns: 1, reason }.encode(RequestId::NOTICE, 0, &mut bytes);
    bytes
}

#[test]
fn a_lock_is_taken_and_given_back_through_memory() {
    let (endpoint, server) = serve_memory(|server| {
        let said: Vec<_> = server.opened(5000).oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said.len(), 2 * 100 + 1);
        assert_eq!(said.last(), Some(&Said::Close));
    });
    let client = Client::connect(&endpoint).unwrap();
    assert_eq!((client.transport(), client.state()), (Transport::Shm, ClientState::Connected));
    for round in 0..100 {
        let guard = client.lock("orders/42").acquire().unwrap();
        assert_eq!(
            (guard.token().get(), guard.check(), guard.state()),
            (1001 + round, Ok(()), GuardState::Valid)
        );
        guard.release().unwrap();
        if round % 25 == 0 {
            // Long enough for the tender to watch the ring.
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    client.close();
    server.join().unwrap();
}

#[test]
fn threads_and_futures_share_the_rings_and_each_gets_its_own_answer() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(5000);
        let said = peer.oblige_all();
        assert_eq!(said.len(), 4 * 200 * 2 + 1);
    });
    let client = Client::connect(&endpoint).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..200 {
                    let request = client.lock(format!("{thread}/{round}"));
                    let guard =
                        if thread == 0 { block_on(request.acquire_async()) } else { request.acquire() };
                    guard.unwrap().check().unwrap();
                }
            });
        }
    });
    client.close();
    server.join().unwrap();
}

#[test]
fn one_who_sleeps_long_is_woken_through_the_word_and_a_notice_through_the_socket() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        let heard = peer.listen().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        peer.say(heard.id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
        std::thread::sleep(Duration::from_millis(100));
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        peer.say(0, FLAG_KEPT, &Reply::Broken { grant: grant.grant, forced: false });
        let said: Vec<_> = peer.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said, [Said::Confirm(1), Said::Close]);
    });
    let client = Client::builder().ttl(Duration::from_mins(1)).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Broken));
    client.close();
    server.join().unwrap();
}

#[test]
fn long_frames_and_full_rings_only_take_longer() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(peer.oblige_all().len(), 2 * 64 + 1);
    });
    let client = Client::builder().ttl(Duration::from_mins(1)).connect(&endpoint).unwrap();
    let name = |number: u32| format!("{number:01024}");
    let asked: Vec<_> = (0..64).map(|number| client.lock(name(number)).acquire_async()).collect();
    for future in asked {
        drop(block_on(future).unwrap());
    }
    client.close();
    server.join().unwrap();
}

/// G47: the reason is said once, and the talk goes on.
#[test]
fn a_server_that_gives_a_reason_is_talked_to_over_the_socket() {
    let (endpoint, server) = serve_memory(|server| {
        for forced in [false, true] {
            let mut peer = server.greeted(true);
            std::io::Write::write_all(&mut peer.stream, &said_segment("no memory left")).unwrap();
            if forced {
                peer.say(0, 0, &Reply::Welcome(fake::welcome(0, 1)));
                assert!(peer.hear().is_none());
            } else {
                peer.welcome_and_open(5000, 1);
                peer.oblige_all();
            }
        }
    });
    let client = Client::connect(&endpoint).unwrap();
    assert_eq!(client.transport(), Transport::Unix);
    client.lock("x").acquire().unwrap().release().unwrap();
    client.close();
    match Client::builder().transport(Transport::Shm).connect(&endpoint) {
        Err(ConnectError::NoSharedMemory { reason, .. }) => assert_eq!(reason, "no memory left"),
        other => panic!("{other:?}"),
    }
    server.join().unwrap();
}

#[test]
fn a_server_without_the_feature_is_talked_to_over_the_socket() {
    let (endpoint, server) = serve_memory(|server| {
        for asks in [true, false] {
            let mut peer = server.greeted(asks);
            peer.welcome_and_open(5000, 1);
            peer.oblige_all();
        }
    });
    for transport in [Transport::Auto, Transport::Unix] {
        let client = Client::builder().transport(transport).connect(&endpoint).unwrap();
        assert_eq!(client.transport(), Transport::Unix);
        client.lock("x").acquire().unwrap().release().unwrap();
        client.close();
    }
    server.join().unwrap();
}

/// G47: the reason is said once, and the talk goes on.
#[test]
fn memory_that_does_not_fit_leads_to_another_connection_without_it() {
    let (endpoint, server) = serve_memory(|server| {
        let peer = server.greeted(true);
        let wrong = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        pass(&peer.stream, now_ns(ClockId::Boottime), &[&wrong(), &wrong()]);
        let mut peer = server.greeted(false);
        peer.welcome_and_open(5000, 1);
        peer.oblige_all();
        let peer = server.greeted(true);
        let (_segment, file) = fairlock_shm::segment::Segment::create().unwrap();
        pass(&peer.stream, 1, &[&file, server.beacon().file()]);
    });
    let client = Client::connect(&endpoint).unwrap();
    assert_eq!(client.transport(), Transport::Unix);
    client.close();
    match Client::builder().transport(Transport::Shm).connect(&endpoint) {
        Err(ConnectError::NoSharedMemory { reason, .. }) => assert!(reason.contains("clock"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let refused = Client::builder().transport(Transport::Shm).connect("tcp://127.0.0.1:1");
    assert!(matches!(refused, Err(ConnectError::Unsupported(_))), "{refused:?}");
    server.join().unwrap();
}

/// G46: without I/O, and at the deadline at the latest.
#[test]
fn stamps_keep_a_lease_without_a_word_and_a_server_that_stands_still_suspends_and_loses_it() {
    let (seen, was_seen) = channel();
    let (endpoint, server) = serve_memory(move |server| {
        let mut peer = server.opened(1500);
        let heard = peer.listen().unwrap();
        peer.oblige(&heard);
        was_seen.recv_timeout(PATIENCE).unwrap();
        server.runs.store(false, Ordering::Release);
        while let Some(heard) = peer.hear() {
            match heard.said {
                Said::Keepalive | Said::Release(1) => {}
                Said::Close => break,
                _ => panic!("{heard:?}"),
            }
        }
    });
    let client = Client::builder().ttl(Duration::from_millis(1500)).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        guard.check().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    seen.send(()).unwrap();
    eventually(|| guard.state() == GuardState::Suspended);
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Lease));
    assert_eq!(client.state(), ClientState::Lost);
    drop(client);
    drop(guard);
    server.join().unwrap();
}

#[test]
fn a_heartbeat_is_said_through_memory_too() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(1500);
        let mut beats = 0;
        while let Some(heard) = peer.hear() {
            beats += u32::from(heard.said == Said::Keepalive);
            peer.oblige(&heard);
        }
        assert!(beats >= 4, "{beats}");
    });
    let builder = Client::builder().liveness(Liveness::Heartbeat).ttl(Duration::from_millis(1500));
    let client = builder.connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    guard.check().unwrap();
    drop(guard);
    client.close();
    server.join().unwrap();
}

/// The end of a socket with memory ends it at once, and its guards would not look where that is shown.
#[test]
fn a_session_that_was_opened_on_a_socket_goes_on_on_sockets() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.greeted(true);
        std::io::Write::write_all(&mut peer.stream, &said_segment("no memory left")).unwrap();
        peer.welcome_and_open(60_000, 1);
        drop(peer);
        let mut peer = server.greeted(false);
        peer.say(0, 0, &Reply::Welcome(fake::welcome(0, 1)));
        let resume = peer.hear().unwrap();
        peer.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms: 60_000, seen: 0, following: 0 });
        assert_eq!(peer.oblige_all().len(), 3);
    });
    let client = Client::builder().ttl(Duration::from_mins(1)).connect(&endpoint).unwrap();
    client.lock("x").acquire().unwrap().release().unwrap();
    assert_eq!(client.transport(), Transport::Unix);
    client.close();
    server.join().unwrap();
}

/// G46: by a look.
#[test]
fn an_end_that_the_server_shows_is_seen_by_the_next_check() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(60_000);
        let heard = peer.listen().unwrap();
        peer.stream.segment.status().end();
        peer.oblige(&heard);
        peer.oblige_all();
    });
    let client = Client::builder().ttl(Duration::from_mins(1)).connect(&endpoint).unwrap();
    let outcome = client.lock("x").acquire();
    let code = outcome.unwrap_err().refusal();
    assert_eq!(code, Refusal::SessionExpired);
    assert_eq!(client.state(), ClientState::Lost);
    client.close();
    server.join().unwrap();
}

#[test]
fn the_end_of_the_socket_is_seen_by_one_who_sleeps_and_guards_live_until_their_deadline() {
    let (endpoint, server) = serve_memory(|server| {
        let mut peer = server.opened(1500);
        let heard = peer.listen().unwrap();
        peer.oblige(&heard);
        assert!(matches!(peer.listen().unwrap().said, Said::Acquire { .. }));
        server.runs.store(false, Ordering::Release);
        std::thread::sleep(Duration::from_millis(50));
        drop(peer);
        // It dials again, and nobody answers: the lease decides.
        let peers: Vec<_> = (0..1).map(|_| server.greeted(false)).collect();
        std::thread::sleep(Duration::from_millis(1600));
        drop(peers);
    });
    let client = Client::builder().ttl(Duration::from_millis(1500)).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let outcome = client.lock("y").acquire();
    assert_eq!(outcome.unwrap_err().refusal(), Refusal::LeaseGuard);
    assert_eq!(guard.wait_lost(PATIENCE), Some(LostCause::Lease));
    drop(guard);
    drop(client);
    server.join().unwrap();
}
