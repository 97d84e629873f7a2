//! Snapshots of tables with everything in them, and of bytes that are none.

use super::pieces::Sum;
use super::*;
use crate::command::{Acquire, AcquireAll, Command, Ended, Item, Open, SessionKey, Wait};
use crate::effect::Effects;
use crate::rules::{NamespaceRules, Rules};
use crate::table::Limits;
use crate::tests::{Story, granted, named};
use fairlock_protocol::{
    Discipline, Epoch, GrantId, Mode, Namespace, OwnerId, Priority, Resource, ShardId, Tick,
};
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec;

fn settings(index_key: u64) -> Settings {
    let mut rules = NamespaceRules::new();
    rules.set(Namespace::new(b"ranked").unwrap(), Rules::new(Discipline::Priority));
    rules.set(Namespace::new(b"phased").unwrap(), Rules::new(Discipline::Phase));
    let epoch = Epoch::new(7).unwrap();
    Settings { epoch, shard: ShardId(0), index_key, limits: Limits::default(), rules }
}

fn pieces_of(table: &Table) -> Vec<Vec<u8>> {
    let mut pieces = vec![];
    table.snapshot(|piece| pieces.push(piece));
    pieces
}

fn restored(table: &Table) -> Table {
    let copy = Table::from_snapshot(settings(99), pieces_of(table)).unwrap();
    copy.audit();
    assert_eq!((copy.digest(), copy.rolling()), (table.digest(), table.rolling()));
    assert_eq!(copy.counts(), table.counts());
    copy
}

/// A request for `namespace/name`.
fn wish<'a>(
    story: &mut Story,
    session: SessionKey,
    (namespace, name): (&'a str, &'a str),
    mode: Mode,
    owner: u64,
) -> Acquire<'a> {
    let asking = story.asking(session, mode, Wait::Forever);
    let resource = Resource::new(namespace.as_bytes(), name.as_bytes()).unwrap();
    named(Acquire { resource, owner: OwnerId(owner), ..asking })
}

/// A table with at least one of everything that a table can have.
fn everything() -> Story {
    let mut story = Story::told(settings(7));
    story.table.begin_rolling();
    let open = story.opening();
    let twin = Open { identity: b"one", reclaim_key: b"key", ..open };
    let first = story.open_as(twin);
    let asking = wish(&mut story, first, ("", "delayed"), Mode::EX, 1);
    story.ask(Acquire { lock_delay_ms: 5000, label: b"with a delay", ..asking });
    story.end(first, Ended::Died);
    for _ in 0..3 {
        let open = story.opening();
        story.open_as(Open { identity: b"one", reclaim_key: b"key", ..open });
    }
    let visiting = story.opening();
    story.open_as(Open { visiting: true, lease: crate::Lease::Watched, ..visiting });
    let (s, t, u) = (story.open(), story.open(), story.open());
    readers_and_writers(&mut story, s, t, u);
    ranked(&mut story, s, t);
    several(&mut story, t, u);
    gaps(&mut story, u);
    let died = story.open();
    let asking = wish(&mut story, died, ("", "died"), Mode::EX, 1);
    story.ask(asking);
    story.end(died, Ended::Died);
    story.now = story.now.after_millis(20);
    story
}

/// Many holders, a queue, a conversion, notices told and not, a re-entry, a longest hold, something broken.
fn readers_and_writers(story: &mut Story, s: SessionKey, t: SessionKey, u: SessionKey) {
    let mut held = vec![];
    for owner in 0..12 {
        let asking = wish(story, if owner % 2 == 0 { s } else { t }, ("", "read"), Mode::PR, owner / 4);
        let asking = Acquire { notify: owner % 3 == 0, reentrant: owner == 11, ..asking };
        held.push(granted(&story.ask(asking), asking.request));
    }
    let waits = wish(story, u, ("", "read"), Mode::EX, 1);
    story.ask(Acquire { wait: Wait::Millis(60_000), label: b"waits", max_hold_ms: 5, ..waits });
    story.convert(s, held[0].grant, Mode::EX);
    let alone = wish(story, u, ("", "alone"), Mode::PW, 3);
    let held = granted(&story.ask(Acquire { notify: true, max_hold_ms: 90_000, ..alone }), alone.request);
    story.apply(Command::Break { digest: story.table.digest_of(held.grant).unwrap(), force: false });
    story.apply(Command::Kill { session: u, force: false });
    let none = wish(story, t, ("", "null"), Mode::NL, 3);
    story.ask(none);
}

