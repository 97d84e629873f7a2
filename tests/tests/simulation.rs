//! Whole cells under everything that can go wrong, simulated: the deciding halves of servers and clients as they are, thousands
//! of seeds (docs/reliability.md).
//!
//! `FAIRLOCK_SEED=7 cargo test -p fairlock-tests --test simulation one_seed -- --nocapture` replays one seed exactly;
//! `FAIRLOCK_SEEDS=100000` makes the run longer, and `FAIRLOCK_SEED` says where it begins.

#![allow(clippy::cast_precision_loss, reason = "numbers for people")]

#[path = "simulation/mod.rs"]
mod simulation;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use simulation::{KINDS, STATES, Summary, World};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn one_seed_is_replayed_exactly() {
    let seed = number("FAIRLOCK_SEED", 1);
    let first = World::new(seed).run();
    let second = World::new(seed).run();
    assert_eq!(first.trace, second.trace, "one seed, two histories");
    println!("{first:?}");
}

/// What a campaign found once: it is looked at for ever.
#[test]
fn seeds_that_have_failed_once_fail_no_more() {
    for seed in [
        1099, 1_001_214, 1_004_614, 1_018_710, 1_019_410, 2_000_055, 2_007_347, 4_010_185, 4_010_509,
        5_016_525, 11_053_331, 17_012_154, 20_032_718,
    ] {
        World::new(seed).run();
    }
}

#[test]
fn nothing_that_is_promised_breaks_and_everybody_comes_back() {
    let (begin, count) = (number("FAIRLOCK_SEED", 1), number("FAIRLOCK_SEEDS", 40));
    let begun = Instant::now();
    let next = AtomicU64::new(begin);
    let take = || {
        let mut all = Vec::new();
        loop {
            // Relaxed: only different seeds are wanted.
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= begin + count {
                return all;
            }
            all.push(World::new(seed).run());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all: Vec<Summary> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed failed; see above")).collect()
    });
    report(&all, begun.elapsed().as_secs_f64());
}

/// What was simulated, for people.
fn report(all: &[Summary], seconds: f64) {
    let sum = |of: fn(&Summary) -> u64| all.iter().map(of).sum::<u64>();
    let hours = sum(|one| one.simulated_ns) as f64 / 3.6e12;
    println!(
        "{} schedules, {hours:.2} simulated hours in {seconds:.1} s ({:.0} times real time)",
        all.len(),
        hours * 3600.0 / seconds
    );
    println!(
        "{} passes, {} grants, {} offices, {} sums compared, {} grants inherited, {} memories lost",
        sum(|one| one.passes),
        sum(|one| one.grants),
        sum(|one| one.offices),
        sum(|one| one.compared),
        sum(|one| one.inherited),
        sum(|one| one.forgotten)
    );
    print!("{:<24}", "");
    for state in STATES {
        print!("{state:>15}");
    }
    println!();
    for (kind, name) in KINDS.iter().enumerate() {
        print!("{name:<24}");
        for state in 0..STATES.len() {
            print!("{:>15}", all.iter().map(|one| one.struck[kind][state]).sum::<u64>());
        }
        println!();
    }
}
