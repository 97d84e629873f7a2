//! A cell of several nodes: the client follows the primary wherever it is, with everything it holds and has asked for.
//! Order and state are asserted, never how long anything took.
#![allow(clippy::unwrap_used, reason = "a surprise fails the test")]

mod fake;

use fairlock::{AcquireError, Client, ClientState, ConnectError, GuardError, LostCause, Transport};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Reply, RequestId, Role, Whereabouts};
use fake::memory::serve_memory;
use fake::{Heard, PATIENCE, Peer, Said, Server, eventually, granted, listen, not_primary, welcome_as};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

fn members<S: Read + Write>(peer: &mut Peer<S>, epoch: u32, endpoints: &str) {
    peer.say(0, 0, &Reply::Members(Whereabouts { epoch, endpoints }));
}

/// Takes a session up that asks for it next on this connection.
fn resume<S: Read + Write>(peer: &mut Peer<S>, ttl_ms: u32, following: u32) -> Heard {
    let resume = peer.hear().unwrap();
    assert!(matches!(resume.said, Said::Resume { .. }), "{resume:?}");
    peer.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms, seen: 0, following });
    resume
}

/// A node that refuses to be the primary on every connection, until the client is gone.
fn backup(server: Server, epoch: u32, hint: String, over: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn(move || {
        let mut peer = server.greeted_as(Role::Backup, epoch);
        while let Some(heard) = peer.hear() {
            peer.say(heard.id, 0, &not_primary(epoch, &hint));
        }
        over();
    })
}

#[test]
fn a_client_that_knows_only_a_backup_is_led_to_the_primary() {
    let ((backup, knows), (primary, is)) = (listen(), listen());
    let hint = is.clone();
    let (stands, is_there) = channel();
    let first = spawn(move || {
        let mut peer = backup.greeted_as(Role::Backup, 5);
        let open = peer.hear().unwrap();
        assert!(matches!(open.said, Said::Open { .. }));
        peer.say(open.id, 0, &not_primary(5, &hint));
        // Once the session is open elsewhere, this node is one to stand by at.
        let mut standby = backup.greeted_as(Role::Backup, 5);
        assert!(standby.stands_by);
        stands.send(()).unwrap();
        assert_eq!(standby.hear(), None);
    });
    let second = spawn(move || drop(primary.opened_as_primary(5000).oblige_all()));
    let client = Client::connect(&knows).unwrap();
    assert_eq!((client.node(), client.members()), (is.clone(), vec![knows, is]));
    client.lock("x").acquire().unwrap().release().unwrap();
    is_there.recv_timeout(PATIENCE).unwrap();
    client.close();
    second.join().unwrap();
    first.join().unwrap();
}

#[test]
fn an_error_names_every_node_that_was_tried() {
    let ((one, first), (other, second)) = (listen(), listen());
    drop((one, other));
    let error = Client::connect(format!("{first},{second}")).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_no_server());
    let text = error.to_string();
    assert!(text.contains(&first) && text.contains(&second), "{text}");
}

