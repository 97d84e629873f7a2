//! Exactly one outcome a request, told as stories: repetitions, withdrawals that race with grants, waits that end as
//! the lock comes free, and a client that acknowledges nothing. Each story is also followed by the model.
#![allow(missing_docs, reason = "a test binary has no readers from outside")]

mod model;

use fairlock_locktable::effect::Answer;
use fairlock_protocol::limits::UNACKNOWLEDGED_MAX;
use model::play::Play;
use model::story::Step;
use model::{Ask, Ended, Mode, Refusal, Wait};

const EX: Ask = Ask::Acquire {
    resource: 0,
    mode: Mode::EX,
    priority: 0,
    wait: Wait::Forever,
    owner: 1,
    reentrant: false,
    notify: false,
    lock_delay_ms: 0,
    max_hold_ms: 0,
};

fn is_refused(play: &Play, refusal: Refusal) -> bool {
    play.answer() == Some(Answer::Refused(refusal))
}

#[test]
fn a_grant_is_told_again_to_whoever_repeats_the_request_and_is_not_given_again() {
    let mut play = Play::house(1);
    play.ask(0, 1, EX).unwrap();
    let first = play.answer().unwrap();
    play.ask(0, 1, EX).unwrap();
    assert_eq!(play.answers(), [(1, first, false)]);
    assert_eq!(play.witness.held(), 1);
}

