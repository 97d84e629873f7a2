//! What a held lock costs in memory, and what acquiring and releasing one costs in time, from a thousand locks to
//! ten million: `cargo run --release -p fairlock-locktable --example memory [LARGEST]`.
//!
//! Memory is what the table itself counts, with names of 16 bytes, and what the kernel says of the process. A pair is
//! an acquire and a release of a free name picked at random, with an acknowledgement now and then: the best and the
//! median of several rounds, in time on the processor. Making the name and its digest is measured apart and taken
//! off.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use fairlock_locktable::{
    Acquire, Answer, Attributes, Command, Effect, Effects, Lease, Limits, Open, SessionKey, Settings, Table,
    Wait,
};
use fairlock_protocol::{
    Digest, DigestKey, Epoch, GrantId, Mode, OwnerId, Priority, RequestId, Resource, Secret, SessionId,
    ShardId, Tick,
};
use std::time::Instant;

const KEY: DigestKey = DigestKey([1, 2]);
const PAIRS: u64 = 200_000;
const ROUNDS: usize = 7;
const NOW: Tick = Tick::from_millis(1);

struct Client {
    table: Table,
    session: SessionKey,
    effects: Effects,
    requests: u64,
    kept: u64,
}

fn name(number: u64) -> [u8; 16] {
    let mut name = *b"lock/0000000000/";
    let mut rest = number;
    for place in (5..15).rev() {
        name[place] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    name
}

fn resource(name: &[u8]) -> Resource<'_> {
    Resource::new(b"", name).expect("a name of 16 bytes")
}

impl Client {
    fn new() -> Client {
        let limits = Limits { locks_per_session: u32::MAX, ..Limits::default() };
        let epoch = Epoch::new(1).expect("1 is an epoch");
        let rules = fairlock_locktable::NamespaceRules::new();
        let mut table = Table::new(Settings { epoch, shard: ShardId(0), index_key: 7, limits, rules });
        let open = Open {
            id: SessionId::new(epoch, ShardId(0), 1).expect("a small shard"),
            secret: Secret(1),
            ttl_ms: 5000,
            lease: Lease::Watched,
            visiting: false,
            identity: b"",
            reclaim_key: b"",
            predecessor_gone: false,
            attributes: Attributes::default(),
        };
        let mut effects = Effects::new();
        table.apply(NOW, Command::Open(open), &mut effects);
        let session = table.session(open.id).expect("just opened");
        Client { table, session, effects, requests: 0, kept: 0 }
    }

    fn hold(&mut self, digest: Digest, name: &[u8]) -> GrantId {
        self.requests += 1;
        let acquire = Acquire {
            session: self.session,
            request: RequestId(self.requests),
            digest,
            resource: resource(name),
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait: Wait::Forever,
            owner: OwnerId(self.requests),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        };
        self.effects.clear();
        self.table.apply(NOW, Command::Acquire(acquire), &mut self.effects);
        let Some(Effect::Answered { answer: Answer::Granted(granted), .. }) = self.effects.first() else {
            panic!("the lock was free: {:?}", self.effects);
        };
        let grant = granted.grant;
        self.acknowledge();
        grant
    }

    fn release(&mut self, grant: GrantId) {
        self.requests += 1;
        let (session, request) = (self.session, RequestId(self.requests));
        self.effects.clear();
        self.table.apply(NOW, Command::Release { session, request, grant }, &mut self.effects);
        self.acknowledge();
    }

    fn acknowledge(&mut self) {
        self.kept += 1;
        if self.kept.is_multiple_of(64) {
            let (session, received) = (self.session, self.kept);
            self.table.apply(NOW, Command::Acknowledge { session, received }, &mut self.effects);
        }
    }
}

/// Nanoseconds a pair, best and median, with and without the table.
fn pairs(client: &mut Client, held: u64) -> (f64, f64) {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut round = |with_table: bool| {
        let start = busy_ns();
        let mut sum = 0;
        for _ in 0..PAIRS {
            random = random.wrapping_mul(0xD129_42F0_0CB9_D2D5).wrapping_add(1);
            let name = name(held + (random >> 20) % held);
            let digest = KEY.digest(resource(&name));
            if with_table {
                let grant = client.hold(digest, &name);
                client.release(grant);
            }
            sum ^= digest.0[0];
        }
        std::hint::black_box(sum);
        (busy_ns() - start) / PAIRS as f64
    };
    let without: Vec<f64> = (0..ROUNDS).map(|_| round(false)).collect();
    let mut with: Vec<f64> = (0..ROUNDS).map(|_| round(true)).collect();
    let floor = without.into_iter().fold(f64::MAX, f64::min);
    with.sort_by(f64::total_cmp);
    (with[0] - floor, with[ROUNDS / 2] - floor)
}

/// Nanoseconds this thread has run so far, which other work on the machine does not count into.
fn busy_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

/// What the kernel says this process has in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let largest = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(10_000_000_u64);
    println!(
        "locks     bytes/lock  rss/lock  pair ns (best, median)  fill ns  longest µs  drain ns  bytes left"
    );
    let mut held = 1000;
    while held <= largest {
        let mut client = Client::new();
        let grant = client.hold(KEY.digest(resource(&name(0))), &name(0));
        client.release(grant);
        let (before, rss_before) = (client.table.memory(), resident_bytes());
        let mut grants = Vec::with_capacity(usize::try_from(held).expect("a count"));
        let (mut longest, start) = (0, Instant::now());
        for number in 0..held {
            let name = name(number);
            let digest = KEY.digest(resource(&name));
            let start = Instant::now();
            grants.push(client.hold(digest, &name));
            longest = longest.max(start.elapsed().as_micros());
        }
        let fill = start.elapsed().as_secs_f64() * 1e9 / held as f64;
        let per_lock = (client.table.memory() - before) as f64 / held as f64;
        let rss = resident_bytes().saturating_sub(rss_before + 8 * held) as f64 / held as f64;
        let (best, median) = pairs(&mut client, held);
        let start = Instant::now();
        for grant in grants {
            client.release(grant);
        }
        let drain = start.elapsed().as_secs_f64() * 1e9 / held as f64;
        let left = client.table.memory().saturating_sub(before);
        println!(
            "{held:<9} {per_lock:>10.1} {rss:>9.1} {best:>12.1} {median:>10.1} {fill:>8.1} {longest:>11} {drain:>9.1} {left:>11}"
        );
        held *= 10;
    }
}
