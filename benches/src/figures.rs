//! From samples to what is printed: quantiles of a round, the best and the median of several rounds, and the ratio of
//! a figure to its limit, round by round.
//!
//! The ratio is taken within each round, because figure and limit were measured within the same second there; the
//! median of these ratios is what a verdict rests on.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Durations of one round.
#[derive(Clone, Debug)]
pub struct Samples(Histogram<u64>);

impl Default for Samples {
    fn default() -> Samples {
        // A minute at most, three digits: everything measured here lies far inside.
        Samples(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order"))
    }
}

impl Samples {
    /// Adds one; what is longer than a minute counts as a minute.
    pub fn add(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Runs `what` this often and samples each run.
    pub fn of(count: usize, mut what: impl FnMut()) -> Samples {
        let mut samples = Samples::default();
        for _ in 0..count {
            let start = Instant::now();
            what();
            samples.add(start.elapsed());
        }
        samples
    }

    /// Middle and tail.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles { p50: self.at(0.5), p99: self.at(0.99), p999: self.at(0.999) }
    }

    /// The quantile, in nanoseconds; of no samples, not a number.
    pub fn at(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { f64::NAN } else { self.0.value_at_quantile(quantile) as f64 }
    }

    /// Adds all of another round.
    pub fn join(&mut self, other: &Samples) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Middle and tail of one round, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    /// Half are shorter.
    pub p50: f64,
    /// One in a hundred is longer.
    pub p99: f64,
    /// One in a thousand is longer.
    pub p999: f64,
}

/// The middle of some numbers; of none, not a number.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Rounds of one figure.
#[derive(Clone, Debug, Default)]
pub struct Series {
    rounds: Vec<Quantiles>,
}

impl Series {
    /// Adds a round.
    pub fn add(&mut self, samples: &Samples) {
        self.rounds.push(samples.quantiles());
    }

    /// Adds a round measured elsewhere.
    pub fn add_quantiles(&mut self, round: Quantiles) {
        self.rounds.push(round);
    }

    /// Adds a round of which only the mean is known.
    pub fn add_mean(&mut self, ns: f64) {
        self.rounds.push(Quantiles { p50: ns, p99: f64::NAN, p999: f64::NAN });
    }

    /// The middles of all rounds.
    pub fn middles(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.p50).collect()
    }

    /// The smallest middle of a round.
    pub fn best(&self) -> f64 {
        self.middles().into_iter().fold(f64::NAN, f64::min)
    }

    /// Each quantile's median over the rounds.
    pub fn typical(&self) -> Quantiles {
        let of = |pick: fn(&Quantiles) -> f64| median(&self.rounds.iter().map(pick).collect::<Vec<_>>());
        Quantiles { p50: of(|round| round.p50), p99: of(|round| round.p99), p999: of(|round| round.p999) }
    }

    /// The median over the rounds of this figure's middle divided by the limit's of the same round.
    pub fn ratio(&self, limit: &Series) -> f64 {
        let ratios: Vec<f64> =
            self.rounds.iter().zip(&limit.rounds).map(|(figure, limit)| figure.p50 / limit.p50).collect();
        median(&ratios)
    }
}

/// Prints the heading of rows.
pub fn heading(title: &str) {
    println!("\n{title}");
    println!(
        "  {:<44} {:>9} {:>9} {:>9} {:>9}   {:>7}",
        "(medians over the rounds)", "p50", "p99", "p99.9", "best p50", "ratio"
    );
}

/// Prints one figure in microseconds, with the ratio to its limit when it has one.
pub fn row(name: &str, series: &Series, limit: Option<&Series>) {
    let typical = series.typical();
    let ratio = limit.map_or_else(String::new, |limit| format!("{:.2} x", series.ratio(limit)));
    println!(
        "  {name:<44} {:>9} {:>9} {:>9} {:>9}   {ratio:>7}",
        us(typical.p50),
        us(typical.p99),
        us(typical.p999),
        us(series.best())
    );
}

/// Prints one figure in nanoseconds, for what takes a handful of them.
pub fn row_ns(name: &str, series: &Series, limit: Option<&Series>) {
    let typical = series.typical();
    let ratio = limit.map_or_else(String::new, |limit| format!("{:.2} x", series.ratio(limit)));
    let ns = |ns: f64| format!("{ns:.1} ns");
    println!(
        "  {name:<50} {:>9} {:>9} {:>9} {:>9}   {ratio:>7}",
        ns(typical.p50),
        ns(typical.p99),
        ns(typical.p999),
        ns(series.best())
    );
}

/// Prints the heading of rows of a handful of rare events.
pub fn spread_heading(title: &str) {
    println!("\n{title}");
    println!("  {:<52} {:>5} {:>10} {:>10} {:>10} {:>10}", "", "times", "p50", "p90", "p99", "max");
}

/// Prints how long rare events took, in milliseconds: how many there were, and up to the very longest.
pub fn spread_row(name: &str, samples: &Samples) {
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|quantile| ms(samples.at(quantile)));
    println!("  {name:<52} {:>5} {p50:>10} {p90:>10} {p99:>10} {max:>10}", samples.count());
}

/// Milliseconds with their unit.
pub fn ms(ns: f64) -> String {
    if ns.is_nan() { "-".to_owned() } else { format!("{:.2} ms", ns / 1e6) }
}

fn us(ns: f64) -> String {
    if ns.is_nan() { "-".to_owned() } else { format!("{:.2} us", ns / 1000.0) }
}

/// A rate with its unit: `3.42 M/s`.
pub fn rate(per_s: f64) -> String {
    match per_s {
        per_s if per_s >= 1e6 => format!("{:.2} M/s", per_s / 1e6),
        per_s if per_s >= 1e3 => format!("{:.1} k/s", per_s / 1e3),
        per_s => format!("{per_s:.0} /s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let (mut figure, mut limit) = (Series::default(), Series::default());
        for (ours, bare) in [(20.0, 10.0), (300.0, 100.0), (22.0, 11.0)] {
            figure.add_mean(ours);
            limit.add_mean(bare);
        }
        assert!((figure.ratio(&limit) - 2.0).abs() < 1e-9);
        assert!((figure.best() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
