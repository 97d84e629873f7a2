//! Who knows no secret: it is not believed, learns nothing, and costs a bounded time, whatever it says.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread::JoinHandle;

use fairlock_protocol::wire::Malformed;
use fairlock_replication::node::Dialed;

use super::super::introduction::Request;
use super::super::words::{Opening, Reply};
use super::*;

/// The four messages of an introduction, in their order.
type Talk = [Vec<u8>; 4];

/// A thread that answers as node `b`, life 2.
fn answering(socket: TcpStream, limit: Duration) -> JoinHandle<Result<Caller, Trouble>> {
    std::thread::spawn(move || answer(&node("b", 2), socket, limit))
}

/// One message off a stream: an opening, or a sentence with its length. What ends early is given as far as it came.
fn message(from: &mut TcpStream, number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut take = |bytes: &mut Vec<u8>, count: usize| {
        // A stream that is reset ends, too.
        let _ = from.take(count as u64).read_to_end(bytes);
    };
    if number < 2 {
        take(&mut bytes, 44);
        return bytes;
    }
    take(&mut bytes, 2);
    if let &[low, high] = bytes.as_slice() {
        take(&mut bytes, usize::from(u16::from_le_bytes([low, high])));
    }
    bytes
}

/// What becomes of a probe whose messages pass through somebody who changes them; and what the answering side says.
fn through(
    limit: Duration,
    change: impl FnMut(usize, &mut Vec<u8>),
) -> (Dialed, Result<Caller, Trouble>, Talk) {
    let (ear, address) = listener();
    let (far, accepted) = pair();
    let answering = answering(accepted, limit);
    let dialling = std::thread::spawn(move || dial(&node("a", 1), &listed("b", 2, address), true, limit).0);
    let (near, _) = ear.accept().unwrap();
    near.set_read_timeout(Some(PLENTY)).unwrap();
    let talk = relay(near, far, change);
    (dialling.join().unwrap(), answering.join().unwrap(), talk)
}

fn relay(mut near: TcpStream, mut far: TcpStream, mut change: impl FnMut(usize, &mut Vec<u8>)) -> Talk {
    std::array::from_fn(|number| {
        let (from, to) = if number % 2 == 0 { (&mut near, &mut far) } else { (&mut far, &mut near) };
        let mut said = message(from, number);
        change(number, &mut said);
        // Whoever has hung up meanwhile is told no more; who hung up within a message, ends it for the other as well.
        let _ = to.write_all(&said);
        if said.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
        }
        said
    })
}

/// A talk that went well, as somebody on the way has it.
fn overheard() -> Talk {
    let (outcome, caller, talk) = through(PLENTY, |_, _| {});
    assert_eq!((outcome, caller.unwrap().purpose), (Dialed::Alive, Purpose::Probe));
    talk
}

/// Numbers for mutations: the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[test]
fn what_a_caller_said_once_is_not_believed_again() {
    let [opening, _, sentence, _] = overheard();
    let (mut thief, accepted) = pair();
    let answering = answering(accepted, PLENTY);
    thief.write_all(&opening).unwrap();
    thief.write_all(&sentence).unwrap();
    let mut learnt = Vec::new();
    thief.read_to_end(&mut learnt).unwrap();
    drop(thief);
    assert!(matches!(answering.join().unwrap(), Err(Trouble::WrongProof)));
    // An opening, and that the proof was wrong: no name, no address, no number of a life.
    assert_eq!(learnt.len(), 44 + 3);
    assert_eq!(learnt[44..], [1, 0, 0]);
}

