//! Random histories against the model, the witness and a twin. A failure is shrunk, printed with its story, and its
//! seed is kept in `properties.proptest-regressions`, which later runs try first.
//!
//! `PROPTEST_CASES` sets the number of histories; `FAIRLOCK_SEED` (a number) fixes the generator for a replay.
#![allow(missing_docs, reason = "a test binary has no readers from outside")]

mod model;

use fairlock_locktable::effect::{Answer, Effect, Notice};
use model::play::Play;
use model::story::{Step, crush_step, disciplined, history, step, storm_step};
use model::{Bounds, House, Refusal, STRICT};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestError, TestRng, TestRunner};
use std::collections::BTreeMap;

/// Histories a run without `PROPTEST_CASES`.
const HISTORIES: u32 = 20_000;

fn run(
    houses: impl Strategy<Value = House>,
    steps: impl Strategy<Value = Vec<Step>>,
    bounds: Bounds,
    share: u32,
) {
    let mut config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        source_file: Some(file!()),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = HISTORIES;
    }
    config.cases = (config.cases / share).max(1);
    let mut runner = match std::env::var("FAIRLOCK_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("FAIRLOCK_SEED is a number");
            let mut bytes = [0_u8; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
        }
        Err(_) => TestRunner::new(config),
    };
    let (mut commands, mut tenures) = (0_u64, 0_u64);
    let counted = (std::cell::Cell::new(0_u64), std::cell::Cell::new(0_u64));
    let outcome = runner.run(&(houses, steps), |(house, steps)| match Play::whole(house, bounds, &steps) {
        Ok(play) => {
            counted.0.set(counted.0.get() + play.commands);
            counted.1.set(counted.1.get() + play.witness.tenures);
            Ok(())
        }
        Err(complaint) => Err(TestCaseError::fail(complaint)),
    });
    commands += counted.0.get();
    tenures += counted.1.get();
    println!("{commands} commands, {tenures} tenures");
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(complaint, history)) => panic!("{complaint}\nhistory, shrunk: {history:?}"),
        Err(aborted) => panic!("{aborted}"),
    }
}

#[test]
fn every_history_goes_as_the_specification_says() {
    run(Just(STRICT), history(step(), 1..55), Bounds::REAL, 1);
}

#[test]
fn every_request_has_one_outcome_in_a_storm_of_timeouts_withdrawals_and_deaths() {
    run(Just(STRICT), history(storm_step(), 1..90), Bounds::REAL, 4);
}

#[test]
fn reaching_a_bound_is_a_refusal_and_nothing_else() {
    run(Just(STRICT), history(step(), 1..70), Bounds::TIGHT, 4);
}

/// G38, G39, G40: no waiter is passed more often than may be, classes and inheritance are as the naive model has them.
#[test]
fn every_history_in_namespaces_with_disciplines_goes_as_specified() {
    run(disciplined(), history(step(), 1..55), Bounds::REAL, 4);
}

#[test]
fn a_crush_in_namespaces_with_disciplines_goes_as_specified() {
    run(disciplined(), history(crush_step(), 1..90), Bounds::REAL, 16);
}

#[test]
fn a_crush_in_strict_namespaces_goes_as_specified() {
    run(Just(STRICT), history(crush_step(), 1..90), Bounds::REAL, 32);
}

#[test]
fn a_storm_in_namespaces_with_disciplines_goes_as_specified() {
    run(disciplined(), history(storm_step(), 1..90), Bounds::REAL, 16);
}

#[test]
fn reaching_a_bound_in_namespaces_with_disciplines_is_a_refusal_and_nothing_else() {
    run(disciplined(), history(step(), 1..70), Bounds::TIGHT, 16);
}

