//! Claims after a loss: once each, together only with those they go with, and only before anything else.

use super::*;
use crate::command::{Command, SessionKey};
use crate::rules::NamespaceRules;
use crate::table::{Limits, Settings};
use crate::tests::{Story, answer_to, refused};
use fairlock_protocol::{Epoch, ShardId, Wait};
use std::vec::Vec;

/// A table of a later epoch, in which nothing is left.
fn lost() -> Story {
    let mut story = Story::new();
    story.apply(Command::TakeOver(Epoch::new(50).unwrap()));
    story
}

fn token(number: u64) -> FencingToken {
    FencingToken::new(Epoch::new(7).unwrap(), number).unwrap()
}

fn claim(story: &mut Story, session: SessionKey, mode: Mode, number: u64) -> Answer {
    let acquire = story.asking(session, mode, Wait::Try);
    let effects = story.apply(Command::Reassert { acquire, token: token(number) });
    answer_to(&effects, acquire.request).expect("a claim is answered at once")
}

#[test]
fn who_held_it_holds_it_on_with_a_higher_token() {
    let mut story = lost();
    let s = story.open();
    let Answer::Granted(granted) = claim(&mut story, s, Mode::EX, 3) else { panic!() };
    assert!(granted.token > Some(token(3)));
    assert!(!granted.previous_owner_died);
    story.release(s, granted.grant);
}

#[test]
fn a_token_counts_once_even_where_both_would_go_together() {
    let mut story = lost();
    let (one, other) = (story.open(), story.open());
    assert!(matches!(claim(&mut story, one, Mode::PR, 3), Answer::Granted(_)));
    assert_eq!(claim(&mut story, other, Mode::PR, 3), refused(Refusal::StaleToken));
    assert!(matches!(claim(&mut story, other, Mode::PR, 4), Answer::Granted(_)));
}

#[test]
fn what_contradicts_a_claim_is_refused() {
    let mut story = lost();
    let (one, other) = (story.open(), story.open());
    assert!(matches!(claim(&mut story, one, Mode::PR, 3), Answer::Granted(_)));
    assert_eq!(claim(&mut story, other, Mode::EX, 4), refused(Refusal::StaleToken));
    assert!(matches!(claim(&mut story, other, Mode::CR, 5), Answer::Granted(_)));
}

#[test]
fn tokens_of_this_epoch_and_grants_without_one_are_no_claims() {
    let mut story = lost();
    let s = story.open();
    let acquire = story.asking(s, Mode::EX, Wait::Try);
    let own = FencingToken::new(Epoch::new(50).unwrap(), 1).unwrap();
    let effects = story.apply(Command::Reassert { acquire, token: own });
    assert_eq!(answer_to(&effects, acquire.request), Some(refused(Refusal::NotHeld)));
    assert_eq!(claim(&mut story, s, Mode::NL, 3), refused(Refusal::NotHeld));
}

#[test]
fn claims_travel_with_the_table_and_end_with_the_first_ordinary_request() {
    let mut story = lost();
    let s = story.open();
    let Answer::Granted(granted) = claim(&mut story, s, Mode::PR, 3) else { panic!() };
    story.release(s, granted.grant);
    let (epoch, rules) = (Epoch::new(1).unwrap(), NamespaceRules::new());
    let (shard, limits) = (ShardId(0), Limits::default());
    let settings = Settings { epoch, shard, index_key: 9, limits, rules };
    let mut pieces = Vec::new();
    story.table.snapshot(|piece| pieces.push(piece));
    let restored = Table::from_snapshot(settings, pieces).unwrap();
    assert_eq!(restored.reasserted, story.table.reasserted);
    assert_eq!(claim(&mut story, s, Mode::PR, 3), refused(Refusal::StaleToken), "it is remembered");
    story.hold(s, Mode::EX);
    assert!(story.table.reasserted.is_empty());
}
