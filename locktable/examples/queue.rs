//! What a queue's length costs: cancelling in the middle, waiting anew, and handing the lock on, with one to thirty
//! thousand waiters on one lock, in a strict namespace and in one that is served by priority:
//! `cargo run --release -p fairlock-locktable --example queue`. Nothing should rise.

use fairlock_locktable::{
    Acquire, Answer, Attributes, Command, Effect, Effects, Lease, Limits, NamespaceRules, Open, Rules,
    SessionKey, Settings, Table, Wait,
};
use fairlock_protocol::{
    Digest, Discipline, Epoch, GrantId, Mode, Namespace, OwnerId, Priority, RequestId, Resource, Secret,
    SessionId, ShardId, Tick,
};

const NOW: Tick = Tick::from_millis(1);
const STEPS: u32 = 100_000;

struct Queue {
    table: Table,
    session: SessionKey,
    effects: Effects,
    requests: u64,
    namespace: &'static [u8],
}

/// The namespace that is served by priority.
const RANKED: &[u8] = b"ranked";

impl Queue {
    fn new(waiters: u64, namespace: &'static [u8]) -> Queue {
        let limits = Limits { unacknowledged: usize::MAX, ..Limits::default() };
        let epoch = Epoch::new(1).expect("1 is an epoch");
        let mut rules = NamespaceRules::new();
        rules.set(Namespace::new(RANKED).expect("a namespace"), Rules::new(Discipline::Priority));
        let mut table = Table::new(Settings { epoch, shard: ShardId(0), index_key: 7, limits, rules });
        let id = SessionId::new(epoch, ShardId(0), 1).expect("a small shard");
        let open = Open {
            id,
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
        let session = table.session(id).expect("just opened");
        let mut queue = Queue { table, session, effects, requests: 0, namespace };
        for _ in 0..=waiters {
            queue.ask();
        }
        queue
    }

    fn apply(&mut self, command: Command<'_>) {
        self.effects.clear();
        self.table.apply(NOW, command, &mut self.effects);
        let received = self.table.session_view(self.session).expect("it is open").kept_sent;
        let acknowledge = Command::Acknowledge { session: self.session, received };
        self.table.apply(NOW, acknowledge, &mut Effects::new());
    }

    fn ask(&mut self) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.apply(Command::Acquire(Acquire {
            session: self.session,
            request,
            digest: Digest([1, 2]),
            resource: Resource::new(self.namespace, b"lock").expect("a name"),
            mode: Mode::EX,
            priority: Priority::LOWEST.raised(self.requests % 8),
            wait: Wait::Millis(60_000),
            owner: OwnerId(self.requests),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        }));
        request
    }

    /// Gives the lock to the next one.
    fn hand_on(&mut self, grant: GrantId) -> GrantId {
        self.requests += 1;
        let (session, request) = (self.session, RequestId(self.requests));
        self.apply(Command::Release { session, request, grant });
        let granted = self.effects.iter().find_map(|effect| match effect {
            Effect::Answered { answer: Answer::Granted(granted), .. } => Some(granted.grant),
            _ => None,
        });
        granted.expect("somebody waited")
    }
}

/// Nanoseconds this thread has run so far.
fn busy_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

fn main() {
    println!("waiters   cancel + wait anew ns   hand on + wait anew ns");
    for namespace in [b"".as_slice(), RANKED] {
        println!("{}", if namespace.is_empty() { "strict" } else { "by priority" });
        for waiters in [1_u64, 10, 100, 1000, 10_000, 30_000] {
            measure(waiters, namespace);
        }
    }
}

fn measure(waiters: u64, namespace: &'static [u8]) {
    let mut queue = Queue::new(waiters, namespace);
    // Requests that wait, in a ring, so that the one withdrawn is anywhere in the queue.
    let mut waiting: Vec<u64> = (2..=waiters + 1).collect();
    let start = busy_ns();
    let mut random = 1_u64;
    for _ in 0..STEPS {
        random = random.wrapping_mul(0xD129_42F0_0CB9_D2D5).wrapping_add(1);
        let at = usize::try_from((random >> 33) % waiters).expect("an index");
        queue.requests += 1;
        let (session, request) = (queue.session, RequestId(queue.requests));
        let target = RequestId(waiting[at]);
        queue.apply(Command::Cancel { session, request, target });
        waiting[at] = queue.ask().0;
    }
    let cancel = (busy_ns() - start) / f64::from(STEPS);
    let mut queue = Queue::new(waiters, namespace);
    let first = queue.table.session_view(queue.session).expect("it is open");
    assert_eq!((first.grants, u64::from(first.waits)), (1, waiters));
    let mut grant = GrantId::from_raw(1 << 32).expect("the first grant");
    let start = busy_ns();
    for _ in 0..STEPS {
        grant = queue.hand_on(grant);
        queue.ask();
    }
    let hand_on = (busy_ns() - start) / f64::from(STEPS);
    queue.table.audit();
    println!("{waiters:<9} {cancel:>21.0} {hand_on:>24.0}");
}
