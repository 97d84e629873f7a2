//! The register swaps once for each expectation, and everything that can go wrong does go wrong as told.

use super::*;
use crate::configuration::tests::configuration;
use core::fmt::Write;
use fairlock_protocol::Epoch;
use std::string::String;

fn at(epoch: u32) -> Configuration {
    Configuration { epoch: Epoch::new(1_000_000 + epoch).unwrap(), ..configuration() }
}

/// Epoch that stands there, and its revision.
fn standing(chaos: &mut Chaos) -> Option<(u32, Revision)> {
    chaos.memory().stored().map(|stored| (stored.configuration.epoch.get() - 1_000_000, stored.revision))
}

#[test]
fn a_swap_succeeds_once_for_each_revision() {
    let mut memory = Memory::new();
    assert_eq!(memory.read(), Answer::Value(None));
    assert_eq!(memory.compare_and_swap(Some(Revision(1)), &at(1)), Answer::Conflict(None));
    let Answer::Written(first) = memory.compare_and_swap(None, &at(1)) else { panic!("it was empty") };
    let there = Some(Stored { configuration: at(1), revision: first });
    assert_eq!(memory.compare_and_swap(None, &at(2)), Answer::Conflict(there.clone()));
    assert_eq!(memory.read(), Answer::Value(there));
    let Answer::Written(second) = memory.compare_and_swap(Some(first), &at(2)) else { panic!("it was read") };
    assert!(second > first);
    assert!(matches!(memory.compare_and_swap(Some(first), &at(3)), Answer::Conflict(Some(_))));
    memory.remove();
    assert!(matches!(memory.compare_and_swap(None, &at(4)), Answer::Written(third) if third > second));
}

#[test]
fn what_is_planned_happens() {
    let mut chaos = Chaos::new();
    for fate in [Fate::Served, Fate::AnswerLost, Fate::RequestLost, Fate::Failed, Fate::Late] {
        chaos.plan(fate);
    }
    let one = Some(Revision(1));
    assert_eq!(chaos.compare_and_swap(None, &at(1)), Answer::Written(Revision(1)));
    assert!(matches!(chaos.compare_and_swap(one, &at(2)), Answer::Unknown(_)));
    assert_eq!(standing(&mut chaos), Some((2, Revision(2))), "the answer was lost, the effect is there");
    let two = Some(Revision(2));
    assert!(matches!(chaos.compare_and_swap(two, &at(3)), Answer::Unknown(_)));
    assert!(matches!(chaos.compare_and_swap(two, &at(4)), Answer::Failed(_)));
    assert!(matches!(chaos.compare_and_swap(two, &at(5)), Answer::Unknown(_)));
    assert_eq!(standing(&mut chaos), Some((2, Revision(2))), "nothing happened yet");
    assert!(chaos.land());
    assert_eq!(standing(&mut chaos), Some((5, Revision(3))), "the late one arrived");
}

#[test]
fn a_late_swap_can_happen_no_more_once_another_came_between() {
    let mut chaos = Chaos::new();
    chaos.plan(Fate::Late);
    assert!(matches!(chaos.compare_and_swap(None, &at(1)), Answer::Unknown(_)));
    assert!(matches!(chaos.compare_and_swap(None, &at(2)), Answer::Written(_)));
    assert!(!chaos.land());
    assert_eq!((standing(&mut chaos).unwrap().0, chaos.late()), (2, 0));
}

#[test]
fn nothing_reaches_a_register_that_is_away() {
    let mut chaos = Chaos::new();
    chaos.plan(Fate::Served);
    chaos.set_away(true);
    assert!(matches!(chaos.read(), Answer::Failed(_)));
    assert!(matches!(chaos.compare_and_swap(None, &at(1)), Answer::Unknown(_)));
    chaos.set_away(false);
    assert_eq!(chaos.read(), Answer::Value(None), "what was planned waited");
}

#[test]
fn the_same_seed_has_the_same_troubles_and_every_kind_of_them() {
    let run = |seed| {
        let mut chaos = Chaos::seeded(seed, 400);
        let (mut story, mut landed_late) = (String::new(), 0);
        for epoch in 1..400 {
            let expected = standing(&mut chaos).map(|(_, revision)| revision);
            let answer = chaos.compare_and_swap(expected, &at(epoch));
            let now = standing(&mut chaos).map(|(_, revision)| revision);
            // The swap itself may conflict: something late came between the look and the ask.
            landed_late += u32::from(matches!(answer, Answer::Conflict(_)));
            let _ = writeln!(story, "{:?} {now:?}", core::mem::discriminant(&answer));
        }
        assert!(landed_late > 0, "seed {seed}: no late swap ever arrived");
        story
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