/// Queues that go by class, with heirs, and one whose readers were passed.
fn ranked(story: &mut Story, s: SessionKey, t: SessionKey) {
    for (name, session, owner) in [("a", s, 21), ("b", t, 22)] {
        let asking = wish(story, session, ("ranked", name), Mode::EX, owner);
        story.ask(asking);
    }
    for (session, owner, class) in [(t, 22, 1), (s, 30, 7), (s, 31, 2), (t, 32, 2)] {
        let asking = wish(story, session, ("ranked", "a"), Mode::EX, owner);
        story.ask(Acquire { priority: Priority::new(class).unwrap(), ..asking });
    }
    for (session, mode) in [(s, Mode::PR), (t, Mode::EX), (t, Mode::PR), (s, Mode::PR), (s, Mode::EX)] {
        let asking = wish(story, session, ("phased", "p"), mode, 40 + mode as u64);
        story.ask(asking);
    }
}

/// Requests for several locks that have some of them.
fn several(story: &mut Story, t: SessionKey, u: SessionKey) {
    let blocks = wish(story, u, ("", "m2"), Mode::EX, 50);
    story.ask(blocks);
    for (owner, label, limit) in [(51, &b""[..], Wait::Forever), (52, b"several", Wait::Millis(70_000))] {
        let asked = ["m1", "m2", "m3"].map(|name| wish(story, t, ("", name), Mode::CR, owner));
        let items = asked.map(|ask| Item { digest: ask.digest, resource: ask.resource, mode: ask.mode });
        let request = story.request();
        let owner = OwnerId(owner);
        story.apply(Command::AcquireAll(AcquireAll {
            session: t,
            request,
            items: &items,
            wait: limit,
            owner,
            label,
        }));
    }
}

/// Names of all lengths, and vacant places among them.
fn gaps(story: &mut Story, u: SessionKey) {
    let name = String::from_utf8(vec![b'n'; 1024]).unwrap();
    let mut held: Vec<GrantId> = vec![];
    for length in (1..=1024).step_by(31) {
        let asking = wish(story, u, ("long", &name[..length]), Mode::EX, 60);
        held.push(granted(&story.ask(asking), asking.request).grant);
    }
    for &grant in held.iter().step_by(3) {
        story.release(u, grant);
    }
}

/// Everybody goes; whatever the table says, it must not break.
fn wind_down(table: &mut Table, mut now: Tick) {
    let mut effects = Effects::new();
    for _ in 0..1000 {
        now = now.after_millis(1000);
        match table.due(now) {
            Some(command) => table.apply(now, command, &mut effects),
            None => break,
        }
    }
    let mut sessions = vec![];
    table.sessions(0, |view| {
        sessions.push(view.key);
        core::ops::ControlFlow::Continue(())
    });
    for session in sessions {
        table.apply(now, Command::End { session, why: Ended::Died }, &mut effects);
    }
}

#[test]
fn a_table_with_everything_in_it_reads_back() {
    let story = everything();
    let counts = story.table.counts();
    assert!(counts.conversions > 0 && counts.waiters > 8 && counts.grants > 30 && counts.timers > 6);
    let (stakes, heirs) = (story.table.stakes.len(), story.table.rotas.len());
    assert!(stakes > 0 && heirs > 1 && story.table.bundles.len() == 2);
    let copy = restored(&story.table);
    assert_eq!((copy.stakes.len(), copy.rotas.len()), (stakes, heirs));
    let again = restored(&copy);
    assert_eq!(pieces_of(&again), pieces_of(&copy), "a copy of a copy is told like the copy");
}

#[test]
fn an_empty_table_reads_back() {
    let table = Table::new(settings(1));
    assert_eq!(pieces_of(&table).len(), 1);
    assert_eq!(restored(&table).counts().locks, 0);
}

