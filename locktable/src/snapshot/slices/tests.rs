//! Snapshots of tables whose chunks come, empty and go while they are told.

use super::Slice;
use crate::command::{Acquire, Command, Ended, SessionKey, Wait};
use crate::effect::Effects;
use crate::rules::NamespaceRules;
use crate::snapshot::Restorer;
use crate::table::{Limits, Settings, Table};
use crate::tests::{Story, granted, named};
use alloc::vec::Vec;
use fairlock_protocol::{Epoch, GrantId, Mode, Resource, ShardId};
use proptest::prelude::*;

/// What may happen while a table is told.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// So many locks more are taken.
    Take(u16),
    /// So many of them, from this place on, are given back.
    Give(u16, u16),
    /// A session and all that it holds ends; another one opens.
    End,
    /// Waits and holds of some run out.
    Pass(u16),
}

struct House {
    story: Story,
    session: SessionKey,
    held: Vec<(SessionKey, GrantId)>,
    effects: Effects,
    /// Locks ever asked for.
    named: u64,
}

impl House {
    fn new() -> House {
        let mut story = Story::told(settings(7));
        story.table.begin_rolling();
        let session = story.open();
        House { story, session, held: Vec::new(), effects: Effects::new(), named: 0 }
    }

    /// Without the story's audit, which goes over the whole table.
    fn apply(&mut self, command: Command<'_>) {
        self.effects.clear();
        self.story.table.apply(self.story.now, command, &mut self.effects);
    }

    /// The client has every answer.
    fn acknowledge(&mut self, session: SessionKey) {
        if let Some(view) = self.story.table.session_view(session) {
            self.apply(Command::Acknowledge { session, received: view.kept_sent });
        }
    }

    fn take(&mut self, count: u16) {
        for _ in 0..count {
            self.named += 1;
            let length = 3 + self.named % 60;
            let name = std::format!("{:0width$}", self.named, width = usize::try_from(length).unwrap());
            let label = if self.named.is_multiple_of(3) { &name.as_bytes()[..2] } else { b"" };
            let asking = self.story.asking(self.session, Mode::EX, Wait::Try);
            let resource = Resource::new(b"", name.as_bytes()).unwrap();
            let max_hold_ms = if self.named.is_multiple_of(5) { 700 } else { 0 };
            let asking = named(Acquire { resource, max_hold_ms, label, ..asking });
            self.apply(Command::Acquire(asking));
            let given = granted(&self.effects, asking.request);
            self.held.push((self.session, given.grant));
            self.acknowledge(self.session);
        }
    }

    fn give(&mut self, from: u16, count: u16) {
        let from = usize::from(from).min(self.held.len());
        let to = (from + usize::from(count)).min(self.held.len());
        let gone: Vec<_> = self.held.drain(from..to).collect();
        for (session, grant) in gone {
            let request = self.story.request();
            self.apply(Command::Release { session, request, grant });
            self.acknowledge(session);
        }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Take(count) => self.take(count),
            Deed::Give(from, count) => self.give(from, count),
            Deed::End => {
                self.apply(Command::End { session: self.session, why: Ended::Died });
                self.session = self.story.open();
            }
            Deed::Pass(ms) => {
                self.story.now = self.story.now.after_millis(ms.into());
                while let Some(command) = self.story.table.due(self.story.now) {
                    self.apply(command);
                }
                self.acknowledge(self.session);
            }
        }
    }
}

fn settings(index_key: u64) -> Settings {
    let (limits, rules) = (Limits::default(), NamespaceRules::new());
    Settings { epoch: Epoch::new(7).unwrap(), shard: ShardId(0), index_key, limits, rules }
}

fn read(pieces: &[Vec<u8>]) -> Table {
    let mut restorer = Restorer::new(settings(99));
    for piece in pieces {
        restorer.piece(piece).unwrap();
        while !restorer.go_on(100).unwrap() {}
    }
    restorer.finish().unwrap()
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (1..900_u16).prop_map(Deed::Take),
        4 => (any::<u16>(), 1..1500_u16).prop_map(|(from, count)| Deed::Give(from % 2000, count)),
        1 => Just(Deed::End),
        1 => (1..900_u16).prop_map(Deed::Pass),
    ];
    prop::collection::vec(deed, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Stores of several chunks of which some empty, go and are filled again before they are told.
    #[test]
    fn what_is_told_is_the_table_of_the_beginning(before in deeds(), meanwhile in deeds(), records in 1..2000_u32) {
        let mut house = House::new();
        for deed in before {
            house.act(deed);
        }
        let mut whole = Vec::new();
        house.story.table.snapshot(|piece| whole.push(piece));
        let sums = (house.story.table.digest(), house.story.table.rolling());
        prop_assert!(house.story.table.begin_snapshot());
        prop_assert!(!house.story.table.begin_snapshot(), "one at a time");
        let mut told = Vec::new();
        let mut deeds = meanwhile.into_iter();
        loop {
            let slice = house.story.table.snapshot_slice(records);
            if let Slice::Piece { bytes, .. } = &slice {
                told.push(bytes.clone());
            }
            if matches!(slice, Slice::Piece { last: true, .. }) {
                break;
            }
            if let Some(deed) = deeds.next() {
                house.act(deed);
                house.story.table.audit();
            }
        }
        prop_assert!(told == whole, "the pieces are those of a snapshot that was told at once");
        let copy = read(&told);
        copy.audit();
        prop_assert_eq!((copy.digest(), copy.rolling()), sums);
        while house.story.table.snapshot_slice(records) != Slice::Over {}
        prop_assert!(!house.story.table.has_slices());
    }
}

#[test]
fn a_snapshot_that_nobody_wants_leaves_nothing() {
    let mut house = House::new();
    house.take(10_000);
    let before = house.story.table.memory();
    assert!(house.story.table.begin_snapshot());
    assert_eq!(house.story.table.snapshot_slice(10), Slice::Nothing);
    house.give(0, 5000);
    house.take(5000);
    let meanwhile = house.story.table.memory();
    assert!(meanwhile > before + 5000 * 80, "{meanwhile} and {before}: nothing was kept");
    house.story.table.end_snapshot();
    let mut slices = 0;
    while house.story.table.snapshot_slice(64) != Slice::Over {
        slices += 1;
    }
    assert!(slices > 100, "{slices}: forgetting goes little by little");
    let after = house.story.table.memory();
    assert!(after < before + before / 10, "{after} and {before}: something is left");
    house.story.table.audit();
    assert!(house.story.table.begin_snapshot(), "the next one can begin");
}

#[test]
fn a_lock_that_comes_and_goes_meanwhile_is_kept_once() {
    let mut house = House::new();
    house.take(200);
    assert!(house.story.table.begin_snapshot());
    let mut memory = 0;
    for round in 0..2000 {
        house.give(0, 1);
        house.take(1);
        if round == 400 {
            memory = house.story.table.memory();
        }
    }
    let grown = house.story.table.memory();
    assert!(
        grown < memory + memory / 4,
        "{grown} and {memory}: what is kept grows with what was there, not with time"
    );
    house.apply(Command::End { session: house.session, why: Ended::Closed });
    while !matches!(house.story.table.snapshot_slice(50), Slice::Piece { last: true, .. }) {}
}