#[test]
fn a_waiting_request_that_comes_again_keeps_its_place_silently_and_another_one_under_its_number_is_refused() {
    let mut play = Play::house(3);
    play.ask(0, 1, EX).unwrap();
    play.ask(1, 2, EX).unwrap();
    play.ask(2, 3, EX).unwrap();
    play.ask(1, 2, EX).unwrap();
    assert_eq!(play.answers(), []);
    play.ask(1, 2, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    assert!(is_refused(&play, Refusal::ReplayMismatch));
    play.ask(1, 2, Ask::Release { grant: 0 }).unwrap();
    assert!(is_refused(&play, Refusal::ReplayMismatch));
    play.ask(0, 4, Ask::Release { grant: 0 }).unwrap();
    assert_eq!(play.answers()[1].0, 2, "the first in the queue is still the first");
}

#[test]
fn a_refused_try_changed_nothing_and_is_tried_anew_when_it_comes_again() {
    let mut play = Play::house(2);
    let attempt = Ask::acquire(Mode::EX, Wait::Try, 1);
    play.ask(0, 1, EX).unwrap();
    play.ask(1, 2, attempt).unwrap();
    assert_eq!(play.answers(), [(2, Answer::Refused(Refusal::WouldBlock), false)]);
    play.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    play.ask(1, 2, attempt).unwrap();
    assert!(matches!(play.answer(), Some(Answer::Granted(_))));
}

#[test]
fn a_release_that_comes_again_releases_nothing_else() {
    let mut play = Play::house(1);
    let again = Ask::Acquire {
        resource: 0,
        mode: Mode::EX,
        priority: 0,
        wait: Wait::Forever,
        owner: 1,
        reentrant: true,
        notify: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
    };
    play.ask(0, 1, EX).unwrap();
    play.ask(0, 2, again).unwrap();
    play.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    play.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    assert_eq!(play.answers(), [(3, Answer::Released { remaining: 1 }, false)]);
    assert_eq!(play.witness.held(), 1, "one level is still held");
    play.ask(0, 4, Ask::Release { grant: 0 }).unwrap();
    assert_eq!(play.witness.held(), 0);
}

#[test]
fn a_withdrawal_that_comes_after_the_grant_leaves_the_grant() {
    let mut play = Play::house(2);
    play.ask(0, 1, EX).unwrap();
    play.ask(1, 2, EX).unwrap();
    play.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    play.ask(1, 4, Ask::Cancel { target: 2 }).unwrap();
    assert_eq!(play.answers(), [(4, Answer::Withdrawn { was_waiting: false }, false)]);
    assert_eq!(play.witness.held(), 1);
}

#[test]
fn a_withdrawn_writer_lets_the_readers_behind_it_in() {
    let mut play = Play::house(3);
    play.ask(0, 1, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.ask(1, 2, EX).unwrap();
    play.ask(2, 3, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.ask(2, 4, Ask::acquire(Mode::CR, Wait::Forever, 1)).unwrap();
    play.ask(1, 5, Ask::Cancel { target: 2 }).unwrap();
    let numbers: Vec<u64> = play.answers().iter().map(|answer| answer.0).collect();
    assert_eq!(numbers, [2, 5, 3, 4]);
}

#[test]
fn a_conversion_that_waits_is_answered_when_its_grant_is_released_under_it() {
    let mut play = Play::house(2);
    play.ask(0, 1, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.ask(1, 2, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.ask(0, 3, Ask::Convert { grant: 0, mode: Mode::EX, wait: Wait::Forever }).unwrap();
    play.ask(0, 4, Ask::Convert { grant: 0, mode: Mode::PW, wait: Wait::Forever }).unwrap();
    assert!(is_refused(&play, Refusal::BadConversion));
    play.ask(0, 5, Ask::Release { grant: 0 }).unwrap();
    assert!(play.answers().contains(&(3, Answer::Refused(Refusal::Cancelled), true)));
    assert_eq!(play.answers().len(), 2);
}

#[test]
fn a_wait_that_ends_as_the_lock_comes_free_has_one_outcome_whichever_is_decided_first() {
    let waits = Ask::acquire(Mode::EX, Wait::Millis(50), 1);
    let mut timed_out = Play::house(2);
    timed_out.ask(0, 1, EX).unwrap();
    timed_out.ask(1, 2, waits).unwrap();
    timed_out.step(&Step::Pass { ms: 50, renewed: 0 }).unwrap();
    assert_eq!(timed_out.answers(), [(2, Answer::Refused(Refusal::Timeout), true)]);
    timed_out.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    assert_eq!(timed_out.answers().len(), 1);

    let mut granted = Play::house(2);
    granted.ask(0, 1, EX).unwrap();
    granted.ask(1, 2, waits).unwrap();
    // The end of the wait is decided, but the release is carried out before it.
    granted.step(&Step::Decide { ms: 50 }).unwrap();
    granted.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    assert!(matches!(granted.answers()[1], (2, Answer::Granted(_), true)));
    granted.step(&Step::Pass { ms: 1, renewed: 0 }).unwrap();
    assert_eq!((granted.witness.held(), granted.witness.waiting()), (1, 0));
}

#[test]
fn whoever_acknowledges_nothing_is_told_to_come_later_until_it_does() {
    let mut play = Play::house(1);
    let nl = Ask::acquire(Mode::NL, Wait::Try, 1);
    for request in 1..=UNACKNOWLEDGED_MAX as u64 {
        play.ask(0, request, nl).unwrap();
    }
    let next = UNACKNOWLEDGED_MAX as u64 + 1;
    play.ask(0, next, nl).unwrap();
    assert_eq!(play.answers(), [(next, Answer::Refused(Refusal::Busy), false)]);
    play.ask(0, 1, nl).unwrap();
    assert!(
        matches!(play.answers()[..], [(1, Answer::Granted(_), false)]),
        "what was kept is still told again"
    );
    play.step(&Step::Acknowledge { session: 0, missing: 255 }).unwrap();
    play.ask(0, next, nl).unwrap();
    assert!(matches!(play.answers()[..], [(_, Answer::Granted(_), true)]));
}

#[test]
fn an_ended_session_gets_nothing_more_and_its_place_in_the_queue_passes() {
    let mut play = Play::house(3);
    play.ask(0, 1, EX).unwrap();
    play.ask(1, 2, EX).unwrap();
    play.ask(2, 3, EX).unwrap();
    play.end(1, Ended::Died).unwrap();
    assert_eq!(play.answers(), []);
    play.ask(0, 4, Ask::Release { grant: 0 }).unwrap();
    assert_eq!(play.answers()[1].0, 3);
    play.ask(1, 5, EX).unwrap();
    assert_eq!(play.witness.held(), 1);
}
