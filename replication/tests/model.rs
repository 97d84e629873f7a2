//! Walks through every history of small cells on paper, within bounds, and through those of cells with a mistake in them,
//! each of which must come to a violation. docs/reliability.md has the figures and the table.
//!
//! `cargo test -p fairlock-replication --release --test model -- --ignored --nocapture` walks through millions of states.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "the paper is a part of this program alone")]

mod paper;

use std::time::Instant;

use paper::{Action, Mistake, Rules, scenarios};
use stateright::{Checker, HasDiscoveries, Model};

/// States of a walk that counts as large.
const MANY: usize = 1_000_000;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Walks through all of a model; the number of its states.
fn walk(rules: Rules) -> usize {
    let (name, begun) = (rules.name, Instant::now());
    let checker =
        rules.checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let time = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = states as f64 / time;
    println!("{name}: {states} states, {} deep, {time:.1} s, {rate:.0} a second", checker.max_depth());
    checker.assert_properties();
    assert!(checker.is_done());
    states
}

#[test]
fn every_history_of_a_small_cell_keeps_what_was_promised() {
    let states: usize = scenarios::small().into_iter().map(walk).sum();
    assert!(states > MANY, "{states} states in all");
}

#[test]
#[ignore = "two million states: seconds in a release build, much longer in another"]
fn every_history_of_two_take_overs_keeps_what_was_promised() {
    assert!(walk(scenarios::take_over_twice()) >= MANY);
}

#[test]
#[ignore = "millions of states: a minute in a release build, much longer in another"]
fn every_history_of_larger_cells_keeps_what_was_promised() {
    let states: Vec<usize> = scenarios::large().into_iter().map(walk).collect();
    assert!(states.iter().all(|states| *states >= MANY), "{states:?}");
}

/// How a cell is made.
type Cell = fn() -> Rules;

/// Each mistake, and the cell in which it shows.
const MISTAKES: &[(Mistake, Cell)] = &[
    (Mistake::ExposeBeforeAck, scenarios::restart),
    (Mistake::ReadWithoutRound, scenarios::expiry),
    (Mistake::KeepParkedReplies, scenarios::come_back),
    (Mistake::RestartKeepsIncarnation, scenarios::restart),
    (Mistake::SnapshotIsStale, scenarios::join),
    (Mistake::AckOldEpoch, scenarios::expiry),
    (Mistake::TakeOverWithoutPromise, scenarios::expiry),
    (Mistake::AcceptOldActivation, scenarios::passed_over),
    (Mistake::KeepForeignSuffix, scenarios::take_over),
    (Mistake::TakeOverDropsSuffix, scenarios::restart),
    (Mistake::InheritedIsCommitted, scenarios::take_over),
    (Mistake::ApplyUncommitted, scenarios::expiry),
    (Mistake::CommitIsOwnEnd, scenarios::restart),
    (Mistake::AckMeansSent, scenarios::restart),
    (Mistake::UnknownIsFailure, scenarios::join),
    (Mistake::UnknownIsSuccess, scenarios::join),
    (Mistake::FailedRepeatIsFailure, scenarios::join_unknown_twice),
    (Mistake::EvictBeforeSwap, scenarios::passed_over),
    (Mistake::DropMemberWithoutSwap, scenarios::take_over),
    (Mistake::JoinerToldAtOnce, scenarios::join_a_pair),
    (Mistake::JoinerDoesNotCount, scenarios::join),
    (Mistake::PinnedNotCounted, scenarios::join),
];

/// The rule that a cell with this mistake breaks, and a shortest history that does: one thread, so that it is the same one
/// each time.
fn first_violation(mistake: Mistake, rules: Rules) -> Option<(&'static str, Vec<Action>)> {
    let rules = Rules { mistake: Some(mistake), ..rules };
    let checker = rules.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries().into_iter().map(|(rule, path)| (rule, path.into_actions()));
    found.min_by_key(|(rule, steps)| (steps.len(), *rule))
}

/// `MISTAKE=name` makes one alone and tells the whole history.
#[test]
fn every_mistake_is_noticed() {
    let only = std::env::var("MISTAKE").ok();
    let mut unnoticed = Vec::new();
    for (mistake, rules) in MISTAKES {
        let (name, rules, begun) = (format!("{mistake:?}"), rules(), Instant::now());
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let cell = rules.name;
        let Some((rule, steps)) = first_violation(*mistake, rules) else {
            unnoticed.push(name);
            continue;
        };
        println!(
            "| {name} | {cell} | {rule} | {} steps | {:.1} s",
            steps.len(),
            begun.elapsed().as_secs_f64()
        );
        if only.is_some() {
            for step in &steps {
                println!("    {step:?}");
            }
        }
    }
    assert!(unnoticed.is_empty(), "nothing noticed {unnoticed:?}");
}
