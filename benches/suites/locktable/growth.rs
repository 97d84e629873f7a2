//! The table with more and more locks held, and with more and more sessions.

use crate::ledger::Ledger;
use criterion::{BenchmarkId, Criterion};
use fairlock_benches::hall::{Hall, digest, mix};
use fairlock_locktable::command::Wait;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes of a name here.
const NAME_BYTES: f64 = 16.0;
/// Numbers from here on are names that nobody holds.
const FRESH: u64 = 1 << 40;

/// Held locks: 10³ … 10⁷.
pub(crate) fn by_locks(criterion: &mut Criterion, ledger: &Ledger, quick: bool) {
    let mut group = criterion.benchmark_group("held locks");
    let largest = if quick { 6 } else { 7 };
    for size in (3..=largest).map(|exponent| 10_u64.pow(exponent)) {
        let mut hall = Hall::with_sessions(16);
        let before = hall.table.memory();
        let mut grants = hall.hold(0..size);
        let bytes = (hall.table.memory() - before) as f64 / size as f64;
        if size >= 1_000_000 {
            ledger.weigh(size, bytes - NAME_BYTES);
        }
        let memory = vec![1_u64; (hall.table.memory() / 8).next_power_of_two()];
        group.bench_function(BenchmarkId::new("cache miss (limit)", size), |bench| {
            bench.iter_custom(|count| ledger.note("cache miss (limit)", size, count, misses(&memory, count)));
        });
        group.bench_function(BenchmarkId::new("look-up", size), |bench| {
            bench.iter_custom(|count| ledger.note("look-up", size, count, look_ups(&hall, size, count)));
        });
        group.bench_function(BenchmarkId::new("acquire + release of a free name", size), |bench| {
            bench.iter_custom(|count| {
                let took = pairs(&mut hall, 16, count);
                ledger.note("acquire + release, free name", size, count, took)
            });
        });
        group.bench_function(BenchmarkId::new("release + acquire of a held one", size), |bench| {
            bench.iter_custom(|count| {
                let start = Instant::now();
                for turn in 0..count {
                    let number = mix(turn) % size;
                    let place = usize::try_from(number).expect("sizes fit");
                    let seat = place % 16;
                    hall.release(seat, grants[place]);
                    grants[place] = hall.acquire(seat, number, Wait::Try).expect("it was just given back");
                }
                ledger.note("release + acquire, held name", size, count, start.elapsed())
            });
        });
    }
    group.finish();
}

/// Sessions: 1 … 10⁴, with 100 000 locks among them.
pub(crate) fn by_sessions(criterion: &mut Criterion, ledger: &Ledger) {
    let mut group = criterion.benchmark_group("sessions");
    for size in [1_usize, 100, 10_000] {
        let mut hall = Hall::with_sessions(size);
        hall.hold(0..100_000);
        group.bench_function(BenchmarkId::new("acquire + release", size), |bench| {
            bench.iter_custom(|count| {
                let took = pairs(&mut hall, size, count);
                ledger.note("acquire + release, by sessions", size as u64, count, took)
            });
        });
    }
    group.finish();
}

fn look_ups(hall: &Hall, size: u64, count: u64) -> Duration {
    let start = Instant::now();
    for turn in 0..count {
        let found = hall.table.lock(digest(mix(turn) % size));
        assert!(black_box(found).is_some(), "every number below the size is held");
    }
    start.elapsed()
}

fn pairs(hall: &mut Hall, seats: usize, count: u64) -> Duration {
    let start = Instant::now();
    for turn in 0..count {
        let seat = usize::try_from(turn).expect("counts fit") % seats;
        let grant = hall.acquire(seat, FRESH + turn, Wait::Try).expect("nobody holds it");
        hall.release(seat, black_box(grant));
    }
    start.elapsed()
}

/// Reads that depend on each other, all over the memory.
fn misses(memory: &[u64], count: u64) -> Duration {
    let mask = memory.len() - 1;
    let mut number = 0;
    let start = Instant::now();
    for _ in 0..count {
        let place = usize::try_from(mix(number)).expect("64 bits") & mask;
        number = number.wrapping_add(memory[place]);
    }
    black_box(number);
    start.elapsed()
}
