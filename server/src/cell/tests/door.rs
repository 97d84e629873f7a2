//! The door: how many it hears at once, and that it is closed when it is closed.

use fairlock_replication::node::Dialed;

use super::super::introduction::Request;
use super::super::secret::Role;
use super::super::wire::{Limit, Wire};
use super::*;

#[test]
fn who_comes_when_all_places_are_taken_is_told_so_and_nobody_else_suffers() {
    let (door, met) = door(node("b", 2), PLENTY);
    let wanted = listed("b", 2, door.address());
    let mute: Vec<_> = (0..64).map(|_| TcpStream::connect(door.address()).unwrap()).collect();
    let (outcome, _) = dial(&node("a", 1), &wanted, true, PLENTY);
    assert!(matches!(&outcome, Dialed::Busy(text) if text.contains("busy")), "{outcome:?}");
    assert_eq!((door.turned_away(), door.failed()), (1, 0));
    drop(mute);
    // Their places are free when their threads have noticed.
    let begun = std::time::Instant::now();
    while dial(&node("a", 1), &wanted, true, PLENTY).0 != Dialed::Alive {
        assert!(begun.elapsed() < PLENTY, "no place became free");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(met.recv_timeout(PLENTY).unwrap().member, node("a", 1).me);
}

#[test]
fn a_closed_door_meets_nobody_not_even_who_was_in_the_middle_of_a_sentence() {
    let (door, met) = door(node("b", 2), PLENTY);
    let (me, wanted) = (node("a", 1), listed("b", 2, door.address()));
    let socket = TcpStream::connect(door.address()).unwrap();
    let mut wire = Wire::new(socket, Limit::of(PLENTY)).unwrap();
    wire.say_opening(&me).unwrap();
    wire.hear_opening().unwrap();
    door.close();
    let request = Request {
        caller: me.presentation(),
        purpose: Purpose::Probe,
        wanted: wanted.node.clone(),
        wanted_life: wanted.incarnation,
    };
    wire.say_sentence(&me, Role::Caller, &request.encode()).unwrap();
    assert!(wire.hear_sentence(&me, Role::Answerer).unwrap().1, "the introduction itself goes on");
    assert!(matches!(met.recv_timeout(PLENTY), Err(mpsc::RecvTimeoutError::Disconnected)));
    assert_eq!(dial(&me, &wanted, true, PLENTY).0, Dialed::Refused);
}

#[test]
fn a_door_that_is_dropped_is_closed() {
    let (door, _met) = door(node("b", 2), PLENTY);
    let address = door.address();
    drop(door);
    assert_eq!(dial(&node("a", 1), &listed("b", 2, address), true, PLENTY).0, Dialed::Refused);
}
