//! What clients see of a server's threads.

use super::*;
use crate::robust::LastWord;

#[test]
fn a_stamp_is_seen_by_those_who_can_only_read() {
    let beacon = Beacon::create(Leaving::Exchange).unwrap();
    let sight = Sight::open(beacon.file(), 3).unwrap();
    beacon.stamp(3, 70, 50);
    assert_eq!((sight.stamp(), sight.steady()), (70, 50));
    assert!(Mapping::<Layout>::open(beacon.file(), true).is_err(), "nobody else can write");
    assert!(Sight::open(beacon.file(), 256).is_err());
}

#[test]
fn how_words_may_be_left_is_said_by_the_server() {
    for leaving in [Leaving::Barrier, Leaving::Exchange] {
        let beacon = Beacon::create(leaving).unwrap();
        assert_eq!(Sight::open(beacon.file(), 0).unwrap().leaving(), leaving);
    }
}

#[test]
fn a_thread_that_ends_in_order_says_so() {
    let beacon = Arc::new(Beacon::create(Leaving::Exchange).unwrap());
    let sight = Sight::open(beacon.file(), 0).unwrap();
    assert!(!sight.is_alive());
    let last = LastWord::new(Arc::clone(&beacon), 0).unwrap();
    assert!(sight.is_alive());
    drop(last);
    assert!(!sight.is_alive());
}

#[test]
fn the_kernel_says_it_for_a_thread_that_just_ends() {
    let beacon = Arc::new(Beacon::create(Leaving::Exchange).unwrap());
    let sight = Sight::open(beacon.file(), 0).unwrap();
    let theirs = Arc::clone(&beacon);
    let thread = std::thread::spawn(move || std::mem::forget(LastWord::new(theirs, 0).unwrap()));
    thread.join().unwrap();
    // The join returns when the kernel has cleared the thread's id, which it does after walking the list.
    assert!(!sight.is_alive());
}
