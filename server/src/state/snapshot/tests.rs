//! Files of a snapshot on a real file system: what comes back, what is refused, and which time it is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fairlock_locktable::command::{Attributes, Command, Lease, Open};
use fairlock_locktable::{Effects, Limits, NamespaceRules};
use fairlock_protocol::{MacKey, Secret};
use fairlock_replication::Fresh;

use super::*;
use crate::control::test_room::TempDir;
use crate::state::{Begun, Leftovers, NodeState};

const NOW: Tick = Tick(1_000_000_000);

fn settings(shard: ShardId) -> TableSettings {
    let (limits, rules) = (Limits::default(), NamespaceRules::default());
    TableSettings { epoch: Epoch::new(1).unwrap(), shard, index_key: 5, limits, rules }
}

fn id(number: u64) -> SessionId {
    SessionId::from_raw(number).unwrap()
}

/// A table with one session of this number.
fn table(shard: u16, number: u64) -> Table {
    let mut table = Table::new(settings(ShardId(shard)));
    let open = Open {
        id: id(number),
        secret: Secret(9),
        ttl_ms: 5000,
        lease: Lease::Heartbeat,
        visiting: false,
        identity: b"",
        reclaim_key: b"",
        predecessor_gone: false,
        attributes: Attributes::default(),
    };
    table.apply(NOW, Command::Open(open), &mut Effects::default());
    table
}

struct Room {
    room: TempDir,
    record: Record,
}

impl Room {
    /// Two shards stopped here and left a session each.
    fn new() -> Room {
        let room = TempDir::new();
        let fresh = Fresh { cell: CellId(7), mac_key: MacKey([1; 16]), digest_key: DigestKey([3, 4]) };
        let directory = StateDirectory::open(room.path()).unwrap();
        let never = |_: &StateDirectory, _: &Record| unreachable!("a new directory");
        let begun = NodeState::begin(directory, 1_800_000_000, fresh, never, || NOW).unwrap();
        let Begun { mut state, beginning, .. } = begun;
        state.raise(Duration::from_secs(5)).unwrap();
        let write = |shard: u16| {
            let setting = Setting {
                cell: beginning.cell,
                epoch: beginning.epoch,
                shard: ShardId(shard),
                shards: 2,
                digest_key: DigestKey([3, 4]),
                moment: NOW.after_millis(50),
                now: NOW,
                watched: vec![id(u64::from(shard) + 1)],
            };
            let place = SnapshotPlace::of(state.directory()).unwrap();
            place.write(&setting, &table(shard, u64::from(shard) + 1)).unwrap()
        };
        let files = Some(vec![write(0), write(1)]);
        assert!(state.stopped(&Leftovers { sessions: 2, holders: 2, recovering: false, files }).unwrap());
        let record = state.directory().read().unwrap().unwrap();
        Room { room, record }
    }

    fn file(&self, shard: u16) -> PathBuf {
        self.room.path().join(file_name(shard))
    }

    fn read(&self, shards: u16) -> Result<Pasts, Unusable> {
        let directory = StateDirectory::open(self.room.path()).unwrap();
        read(&directory, &self.record, shards, NOW, settings)
    }

    /// What a start on the directory makes of it.
    fn start(&self) -> Begun {
        let directory = StateDirectory::open(self.room.path()).unwrap();
        let fresh = Fresh { cell: CellId(8), mac_key: MacKey([2; 16]), digest_key: DigestKey([5, 6]) };
        let recall = |directory: &StateDirectory, record: &Record| read(directory, record, 2, NOW, settings);
        NodeState::begin(directory, 1_800_000_000, fresh, recall, || NOW).unwrap()
    }
}

#[test]
fn what_every_shard_left_comes_back_once() {
    let room = Room::new();
    let begun = room.start();
    let pasts = begun.pasts.unwrap();
    assert_eq!((begun.beginning.digest_key, pasts.shards.len()), (DigestKey([3, 4]), 2));
    for (past, number) in pasts.shards.iter().zip(1..) {
        assert!(past.table.session(id(number)).is_some());
        assert_eq!((&past.watched[..], past.ahead_ns), (&[id(number)][..], 50_000_000));
    }
    assert_eq!((begun.beginning.recovering_until, begun.beginning.mac_key), (Tick::ZERO, MacKey([1; 16])));
    assert!(!room.file(0).exists() && !room.file(1).exists());
    drop(begun.state);
    // Nothing happened since, but nobody knows that: it counts as a crash.
    let again = room.start();
    assert!(again.pasts.is_none() && again.unusable.is_none());
    assert!(again.beginning.recovering_until > NOW.after(Duration::from_secs(5)));
}

#[test]
fn no_changed_byte_and_no_cut_goes_unnoticed() {
    let room = Room::new();
    let whole = fs::read(room.file(1)).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(room.file(1), &bytes).unwrap();
        assert!(room.read(2).is_err(), "byte {at}");
        fs::write(room.file(1), &whole[..at]).unwrap();
        assert!(room.read(2).is_err(), "cut at {at}");
    }
    fs::write(room.file(1), [&whole[..], b"x"].concat()).unwrap();
    assert!(room.read(2).is_err(), "something follows");
    fs::write(room.file(1), &whole).unwrap();
    assert!(room.read(2).is_ok());
}

#[test]
fn what_cannot_be_used_is_said_and_waited_for() {
    let room = Room::new();
    let says = |shards: u16| room.read(shards).unwrap_err().to_string();
    assert!(says(1).contains("of 2 shards, this server has 1"), "{}", says(1));
    fs::copy(room.file(0), room.room.path().join("kept")).unwrap();
    fs::remove_file(room.file(0)).unwrap();
    assert!(says(2).contains("missing"), "{}", says(2));
    fs::copy(room.file(1), room.file(0)).unwrap();
    assert!(says(2).contains("not those"), "{}", says(2));
    let begun = room.start();
    assert!(begun.pasts.is_none() && begun.unusable.is_some());
    assert!(
        begun.beginning.recovering_until > NOW.after(Duration::from_secs(5)),
        "its leases are waited for"
    );
    assert!(!room.file(0).exists(), "it is not tried again");
}

#[test]
fn files_of_another_stop_are_not_taken_for_the_newest() {
    let mut room = Room::new();
    room.record.snapshot = Some(1);
    assert!(matches!(room.read(2), Err(Unusable::Sum)));
}

#[test]
fn time_goes_on_as_the_clock_shows_or_else_from_where_it_was() {
    let (moment, taken) = (Tick(700), Tick(500));
    assert_eq!(ahead(moment, taken, Tick(900), true), 200, "400 have passed");
    assert_eq!(ahead(moment, taken, Tick(30), false), 670, "after a reboot none");
    assert_eq!(ahead(moment, taken, Tick(900), false), -200, "nor on another host");
    assert_eq!(ahead(moment, taken, Tick(400), true), 300, "a clock that went back is another one");
}

#[test]
fn files_are_the_servers_alone() {
    use std::os::unix::fs::PermissionsExt;
    let room = Room::new();
    assert_eq!(fs::metadata(room.file(0)).unwrap().permissions().mode() & 0o077, 0);
}
