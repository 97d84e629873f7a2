//! Several locks at once, against a server that speaks by the book: the shards are climbed in order, and whatever goes
//! wrong on the way, nothing stays held.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;

use fairlock::{AcquireError, Client, Mode, Refusal};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Reply, Resource, Wait};
use fake::{KEY, PATIENCE, Peer, Said, Server, block_on, granted, refused, serve, welcome};
use std::future::Future;
use std::net::TcpStream;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

/// Two names of each of two shards, those of the higher shard first and none in canonical order.
fn names() -> [String; 4] {
    let of = |shard: u16| {
        let mut names = (0..10_000_u32)
            .rev()
            .map(|number| format!("name/{number:05}"))
            .filter(move |name| KEY.digest(Resource::new(b"", name.as_bytes()).unwrap()).shard(2).0 == shard);
        [(); 2].map(|()| names.next().unwrap())
    };
    let ([a, b], [c, d]) = (of(1), of(0));
    [a, b, c, d]
}

fn exclusive(names: &[String]) -> Vec<(&str, Mode)> {
    names.iter().map(|name| (name.as_str(), Mode::EX)).collect()
}

/// What is asked of a shard: its names in canonical order.
fn share(names: &[String], wait: Wait) -> Said {
    let mut names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    names.sort();
    Said::AcquireAll { names, wait }
}

/// The connection to the second shard, which is made when it is needed.
fn second(server: &Server) -> Peer<TcpStream> {
    let mut peer = server.accept();
    assert_eq!(peer.hear().unwrap().said, Said::Hello { shard: 1, epoch: 5 });
    peer.say(0, 0, &Reply::Welcome(welcome(1, 2)));
    let resume = peer.hear().unwrap();
    peer.say(resume.id, 0, &Reply::Resumed { ttl_ms: 5000, seen: 0, following: 0 });
    peer
}

#[test]
fn each_shard_is_asked_once_the_lower_first_and_the_guards_stand_as_they_were_named() {
    let names = names();
    let (endpoint, server) = serve({
        let names = names.clone();
        move |server| {
            let mut home = server.accept();
            home.open(5000, 2);
            let low = home.listen().unwrap();
            assert_eq!(low.said, share(&names[2..], Wait::Forever));
            home.oblige(&low);
            let mut other = second(&server);
            let high = other.listen().unwrap();
            assert_eq!(high.said, share(&names[..2], Wait::Forever));
            other.oblige(&high);
            home.oblige_all();
        }
    });
    let client = Client::connect(&endpoint).unwrap();
    let guards = client.lock_all(exclusive(&names)).acquire().unwrap();
    assert!(guards.iter().map(fairlock::Guard::name).eq(names.iter().map(String::as_bytes)));
    client.close();
    server.join().unwrap();
}

#[test]
fn what_lower_shards_gave_goes_back_when_a_higher_one_refuses() {
    let names = names();
    let (endpoint, server) = serve(|server| {
        let mut home = server.accept();
        home.open(5000, 2);
        let low = home.listen().unwrap();
        home.oblige(&low);
        let mut other = second(&server);
        let high = other.listen().unwrap();
        assert!(matches!(high.said, Said::AcquireAll { wait: Wait::Try, .. }));
        other.say(high.id, 0, &refused(Refusal::WouldBlock));
        let said: Vec<Said> = home.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said.len(), 3);
        assert!(said.contains(&Said::Release(1)) && said.contains(&Said::Release(2)), "{said:?}");
    });
    let client = Client::connect(&endpoint).unwrap();
    let outcome = client.lock_all(exclusive(&names)).try_acquire();
    assert!(matches!(outcome, Err(AcquireError::Refused(Refusal::WouldBlock))), "{outcome:?}");
    client.close();
    server.join().unwrap();
}

