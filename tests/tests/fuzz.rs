//! A short run of every fuzz function over spoilt corpora, repeatable from the seed it prints. `FAIRLOCK_FUZZ_CASES`
//! makes it longer, `FAIRLOCK_SEED` replays one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::fuzz::{corpus, frames, histories, segments};
use fairlock_tests::random::{Random, seed};
use proptest::prelude::*;

fn cases(default: u64) -> u64 {
    std::env::var("FAIRLOCK_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// G26: no bytes bring the decoder down, and what it accepts is written in one way.
#[test]
fn the_decoder_survives_a_hundred_thousand_spoilt_streams() {
    let mut random = Random::from_seed(seed("the decoder", 0xF41A));
    let sound = corpus::sound();
    let mut understood = 0;
    for _ in 0..cases(100_000) {
        understood += frames::any_bytes(&corpus::spoilt(&sound, &mut random));
    }
    assert!(understood > 10_000, "most of what is spoilt a little is still understood in part: {understood}");
}

/// G8: at most one outcome for each request. G5: nobody is overtaken.
#[test]
fn the_table_survives_a_thousand_random_histories() {
    let mut random = Random::from_seed(seed("the table", 0x7AB1E));
    let mut grants = 0;
    for _ in 0..cases(1_000) {
        let length = 30 + random.index(600);
        grants += histories::any_bytes(&random.bytes(length));
    }
    eprintln!("{grants} grants");
    assert!(
        grants > 10 * cases(1_000),
        "histories in which hardly anything is granted test nothing: {grants}"
    );
}

/// G45: whatever a client writes into the memory it shares is data.
#[test]
fn the_reader_of_a_segment_survives_twenty_thousand_spoilt_ones() {
    let mut random = Random::from_seed(seed("segments", 0x5E6));
    let sound = corpus::sound();
    let mut understood = 0;
    for _ in 0..cases(20_000) {
        understood += segments::any_bytes(&segments::steps(&sound, &mut random));
    }
    eprintln!("{understood} frames");
    assert!(understood > cases(20_000), "what is spoilt everywhere tests nothing: {understood}");
}

#[test]
fn the_sound_corpus_is_understood() {
    for stream in corpus::sound() {
        assert!(frames::any_bytes(&stream) > 0, "{stream:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        frames::any_bytes(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_a_segment(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        segments::any_bytes(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_a_history(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        histories::any_bytes(&bytes);
    }
}
