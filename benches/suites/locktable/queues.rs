//! One lock with a longer and longer queue: what it costs to let the next one in, and to leave the queue by will, by
//! time and by the end of the session. Who left comes back at the tail, so the length stays.

use crate::ledger::Ledger;
use criterion::{BenchmarkId, Criterion};
use fairlock_benches::hall::{Hall, mix};
use fairlock_locktable::command::Wait;
use fairlock_protocol::{GrantId, RequestId};
use std::time::Instant;

const NUMBER: u64 = 7;

/// A lock that somebody holds, and a queue with one request of each other session.
struct Queue {
    hall: Hall,
    holder: (usize, GrantId),
    waiting: Vec<Option<RequestId>>,
}

impl Queue {
    fn new(length: usize, wait: impl Fn(usize) -> Wait) -> Queue {
        let mut hall = Hall::with_sessions(length + 1);
        let grant = hall.acquire(length, NUMBER, Wait::Forever).expect("the first one");
        let waiting = (0..length).map(|seat| hall.acquire(seat, NUMBER, wait(seat)).err()).collect();
        Queue { hall, holder: (length, grant), waiting }
    }
}

/// Queue lengths: 1 … 10⁴.
pub(crate) fn by_length(criterion: &mut Criterion, ledger: &Ledger) {
    let mut group = criterion.benchmark_group("queue length");
    for length in [1_usize, 10, 100, 1000, 10_000] {
        let size = length as u64;
        let mut queue = Queue::new(length, |_| Wait::Forever);
        group.bench_function(BenchmarkId::new("grant by release", length), |bench| {
            bench.iter_custom(|count| {
                let start = Instant::now();
                for _ in 0..count {
                    let (seat, grant) = queue.holder;
                    queue.hall.release(seat, grant);
                    queue.holder = queue.hall.granted().expect("somebody was next");
                    queue.hall.acquire(seat, NUMBER, Wait::Forever).expect_err("somebody holds it");
                }
                ledger.note("grant by release, re-queue", size, count, start.elapsed())
            });
        });
        let mut queue = Queue::new(length, |_| Wait::Forever);
        group.bench_function(BenchmarkId::new("cancel", length), |bench| {
            bench.iter_custom(|count| {
                let start = Instant::now();
                for turn in 0..count {
                    let seat = anybody(turn, length);
                    let target = queue.waiting[seat].expect("everybody but the holder waits");
                    queue.hall.cancel(seat, target);
                    queue.waiting[seat] = queue.hall.acquire(seat, NUMBER, Wait::Forever).err();
                }
                ledger.note("cancel, re-queue", size, count, start.elapsed())
            });
        });
        let mut queue = Queue::new(length, |_| Wait::Forever);
        group.bench_function(BenchmarkId::new("expiry", length), |bench| {
            bench.iter_custom(|count| {
                let start = Instant::now();
                for turn in 0..count {
                    let seat = anybody(turn, length);
                    queue.hall.replace(seat);
                    queue.hall.acquire(seat, NUMBER, Wait::Forever).expect_err("somebody holds it");
                }
                ledger.note("expiry, open, re-queue", size, count, start.elapsed())
            });
        });
        // Waits of different lengths, so that whoever leaves stands anywhere in the queue.
        let span = |seat: u64| Wait::Millis(1 + mix(seat) % (2 * size));
        let mut queue = Queue::new(length, |seat| span(seat as u64));
        group.bench_function(BenchmarkId::new("timeout", length), |bench| {
            bench.iter_custom(|count| {
                let start = Instant::now();
                for turn in 0..count {
                    let seat = queue.hall.time_passes();
                    if let Some(seat) = seat {
                        queue.hall.acquire(seat, NUMBER, span(turn)).expect_err("somebody holds it");
                    }
                }
                ledger.note("timeout, re-queue", size, count, start.elapsed())
            });
        });
    }
    group.finish();
}

fn anybody(turn: u64, length: usize) -> usize {
    usize::try_from(mix(turn) % length as u64).expect("lengths fit")
}
