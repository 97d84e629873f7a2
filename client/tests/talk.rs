//! A client and a server that speaks by the book: what is asked, granted, refused, withdrawn, from threads and tasks.

mod fake;

use fairlock::{
    AcquireError, Client, ClientState, ConnectError, GuardError, GuardState, LostCause, Mode, Refusal,
};
use fairlock_protocol::reply::Grant;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{FencingToken, Reply};
use fake::{PATIENCE, Said, block_on, granted, refused, serve};
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn a_lock_is_acquired_checked_and_given_back() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let said: Vec<_> = peer.oblige_all().into_iter().map(|heard| (heard.id, heard.said)).collect();
        let acquire = Said::Acquire {
            name: b"orders/42".to_vec(),
            mode: Mode::EX,
            wait: fairlock_protocol::Wait::Forever,
        };
        assert_eq!(said, [(2, acquire), (3, Said::Release(1)), (4, Said::Close)]);
    });
    let client = Client::connect(&endpoint).unwrap();
    assert_eq!((client.state(), client.ttl()), (ClientState::Connected, Duration::from_secs(5)));
    let guard = client.lock("orders/42").acquire().unwrap();
    assert_eq!((guard.token().get(), guard.fence(), guard.mode()), (1001, 1000, Mode::EX));
    assert_eq!((guard.name(), guard.namespace()), (b"orders/42".as_slice(), "default"));
    assert_eq!((guard.check(), guard.state()), (Ok(()), GuardState::Valid));
    assert_eq!(guard.valid_for(Duration::from_millis(1)), Ok(()));
    let too_long = guard.valid_for(Duration::from_secs(5));
    assert!(
        matches!(too_long, Err(GuardError::TooShort { remaining }) if remaining < Duration::from_secs(5))
    );
    guard.release().unwrap();
    client.close();
    assert_eq!(client.state(), ClientState::Closed);
    assert!(matches!(client.lock("x").acquire(), Err(AcquireError::Closed)));
    server.join().unwrap();
}

#[test]
fn a_try_that_would_wait_is_refused_as_the_contract_says() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let heard = peer.listen().unwrap();
        assert!(matches!(heard.said, Said::Acquire { wait: fairlock_protocol::Wait::Try, .. }));
        peer.say(heard.id, FLAG_KEPT, &refused(Refusal::WouldBlock));
        for _ in 0..2 {
            let heard = peer.listen().unwrap();
            peer.say(heard.id, FLAG_KEPT, &refused(Refusal::AlreadyHeld));
        }
        peer.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    for _ in 0..2 {
        match client.lock("orders/42").try_acquire() {
            Err(AcquireError::Refused(Refusal::WouldBlock)) => {}
            other => panic!("{other:?}"),
        }
    }
    let named = client.lock("orders/42").owner(fairlock::OwnerId(1)).try_acquire();
    assert!(matches!(named, Err(AcquireError::Refused(Refusal::AlreadyHeld))), "{named:?}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn what_cannot_be_a_name_is_refused_without_asking() {
    let (endpoint, server) = serve(|server| {
        let said = server.opened(5000).oblige_all();
        assert_eq!(said.len(), 1, "CLOSE alone");
    });
    let client = Client::connect(&endpoint).unwrap();
    assert!(matches!(client.lock("").acquire(), Err(AcquireError::Refused(Refusal::BadName))));
    assert!(matches!(client.lock([0; 1025]).acquire(), Err(AcquireError::Refused(Refusal::TooLong))));
    let upper = client.lock("x").namespace("Upper");
    assert!(matches!(block_on(upper.acquire_async()), Err(AcquireError::Refused(Refusal::BadName))));
    client.close();
    server.join().unwrap();
}

#[test]
fn many_threads_share_one_connection_and_each_gets_its_own_answer() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let said = peer.oblige_all();
        assert_eq!(said.len(), 8 * 100 * 2 + 1);
        assert!(said.windows(2).all(|pair| pair[0].id < pair[1].id), "numbers rise on the wire");
        let last = said.last().unwrap();
        assert!(last.ack > 0, "kept replies are acknowledged");
    });
    let client = Client::connect(&endpoint).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..100 {
                    let name = format!("{thread}/{round}");
                    let guard = client.lock(&name).acquire().unwrap();
                    assert_eq!(guard.name(), name.as_bytes());
                    guard.check().unwrap();
                }
            });
        }
    });
    client.close();
    server.join().unwrap();
}