/// What an effect is, as far as a tester wants to know that it occurs.
fn kind_of(effect: &Effect) -> String {
    match effect {
        Effect::Answered { kept: false, answer: Answer::Granted(_), .. } => "granted, told again".into(),
        Effect::Answered { answer: Answer::Granted(granted), .. } if granted.reentered => "re-entered".into(),
        Effect::Answered { answer: Answer::Granted(granted), .. } if granted.previous_owner_died => {
            "after a death".into()
        }
        Effect::Answered { answer: Answer::Granted(granted), .. } if granted.waited_us > 0 => {
            "granted later".into()
        }
        Effect::Answered { answer: Answer::Granted(_), .. } => "granted".into(),
        Effect::Answered { answer: Answer::Converted(granted), .. } if granted.waited_us > 0 => {
            "converted later".into()
        }
        Effect::Answered { answer: Answer::Converted(_), .. } => "converted".into(),
        Effect::Answered { answer: Answer::Deadlock { .. }, .. } => "deadlock".into(),
        Effect::Answered { answer, .. } => format!("{answer:?}"),
        Effect::Told { notice: Notice::Blocking { .. }, .. } => "blocking".into(),
        Effect::Told { notice: Notice::HoldOver { .. }, .. } => "hold over".into(),
        Effect::Told { notice: Notice::Broken { forced, .. }, .. } => format!("broken, forced {forced}"),
        Effect::Told { notice: Notice::Killed, .. } => "killed".into(),
        Effect::NotOpened { refusal, .. } => format!("not opened, {refusal:?}"),
        Effect::Over { why, .. } => format!("over, {why:?}"),
        Effect::Doomed { .. } => "doomed".into(),
        _ => "other".into(),
    }
}

#[test]
fn the_histories_reach_every_kind_of_outcome() {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut seen, mut reclaimed) = (BTreeMap::<String, u32>::new(), 0);
    let mut complete = 0;
    for round in 0..3000 {
        let bounds = if round % 2 == 0 { Bounds::REAL } else { Bounds::TIGHT };
        let steps = history(step(), 20..70).new_tree(&mut runner).expect("nothing is filtered out").current();
        let play = Play::whole(STRICT, bounds, &steps).unwrap_or_else(|complaint| panic!("{complaint}"));
        reclaimed += play.witness.reclaimed;
        complete +=
            play.model.bundles.iter().filter(|bundle| bundle.waited && bundle.taken.len() > 1).count();
        for effect in play.past.iter().chain(&play.effects) {
            *seen.entry(kind_of(effect)).or_default() += 1;
        }
    }
    println!("{seen:#?}, reclaimed {reclaimed}");
    let wanted = [
        "granted, told again",
        "re-entered",
        "after a death",
        "granted later",
        "converted later",
        "deadlock",
    ];
    let notices =
        ["blocking", "hold over", "broken, forced false", "broken, forced true", "killed", "doomed"];
    let ends = ["Closed", "Expired", "Died", "Killed", "Replaced"].map(|why| format!("over, {why}"));
    let opens = ["not opened, Denied", "not opened, Quota"];
    let refusals = [
        Refusal::WouldBlock,
        Refusal::Timeout,
        Refusal::Cancelled,
        Refusal::NotHeld,
        Refusal::AlreadyHeld,
        Refusal::BadConversion,
        Refusal::HoldLimit,
        Refusal::QueueFull,
        Refusal::Busy,
        Refusal::ReplayMismatch,
        Refusal::SessionUnknown,
    ];
    let refusals = refusals.map(|refusal| format!("Refused({refusal:?})"));
    let literal = wanted.into_iter().chain(notices).chain(opens).map(String::from);
    for kind in literal.chain(ends).chain(refusals) {
        assert!(seen.contains_key(&kind), "no history reached: {kind}");
    }
    assert!(reclaimed > 0, "nobody came back during a lock delay");
    assert!(complete > 0, "nobody got several locks after a wait");
}

#[test]
fn the_histories_in_namespaces_with_disciplines_reach_what_they_are_about() {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut bypasses, mut inherited, mut told) = (0, 0, 0);
    for _ in 0..400 {
        let house = disciplined().new_tree(&mut runner).expect("nothing is filtered out").current();
        let steps =
            history(crush_step(), 40..90).new_tree(&mut runner).expect("nothing is filtered out").current();
        let play = Play::whole(house, Bounds::REAL, &steps).unwrap_or_else(|complaint| panic!("{complaint}"));
        bypasses += play.model.bypasses;
        inherited += play.model.inherited;
        told += play.witness.bypasses;
    }
    println!("{bypasses} bypasses, {told} of them seen from outside, {inherited} choices by inheritance");
    assert!(bypasses > 500 && told > 500, "hardly anybody is passed");
    assert!(inherited > 100, "hardly anybody inherits");
}
