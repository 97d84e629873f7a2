//! Remembers what criterion measured, for the table at the end: each figure at each size, the ratio of the largest
//! size to the smallest (P16), and the bytes of a held lock (P11).

use fairlock_benches::figures::median;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Iterations below this say more about the clock than about the table.
const ITERATIONS_MIN: u64 = 16;

/// Everything measured so far, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    figures: RefCell<BTreeMap<(&'static str, u64), Vec<f64>>>,
    bytes: RefCell<Vec<(u64, f64)>>,
}

impl Ledger {
    /// A sample of a figure at a size, passed on to criterion.
    pub(crate) fn note(&self, figure: &'static str, size: u64, iterations: u64, took: Duration) -> Duration {
        if iterations >= ITERATIONS_MIN {
            let ns = took.as_secs_f64() * 1e9 / iterations as f64;
            self.figures.borrow_mut().entry((figure, size)).or_default().push(ns);
        }
        took
    }

    /// Bytes of the table for each of `locks` held locks, the name not counted.
    pub(crate) fn weigh(&self, locks: u64, bytes_each: f64) {
        self.bytes.borrow_mut().push((locks, bytes_each));
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        let figures = self.figures.borrow();
        let mut names: Vec<&str> = figures.keys().map(|&(name, _)| name).collect();
        names.dedup();
        println!(
            "\nP16 growth: ns at each size, and largest / smallest (target <= 2 x; see the limit's own growth)"
        );
        for name in names {
            let sizes: Vec<(u64, f64)> = figures
                .iter()
                .filter(|((figure, _), _)| *figure == name)
                .map(|(&(_, size), samples)| (size, median(samples)))
                .collect();
            let cells: Vec<String> = sizes.iter().map(|(size, ns)| format!("{size}: {ns:.1}")).collect();
            let growth = match (sizes.first(), sizes.last()) {
                (Some((_, small)), Some((_, large))) => large / small,
                _ => f64::NAN,
            };
            println!("  {name:<34} {growth:>6.2} x   {}", cells.join("   "));
        }
        println!(
            "\nP11 memory of the table: bytes for each held lock beyond its 16-byte name (limit by design 60, target <= 96)"
        );
        for (locks, bytes) in self.bytes.borrow().iter() {
            println!("  {locks:>9} locks {bytes:>8.1} bytes   {:.2} x", bytes / 60.0);
        }
    }
}
