//! The mode table as published, cell by cell, against the real table: 36 requests beside a holder, 36 conversions
//! alone, and every conversion beside every holder it can stand with. What is expected is written out here as text,
//! so that neither the table's nor the protocol's own arithmetic can agree with itself.
#![allow(missing_docs, reason = "a test binary has no readers from outside")]

mod model;

use fairlock_locktable::effect::Answer;
use model::play::Play;
use model::{Ask, Mode, Wait};

/// `y` where a request may stand beside a holder; rows held, columns asked.
const BESIDE: [&str; 6] = ["yyyyyy", "yyyyy-", "yyy---", "yy-y--", "yy----", "y-----"];
/// `d` where a conversion goes down or stays, `u` where it goes up; rows held, columns asked.
const DIRECTION: [&str; 6] = ["duuuuu", "dduuuu", "ddduuu", "dduduu", "dddddu", "dddddd"];

fn cell(rows: [&str; 6], held: Mode, asked: Mode) -> char {
    rows[held.wire() as usize].chars().nth(asked.wire() as usize).unwrap_or('u')
}

#[test]
fn a_request_is_granted_beside_a_holder_in_the_cells_of_the_table_and_waits_in_the_others() {
    let mut granted = 0;
    for held in Mode::ALL {
        for asked in Mode::ALL {
            let mut play = Play::house(2);
            play.ask_new(0, Ask::acquire(held, Wait::Forever, 1)).unwrap();
            play.ask_new(1, Ask::acquire(asked, Wait::Forever, 1)).unwrap();
            match (cell(BESIDE, held, asked), play.answer()) {
                ('y', Some(Answer::Granted(_))) => granted += 1,
                ('-', None) => {
                    play.ask_new(0, Ask::Release { grant: 0 }).unwrap();
                    assert_eq!(play.witness.held(), 1, "held {held}, asked {asked}: the release lets it in");
                }
                (expected, seen) => panic!("held {held}, asked {asked}: {expected}, {seen:?}"),
            }
        }
    }
    assert_eq!(granted, 20, "the table has 20 cells that go together");
}

#[test]
fn a_try_is_refused_exactly_where_a_request_would_wait() {
    for held in Mode::ALL {
        for asked in Mode::ALL {
            let mut play = Play::house(2);
            play.ask_new(0, Ask::acquire(held, Wait::Try, 1)).unwrap();
            play.ask_new(1, Ask::acquire(asked, Wait::Try, 1)).unwrap();
            let together = matches!(play.answer(), Some(Answer::Granted(_)));
            assert_eq!(together, cell(BESIDE, held, asked) == 'y', "held {held}, asked {asked}");
        }
    }
}

#[test]
fn a_lone_holder_converts_at_once_in_all_36_cells() {
    for from in Mode::ALL {
        for to in Mode::ALL {
            let mut play = Play::house(1);
            play.ask_new(0, Ask::acquire(from, Wait::Forever, 1)).unwrap();
            let Some(Answer::Granted(before)) = play.answer() else { panic!("{from} on a free lock") };
            play.ask_new(0, Ask::Convert { grant: 0, mode: to, wait: Wait::Try }).unwrap();
            let Some(Answer::Converted(after)) = play.answer() else {
                panic!("{from} to {to}: {:?}", play.effects)
            };
            assert_eq!((after.grant, after.mode), (before.grant, to));
            if cell(DIRECTION, from, to) == 'u' {
                assert!(after.token > before.token, "{from} to {to} begins a tenure");
            } else if to != Mode::NL {
                assert_eq!(after.token, before.token, "{from} to {to} goes on with its tenure");
            }
        }
    }
}

#[test]
fn a_conversion_beside_a_holder_goes_down_at_once_and_up_where_the_table_allows() {
    let mut waited = 0;
    for other in Mode::ALL {
        for from in Mode::ALL.into_iter().filter(|&from| cell(BESIDE, other, from) == 'y') {
            for to in Mode::ALL {
                let mut play = Play::house(2);
                play.ask_new(0, Ask::acquire(other, Wait::Forever, 1)).unwrap();
                play.ask_new(1, Ask::acquire(from, Wait::Forever, 1)).unwrap();
                play.ask_new(1, Ask::Convert { grant: 1, mode: to, wait: Wait::Forever }).unwrap();
                let at_once = cell(DIRECTION, from, to) == 'd' || cell(BESIDE, other, to) == 'y';
                match play.answer() {
                    Some(Answer::Converted(now)) => {
                        assert!(at_once && now.mode == to, "{from} to {to}, {other}");
                    }
                    None => {
                        assert!(!at_once, "{from} to {to} beside {other}");
                        play.ask_new(0, Ask::Release { grant: 0 }).unwrap();
                        assert_eq!(play.model.grants[1].mode, to, "{from} to {to} once {other} is gone");
                        waited += 1;
                    }
                    seen => panic!("{from} to {to} beside {other}: {seen:?}"),
                }
            }
        }
    }
    assert!(waited > 20, "{waited}");
}

#[test]
fn two_readers_that_both_want_to_write_are_told_instead_of_waiting_for_each_other() {
    let mut play = Play::house(2);
    play.ask_new(0, Ask::acquire(Mode::PR, Wait::Forever, 7)).unwrap();
    play.ask_new(1, Ask::acquire(Mode::PR, Wait::Forever, 8)).unwrap();
    play.ask_new(0, Ask::Convert { grant: 0, mode: Mode::EX, wait: Wait::Forever }).unwrap();
    play.ask_new(1, Ask::Convert { grant: 1, mode: Mode::EX, wait: Wait::Forever }).unwrap();
    let Some(Answer::Deadlock { session, owner, mode }) = play.answer() else { panic!("{:?}", play.effects) };
    assert_eq!((session, owner.0, mode), (play.judge.sessions[0].1, 7, Mode::EX));
}

#[test]
fn only_a_conversion_passes_a_waiting_writer_and_a_try_does_not() {
    let mut play = Play::house(3);
    play.ask_new(0, Ask::acquire(Mode::PR, Wait::Forever, 1)).unwrap();
    play.ask_new(1, Ask::acquire(Mode::EX, Wait::Forever, 1)).unwrap();
    play.ask_new(2, Ask::acquire(Mode::PR, Wait::Try, 1)).unwrap();
    assert_eq!(play.answer(), Some(Answer::Refused(model::Refusal::WouldBlock)));
    play.ask_new(0, Ask::Convert { grant: 0, mode: Mode::EX, wait: Wait::Forever }).unwrap();
    assert!(matches!(play.answer(), Some(Answer::Converted(_))));
}
