//! Sequences of commands made of bytes, carried out on a lock table: whatever the order, no two incompatible holders,
//! rising tokens, at most one outcome for each request, nobody overtaken, and a table that audits clean.

use fairlock_locktable::command::{
    Acquire, AcquireAll, Attributes, Command, Ended, Item, Lease, Open, SessionKey,
};
use fairlock_locktable::effect::{Answer, Effect, Effects};
use fairlock_locktable::{Limits, NamespaceRules, Role, Settings, Table};
use fairlock_protocol::{
    Digest, DigestKey, Epoch, FencingToken, GrantId, Mode, OwnerId, Priority, RequestId, Resource, Secret,
    SessionId, ShardId, Tick, Wait,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];
const KEY: DigestKey = DigestKey([1, 2]);

/// What the play remembers of a session.
struct Player {
    key: SessionKey,
    next: u64,
    grants: Vec<GrantId>,
    kept: u64,
    /// Requests whose kept answers it has not acknowledged.
    unacknowledged: Vec<RequestId>,
}

struct Play<'a> {
    table: Table,
    effects: Effects,
    bytes: std::slice::Iter<'a, u8>,
    now: Tick,
    players: Vec<Player>,
    sessions: u32,
    /// Requests that have their outcome: how many more grants of several at once may follow.
    answered: BTreeMap<(SessionKey, RequestId), usize>,
    /// How many locks a request asks for, when it is not one.
    several: BTreeMap<(SessionKey, RequestId), usize>,
    /// Every token seen of each name.
    tokens: BTreeMap<[u64; 2], BTreeSet<FencingToken>>,
}

/// Plays the bytes as a history. Gives how many locks were granted, at once or after a wait.
///
/// # Panics
/// When the table breaks a promise.
pub fn any_bytes(bytes: &[u8]) -> u64 {
    let limits = Limits { sessions: 8, locks_per_session: 16, waiters_per_resource: 6, ..Limits::default() };
    let epoch = Epoch::new(1).expect("the first epoch");
    let rules = NamespaceRules::new();
    let table = Table::new(Settings { epoch, shard: ShardId(0), index_key: 7, limits, rules });
    let mut play = Play {
        table,
        effects: Effects::new(),
        bytes: bytes.iter(),
        now: Tick::from_millis(1),
        players: Vec::new(),
        sessions: 0,
        answered: BTreeMap::new(),
        several: BTreeMap::new(),
        tokens: BTreeMap::new(),
    };
    let mut commands = 0;
    while play.turn().is_some() {
        commands += 1;
        if commands % 16 == 0 {
            play.table.audit();
        }
    }
    play.table.audit();
    play.end();
    play.table.counts().grants_total
}

fn resource(at: u8) -> (Digest, Resource<'static>) {
    let resource = Resource::new(b"", NAMES[usize::from(at) % NAMES.len()]).expect("a name");
    (KEY.digest(resource), resource)
}

