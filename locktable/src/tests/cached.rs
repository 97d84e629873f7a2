//! Grants that stay with their client between two holds.

use super::*;
use crate::cache::NOBODY;

fn blocked(effects: &[Effect], grant: GrantId) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, Effect::Told { notice: Notice::Blocking { grant: told, .. }, .. } if *told == grant)
    })
}

fn granted(effects: &[Effect]) -> Option<Granted> {
    effects.iter().find_map(|effect| match *effect {
        Effect::Answered { answer: Answer::Granted(granted), .. } => Some(granted),
        _ => None,
    })
}

#[test]
fn a_cached_grant_is_told_when_it_blocks_and_passes_on_when_it_is_given_back() {
    let mut story = Story::new();
    let (keeper, other) = (story.open(), story.open());
    let ask = story.asking(keeper, Mode::EX, Wait::Forever);
    let grant = granted(&story.ask(ask)).unwrap().grant;
    assert!(story.apply(Command::Cache { session: keeper, grant }).is_empty());
    let ask = story.asking(other, Mode::EX, Wait::Forever);
    let effects = story.ask(ask);
    assert!(blocked(&effects, grant), "{effects:?}");
    let effects = story.apply(Command::GiveBack { session: keeper, grant });
    let next = granted(&effects).unwrap();
    assert!(!next.previous_owner_died);
    assert!(story.apply(Command::GiveBack { session: keeper, grant }).is_empty(), "given back once");
    assert_eq!(story.table.counts().overtakes_total, 0);
}

#[test]
fn a_grant_that_blocks_somebody_already_is_told_at_once_when_it_is_cached() {
    let mut story = Story::new();
    let (keeper, other) = (story.open(), story.open());
    let ask = story.asking(keeper, Mode::PR, Wait::Forever);
    let grant = granted(&story.ask(ask)).unwrap().grant;
    let ask = story.asking(other, Mode::EX, Wait::Forever);
    assert!(!blocked(&story.ask(ask), grant), "it did not ask for notices");
    assert!(blocked(&story.apply(Command::Cache { session: keeper, grant }), grant));
}

#[test]
fn nobody_of_the_client_owns_a_cached_grant() {
    let mut story = Story::new();
    let keeper = story.open();
    let ask = story.asking(keeper, Mode::EX, Wait::Forever);
    let grant = granted(&story.ask(ask)).unwrap().grant;
    story.apply(Command::Cache { session: keeper, grant });
    // The same owner waits like everybody: another thread may be inside.
    let ask = story.asking(keeper, Mode::EX, Wait::Forever);
    let effects = story.ask(ask);
    assert!(granted(&effects).is_none() && blocked(&effects, grant), "{effects:?}");
    assert!(granted(&story.apply(Command::GiveBack { session: keeper, grant })).is_some());
}

#[test]
fn a_crowd_of_cached_grants_is_told_and_counted_by_owner() {
    let mut story = Story::new();
    let keeper = story.open();
    let mut grants = Vec::new();
    for owner in 0..40 {
        let ask = Acquire { owner: OwnerId(owner), ..story.asking(keeper, Mode::PR, Wait::Forever) };
        grants.push(granted(&story.ask(ask)).unwrap().grant);
    }
    for &grant in grants.iter().step_by(3).chain(grants.iter().skip(1).step_by(3)) {
        story.apply(Command::Cache { session: keeper, grant });
    }
    let writer = story.open();
    let ask = story.asking(writer, Mode::EX, Wait::Forever);
    let effects = story.ask(ask);
    assert_eq!(grants.iter().filter(|grant| blocked(&effects, **grant)).count(), 27);
    let owner = Acquire { owner: OwnerId(NOBODY), ..story.asking(keeper, Mode::EX, Wait::Try) };
    story.ask(owner);
    for &grant in &grants {
        story.apply(Command::GiveBack { session: keeper, grant });
    }
    assert_eq!(story.table.counts().grants, 1, "the writer");
}