#[test]
fn a_future_dropped_on_its_way_withdraws_and_gives_back() {
    let names = names();
    let (tell, told) = std::sync::mpsc::channel();
    let (endpoint, server) = serve(move |server| {
        let mut home = server.accept();
        home.open(5000, 2);
        let low = home.listen().unwrap();
        home.oblige(&low);
        let mut other = second(&server);
        let high = other.listen().unwrap();
        tell.send(()).unwrap();
        assert_eq!(other.listen().unwrap().said, Said::Cancel(high.id));
        // The grants were on their way already.
        other.oblige(&high);
        let said: Vec<Said> = [other.listen(), other.listen()].map(|heard| heard.unwrap().said).into();
        assert!(said.contains(&Said::Release(1)) && said.contains(&Said::Release(2)), "{said:?}");
        tell.send(()).unwrap();
        let said: Vec<Said> = home.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert!(said.contains(&Said::Release(1)) && said.contains(&Said::Release(2)), "{said:?}");
    });
    let client = Client::connect(&endpoint).unwrap();
    {
        let mut acquiring = pin!(client.lock_all(exclusive(&names)).acquire_async());
        let asked = || told.recv_timeout(Duration::from_millis(5)).is_ok();
        while !asked() {
            let mut context = Context::from_waker(Waker::noop());
            assert!(acquiring.as_mut().poll(&mut context).is_pending());
        }
    }
    told.recv_timeout(PATIENCE).unwrap();
    client.close();
    server.join().unwrap();
}

#[test]
fn several_grants_broken_off_in_the_middle_are_told_once_the_rest_has_come() {
    let names = ["a".to_owned(), "b".to_owned()];
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let asked = peer.listen().unwrap();
        peer.say(asked.id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
        drop(peer);
        let mut peer = server.resumed(1);
        peer.say(asked.id, FLAG_KEPT | FLAG_RENEWED, &granted(2));
        let said: Vec<Said> = peer.oblige_all().into_iter().map(|heard| heard.said).collect();
        assert_eq!(said.len(), 3, "both go back, and the end: {said:?}");
    });
    let client = Client::connect(&endpoint).unwrap();
    let guards = block_on(client.lock_all(exclusive(&names)).acquire_async()).unwrap();
    assert_eq!(guards.iter().map(|guard| guard.token().get()).collect::<Vec<_>>(), [1001, 1002]);
    drop(guards);
    client.close();
    server.join().unwrap();
}

#[test]
fn after_a_lost_session_several_are_asked_of_a_new_one() {
    let names = ["a".to_owned(), "b".to_owned()];
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(5000);
        let asked = peer.listen().unwrap();
        peer.say(asked.id, 0, &refused(Refusal::SessionExpired));
        drop(peer);
        server.opened(5000).oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let lost = client.lock_all(exclusive(&names)).acquire();
    assert!(matches!(lost, Err(AcquireError::Lost(_))), "{lost:?}");
    assert_eq!(client.lock_all(exclusive(&names)).acquire().unwrap().len(), 2);
    client.close();
    server.join().unwrap();
}

#[test]
fn what_cannot_be_asked_together_is_refused_without_asking() {
    let (endpoint, server) = serve(|server| {
        assert_eq!(server.opened(5000).oblige_all().len(), 1, "CLOSE alone");
    });
    let client = Client::connect(&endpoint).unwrap();
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let long: Vec<String> = (0..100).map(|number| format!("{number:01000}")).collect();
    let twice = ["a".to_owned(), "a".to_owned()];
    for (names, refusal) in [
        (&[][..], Refusal::BadRequest),
        (&many[..], Refusal::BadRequest),
        (&twice[..], Refusal::BadRequest),
        (&long[..], Refusal::TooLong),
        (&[String::new()][..], Refusal::BadName),
    ] {
        match client.lock_all(exclusive(names)).acquire() {
            Err(AcquireError::Refused(refused)) => assert_eq!(refused, refusal),
            other => panic!("{other:?}"),
        }
    }
    client.close();
    server.join().unwrap();
}
