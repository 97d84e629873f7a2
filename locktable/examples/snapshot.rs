//! What it costs to tell a table to a node that joins, and to make a table of what was told, from a thousand held locks
//! to a million or more: `cargo run --release -p fairlock-locktable --example snapshot [LARGEST]`.
//!
//! Names have 16 bytes. Pieces are told and kept, or told and dropped at once: what lies between is the price of memory
//! that was never used before. The last two columns are the longest that a shard and a joiner stand still when the
//! same is done in slices as a shard does it. The best of several rounds.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use fairlock_locktable::snapshot::{Restorer, Slice};
use fairlock_locktable::{
    Acquire, Attributes, Command, Effects, Lease, Limits, NamespaceRules, Open, SessionKey, Settings, Table,
    Wait,
};
use fairlock_protocol::{
    DigestKey, Epoch, Mode, OwnerId, Priority, RequestId, Resource, Secret, SessionId, ShardId, Tick,
};
use std::time::Instant;

const KEY: DigestKey = DigestKey([1, 2]);
const ROUNDS: usize = 5;
const NOW: Tick = Tick::from_millis(1);

fn settings() -> Settings {
    let limits = Limits { locks_per_session: u32::MAX, ..Limits::default() };
    let epoch = Epoch::new(1).expect("1 is an epoch");
    Settings { epoch, shard: ShardId(0), index_key: 7, limits, rules: NamespaceRules::new() }
}

fn opened(table: &mut Table, effects: &mut Effects) -> SessionKey {
    let open = Open {
        id: SessionId::new(table.epoch(), ShardId(0), 1).expect("a small shard"),
        secret: Secret(1),
        ttl_ms: 5000,
        lease: Lease::Watched,
        visiting: false,
        identity: b"",
        reclaim_key: b"",
        predecessor_gone: false,
        attributes: Attributes::default(),
    };
    table.apply(NOW, Command::Open(open), effects);
    table.session(open.id).expect("just opened")
}

/// A table in which one session holds this many locks.
fn filled(held: u64) -> Table {
    let (mut table, mut effects) = (Table::new(settings()), Effects::new());
    let session = opened(&mut table, &mut effects);
    for number in 1..=held {
        let name = format!("lock/{number:010}/");
        let resource = Resource::new(b"", name.as_bytes()).expect("a name of 16 bytes");
        let acquire = Acquire {
            session,
            request: RequestId(number),
            digest: KEY.digest(resource),
            resource,
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait: Wait::Try,
            owner: OwnerId(number),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        };
        effects.clear();
        table.apply(NOW, Command::Acquire(acquire), &mut effects);
        table.apply(NOW, Command::Acknowledge { session, received: number }, &mut effects);
    }
    assert_eq!(u64::from(table.counts().grants), held, "all were free");
    table
}

/// The longest slice of telling and of reading, in microseconds.
fn longest_slices(table: &mut Table) -> (f64, f64) {
    let (mut telling, mut reading) = (0_f64, 0_f64);
    let timed = |longest: &mut f64, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        *longest = longest.max(start.elapsed().as_secs_f64() * 1e6);
    };
    let mut restorer = Restorer::new(settings());
    timed(&mut telling, &mut || assert!(table.begin_snapshot(), "none is told"));
    loop {
        let mut slice = Slice::Nothing;
        timed(&mut telling, &mut || slice = table.snapshot_slice(512));
        match slice {
            Slice::Piece { bytes, .. } => {
                timed(&mut reading, &mut || restorer.piece(&bytes).expect("what was told can be read"));
                let mut done = false;
                while !done {
                    timed(&mut reading, &mut || done = restorer.go_on(4096).expect("what was told is sound"));
                }
            }
            Slice::Nothing => {}
            Slice::Over => break,
        }
    }
    assert!(restorer.finish().is_ok(), "all of it was told");
    (telling, reading)
}

fn main() {
    let largest = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(1_000_000_u64);
    println!("locks      keep ms   drop ms   read ms   bytes/lock   pieces   tell slice us   read slice us");
    let mut held = 1000;
    while held <= largest {
        let mut table = filled(held);
        let (mut tell, mut send, mut read) = (f64::MAX, f64::MAX, f64::MAX);
        let (mut bytes, mut count) = (0, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut pieces = Vec::new();
            table.snapshot(|piece| pieces.push(piece));
            tell = tell.min(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            table.snapshot(drop);
            send = send.min(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            let copy = Table::from_snapshot(settings(), &pieces).expect("what was told can be read");
            read = read.min(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(copy.counts().grants, table.counts().grants, "all are there");
            (bytes, count) = (pieces.iter().map(Vec::len).sum::<usize>(), pieces.len());
        }
        let (mut told, mut read_on) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let (telling, reading) = longest_slices(&mut table);
            (told, read_on) = (told.min(telling), read_on.min(reading));
        }
        let per_lock = bytes as f64 / held as f64;
        println!(
            "{held:<9} {tell:>8.2} {send:>9.2} {read:>9.2} {per_lock:>12.1} {count:>8} {told:>15.1} {read_on:>15.1}"
        );
        held *= 10;
    }
}
