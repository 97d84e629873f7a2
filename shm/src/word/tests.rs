//! One tenure after the other, by both sides in turn.

use super::*;

const G: Generation = Generation(7);
const ME: Holder = Holder::new(3);

#[test]
fn a_free_word_is_entered_and_left_without_a_message() {
    let word = Word::default();
    word.grant(G, false);
    assert!(word.is_held(G, Holder::GRANTED));
    assert!(!word.leave(G, Leaving::Barrier));
    for leaving in [Leaving::Barrier, Leaving::Exchange] {
        assert_eq!(word.enter(G, ME, leaving), Entry::Entered);
        assert!(word.is_held(G, ME) && !word.is_held(G, Holder::GRANTED));
        assert_eq!(word.enter(G, Holder::new(4), leaving), Entry::Refused, "one word is one holder");
        assert!(!word.leave(G, leaving));
    }
    assert_eq!((word.look(G), word.entries()), (Seen::Free, 2));
    assert_eq!(word.enter(Generation(6), ME, Leaving::Barrier), Entry::Refused, "an older tenure");
}

#[test]
fn a_wanted_word_is_not_entered_and_says_so_when_it_is_left() {
    let word = Word::default();
    word.grant(G, false);
    word.want();
    assert!(!word.take(G), "somebody is inside");
    assert!(word.leave(G, Leaving::Barrier));
    assert_eq!(word.enter(G, ME, Leaving::Barrier), Entry::Refused);
    assert!(word.take(G) && !word.take(G));
    word.grant(Generation(8), true);
    assert!(word.leave(Generation(8), Leaving::Exchange), "the next waiter is announced with the grant");
}

#[test]
fn a_forced_end_is_seen_by_the_holder_and_retires_the_word_until_its_late_store_is_taken_back() {
    let word = Word::default();
    word.grant(G, false);
    assert_eq!(word.void(G), Seen::Held);
    assert!(!word.is_held(G, Holder::GRANTED));
    assert!(!word.take(G), "not acknowledged");
    assert!(word.leave(G, Leaving::Barrier), "the late store");
    assert!(word.take(G), "acknowledged");
    word.grant(Generation(8), false);
    assert!(!word.leave(Generation(8), Leaving::Barrier));
    assert_eq!(word.void(Generation(8)), Seen::Free);
    assert_eq!(word.enter(Generation(8), ME, Leaving::Barrier), Entry::Refused);
}

#[test]
fn a_tenure_that_the_library_renounced_is_not_entered_or_held_any_more() {
    let word = Word::default();
    word.grant(G, false);
    word.renounce(G);
    assert!(!word.is_held(G, Holder::GRANTED));
    word.renounce(Generation(6));
    assert_eq!(word.look(G), Seen::Neither);
}

#[test]
fn a_renounced_tenure_is_not_entered_again_when_its_holder_leaves() {
    let word = Word::default();
    word.grant(G, false);
    word.renounce(G);
    assert!(word.leave(G, Leaving::Barrier), "the late store, with a hint");
    assert_eq!(word.enter(G, ME, Leaving::Barrier), Entry::Refused);
    assert!(word.take(G), "the server can use the word again");
}

#[test]
fn a_word_that_was_free_when_it_was_renounced_is_taken_or_voided_like_any_other() {
    let word = Word::default();
    word.grant(G, false);
    assert!(!word.leave(G, Leaving::Barrier));
    word.renounce(G);
    assert_eq!(word.enter(G, ME, Leaving::Barrier), Entry::Refused);
    assert_eq!(word.void(G), Seen::Free);
    word.grant(Generation(8), false);
    word.renounce(G);
    assert!(word.is_held(Generation(8), Holder::GRANTED), "an older tenure's end");
    assert!(!word.leave(Generation(8), Leaving::Barrier));
}

#[test]
fn a_tenure_that_was_shut_keeps_its_holder_and_lets_nobody_in_after_him() {
    let word = Word::default();
    word.grant(G, false);
    assert_eq!(word.shut(G), Seen::Held);
    assert!(word.is_held(G, Holder::GRANTED));
    assert!(word.leave(G, Leaving::Barrier), "with a hint");
    assert_eq!(word.enter(G, ME, Leaving::Barrier), Entry::Refused);
    assert_eq!((word.shut(G), word.shut(Generation(8))), (Seen::Free, Seen::Neither));
}

#[test]
fn a_free_word_with_a_holder_is_neither_taken_nor_seen_as_free() {
    let word = Word::default();
    word.grant(G, false);
    word.state.store(pack(FREE, G, ME), Ordering::Relaxed);
    assert!(!word.take(G));
    assert_eq!(word.look(G), Seen::Neither);
    assert_eq!(word.void(G), Seen::Neither, "it is retired, like one that somebody is inside");
}

#[test]
fn who_was_renounced_is_inside_until_he_leaves_and_who_was_thrown_out_is_not() {
    let word = Word::default();
    word.grant(G, false);
    assert!(word.is_occupied(G) && !word.is_occupied(Generation(G.0 + 1)));
    word.renounce(G);
    assert!(word.is_occupied(G));
    assert_eq!(word.void(G), Seen::Neither);
    assert!(
        word.is_occupied(G),
        "the grant of a connection that is gone is one like others, and he has it still"
    );
    let _ = word.leave(G, Leaving::Barrier);
    assert!(!word.is_occupied(G));
    assert!(word.take(G) && !word.is_occupied(G));
    word.grant(G, false);
    word.void(G);
    assert!(!word.is_occupied(G));
}