#[test]
fn what_an_answerer_said_once_is_not_believed_again() {
    let [_, opening, _, sentence] = overheard();
    let (ear, address) = listener();
    let thief = std::thread::spawn(move || {
        let (mut socket, _) = ear.accept().unwrap();
        message(&mut socket, 0);
        socket.write_all(&opening).unwrap();
        message(&mut socket, 2);
        socket.write_all(&sentence).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let (outcome, _) = dial(&node("a", 1), &listed("b", 2, address), true, PLENTY);
    assert!(matches!(&outcome, Dialed::Unproven(text) if text.contains("--peer-secret")), "{outcome:?}");
    thief.join().unwrap();
}

#[test]
fn a_callers_own_words_prove_nothing_to_it() {
    // Everything comes back; or all but the opening, which has random bytes of its own.
    for (own_opening, words) in [(false, "our own words"), (true, "--peer-secret")] {
        let (ear, address) = listener();
        let mirror = std::thread::spawn(move || {
            let (mut socket, _) = ear.accept().unwrap();
            let mut opening = message(&mut socket, 0);
            opening[43] ^= u8::from(own_opening);
            socket.write_all(&opening).unwrap();
            let sentence = message(&mut socket, 2);
            let _ = socket.write_all(&sentence);
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let (outcome, _) = dial(&node("a", 1), &listed("b", 2, address), true, PLENTY);
        let (Dialed::Silent(text) | Dialed::Rejected(text) | Dialed::Unproven(text)) = &outcome else {
            panic!("{outcome:?}")
        };
        assert!(text.contains(words), "{text}");
        mirror.join().unwrap();
    }
}

#[test]
fn a_node_whose_call_is_led_back_to_it_notices() {
    let (door, met) = door(node("a", 1), PLENTY);
    let (outcome, _) = dial(&node("a", 1), &listed("b", 2, door.address()), false, PLENTY);
    assert!(matches!(&outcome, Dialed::Rejected(text) if text.contains("called itself")), "{outcome:?}");
    door.close();
    assert!(met.recv_timeout(PLENTY).is_err());
}

#[test]
fn who_speaks_something_else_hears_nothing() {
    for garbage in [&b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"[..], &[0; 64], &[0xff; 5000]] {
        let (mut caller, accepted) = pair();
        let answering = answering(accepted, PLENTY);
        caller.write_all(garbage).unwrap();
        assert!(matches!(answering.join().unwrap(), Err(Trouble::NotAPeer)));
        let mut heard = Vec::new();
        // It may be a reset, because what was sent is left unread.
        let _ = caller.read_to_end(&mut heard);
        assert!(heard.is_empty());
    }
}

#[test]
fn an_opening_with_unknown_flags_is_refused() {
    let (mut caller, accepted) = pair();
    let mut opening = Opening { secret: true, busy: false, nonce: [7; 32] }.encode();
    opening[10] |= 4;
    caller.write_all(&opening).unwrap();
    let answered = answer(&node("b", 2), accepted, PLENTY);
    assert!(matches!(answered, Err(Trouble::Malformed(Malformed::Illegal("flags")))), "{answered:?}");
}

#[test]
fn who_drips_is_cut_off_at_the_limit_like_who_is_silent() {
    let opening = Opening { secret: true, busy: false, nonce: [7; 32] }.encode();
    for drips in [true, false] {
        let (mut caller, accepted) = pair();
        let answering = answering(accepted, LITTLE);
        // Each byte comes well within the limit; all of them do not.
        for byte in opening.iter().filter(|_| drips) {
            if caller.write_all(&[*byte]).is_err() || answering.is_finished() {
                break;
            }
            std::thread::sleep(LITTLE / 8);
        }
        assert!(matches!(answering.join().unwrap(), Err(Trouble::Late { limit: LITTLE })));
    }
}

#[test]
fn a_sentence_that_is_too_long_is_refused_by_its_length_alone() {
    let (mut caller, accepted) = pair();
    let answering = answering(accepted, PLENTY);
    caller.write_all(&Opening { secret: true, busy: false, nonce: [7; 32] }.encode()).unwrap();
    caller.write_all(&4097_u16.to_le_bytes()).unwrap();
    caller.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(answering.join().unwrap(), Err(Trouble::TooLong { claimed: 4097 })));
}

#[test]
fn who_hangs_up_anywhere_is_an_error_and_nothing_else() {
    let [opening, _, sentence, _] = overheard();
    let whole = [opening, sentence].concat();
    for cut in [0, 1, 11, 12, 43, 44, 45, 46, 47, whole.len() - 33, whole.len() - 1] {
        let (mut caller, accepted) = pair();
        let answering = answering(accepted, PLENTY);
        caller.write_all(&whole[..cut]).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let answered = answering.join().unwrap();
        assert!(matches!(answered, Err(Trouble::Ended)), "{cut}: {answered:?}");
    }
}

#[test]
fn whatever_is_changed_on_the_way_nobody_is_met_by_it() {
    let mut dice = Dice(1);
    for round in 0..150 {
        let (at, kind) = (dice.below(4), dice.below(4));
        let mut before = Vec::new();
        let (outcome, answered, talk) = through(LITTLE, |number, said| {
            if number != at || said.is_empty() {
                return;
            }
            before.clone_from(said);
            let place = dice.below(said.len());
            match kind {
                0 => said[place] = said[place].wrapping_add(1 + u8::try_from(dice.below(255)).unwrap()),
                1 => said.truncate(place),
                2 => said.insert(place, 0x5a),
                _ => said[place] ^= 1 << dice.below(8),
            }
        });
        // A byte more behind the last message is the next one's, and no part of the introduction.
        if talk[at].starts_with(&before) || before.is_empty() {
            continue;
        }
        assert!(
            matches!(outcome, Dialed::Silent(_) | Dialed::Rejected(_) | Dialed::Unproven(_)),
            "{round}: {outcome:?}"
        );
        assert!(at == 3 || answered.is_err(), "{round}: {answered:?}");
    }
}

#[test]
fn decoding_takes_only_what_encoding_makes() {
    let here = node("b", 2).presentation();
    let request = Request {
        caller: node("a", 1).presentation(),
        purpose: Purpose::Follow { shard: 1 },
        wanted: here.member.node.clone(),
        wanted_life: here.member.incarnation,
    };
    let (asked, told) = (request.encode(), Reply::Present(here).encode());
    assert_eq!(Request::decode(&asked).unwrap(), request);
    let (mut dice, mut refused) = (Dice(2), 0);
    for _ in 0..20_000 {
        for original in [&asked, &told] {
            let mut bytes = original.clone();
            for _ in 0..=dice.below(3) {
                let place = dice.below(bytes.len());
                bytes[place] = u8::try_from(dice.below(256)).unwrap();
            }
            bytes.truncate(if dice.below(4) == 0 { dice.below(bytes.len()) } else { bytes.len() });
            let again = [
                Request::decode(&bytes).ok().map(|request| request.encode()),
                Reply::decode(&bytes).ok().map(|reply| reply.encode()),
            ];
            refused += usize::from(again == [None, None]);
            assert!(again.into_iter().flatten().all(|again| again == bytes), "{bytes:?}");
        }
    }
    assert!(refused > 10_000, "only {refused} were refused");
}