/// G48: with one outcome for each request.
#[test]
fn when_the_primary_dies_the_one_that_takes_over_is_found_and_nothing_is_said_or_answered_twice() {
    let ((a, at_a), (b, at_b), (c, at_c)) = (listen(), listen(), listen());
    let (all, hint) = (format!("{at_a},{at_b},{at_c}"), at_c.clone());
    let (asked, was_asked) = channel();
    let (in_order, goes_on) = channel();
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        let answered = peer.listen().unwrap();
        in_order.send(()).unwrap();
        let waiting = peer.listen().unwrap();
        asked.send((answered, waiting)).unwrap();
        // The listener goes as well: nobody answers there any more.
    });
    let wrong = backup(b, 6, hint, || {});
    let third = spawn(move || {
        let mut peer = c.greeted_as(Role::Primary, 6);
        let (answered, waiting) = was_asked.recv_timeout(PATIENCE).unwrap();
        let said = resume(&mut peer, 20_000, 1);
        assert_eq!(said.said, Said::Resume { received: 1 });
        peer.say(answered.id, FLAG_KEPT, &granted(60));
        let again = peer.listen().unwrap();
        assert_eq!((again.id, &again.said, again.ack), (waiting.id, &waiting.said, 2));
        peer.say(again.id, FLAG_KEPT | FLAG_RENEWED, &granted(61));
        peer.oblige_all()
    });
    let client = Client::connect(&all).unwrap();
    let held = client.lock("held").acquire().unwrap();
    let other = client.clone();
    let answered = spawn(move || other.lock("1").acquire().unwrap().token().get());
    // Asked in this order, so that the numbers tell which is which.
    goes_on.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.lock("2").acquire().unwrap().token().get(), 1061);
    assert_eq!(answered.join().unwrap(), 1060);
    held.check().unwrap();
    eventually(|| client.node() == at_c && client.state() == ClientState::Connected);
    held.release().unwrap();
    client.close();
    first.join().unwrap();
    let said: Vec<_> = third.join().unwrap().into_iter().map(|heard| heard.said).collect();
    assert!(!said.iter().any(|said| matches!(said, Said::Acquire { .. })), "{said:?}");
    wrong.join().unwrap();
}

/// The primary dies; the one node that stands by answers RESUME so much later.
fn one_takes_over(answers_after: Duration) {
    let ((a, at_a), (b, at_b)) = (listen(), listen());
    let (stands, is_there) = channel();
    let all = format!("{at_a},{at_b}");
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        members(&mut peer, 5, &all);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        is_there.recv_timeout(PATIENCE).unwrap();
    });
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Backup, 5);
        assert!(peer.stands_by);
        stands.send(()).unwrap();
        // Not a word until it is needed, and then no other first word: one round trip.
        let resume = peer.hear().unwrap();
        assert!(matches!(resume.said, Said::Resume { .. }), "{resume:?}");
        std::thread::sleep(answers_after);
        peer.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms: 20_000, seen: 0, following: 0 });
        members(&mut peer, 6, "");
        let said: Vec<_> = peer.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said, [Said::Release(1), Said::Close]);
        assert!(!b.has_caller(), "one connection was enough");
    });
    let client = Client::connect(&at_a).unwrap();
    let held = client.lock("held").acquire().unwrap();
    eventually(|| client.node() == at_b && client.state() == ClientState::Connected);
    held.release().unwrap();
    client.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_node_that_stands_by_is_asked_for_the_session_at_once() {
    one_takes_over(Duration::ZERO);
}

/// Longer than one of several would be waited for.
#[test]
fn a_node_that_takes_its_time_is_not_left_while_there_is_no_other_to_ask() {
    one_takes_over(Duration::from_millis(200));
}

/// A primary far away, and a follower beside the client.
#[test]
fn a_node_that_is_slower_than_others_are_to_refuse_is_waited_for_in_the_end() {
    let ((a, at_a), (b, at_b), (c, at_c)) = (listen(), listen(), listen());
    let all = format!("{at_a},{at_b},{at_c}");
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
    });
    let quick = backup(b, 6, at_c.clone(), || {});
    let slow = spawn(move || {
        loop {
            let mut peer = c.accept();
            if peer.hear().is_none() {
                continue;
            }
            peer.say(0, 0, &Reply::Welcome(welcome_as(Role::Primary, 6, peer.stands_by)));
            let Some(resume) = peer.hear() else { continue };
            assert!(matches!(resume.said, Said::Resume { .. }), "{resume:?}");
            std::thread::sleep(Duration::from_millis(120));
            peer.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms: 20_000, seen: 0, following: 0 });
            if let Some(next) = peer.listen() {
                assert_eq!(next.said, Said::Release(1));
                peer.oblige(&next);
                peer.oblige_all();
                return;
            }
        }
    });
    let client = Client::connect(&all).unwrap();
    let held = client.lock("held").acquire().unwrap();
    eventually(|| client.node() == at_c && client.state() == ClientState::Connected);
    held.release().unwrap();
    client.close();
    for thread in [first, quick, slow] {
        thread.join().unwrap();
    }
}

