//! Walks through every history of small cells on paper, within bounds, and through those of cells with a mistake in them,
//! each of which must come to a violation. docs/reliability.md has the figures and the table.
//!
//! `cargo test -p fairlock-replication --release --test model -- --ignored --nocapture` walks through millions of states.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "the paper is a part of this program alone")]

mod paper;

use std::time::Instant;

use paper::{Rules, scenarios};
use stateright::{Checker, HasDiscoveries, Model};

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Walks through all of a model; the number of its states.
fn walk(rules: Rules) -> usize {
    let (name, begun) = (rules.name, Instant::now());
    let checker = rules.checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let time = begun.elapsed().as_secs_f64();
    println!("{name}: {states} states, {} deep, {time:.1} s", checker.max_depth());
    checker.assert_properties();
    assert!(checker.is_done());
    states
}

#[test]
fn every_history_of_a_small_cell_keeps_what_was_promised() {
    for rules in scenarios::all() {
        if std::env::var("ONLY").is_ok_and(|only| only != rules.name) { continue; }
        walk(rules);
    }
}

#[test]
#[ignore]
fn tune() {
    let var = |name: &str, or: u8| std::env::var(name).ok().map_or(or, |t| t.parse().unwrap());
    let base = scenarios::all().into_iter().find(|r| std::env::var("ONLY").unwrap() == r.name).unwrap();
    let mut rules = base.clone();
    let b = &mut rules.bounds;
    b.crashes = var("C", b.crashes); b.breaks = var("B", b.breaks); b.unknowns = var("U", b.unknowns); b.joins = var("J", b.joins);
    b.evictions = var("E", b.evictions); b.seizures = var("S", b.seizures); b.switchovers = var("W", b.switchovers);
    b.keepalives = var("K", b.keepalives); b.heartbeats = var("H", b.heartbeats);
    rules.members = var("M", rules.members);
    let ops = usize::from(var("O", rules.ops.len() as u8)); rules.ops.truncate(ops); rules.log_max = ops as u8;
    let begun = Instant::now();
    let line = format!("{} members {} ops {} {:?}", rules.name, rules.members, ops, rules.bounds);
    let checker = rules.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).timeout(std::time::Duration::from_secs(30)).spawn_bfs().join();
    let bad: Vec<_> = checker.discoveries().into_iter().filter(|(n, _)| checker.discovery_classification(n).to_string() == "counterexample").map(|(n, p)| (n, p.into_actions())).collect();
    println!("{line}: {} states depth {} {:.1} s {} found {:?} {bad:#?}", checker.unique_state_count(), checker.max_depth(), begun.elapsed().as_secs_f64(),
      if begun.elapsed().as_secs() < 30 { "WHOLE" } else { "cut" }, checker.discoveries().keys().collect::<Vec<_>>());
}

#[test]
#[ignore]
fn hunt() {
    for mistake in paper::ALL {
        for base in scenarios::all() {
            let rules = Rules { mistake: Some(*mistake), ..base };
            let (name, begun) = (rules.name, Instant::now());
            let checker = rules.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).timeout(std::time::Duration::from_secs(8)).spawn_bfs().join();
            let found: Vec<_> = checker.discoveries().into_iter().map(|(n, p)| (n, p.into_actions().len())).collect();
            println!("{mistake:?} {name}: {} states {:.1} s {found:?}", checker.unique_state_count(), begun.elapsed().as_secs_f64());
        }
    }
}