impl Play<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    /// One command, or none when the bytes are used up.
    fn turn(&mut self) -> Option<()> {
        let (what, who) = (self.byte()?, self.byte()?);
        if what % 16 == 0 || self.players.is_empty() {
            self.open(what / 16);
            return Some(());
        }
        let at = usize::from(who) % self.players.len();
        let detail = self.byte()?;
        match what % 16 {
            1 => self.pass(u64::from(detail) * 7),
            2 => self.over(at, detail),
            3..=7 => self.acquire(at, detail, what / 16),
            8..=10 => self.release(at, detail),
            11 => self.convert(at, detail, what / 16),
            12 => self.cancel(at, detail),
            13 => self.acknowledge(at),
            14 if detail < 100 => self.break_lock(detail),
            14 => self.acquire_all(at, detail, what / 16),
            _ => self.confirm_or_kill(at, detail),
        }
        Some(())
    }

    fn open(&mut self, kind: u8) {
        self.sessions += 1;
        let epoch = Epoch::new(1).expect("the first epoch");
        let id = SessionId::new(epoch, ShardId(0), self.sessions).expect("a small number");
        self.apply(Command::Open(Open {
            id,
            secret: Secret(9),
            ttl_ms: 200 + u32::from(kind) * 50,
            lease: if kind.is_multiple_of(2) { Lease::Heartbeat } else { Lease::Watched },
            visiting: false,
            identity: if kind == 3 { b"same" } else { b"" },
            reclaim_key: b"",
            predecessor_gone: false,
            attributes: Attributes::default(),
        }));
    }

    /// Time passes, and what it decides happens.
    fn pass(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        while let Some(command) = self.table.due(self.now) {
            self.apply(command);
        }
    }

    fn number(&mut self, at: usize) -> RequestId {
        self.players[at].next += 1;
        RequestId(self.players[at].next)
    }

    fn acquire(&mut self, at: usize, detail: u8, how: u8) {
        let (digest, resource) = resource(detail);
        // Now and then a number that was used before.
        let request = if how == 15 { RequestId(self.players[at].next.max(1)) } else { self.number(at) };
        self.apply(Command::Acquire(Acquire {
            session: self.players[at].key,
            request,
            digest,
            resource,
            mode: Mode::ALL[usize::from(detail / 3) % 6],
            priority: Priority::LOWEST,
            wait: [Wait::Forever, Wait::Try, Wait::Millis(40)][usize::from(how) % 3],
            owner: OwnerId((how / 8).into()),
            reentrant: how.is_multiple_of(4),
            notify: how.is_multiple_of(5),
            lock_delay_ms: if how == 7 { 100 } else { 0 },
            max_hold_ms: if how == 11 { 60 } else { 0 },
            label: b"",
        }));
    }

    /// Some of the names at once, all or none.
    fn acquire_all(&mut self, at: usize, detail: u8, how: u8) {
        let chosen = (0..3_u8).filter(|name| (detail % 7 + 1) & (1 << name) != 0);
        let items: Vec<Item<'_>> = chosen
            .map(|name| {
                let (digest, resource) = resource(name);
                Item { digest, resource, mode: Mode::ALL[usize::from(how + name) % 6] }
            })
            .collect();
        let (session, request) = (self.players[at].key, self.number(at));
        self.several.insert((session, request), items.len());
        self.apply(Command::AcquireAll(AcquireAll {
            session,
            request,
            items: &items,
            wait: [Wait::Forever, Wait::Try, Wait::Millis(40)][usize::from(how) % 3],
            owner: OwnerId((how / 8).into()),
            label: b"",
        }));
    }

    /// A grant of the session, or one that never was.
    fn some_grant(&self, at: usize, detail: u8) -> GrantId {
        let grants = &self.players[at].grants;
        let never = GrantId::from_raw(u64::from(detail) + 1).expect("not zero");
        if grants.is_empty() { never } else { grants[usize::from(detail) % grants.len()] }
    }

    fn release(&mut self, at: usize, detail: u8) {
        let (grant, request) = (self.some_grant(at, detail), self.number(at));
        self.apply(Command::Release { session: self.players[at].key, request, grant });
    }

    fn convert(&mut self, at: usize, detail: u8, how: u8) {
        let (grant, request) = (self.some_grant(at, detail), self.number(at));
        let mode = Mode::ALL[usize::from(how) % 6];
        let wait = if detail > 200 { Wait::Try } else { Wait::Millis(90) };
        self.apply(Command::Convert { session: self.players[at].key, request, grant, mode, wait });
    }

    fn cancel(&mut self, at: usize, detail: u8) {
        let target = RequestId(self.players[at].next.saturating_sub(u64::from(detail % 4)));
        let request = self.number(at);
        self.apply(Command::Cancel { session: self.players[at].key, request, target });
    }

    fn acknowledge(&mut self, at: usize) {
        let (session, received) = (self.players[at].key, self.players[at].kept);
        // A number that is used again after its answer was acknowledged is a new request.
        for request in std::mem::take(&mut self.players[at].unacknowledged) {
            self.answered.remove(&(session, request));
        }
        self.table.renew(session, self.now);
        self.apply(Command::Acknowledge { session, received });
    }

    fn break_lock(&mut self, detail: u8) {
        self.apply(Command::Break { digest: resource(detail).0, force: detail > 200 });
    }

    fn confirm_or_kill(&mut self, at: usize, detail: u8) {
        let session = self.players[at].key;
        if detail < 200 {
            let grant = self.some_grant(at, detail);
            self.apply(Command::Confirm { session, grant });
        } else {
            self.apply(Command::Kill { session, force: detail > 230 });
        }
    }

    fn over(&mut self, at: usize, detail: u8) {
        let why = [Ended::Closed, Ended::Died][usize::from(detail % 2)];
        if detail.is_multiple_of(3) {
            self.apply(Command::End { session: self.players[at].key, why });
        }
    }

    /// Carries out one command and looks at what follows.
    fn apply(&mut self, command: Command<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.table.apply(self.now, command, &mut effects);
        for effect in &effects {
            self.follow(effect);
        }
        self.effects = effects;
        for at in 0..3 {
            self.look_at(at);
        }
        assert_eq!(self.table.counts().overtakes_total, 0, "nobody is served before one who came earlier");
    }

    fn follow(&mut self, effect: &Effect) {
        match *effect {
            Effect::Opened { session, .. } => {
                self.players.push(Player {
                    key: session,
                    next: 0,
                    grants: Vec::new(),
                    kept: 0,
                    unacknowledged: Vec::new(),
                });
            }
            Effect::Over { session, .. } => self.players.retain(|player| player.key != session),
            Effect::Answered { session, request, ref answer, kept } => {
                if kept {
                    let asked = self.several.get(&(session, request)).copied().unwrap_or(1);
                    let granted = matches!(answer, Answer::Granted(_));
                    let more = if granted { asked - 1 } else { 0 };
                    let known = self.answered.entry((session, request));
                    let left = known.and_modify(|left| *left = left.wrapping_sub(1)).or_insert(more);
                    assert!(*left < asked, "request {request:?} of {session:?} has two outcomes");
                }
                let Some(player) = self.players.iter_mut().find(|player| player.key == session) else {
                    return;
                };
                if kept {
                    player.kept += 1;
                    player.unacknowledged.push(request);
                }
                if let Answer::Granted(granted) = answer
                    && kept
                {
                    player.grants.push(granted.grant);
                }
            }
            _ => {}
        }
    }

    /// Nobody holds a name beside somebody he excludes, and a token that is new is higher than all before it.
    fn look_at(&mut self, at: u8) {
        let (digest, _) = resource(at);
        let mut holders: Vec<(Mode, SessionKey, OwnerId, bool)> = Vec::new();
        let mut now_held = BTreeSet::new();
        self.table.show(digest, 0, |entry| {
            if entry.role == Role::Holder {
                holders.push((entry.mode.expect("held"), entry.session, entry.owner, entry.broken));
                now_held.extend(entry.token);
            }
            ControlFlow::Continue(())
        });
        for (at, one) in holders.iter().enumerate() {
            for other in &holders[at + 1..] {
                // A grant that was broken by force stays listed until its client confirms; the next one is in already.
                let forced = one.3 || other.3;
                assert!(forced || one.0.compatible(other.0), "{holders:?} hold one name");
            }
        }
        let seen = self.tokens.entry(digest.0).or_default();
        let highest = seen.last().copied();
        for &token in now_held.difference(&seen.clone()) {
            assert!(Some(token) > highest, "{token:?} is new, and {highest:?} was there before");
        }
        seen.extend(now_held);
    }

    /// Everybody leaves: nothing remains.
    fn end(&mut self) {
        let everybody: Vec<SessionKey> = self.players.iter().map(|player| player.key).collect();
        for session in everybody {
            self.apply(Command::End { session, why: Ended::Closed });
        }
        self.pass(120_000);
        let counts = self.table.counts();
        assert_eq!(
            (counts.grants, counts.waiters, counts.locks),
            (0, 0, 0),
            "nobody is there and nothing is held"
        );
        self.table.audit();
    }
}
