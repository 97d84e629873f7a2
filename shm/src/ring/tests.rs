//! What a ring carries, and what it does not believe.

use super::*;

fn carry<const N: usize>(ring: &Ring<N>, receiver: &mut Receiver) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = receiver.receive(ring).expect("lengths are right") {
        all.extend_from_slice(piece.bytes());
    }
    receiver.give_back(ring);
    all
}

#[test]
fn bytes_arrive_in_order_whatever_their_number() {
    let ring = Ring::<4>::default();
    let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
    let mut next = 0_u8;
    for length in (1..=200).chain([60, 61, 119, 120, 121]) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                next = next.wrapping_add(1);
                next
            })
            .collect();
        let (mut sent, mut arrived) = (0, Vec::new());
        while sent < bytes.len() {
            sent += sender.send(&ring, &bytes[sent..]).unwrap();
            assert!(receiver.is_ready(&ring));
            arrived.extend(carry(&ring, &mut receiver));
        }
        assert_eq!(arrived, bytes, "{length} bytes");
        assert!(!receiver.is_ready(&ring));
    }
}

#[test]
fn a_full_ring_takes_nothing_until_slots_come_back() {
    let ring = Ring::<2>::default();
    let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
    assert_eq!(sender.send(&ring, &[7; 150]), Ok(120));
    assert_eq!(sender.send(&ring, &[7; 30]), Ok(0));
    assert!(receiver.receive(&ring).unwrap().is_some());
    assert_eq!(sender.send(&ring, &[7; 30]), Ok(0), "taken, but not given back");
    receiver.give_back(&ring);
    assert_eq!(sender.send(&ring, &[7; 30]), Ok(30));
}

#[test]
fn a_length_beyond_the_slot_is_not_believed() {
    for claimed in [0_u64, 61, 255] {
        let ring = Ring::<2>::default();
        ring.slots[0].head.store(claimed << LENGTH_SHIFT | 1 << SEQUENCE_SHIFT, Ordering::Relaxed);
        let error = Receiver::default().receive(&ring).unwrap_err();
        assert_eq!(error, Corrupt::Length(u8::try_from(claimed).unwrap()));
    }
}

#[test]
fn a_position_beyond_what_was_sent_or_before_what_was_taken_is_not_believed() {
    let ring = Ring::<2>::default();
    let mut sender = Sender::default();
    assert_eq!(sender.send(&ring, &[1; 120]), Ok(120));
    ring.taken.store(3, Ordering::Relaxed);
    assert_eq!(sender.send(&ring, &[1]), Err(Corrupt::Position { taken: 3, sent: 2 }));
    ring.taken.store(1, Ordering::Relaxed);
    assert_eq!(sender.send(&ring, &[1]), Ok(1));
    ring.taken.store(0, Ordering::Relaxed);
    assert_eq!(sender.send(&ring, &[1]), Err(Corrupt::Position { taken: 0, sent: 3 }));
}
