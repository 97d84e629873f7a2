//! The ring under every order in which its two sides may see each other's stores, on a ring of two slots, so that the
//! third message waits for room and uses the first slot again. Then with each of its orders weakened in turn: that
//! every weakening is found shows that the model looks where it should.
//!
//! One mutant is not here: a position given back by a Relaxed store. Loom never lets a load see a store that comes
//! after it, so a copy that is overtaken so cannot be shown.

use super::*;
use loom::sync::Arc;
use loom::thread;

/// Messages that leave traces in the head and, some of them, in the body; two laps and a half.
const MESSAGES: [&[u8]; 5] = [b"one.", b"two.two.", b"thr.thr.", b"four", b"five"];

/// How the writer and the reader of a run behave.
#[derive(Clone, Copy)]
struct Sides {
    send: fn(&mut Sender, &Ring<2>, &[u8]) -> usize,
    receive: fn(&mut Receiver, &Ring<2>) -> Option<Vec<u8>>,
}

const SOUND: Sides = Sides { send: send_well, receive: receive_well };

fn send_well(sender: &mut Sender, ring: &Ring<2>, bytes: &[u8]) -> usize {
    sender.send(ring, bytes).expect("the reader is honest")
}

fn receive_well(receiver: &mut Receiver, ring: &Ring<2>) -> Option<Vec<u8>> {
    let piece = receiver.receive(ring).expect("the writer is honest")?;
    receiver.give_back(ring);
    Some(piece.bytes().to_vec())
}

/// The writer sends what there is room for, while the reader looks as often as there are messages; what is left is
/// taken at the end. Nothing waits, so every run ends.
fn carries_whole_messages_in_order(sides: Sides) {
    loom::model(move || {
        let ring = Arc::new(Ring::<2>::default());
        let theirs = Arc::clone(&ring);
        let writer = thread::spawn(move || {
            let mut sender = Sender::default();
            MESSAGES.iter().take_while(|message| (sides.send)(&mut sender, &theirs, message) > 0).count()
        });
        let (mut receiver, mut arrived) = (Receiver::default(), Vec::new());
        for _ in 0..MESSAGES.len() {
            arrived.extend((sides.receive)(&mut receiver, &ring));
        }
        let sent = writer.join().expect("the writer ends");
        while let Some(message) = (sides.receive)(&mut receiver, &ring) {
            arrived.push(message);
        }
        assert!(sent >= 2, "two slots are free from the start");
        assert_eq!(arrived, MESSAGES[..sent], "messages are lost, torn or out of order");
    });
}

#[test]
fn messages_arrive_in_order_and_whole() {
    carries_whole_messages_in_order(SOUND);
}

#[test]
fn a_message_of_several_slots_arrives_whole_though_the_ring_is_smaller() {
    loom::model(|| {
        const LONG: [u8; 130] = [7; 130];
        let ring = Arc::new(Ring::<2>::default());
        let theirs = Arc::clone(&ring);
        let writer = thread::spawn(move || {
            let mut sender = Sender::default();
            let sent = send_well(&mut sender, &theirs, &LONG);
            sent + send_well(&mut sender, &theirs, &LONG[sent..])
        });
        let (mut receiver, mut arrived) = (Receiver::default(), 0);
        let mut look = |receiver: &mut Receiver| {
            let Some(bytes) = receive_well(receiver, &ring) else { return false };
            assert_eq!(bytes, LONG[..bytes.len()]);
            arrived += bytes.len();
            true
        };
        look(&mut receiver);
        look(&mut receiver);
        let sent = writer.join().expect("the writer ends");
        while look(&mut receiver) {}
        assert_eq!(arrived, sent);
    });
}

#[test]
fn whoever_is_ready_receives() {
    loom::model(|| {
        let ring = Arc::new(Ring::<2>::default());
        let theirs = Arc::clone(&ring);
        let writer = thread::spawn(move || send_well(&mut Sender::default(), &theirs, MESSAGES[1]));
        let mut receiver = Receiver::default();
        if receiver.is_ready(&ring) {
            assert_eq!(receive_well(&mut receiver, &ring).as_deref(), Some(MESSAGES[1]));
        }
        writer.join().expect("the writer ends");
    });
}

/// `Sender::publish` with the head stored in another order.
fn publish_head_relaxed(sender: &mut Sender, ring: &Ring<2>, bytes: &[u8]) -> usize {
    if sender.sent - sender.taken == 2 && !sender.has_room(ring).expect("the reader is honest") {
        return 0;
    }
    let slot = slot(ring, sender.sent);
    let half = |from: usize| {
        bytes.get(from..from + 4).map_or(0, |half| u32::from_le_bytes(half.try_into().expect("four bytes")))
    };
    slot.body[0].store(half(4).into(), Ordering::Relaxed);
    let head =
        u64::from(half(0)) | (bytes.len() as u64) << LENGTH_SHIFT | lap::<2>(sender.sent) << SEQUENCE_SHIFT;
    slot.head.store(head, Ordering::Relaxed);
    sender.sent += 1;
    bytes.len()
}

#[test]
#[should_panic(expected = "lost, torn or out of order")]
fn mutant_the_head_is_stored_relaxed() {
    carries_whole_messages_in_order(Sides { send: publish_head_relaxed, ..SOUND });
}

/// `Receiver::receive` that loads the head without Acquire.
fn receive_relaxed(receiver: &mut Receiver, ring: &Ring<2>) -> Option<Vec<u8>> {
    let slot = slot(ring, receiver.taken);
    let head = slot.head.load(Ordering::Relaxed);
    if head >> SEQUENCE_SHIFT != lap::<2>(receiver.taken) {
        return None;
    }
    let length = usize::from((head >> LENGTH_SHIFT).to_le_bytes()[0]);
    let body = slot.body[0].load(Ordering::Relaxed).to_le_bytes();
    receiver.taken += 1;
    receiver.give_back(ring);
    Some([&head.to_le_bytes()[..4], &body].concat()[..length].to_vec())
}

#[test]
#[should_panic(expected = "lost, torn or out of order")]
fn mutant_the_head_is_loaded_relaxed() {
    carries_whole_messages_in_order(Sides { receive: receive_relaxed, ..SOUND });
}

/// Gives the slot back before it is copied.
fn give_back_first(receiver: &mut Receiver, ring: &Ring<2>) -> Option<Vec<u8>> {
    if !receiver.is_ready(ring) {
        return None;
    }
    ring.taken.store(receiver.taken + 1, Ordering::Release);
    receiver.told = receiver.taken + 1;
    let piece = receiver.receive(ring).expect("lengths are right")?;
    Some(piece.bytes().to_vec())
}

#[test]
#[should_panic(expected = "lost, torn or out of order")]
fn mutant_a_slot_is_given_back_before_it_was_copied() {
    carries_whole_messages_in_order(Sides { receive: give_back_first, ..SOUND });
}

/// Believes that there is always room.
fn send_without_room(sender: &mut Sender, ring: &Ring<2>, bytes: &[u8]) -> usize {
    sender.publish(ring, bytes);
    bytes.len()
}

#[test]
#[should_panic(expected = "lost, torn or out of order")]
fn mutant_the_writer_does_not_wait_for_room() {
    carries_whole_messages_in_order(Sides { send: send_without_room, ..SOUND });
}