#[test]
fn a_request_that_is_refused_by_a_node_that_stepped_down_is_said_again_at_the_primary() {
    let ((a, at_a), (b, at_b)) = (listen(), listen());
    let hint = at_b.clone();
    let (asked, was_asked) = channel();
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        let request = peer.listen().unwrap();
        peer.say(request.id, 0, &not_primary(6, &hint));
        asked.send(request).unwrap();
        assert_eq!(peer.listen(), None, "nothing more is said here");
        // It stays in the cell; whoever connects is told so.
        let mut peer = a.greeted_as(Role::Backup, 6);
        while peer.hear().is_some() {}
    });
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Primary, 6);
        resume(&mut peer, 20_000, 0);
        let (again, request) = (peer.listen().unwrap(), was_asked.recv_timeout(PATIENCE).unwrap());
        assert_eq!((again.id, &again.said), (request.id, &request.said));
        peer.oblige(&again);
        peer.oblige_all();
    });
    let client = Client::connect(&at_a).unwrap();
    let guard = client.lock("x").try_acquire().unwrap();
    assert_eq!(client.node(), at_b);
    drop(guard);
    client.close();
    second.join().unwrap();
    first.join().unwrap();
}

#[test]
fn a_hint_that_leads_nowhere_costs_nothing() {
    let ((a, at_a), (b, at_b), (stranger, at_stranger)) = (listen(), listen(), listen());
    let strange = spawn(move || {
        // A server of another cell.
        let mut peer = stranger.accept();
        peer.hear();
        let other = fairlock_protocol::Welcome {
            cell: fairlock_protocol::CellId(78),
            ..welcome_as(Role::Primary, 9, true)
        };
        peer.say(0, 0, &Reply::Welcome(other));
        assert_eq!(peer.hear(), None, "the session is not shown to a stranger");
    });
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        // At once: the first that is read ends the talk.
        let mut hints = Vec::new();
        for hint in ["", "nonsense", "tcp://:0", "unix:/nowhere,tls://x:1", &at_stranger] {
            not_primary(6, hint).encode(RequestId::NOTICE, 0, &mut hints);
        }
        peer.stream.write_all(&hints).unwrap();
        drop((peer, a));
    });
    let second = spawn(move || {
        first.join().unwrap();
        // Only now, so that the stranger is asked.
        strange.join().unwrap();
        let mut peer = b.greeted_as(Role::Primary, 6);
        resume(&mut peer, 20_000, 0);
        peer.oblige_all();
    });
    let client = Client::connect(format!("{at_a},{at_b}")).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    eventually(|| client.node() == at_b && client.state() == ClientState::Connected);
    guard.release().unwrap();
    client.close();
    second.join().unwrap();
}

