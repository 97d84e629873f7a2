//! What came of the faults: how often each happened to whom, and how long nobody was granted anything.

use fairlock_cli::history::Report;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Moments of one fault, in nanoseconds of one clock.
pub(crate) struct Course {
    pub(crate) struck: u64,
    /// Everything was whole again.
    pub(crate) healed: u64,
    /// Each who looked had been granted something since.
    pub(crate) again: u64,
    /// Every node was a member.
    pub(crate) whole: u64,
    /// When those who looked were granted something.
    pub(crate) served: Vec<u64>,
}

/// All in milliseconds.
#[derive(Debug, Default)]
struct Times {
    /// Longest time without a grant, from the stroke on.
    gaps: Vec<u64>,
    /// From the cure until served, and until complete.
    back: Vec<u64>,
    whole: Vec<u64>,
}

/// The sum of a run.
pub(crate) struct Tally {
    seed: u64,
    by_kind: BTreeMap<String, Times>,
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn new(seed: u64) -> Tally {
        Tally { seed, by_kind: BTreeMap::new(), counts: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, kind: String, course: &Course) {
        let ms = |from: u64, to: u64| to.saturating_sub(from) / 1_000_000;
        let mut moments: Vec<u64> = course.served.iter().copied().filter(|at| *at > course.struck).collect();
        moments.sort_unstable();
        let before = std::iter::once(course.struck).chain(moments.iter().copied());
        let gap = before.zip(&moments).map(|(from, to)| ms(from, *to)).max().unwrap_or(0);
        let times = self.by_kind.entry(kind).or_default();
        times.gaps.push(gap);
        times.back.push(ms(course.healed, course.again));
        times.whole.push(ms(course.healed, course.whole));
    }

    /// A history was judged, and nothing was wrong in it.
    pub(crate) fn judged(&mut self, report: &Report) {
        let counts = &report.counts;
        let all = [
            ("cells", 1),
            ("clients", counts.clients),
            ("clients_killed", counts.killed),
            ("requests", counts.requests),
            ("granted", counts.granted),
            ("in_doubt", counts.in_doubt),
            ("certain_holds", counts.certain_holds),
            ("violations", report.total()),
        ];
        for (name, count) in all {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// One line of JSON.
    pub(crate) fn report(&mut self) -> Value {
        let mut faults = 0;
        let mut kinds = serde_json::Map::new();
        for (kind, times) in &mut self.by_kind {
            faults += times.gaps.len();
            let of = |list: &mut Vec<u64>| json!({"p50": part(list, 50), "p99": part(list, 99)});
            let entry = json!({
                "faults": times.gaps.len(),
                "gap_ms": of(&mut times.gaps),
                "served_after_cure_ms": of(&mut times.back),
                "complete_after_cure_ms": of(&mut times.whole),
            });
            kinds.insert(kind.clone(), entry);
        }
        json!({"seed": self.seed, "faults": faults, "counts": self.counts, "kinds": kinds})
    }
}

/// The value that so many in a hundred do not exceed.
fn part(list: &mut [u64], percent: usize) -> u64 {
    list.sort_unstable();
    let at = (list.len() * percent).div_ceil(100).max(1) - 1;
    list.get(at).copied().unwrap_or(0)
}
