//! What the lock table costs by itself, and whether that grows: with locks held, with the length of a queue, with
//! sessions. Each growing figure stands beside one cache miss in as much memory, which grows, too: a table cannot
//! be flatter than the memory it lies in.
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

mod growth;
mod ledger;
mod queues;

use criterion::Criterion;
use fairlock_benches::machine;
use ledger::Ledger;
use std::time::Duration;

fn main() {
    println!("{}", machine::line());
    let quick = std::env::args().any(|word| word == "--quick");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let ledger = Ledger::default();
    growth::by_locks(&mut criterion, &ledger, quick);
    growth::by_sessions(&mut criterion, &ledger);
    queues::by_length(&mut criterion, &ledger);
    criterion.final_summary();
    ledger.print();
}