#[test]
fn a_thread_that_waits_long_keeps_no_other_thread_waiting() {
    let (asked, is_asked) = channel();
    let (endpoint, server) = serve(move |server| {
        let mut peer = server.opened(5000);
        let mut waiting = None;
        while let Some(heard) = peer.listen() {
            match &heard.said {
                Said::Acquire { name, .. } if name == b"long" => {
                    waiting = Some(heard.id);
                    asked.send(()).unwrap();
                }
                Said::Acquire { name, .. } if name == b"end" => {
                    peer.say(waiting.take().unwrap(), FLAG_KEPT | FLAG_RENEWED, &granted(900));
                    peer.oblige(&heard);
                }
                _ => peer.oblige(&heard),
            }
        }
    });
    let client = Client::connect(&endpoint).unwrap();
    std::thread::scope(|scope| {
        let long = scope.spawn(|| client.lock("long").acquire().unwrap().token().get());
        is_asked.recv_timeout(PATIENCE).unwrap();
        for round in 0..50 {
            drop(client.lock(format!("short/{round}")).acquire().unwrap());
            if round % 10 == 0 {
                // Long enough for the lane to change hands between thread and tender.
                std::thread::sleep(Duration::from_millis(15));
            }
        }
        drop(client.lock("end").acquire().unwrap());
        assert_eq!(long.join().unwrap(), 1900);
    });
    client.close();
    server.join().unwrap();
}

#[test]
fn futures_resolve_on_any_executor_and_a_dropped_one_withdraws_its_request() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let first = peer.listen().unwrap();
        let dropped = peer.listen().unwrap();
        peer.oblige(&first);
        let cancel = loop {
            let heard = peer.listen().unwrap();
            if matches!(heard.said, Said::Cancel(_)) {
                break heard;
            }
            peer.oblige(&heard);
        };
        assert_eq!(cancel.said, Said::Cancel(dropped.id));
        // The grant raced with the withdrawal: it comes back.
        peer.say(dropped.id, FLAG_KEPT | FLAG_RENEWED, &granted(77));
        peer.oblige(&cancel);
        let said = peer.oblige_all();
        assert!(said.iter().any(|heard| heard.said == Said::Release(77)), "{said:?}");
    });
    let client = Client::connect(&endpoint).unwrap();
    let first = client.lock("first").acquire_async();
    let second = client.lock("second").acquire_async();
    let guard = block_on(first).unwrap();
    drop(second);
    guard.release().unwrap();
    // Something later on the same stream, so that the raced grant has certainly been dealt with.
    drop(block_on(client.lock("third").acquire_async()).unwrap());
    client.close();
    server.join().unwrap();
}

#[test]
fn a_waiting_acquire_is_withdrawn_from_another_thread_at_once() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let waiting = peer.listen().unwrap();
        let cancel = peer.listen().unwrap();
        assert_eq!(cancel.said, Said::Cancel(waiting.id));
        peer.say(waiting.id, FLAG_KEPT, &refused(Refusal::Cancelled));
        peer.say(cancel.id, FLAG_KEPT, &Reply::Withdrawn { was_waiting: true });
        peer.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let request = client.lock("x");
    let canceller = request.canceller();
    let waiting = std::thread::spawn(move || request.acquire());
    std::thread::sleep(Duration::from_millis(30));
    canceller.cancel();
    assert!(matches!(waiting.join().unwrap(), Err(AcquireError::Refused(Refusal::Cancelled))));
    let request = client.lock("y");
    request.canceller().cancel();
    assert!(matches!(request.acquire(), Err(AcquireError::Refused(Refusal::Cancelled))), "before it began");
    drop(client);
    server.join().unwrap();
}

