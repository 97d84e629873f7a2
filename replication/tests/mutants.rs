//! Makes each mistake of `mutants.rs` on purpose and looks whether the simulated cell notices it. Built with `--cfg mutants`
//! only:
//!
//! `RUSTFLAGS="--cfg mutants" CARGO_TARGET_DIR=target/mutants cargo test -p fairlock-replication --release --test mutants`
//!
//! `MUTANT=name` makes one alone.
#![cfg(mutants)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "the cell is a part of this program alone")]

mod cell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cell::World;
use fairlock_replication::mutants::{Mutant, select};

/// Cells in which a mistake must show.
const CELLS: u64 = 1500;

/// What a seed's cell noticed, if it did.
fn run(seed: u64) -> Option<String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        if seed == 1 {
            cell::drills::all();
            World::new(seed).drill();
        }
        World::new(seed).run()
    }));
    ran.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The first seed up to `cells` whose cell noticed something, and what.
fn first_noticed(cells: u64) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(1), Mutex::new(None::<(u64, String)>));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(4) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > cells || found.lock().unwrap().is_some() {
                        return;
                    }
                    if let Some(text) = run(seed) {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                            *found = Some((seed, text));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn every_mistake_is_noticed() {
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("MUTANT").ok();
    let mut missed = vec![];
    select(None);
    let innocent = first_noticed(20);
    for mutant in Mutant::ALL.iter().copied() {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        select(Some(mutant));
        match first_noticed(CELLS) {
            Some((seed, text)) => println!("| {mutant:?} | {seed} | {} |", text.replace('\n', " ")),
            None => missed.push(mutant),
        }
    }
    select(None);
    let _ = std::panic::take_hook();
    assert_eq!(innocent, None, "without a mistake");
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}