#[test]
fn guards_end_at_their_deadline_when_no_node_takes_over_and_stay_lost() {
    let ((a, at_a), (b, at_b)) = (listen(), listen());
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(1500);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
    });
    let (lost, is_lost) = channel();
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Backup, 5);
        let mut tries = 0;
        while let Some(heard) = peer.hear() {
            assert!(matches!(heard.said, Said::Resume { .. }), "{heard:?}");
            tries += 1;
            peer.say(heard.id, 0, &not_primary(5, ""));
        }
        assert!(tries > 1, "asked again until the deadline");
        assert!(tries < 1000, "{tries}: with a pause between");
        is_lost.recv_timeout(PATIENCE).unwrap();
        // It takes over too late: what was held is lost, and another session begins.
        let mut peer = loop {
            // Some that looked for the first session may stand before the door, gone or not.
            let mut peer = b.accept();
            if peer.hear().is_none() || peer.stands_by {
                continue;
            }
            peer.say(0, 0, &Reply::Welcome(welcome_as(Role::Primary, 6, false)));
            if let Some(open) = peer.hear() {
                peer.opens(&open, 5000);
                break peer;
            }
        };
        peer.oblige_all();
    });
    let client = Client::connect(format!("{at_a},{at_b}")).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let waited = client.lock("y").acquire();
    assert!(matches!(waited, Err(AcquireError::Lost(LostCause::Lease))), "{waited:?}");
    assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Lease)));
    lost.send(()).unwrap();
    let again = client.lock("x").acquire().unwrap();
    assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Lease)));
    drop((guard, again));
    client.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_cell_of_one_node_costs_one_connection() {
    let (a, at_a) = listen();
    let itself = at_a.clone();
    let server = spawn(move || {
        let mut peer = a.opened_as_primary(5000);
        members(&mut peer, 5, &itself);
        peer.oblige_all();
        assert!(!a.has_caller(), "there is nobody to stand by at");
    });
    let client = Client::connect(&at_a).unwrap();
    for _ in 0..3 {
        client.lock("x").acquire().unwrap().release().unwrap();
    }
    assert_eq!(client.members(), [at_a]);
    client.close();
    server.join().unwrap();
}

/// G48: and the end that the former node shows of it means nothing any more.
#[test]
fn a_session_through_memory_goes_on_at_another_node_by_messages_and_renewals() {
    let (b, at_b) = listen();
    let (there, is_there) = channel();
    let told = at_b.clone();
    let (endpoint, first) = serve_memory(move |server| {
        let mut peer = server.attached();
        peer.say(0, 0, &Reply::Welcome(welcome_as(Role::Primary, 5, false)));
        peer.opened(1500);
        members(&mut peer, 5, &told);
        let held = peer.listen().unwrap();
        peer.leave_with(held.id, 1, 1);
        let free = peer.listen().unwrap();
        peer.leave_with(free.id, 2, 1);
        is_there.recv_timeout(PATIENCE).unwrap();
        let segment = std::sync::Arc::clone(&peer.stream.segment);
        drop(peer);
        // What a node that is no part of the cell any more thinks of the session.
        is_there.recv_timeout(PATIENCE).unwrap();
        segment.status().end();
        // Its door is still there: the client asks, not for memory, and learns that it is no primary.
        while let Ok(()) = is_there.recv_timeout(PATIENCE) {}
    });
    let (go_on, may_go_on) = channel();
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Backup, 5);
        assert!(peer.stands_by);
        may_go_on.recv_timeout(PATIENCE).unwrap();
        there.send(()).unwrap();
        resume(&mut peer, 1500, 0);
        let (mut beats, mut said) = (0, Vec::new());
        let released = peer.listen().unwrap();
        peer.oblige(&released);
        said.push(released.said);
        // By now the client knows that it was taken up here.
        there.send(()).unwrap();
        while let Some(heard) = peer.hear() {
            peer.oblige(&heard);
            match heard.said {
                Said::Keepalive => beats += 1,
                other => said.push(other),
            }
        }
        drop(there);
        assert!(beats > 2, "{beats}");
        said
    });
    let client = Client::builder().ttl(Duration::from_millis(1500)).connect(&endpoint).unwrap();
    assert_eq!(client.transport(), Transport::Shm);
    let held = client.lock("held").acquire().unwrap();
    client.lock("free").acquire().unwrap().release().unwrap();
    go_on.send(()).unwrap();
    eventually(|| client.node() == at_b && client.state() == ClientState::Connected);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        held.check().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.transport(), Transport::Tcp);
    held.release().unwrap();
    client.close();
    let said = second.join().unwrap();
    assert_eq!(said, [Said::Release(2), Said::Release(1), Said::Close], "by message, what was in a word");
    first.join().unwrap();
}

