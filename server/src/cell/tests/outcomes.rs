//! Each outcome of a dial, and that nothing that may pass is called a death.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use fairlock_replication::node::Dialed;

use super::*;

fn silent(outcome: &Dialed, words: &str) {
    assert!(matches!(outcome, Dialed::Silent(text) if text.contains(words)), "{outcome:?}");
}

fn rejected(outcome: &Dialed, words: &str) {
    assert!(matches!(outcome, Dialed::Rejected(text) if text.contains(words)), "{outcome:?}");
}

/// Somebody is there, and it may be the one that was wanted.
fn unproven(outcome: &Dialed, words: &str) {
    assert!(matches!(outcome, Dialed::Unproven(text) if text.contains(words)), "{outcome:?}");
}

/// What becomes of a probe of node `b`, life 2, by `caller` at a door of `answerer`.
fn probe(caller: &Introduction, answerer: Introduction) -> Dialed {
    let (door, _met) = door(answerer, PLENTY);
    dial(caller, &listed("b", 2, door.address()), true, PLENTY).0
}

fn follow(caller: &Introduction, answerer: Introduction) -> Dialed {
    let (door, _met) = door(answerer, PLENTY);
    dial(caller, &listed("b", 2, door.address()), false, PLENTY).0
}

#[test]
fn a_follower_has_a_stream_for_each_shard_in_their_order() {
    // More than are made at the same time.
    let shards = 40;
    let with = |node: Introduction| Introduction { shards, ..node };
    let (door, met) = door(with(node("b", 2)), PLENTY);
    let (outcome, streams) = dial(&with(node("a", 1)), &listed("b", 2, door.address()), false, PLENTY);
    assert_eq!((outcome, streams.len()), (Dialed::Up, usize::from(shards)));
    let callers: Vec<Caller> = (0..shards).map(|_| met.recv_timeout(PLENTY).unwrap()).collect();
    for (shard, stream) in (0..shards).zip(streams) {
        let caller = callers.iter().find(|caller| caller.purpose == Purpose::Follow { shard }).unwrap();
        assert_eq!(caller.member, node("a", 1).me);
        exchange(stream, caller.socket.try_clone().unwrap(), &shard.to_le_bytes());
    }
}

/// What one end writes the other reads, first of all, with nothing left of the introduction.
fn exchange(one: OwnedFd, other: OwnedFd, word: &[u8]) {
    let (mut one, mut other) = (TcpStream::from(one), TcpStream::from(other));
    for stream in [&one, &other] {
        assert!(stream.nodelay().unwrap());
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, None));
    }
    let mut read = vec![0; word.len()];
    one.write_all(word).unwrap();
    other.read_exact(&mut read).unwrap();
    assert_eq!(read, word);
    other.write_all(word).unwrap();
    one.read_exact(&mut read).unwrap();
    assert_eq!(read, word);
}

#[test]
fn a_probe_learns_that_the_listed_life_answers() {
    let (door, met) = door(node("b", 2), PLENTY);
    let (outcome, streams) = dial(&node("a", 1), &listed("b", 2, door.address()), true, PLENTY);
    assert_eq!((outcome, streams.len()), (Dialed::Alive, 0));
    assert_eq!(met.recv_timeout(PLENTY).unwrap().purpose, Purpose::Probe);
}

#[test]
fn another_life_says_who_it_is_and_takes_nobody_in() {
    let (door, met) = door(node("b", 3), PLENTY);
    for is_probe in [true, false] {
        let (outcome, streams) = dial(&node("a", 1), &listed("b", 2, door.address()), is_probe, PLENTY);
        assert_eq!((outcome, streams.len()), (Dialed::Other(node("b", 3).me), 0));
    }
    // That the wanted life is over matters more than how the new one is set up.
    let odd = Introduction { shards: 5, ..node("b", 3) };
    assert_eq!(probe(&node("a", 1), odd), Dialed::Other(node("b", 3).me));
    assert!(met.try_recv().is_err());
}

#[test]
fn without_secrets_nodes_meet_as_well() {
    let bare = |node: Introduction| Introduction { secret: None, ..node };
    assert_eq!(probe(&bare(node("a", 1)), bare(node("b", 2))), Dialed::Alive);
    assert_eq!(follow(&bare(node("a", 1)), bare(node("b", 2))), Dialed::Up);
    assert_eq!(probe(&bare(node("a", 1)), bare(node("b", 3))), Dialed::Other(node("b", 3).me));
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let (gone, address) = listener();
    drop(gone);
    for is_probe in [true, false] {
        assert_eq!(dial(&node("a", 1), &listed("b", 2, address), is_probe, PLENTY).0, Dialed::Refused);
    }
}

