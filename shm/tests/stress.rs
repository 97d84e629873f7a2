//! Clients and a shard under load, over two mappings of each segment: requests and replies with both sides really asleep
//! in between, and one lock that goes round by grant words, entered and left without messages, wanted, taken, and ended
//! by force. Checked: every byte arrives, never two are inside, and nobody sleeps for ever.
//!
//! The seed is printed; `FAIRLOCK_SEED` replays the choices, though not the schedule.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "stress/rings.rs"]
mod rings;
#[path = "stress/words.rs"]
mod words;

use std::time::Duration;

/// How long each test goes on.
const TIME: Duration = Duration::from_secs(2);
/// Whoever sleeps longer was not woken: a thousand times what waking costs on a busy machine.
const WATCH: Duration = Duration::from_secs(20);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn seed() -> u64 {
    let fresh = || std::process::id().into();
    let seed = std::env::var("FAIRLOCK_SEED").map_or_else(|_| fresh(), |text| text.parse().unwrap());
    println!("FAIRLOCK_SEED={seed}");
    seed
}
