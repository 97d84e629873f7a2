//! Histories that once went wrong, or nearly did, each with its story. The model follows them like any other.
#![allow(missing_docs, reason = "a test binary has no readers from outside")]

mod model;

use fairlock_locktable::effect::Answer;
use model::play::Play;
use model::story::Step;
use model::{Ask, Bounds, Mode, Wait};

#[test]
fn of_two_predecessors_that_are_gone_the_second_does_not_inherit_from_the_first() {
    // The table ended the first, granted what it had held to the second, which it ended next; the mark that a writer
    // had died was spent on it, and the next real holder heard of no death.
    let mut play = Play::new(Bounds::REAL);
    play.open(2, false, false, 5000, 0).unwrap();
    play.open(2, false, false, 5000, 0).unwrap();
    play.open(0, false, false, 5000, 0).unwrap();
    play.ask(0, 1, Ask::acquire(Mode::EX, Wait::Forever, 1)).unwrap();
    play.ask(1, 2, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.open(2, false, true, 5000, 0).unwrap();
    assert_eq!(play.answers(), [], "nobody who is still there waited");
    play.ask(2, 3, Ask::acquire(Mode::EX, Wait::Forever, 1)).unwrap();
    assert!(matches!(play.answer(), Some(Answer::Granted(granted)) if granted.previous_owner_died));
}

#[test]
fn a_grant_broken_later_has_its_own_time_to_be_confirmed() {
    // One timer a session stood for all its broken grants: when the first was given back in time, the second still
    // had to be confirmed by the deadline of the first, and the session was doomed for nothing.
    let mut play = Play::new(Bounds::REAL);
    play.open(0, false, false, 1000, 0).unwrap();
    let nl = Ask::acquire(Mode::NL, Wait::Try, 1);
    play.ask(0, 1, nl).unwrap();
    play.step(&Step::Break { resource: 0, force: false }).unwrap();
    play.step(&Step::Pass { ms: 150, renewed: 1 }).unwrap();
    play.ask(0, 2, nl).unwrap();
    play.step(&Step::Break { resource: 0, force: false }).unwrap();
    play.ask(0, 3, Ask::Release { grant: 0 }).unwrap();
    play.step(&Step::Pass { ms: 100, renewed: 1 }).unwrap();
    assert!(!play.model.sessions[0].closed_to_renewal, "100 of its 200 ms are over");
    play.step(&Step::Pass { ms: 101, renewed: 1 }).unwrap();
    assert!(play.model.sessions[0].closed_to_renewal);
}