#[test]
fn a_reset_before_a_word_refuses() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(dial(&node("a", 1), &listed("b", 2, address), true, PLENTY).0, Dialed::Refused);
    server.join().unwrap();
}

#[test]
fn who_does_not_answer_is_silent_and_not_dead() {
    // The kernel takes the connection; nobody accepts it.
    let (_kept, address) = listener();
    silent(&dial(&node("a", 1), &listed("b", 2, address), true, DIAL_TIME).0, "1000 ms");
    silent(&dial(&node("a", 1), &listed("b", 2, address), false, LITTLE).0, "200 ms");
}

#[test]
fn who_hangs_up_within_the_introduction_is_silent_and_not_dead() {
    for said in [0, 12, 44] {
        let (listener, address) = listener();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut opening = [0; 44];
            socket.read_exact(&mut opening).unwrap();
            opening[43] ^= 1;
            socket.write_all(&opening[..said]).unwrap();
        });
        silent(&dial(&node("a", 1), &listed("b", 2, address), true, PLENTY).0, "ended");
        server.join().unwrap();
    }
}

#[test]
fn names_are_looked_up_and_an_unknown_one_is_silent() {
    let (door, _met) = door(node("b", 2), PLENTY);
    let mut wanted = listed("b", 2, door.address());
    wanted.peer = format!("localhost:{}", door.address().port());
    assert_eq!(dial(&node("a", 1), &wanted, true, PLENTY).0, Dialed::Alive);
    wanted.peer = "nobody.invalid:7413".to_owned();
    silent(&dial(&node("a", 1), &wanted, true, LITTLE).0, "nobody.invalid:7413");
}

#[test]
fn secrets_that_differ_are_named_as_the_reason() {
    let other = Introduction { secret: Some(secret(b"another secret of a cell")), ..node("b", 2) };
    unproven(&probe(&node("a", 1), other), "give every node of the cell the same --peer-secret");
    let none = Introduction { secret: None, ..node("b", 2) };
    unproven(&probe(&node("a", 1), none), "this node alone has a cell secret");
    let none = Introduction { secret: None, ..node("a", 1) };
    unproven(&probe(&none, node("b", 2)), "the other node alone has a cell secret");
    unproven(&follow(&none, node("b", 2)), "the other node alone has a cell secret");
}

#[test]
fn nodes_that_do_not_go_together_are_told_why() {
    let elsewhere = Introduction { cell: "test".to_owned(), ..node("b", 2) };
    rejected(&probe(&node("a", 1), elsewhere), "cell `prod`, who answers of cell `test`");
    let wider = Introduction { shards: 3, ..node("b", 2) };
    rejected(&follow(&node("a", 1), wider), "2 shards, who answers has 3: start both with the same --shards");
    rejected(&probe(&node("a", 1), node("a", 1)), "node `a` has called itself");
    rejected(&follow(&node("b", 7), node("b", 2)), "two nodes are called `b`");
    // A new life may look whether its old one still answers.
    assert_eq!(probe(&node("b", 7), node("b", 2)), Dialed::Alive);
    // Who took the address over says nothing about who had it.
    silent(&probe(&node("a", 1), node("c", 3)), "node `c` answers where `b` is listed");
}

#[test]
fn another_version_is_named_on_both_sides() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(b"FAIRPEER\x02\0 a much longer opening, as a later version may have").unwrap();
        // Until the caller has read it and left.
        let _ = socket.read_to_end(&mut Vec::new());
    });
    unproven(
        &dial(&node("a", 1), &listed("b", 2, address), true, PLENTY).0,
        "version 2 of the peer protocol, we 1",
    );
    server.join().unwrap();

    let (mut caller, accepted) = pair();
    caller.write_all(b"FAIRPEER\x07\0\0\0 and much that this version cannot read").unwrap();
    let answering = std::thread::spawn(move || answer(&node("b", 2), accepted, PLENTY));
    let mut heard = Vec::new();
    // An end and no reset, which could have overtaken the opening.
    caller.read_to_end(&mut heard).unwrap();
    assert_eq!((heard.len(), &heard[..12]), (44, &b"FAIRPEER\x01\0\x01\0"[..]));
    drop(caller);
    assert!(matches!(answering.join().unwrap(), Err(Trouble::Version { theirs: 7 })));
}