#[test]
fn closing_ends_every_wait_and_every_guard() {
    let (asked, is_asked) = channel();
    let (endpoint, server) = serve(move |server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        peer.listen().unwrap();
        asked.send(()).unwrap();
        let close = peer.listen().unwrap();
        assert_eq!(close.said, Said::Close);
        peer.oblige(&close);
        assert_eq!(peer.listen(), None, "and then it hangs up");
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("held").acquire().unwrap();
    let other = client.clone();
    let waiting = std::thread::spawn(move || other.lock("taken").acquire());
    is_asked.recv_timeout(PATIENCE).unwrap();
    client.close();
    assert!(matches!(waiting.join().unwrap(), Err(AcquireError::Closed)));
    assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Closed)));
    server.join().unwrap();
}

#[test]
fn a_conversion_changes_mode_and_token_or_leaves_both() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let held = peer.listen().unwrap();
        peer.oblige(&held);
        let refusal = peer.listen().unwrap();
        assert_eq!(refusal.said, Said::Convert(1, Mode::PR));
        peer.say(refusal.id, FLAG_KEPT, &refused(Refusal::Timeout));
        let converted = peer.listen().unwrap();
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        let grant = Grant { mode: Mode::PW, token: FencingToken::from_raw(5000), fence: 4999, ..grant };
        peer.say(converted.id, FLAG_KEPT | FLAG_RENEWED, &Reply::Converted(grant));
        peer.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let mut guard = client.lock("x").acquire().unwrap();
    let refused = guard.convert_wait(Mode::PR, Duration::from_millis(5));
    assert!(matches!(refused, Err(fairlock::ConvertError::Refused(Refusal::Timeout))), "{refused:?}");
    assert_eq!((guard.mode(), guard.token().get()), (Mode::EX, 1001));
    guard.convert(Mode::PW).unwrap();
    assert_eq!((guard.mode(), guard.token().get(), guard.fence()), (Mode::PW, 5000, 4999));
    drop(guard);
    client.close();
    server.join().unwrap();
}

#[test]
fn what_does_not_speak_the_protocol_is_told_from_what_is_not_there() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.accept();
        std::io::Write::write_all(&mut peer.stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        peer.hear();
    });
    let error = Client::connect(&endpoint).unwrap_err();
    assert!(matches!(error, ConnectError::NotFairlock { .. }), "{error:?}");
    server.join().unwrap();
    // The listener is gone now.
    let error = Client::connect(&endpoint).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_no_server(), "{error:?}");
    assert!(error.to_string().contains("fairlock serve"));
}

#[test]
fn a_server_of_another_version_or_one_that_hangs_up_is_reported_as_that() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.accept();
        peer.hear();
        peer.say(0, 0, &refused(Refusal::Version));
        drop(peer);
        drop(server.accept());
    });
    let error = Client::connect(&endpoint).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Version));
    let error = Client::connect(&endpoint).unwrap_err();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error:?}");
    server.join().unwrap();
}

#[test]
fn of_several_members_the_one_that_answers_is_taken() {
    let absent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (endpoint, server) = serve(|server| {
        server.opened(5000).oblige_all();
    });
    let client = Client::connect(format!("tcp://{absent},{endpoint}")).unwrap();
    drop(client.lock("x").acquire().unwrap());
    client.close();
    server.join().unwrap();
}

#[test]
fn a_silent_server_is_given_up_after_the_deadline() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.accept();
        peer.hear();
        assert_eq!(peer.hear(), None);
    });
    let error = Client::builder().deadline(Duration::from_millis(50)).connect(&endpoint).unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    server.join().unwrap();
}

#[test]
fn notices_reach_the_programs_callback() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let heard = peer.listen().unwrap();
        peer.oblige(&heard);
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        peer.say(0, 0, &Reply::Blocking { grant: grant.grant, wanted: Mode::PR, waiters: 3 });
        peer.oblige_all();
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let callback = move |notice| sender.send(notice).unwrap_or(());
    let client = Client::builder().on_notice(callback).connect(&endpoint).unwrap();
    let guard = client.lock("x").notify(true).acquire().unwrap();
    let notice = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(notice, fairlock::Notice::Blocking { grant: guard.grant_id(), wanted: Mode::PR, waiters: 3 });
    guard.release().unwrap();
    client.close();
    server.join().unwrap();
}
