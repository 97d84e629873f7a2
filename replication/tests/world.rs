//! Thousands of cells, each with its own seed of mishaps: nothing that was promised to a client may be broken, and a cell
//! that is left in peace must become whole.
//!
//! `SEED=n` replays one seed, with `FAIRLOCK_LOUD=1` it tells what happens; `FAIRLOCK_CELLS=n` runs that many instead of the
//! few of every day.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::expect_used, clippy::cast_precision_loss, reason = "figures for people")]
#![allow(unreachable_pub, reason = "the cell is a part of this program alone")]

mod cell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cell::World;

const CELLS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed; what was violated, if anything was.
fn run(seed: u64) -> Result<(u64, [u64; 4]), String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        let time = world.run();
        (time, world.summary())
    }));
    ran.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[test]
fn a_cell_keeps_its_promises_whatever_happens_and_becomes_whole_again() {
    if let Some(seed) = number("SEED") {
        let mut world = World::new(seed);
        let time = world.run();
        eprintln!("{time} ns, [exposed, offices, lost, events] {:?}", world.summary());
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let (cells, first) = (number("FAIRLOCK_CELLS").unwrap_or(CELLS), number("FAIRLOCK_FIRST").unwrap_or(1));
    let (next, time) = (AtomicU64::new(first), AtomicU64::new(0));
    let sums: [AtomicU64; 4] = std::array::from_fn(|_| AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(4) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cells {
                        return;
                    }
                    match run(seed) {
                        Ok((simulated, summary)) => {
                            time.fetch_add(simulated / 1_000_000, Ordering::Relaxed);
                            for (sum, one) in sums.iter().zip(summary) {
                                sum.fetch_add(one, Ordering::Relaxed);
                            }
                        }
                        Err(why) => failed.lock().unwrap().push((seed, why)),
                    }
                }
            });
        }
    });
    let simulated = time.load(Ordering::Relaxed) as f64 / 1000.0;
    let real = begun.elapsed().as_secs_f64();
    eprintln!(
        "{cells} cells, {simulated:.0} s simulated in {real:.1} s: {:.0} a second; [exposed, offices, lost, events] {sums:?}",
        simulated / real
    );
    let _ = std::panic::take_hook();
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {cells} cells failed; replay with SEED=n: {failed:#?}", failed.len());
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_comes_back() {
    for seed in 1..=20 {
        World::new(seed).drill();
    }
}

#[test]
fn what_luck_would_seldom_bring_about_is_made_by_hand() {
    cell::drills::all();
}
