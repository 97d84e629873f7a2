//! Random numbers that can be had again: SplitMix64 from a seed that is printed. `FAIRLOCK_SEED` replays one.

/// A deterministic source of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub const fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An index of a list of `length`.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Some bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// The seed of a random test: `FAIRLOCK_SEED` when set, else `fixed` in the repeatable runs, and printed in any case.
///
/// # Panics
/// When `FAIRLOCK_SEED` is not a number.
pub fn seed(test: &str, fixed: u64) -> u64 {
    let seed =
        std::env::var("FAIRLOCK_SEED").map_or(fixed, |text| text.parse().expect("FAIRLOCK_SEED is a number"));
    eprintln!("{test}: FAIRLOCK_SEED={seed}");
    seed
}

/// A seed that differs from run to run, for tests whose schedule differs anyway.
pub fn fresh_seed(test: &str) -> u64 {
    seed(test, crate::boottime_ns())
}