#[test]
fn a_copy_goes_on_as_the_original_does() {
    let mut story = everything();
    let mut copy = restored(&story.table);
    let mut effects = Effects::new();
    for step in 0..400_u64 {
        story.now = story.now.after_millis(150);
        let Some(command) = story.table.due(story.now) else { continue };
        effects.clear();
        copy.apply(story.now, command, &mut effects);
        assert_eq!(story.apply(command), effects.to_vec(), "step {step}: {command:?}");
        copy.audit();
        assert_eq!((copy.digest(), copy.rolling()), (story.table.digest(), story.table.rolling()));
    }
}

#[test]
fn many_chunks_with_gaps_read_back_and_go_on_alike() {
    let mut story = Story::told(Settings { limits: Limits::default(), ..settings(3) });
    let s = story.open();
    let mut effects = Effects::new();
    let mut held = vec![];
    let mut ask = |table: &mut Table, number: u64, request: u64| {
        let name = number.to_le_bytes();
        let resource = Resource::new(b"", &name).unwrap();
        let digest = fairlock_protocol::DigestKey([1, 2]).digest(resource);
        let mode = Mode::EX;
        let (request, owner) = (fairlock_protocol::RequestId(request), OwnerId(number));
        let acquire = Acquire {
            session: s,
            request,
            digest,
            resource,
            mode,
            priority: Priority::LOWEST,
            wait: Wait::Try,
            owner,
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        };
        effects.clear();
        table.apply(Tick::from_millis(1), Command::Acquire(acquire), &mut effects);
        let given = granted(&effects, request).grant;
        table.apply(
            Tick::from_millis(1),
            Command::Acknowledge { session: s, received: request.0 },
            &mut effects,
        );
        given
    };
    let count = 20_000;
    for number in 0..count {
        held.push(ask(&mut story.table, number, number + 1));
    }
    // Whole chunks become vacant, others in part.
    let mut request = count;
    let gone = |at: usize| (4096..12_400).contains(&at) || at.is_multiple_of(7);
    for (_, &grant) in held.iter().enumerate().filter(|&(at, _)| gone(at)) {
        request += 1;
        let number = fairlock_protocol::RequestId(request);
        let mut effects = Effects::new();
        story.table.apply(
            Tick::from_millis(1),
            Command::Release { session: s, request: number, grant },
            &mut effects,
        );
        story.table.apply(
            Tick::from_millis(1),
            Command::Acknowledge { session: s, received: request },
            &mut effects,
        );
    }
    let mut copy = restored(&story.table);
    assert!(pieces_of(&story.table).iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
    for number in count..2 * count {
        request += 1;
        assert_eq!(ask(&mut story.table, number, request), ask(&mut copy, number, request));
    }
    copy.audit();
    assert_eq!(copy.digest(), story.table.digest());
}

#[test]
fn what_renewals_moved_is_not_told() {
    let mut story = Story::told(settings(1));
    let open = story.opening();
    let s = story.open_as(open);
    let told = story.table.session_view(s).unwrap().deadline;
    story.now = story.now.after_millis(3000);
    story.table.renew(s, story.now);
    assert_ne!(story.table.session_view(s).unwrap().deadline, told);
    assert_eq!(restored(&story.table).session_view(s).unwrap().deadline, told);
}

#[test]
fn pieces_in_disorder_missing_or_of_another_form_are_refused() {
    let story = everything();
    let pieces = pieces_of(&story.table);
    let read = |pieces: &[Vec<u8>]| Table::from_snapshot(settings(1), pieces).map(|_| ());
    assert_eq!(read(&[]), Err(BadSnapshot::Incomplete));
    let twice = [pieces[0].clone(), pieces[0].clone()];
    assert_eq!(read(&twice), Err(BadSnapshot::Piece { expected: 1, found: 0 }));
    let mut other = pieces.clone();
    other[0][0] = 9;
    assert_eq!(read(&other), Err(BadSnapshot::Version { found: 9 }));
    let mut changed = pieces.clone();
    // A label, which decides nothing: only the sum knows.
    let at = changed[0].windows(7).position(|bytes| bytes == b"several").unwrap();
    changed[0][at] ^= 1;
    assert_eq!(read(&changed), Err(BadSnapshot::Sum));
    assert!(matches!(read(&[vec![0; PIECE_BYTES_MAX + 1]]), Err(BadSnapshot::Malformed(_))));
}

#[test]
fn nodes_of_a_cell_agree_on_bounds_rules_and_shard() {
    let pieces = pieces_of(&everything().table);
    let read = |settings: Settings| Table::from_snapshot(settings, &pieces).map(|_| ());
    let limits = Limits { reentry: 5, ..Limits::default() };
    assert_eq!(read(Settings { limits, ..settings(1) }), Err(BadSnapshot::Settings("limits")));
    assert_eq!(read(Settings { shard: ShardId(1), ..settings(1) }), Err(BadSnapshot::Settings("shard")));
    let none = NamespaceRules::new();
    assert_eq!(read(Settings { rules: none, ..settings(1) }), Err(BadSnapshot::Settings("namespaces")));
    let mut other = settings(1).rules;
    other.set(Namespace::new(b"ranked").unwrap(), Rules::new(Discipline::Phase));
    assert_eq!(read(Settings { rules: other, ..settings(1) }), Err(BadSnapshot::Settings("namespaces")));
    assert_eq!(read(settings(1)), Ok(()));
}

#[test]
fn every_error_says_something() {
    for error in [
        BadSnapshot::Version { found: 2 },
        BadSnapshot::Piece { expected: 1, found: 2 },
        BadSnapshot::Malformed(Malformed::UnknownKind(9)),
        BadSnapshot::Unsound("a fact"),
        BadSnapshot::Settings("limits"),
        BadSnapshot::Sum,
        BadSnapshot::Incomplete,
    ] {
        assert!(format!("{error}").len() > 20);
    }
}

/// Gives changed pieces a sum that fits, so that the checks behind it are what is tested.
fn sum_up(pieces: &mut [Vec<u8>]) {
    let mut sum = Sum::default();
    let Some((last, others)) = pieces.split_last_mut() else { return };
    for piece in others {
        sum.add(piece);
    }
    let Some(content) = last.len().checked_sub(16) else { return };
    sum.add(&last[..content]);
    let (high, low) = sum.total();
    last.truncate(content);
    crate::bytes::Writer(last).u64(high).u64(low);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever passes all checks is a table that can go on to its end.
    #[test]
    fn a_changed_snapshot_is_an_error_or_a_table(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32, any::<u8>()), 1..3),
        resummed in prop::bool::weighted(0.95),
    ) {
        std::thread_local! {
            static EVERYTHING: (Vec<Vec<u8>>, Tick) = {
                let story = everything();
                (pieces_of(&story.table), story.now)
            };
        }
        let (mut pieces, now) = EVERYTHING.with(Clone::clone);
        for (at, how, byte) in changes {
            let piece = &mut pieces[0];
            let at = at.index(piece.len());
            match how {
                0 => piece[at] = byte,
                1 => piece[at] = byte % 8,
                2 => piece[at] = piece[at].wrapping_add(1),
                3 => piece[at] ^= 1 << (byte % 8),
                4 => piece[at] = 0xFF,
                5 => piece.truncate(at.max(40)),
                6 => {
                    // A stretch of it comes twice.
                    let stretch = piece[at..(at + usize::from(byte)).min(piece.len())].to_vec();
                    piece.splice(at..at, stretch);
                }
                _ => piece[at] = 0,
            }
        }
        if resummed {
            sum_up(&mut pieces);
        }
        if let Ok(mut table) = Table::from_snapshot(settings(1), &pieces) {
            wind_down(&mut table, now);
        }
    }

    #[test]
    fn bytes_at_random_are_no_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..300), tags in 0..20_u8) {
        let mut piece = vec![1, 0, 0, 0, 0, 0, tags];
        piece.extend_from_slice(&bytes);
        prop_assert!(Table::from_snapshot(settings(1), [&piece]).is_err());
        prop_assert!(Table::from_snapshot(settings(1), [&bytes]).is_err());
    }
}