#[test]
fn a_node_that_does_not_answer_holds_nobody_up() {
    let ((a, at_a), (b, at_b), (c, at_c)) = (listen(), listen(), listen());
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(20_000);
        members(&mut peer, 5, "");
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        drop((peer, a));
    });
    let (over, is_over) = channel();
    let silent = spawn(move || {
        // It says that it is the primary, and then nothing.
        let peer: Vec<Peer<TcpStream>> = vec![b.greeted_as(Role::Primary, 6)];
        is_over.recv_timeout(PATIENCE).unwrap();
        drop((peer, b));
    });
    let third = spawn(move || {
        let mut peer = c.greeted_as(Role::Backup, 6);
        resume(&mut peer, 20_000, 0);
        peer.oblige_all();
    });
    let client = Client::connect(format!("{at_a},{at_b},{at_c}")).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    eventually(|| client.node() == at_c && client.state() == ClientState::Connected);
    guard.check().unwrap();
    drop(guard);
    client.close();
    over.send(()).unwrap();
    for thread in [first, silent, third] {
        thread.join().unwrap();
    }
}

#[test]
fn a_server_that_stands_still_is_left_when_the_cell_has_gone_on_without_it() {
    let (b, at_b) = listen();
    // It names itself first, by an address where nobody listens to this client.
    let told = format!("tcp://127.0.0.1:1,{at_b}");
    let (over, is_over) = channel();
    let (silent, is_silent) = channel();
    let (endpoint, first) = serve_memory(move |server| {
        let mut peer = server.attached();
        peer.say(0, 0, &Reply::Welcome(welcome_as(Role::Primary, 5, false)));
        peer.opened(2000);
        members(&mut peer, 5, &told);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        // Neither a stamp nor a word from here on.
        server.runs.store(false, std::sync::atomic::Ordering::Release);
        silent.send(()).unwrap();
        is_over.recv_timeout(PATIENCE).unwrap();
    });
    let itself = at_b.clone();
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Backup, 5);
        is_silent.recv_timeout(PATIENCE).unwrap();
        members(&mut peer, 6, &itself);
        resume(&mut peer, 2000, 0);
        peer.oblige_all();
    });
    let client = Client::builder().ttl(Duration::from_secs(2)).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    eventually(|| client.node() == at_b && client.state() == ClientState::Connected);
    guard.check().unwrap();
    guard.release().unwrap();
    client.close();
    second.join().unwrap();
    over.send(()).unwrap();
    first.join().unwrap();
}

/// Its own lease would let the client wait for half a minute before it looks elsewhere.
#[test]
fn a_silent_primary_is_left_as_soon_as_another_says_that_it_has_taken_over() {
    let ((a, at_a), (b, at_b)) = (listen(), listen());
    let (endpoint, told) = (format!("{at_a},{at_b}"), at_b.clone());
    let (over, is_over) = channel();
    let (silent, is_silent) = channel();
    let first = spawn(move || {
        let mut peer = a.opened_as_primary(60_000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        silent.send(()).unwrap();
        // It reads and says nothing more.
        is_over.recv_timeout(PATIENCE).unwrap();
    });
    let second = spawn(move || {
        let mut peer = b.greeted_as(Role::Backup, 5);
        is_silent.recv_timeout(PATIENCE).unwrap();
        members(&mut peer, 6, &told);
        resume(&mut peer, 60_000, 0);
        members(&mut peer, 6, &told);
        // Nothing is taken elsewhere again: it is said on the same connection.
        peer.oblige_all();
    });
    let client = Client::builder().ttl(Duration::from_mins(1)).connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    eventually(|| client.node() == at_b && client.state() == ClientState::Connected);
    guard.check().unwrap();
    guard.release().unwrap();
    client.close();
    second.join().unwrap();
    over.send(()).unwrap();
    first.join().unwrap();
}
