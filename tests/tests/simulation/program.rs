//! What clients do: random lock programs over a few names, and what is certain of what they hold: S2, S3, S4, S13.

use std::collections::BTreeMap;

use fairlock::deciding::{Held, Wanted};
use fairlock_protocol::{Mode, OwnerId, RequestId, ShardId, Tick, Wait};

use super::{MS, World};

/// Grants one client holds at most, and requests it has under way.
const HELD_MAX: usize = 4;
const ASKED_MAX: usize = 5;

/// Something that a client holds, or held.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) client: usize,
    pub(crate) shard: u16,
    pub(crate) held: Held,
    /// When it is to be given back, at the earliest.
    until: u64,
    /// A conversion is under way.
    converts: bool,
}

/// What was asked.
#[derive(Debug)]
pub(crate) struct Ask {
    place: (ShardId, RequestId),
    since: u64,
    /// The grant that is converted.
    converts: Option<Held>,
}

/// How something came out.
#[derive(Debug)]
pub(crate) enum Asked {
    Converted,
    Refused,
    Lost,
}

/// A client's program.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// When it does something again.
    pub(crate) next: u64,
    pub(crate) asks: BTreeMap<u64, Ask>,
    pub(crate) granted: u64,
}

impl World {
    /// Whether a guard is certain by its client's own clock, at this very moment.
    pub(super) fn is_held(&self, guard: usize) -> bool {
        let guard = &self.guards[guard];
        let local = self.clients[guard.client].clock.shows(self.now);
        guard.held.check(local).is_ok()
    }

    /// Whether a node's table has the grant of a guard, for the same name and session.
    pub(super) fn has_grant(&self, host: usize, guard: usize) -> bool {
        let guard = &self.guards[guard];
        let Some(process) = &self.hosts[host].process else { return false };
        let table = process.desks[usize::from(guard.shard)].shard.table();
        let session = self.clients[guard.client].session.as_ref().and_then(|one| table.session(one.id()));
        let grant = guard.held.grant();
        let named = table.digest_of(grant).and_then(|digest| table.lock(digest));
        let same = named.is_some_and(|lock| lock.resource.name.as_bytes() == guard.held.name());
        same && session.is_some_and(|session| table.held_mode(session, grant).is_some())
    }

    /// Whether a client goes on asking, and so needs a session.
    pub(super) fn wants_session(&self, client: usize) -> bool {
        !self.draining || !self.clients[client].program.asks.is_empty()
    }

    pub(super) fn granted(&mut self, client: usize, ticket: u64, held: Vec<Held>) {
        let Some(ask) = self.clients[client].program.asks.remove(&ticket) else {
            panic!("S13: client {client} was granted what it did not ask for")
        };
        self.clients[client].program.granted += 1;
        self.judge.grants += 1;
        for held in held {
            let longest = if self.draining { 0 } else { self.random.below(200) * MS };
            let until = self.now + if self.random.once_in(4) { longest } else { longest / 10 };
            let shard = ask.place.0.0;
            self.trace(
                "granted",
                client as u64,
                ticket,
                held.token().map_or(0, fairlock_protocol::FencingToken::get),
            );
            let entered = self.guards.iter().any(|guard| guard.held.is(&held));
            self.guards.push(Guard { client, shard, held, until, converts: false });
            let index = self.guards.len() - 1;
            if !entered {
                self.judge_tenure(index);
            }
        }
    }

    /// A tenure begins, or becomes stronger: nobody else may have an incompatible one (S2), and its token is the newest of all
    /// that go not with it (S3).
    fn judge_tenure(&mut self, index: usize) {
        if !self.is_held(index) {
            return;
        }
        let new = &self.guards[index];
        let (name, mode, grant) = (new.held.name().to_vec(), new.held.mode(), new.held.grant());
        let (client, shard, token) = (new.client, new.shard, new.held.token());
        for other in 0..self.guards.len() {
            let known = &self.guards[other];
            if known.held.name() != name
                || known.held.is(&self.guards[index].held)
                || known.held.mode().compatible(mode)
            {
                continue;
            }
            assert!(
                !self.is_held(other),
                "S2: {grant:?} {mode:?} of client {client} and {:?} of client {} overlap",
                known.held.mode(),
                known.client
            );
        }
        if let Some(token) = token {
            let newest = self.newest.entry(name).or_default();
            for (other, newest) in newest.iter() {
                let other = Mode::ALL.into_iter().find(|one| *one as u8 == *other).expect("a mode");
                // A conversion downwards keeps the token.
                assert!(
                    other.compatible(mode) || token.get() > newest.0 || (token.get(), client) == *newest,
                    "S3: {token:?} of client {client} comes after {newest:?}"
                );
            }
            let own = newest.entry(mode as u8).or_default();
            *own = (*own).max((token.get(), client));
        }
        if let Some(host) = self.primary(shard).filter(|_| self.is_remembered(index)) {
            assert!(self.has_grant(host, index), "S4, S13: n{host} does not know {:?}", self.guards[index]);
        }
    }

    pub(super) fn answered(&mut self, client: usize, ticket: u64, asked: &Asked) {
        let Some(ask) = self.clients[client].program.asks.remove(&ticket) else { return };
        let Some(held) = ask.converts else { return };
        for index in self.converted(client, &held) {
            if matches!(asked, Asked::Converted) {
                self.judge_tenure(index);
            }
        }
    }

    /// A conversion is over, or nobody waits for it any more: its guards may be given back.
    fn converted(&mut self, client: usize, held: &Held) -> Vec<usize> {
        let is_its = |guard: &Guard| guard.client == client && guard.held.is(held);
        let its: Vec<usize> = (0..self.guards.len()).filter(|index| is_its(&self.guards[*index])).collect();
        for index in &its {
            self.guards[*index].converts = false;
        }
        its
    }

    /// A client does what it has in mind.
    pub(super) fn run_program(&mut self, client: usize, local: Tick) {
        self.let_go(client, local);
        let c = &self.clients[client];
        if c.program.next > self.now {
            return;
        }
        let pause = self.pace / 4 + self.random.below(self.pace);
        self.clients[client].program.next = self.now + pause;
        if self.draining {
            return self.drain(client, local);
        }
        let c = &self.clients[client];
        let Some(session) = c.session.as_ref().filter(|session| session.lease(local).is_ok()) else { return };
        if session.is_over() {
            return;
        }
        match self.random.below(100) {
            0..60 => self.ask_for_one(client, local),
            60..72 => self.ask_for_several(client, local),
            72..82 => self.convert_one(client, local),
            82..90 => self.give_up_one(client, local),
            90 if self.random.once_in(8) => self.close_session(client, local),
            _ => {}
        }
    }

    /// Guards that have been used long enough are given back; those that are lost are forgotten.
    fn let_go(&mut self, client: usize, local: Tick) {
        let now = self.now;
        let mut kept = Vec::new();
        for guard in std::mem::take(&mut self.guards) {
            let due = guard.client == client && !guard.converts && (guard.until <= now || self.draining);
            let lost = guard.client == client && guard.held.check(local).is_err();
            if !due && !lost {
                kept.push(guard);
                continue;
            }
            if let Some(session) = &mut self.clients[client].session {
                session.release(local, &guard.held);
            }
        }
        self.guards = kept;
    }

    fn close_session(&mut self, client: usize, local: Tick) {
        if let Some(session) = &mut self.clients[client].session {
            session.close(local);
        }
    }

    /// No more is asked; what waits is given up after a while, and a session with nothing left is closed.
    fn drain(&mut self, client: usize, local: Tick) {
        if self.clients[client].program.asks.is_empty() {
            self.close_session(client, local);
        }
    }

    fn wanted(&mut self, ticket: u64) -> Wanted {
        let mode = match self.random.below(20) {
            0..10 => Mode::EX,
            10..15 => Mode::PR,
            15 => Mode::PW,
            16 => Mode::CW,
            17 | 18 => Mode::CR,
            _ => Mode::NL,
        };
        let wait = match self.random.below(10) {
            0..2 => Wait::Try,
            2..5 => Wait::Millis(1 + self.random.below(400)),
            _ => Wait::Forever,
        };
        let name = self.random.index(self.names.len());
        Wanted {
            name: self.names[name].as_bytes().into(),
            label: ticket.to_string().into(),
            mode,
            wait,
            owner: OwnerId(1 + self.random.below(3)),
            reentrant: self.random.once_in(3),
            lock_delay_ms: if self.random.once_in(10) { 100 } else { 0 },
            max_hold_ms: if self.random.once_in(10) {
                50 + 10 * u32::try_from(self.random.below(20)).expect("small")
            } else {
                0
            },
        }
    }

    fn may_ask(&self, client: usize) -> bool {
        let held = self.guards.iter().filter(|guard| guard.client == client).count();
        held < HELD_MAX && self.clients[client].program.asks.len() < ASKED_MAX
    }

    fn note_ask(
        &mut self,
        client: usize,
        ticket: u64,
        place: Option<(ShardId, RequestId)>,
        converts: Option<Held>,
    ) {
        let since = self.now;
        if let Some(place) = place {
            self.clients[client].program.asks.insert(ticket, Ask { place, since, converts });
        }
    }

    fn ask_for_one(&mut self, client: usize, local: Tick) {
        if !self.may_ask(client) {
            return;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let wanted = self.wanted(ticket);
        let Some(session) = &mut self.clients[client].session else { return };
        let place = session.acquire(local, &wanted, ticket);
        self.note_ask(client, ticket, place, None);
    }

    fn ask_for_several(&mut self, client: usize, local: Tick) {
        if !self.may_ask(client) {
            return;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let first = self.wanted(ticket);
        let count = 2 + self.random.index(2);
        let mut all = vec![Wanted { reentrant: false, lock_delay_ms: 0, max_hold_ms: 0, ..first.clone() }];
        for _ in 0..count {
            let next = self.wanted(ticket);
            let Some(session) = &self.clients[client].session else { return };
            let known = all.iter().any(|one| one.name == next.name);
            if !known && session.shard_of(&next) == session.shard_of(&first) {
                all.push(Wanted {
                    owner: first.owner,
                    ..Wanted { reentrant: false, lock_delay_ms: 0, max_hold_ms: 0, ..next }
                });
            }
        }
        let Some(session) = &mut self.clients[client].session else { return };
        let place = session.acquire_all(local, &all, first.wait, ticket);
        self.note_ask(client, ticket, place, None);
    }

    fn convert_one(&mut self, client: usize, local: Tick) {
        let mine: Vec<usize> =
            (0..self.guards.len()).filter(|index| self.guards[*index].client == client).collect();
        if mine.is_empty() {
            return;
        }
        let index = mine[self.random.index(mine.len())];
        if self.guards[index].converts {
            return;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let Wanted { mode, wait, .. } = self.wanted(ticket);
        let held = self.guards[index].held.clone();
        let Some(session) = &mut self.clients[client].session else { return };
        let place = session.convert(local, &held, mode, wait, ticket);
        self.guards[index].converts = place.is_some();
        self.note_ask(client, ticket, place, Some(held));
    }

    fn give_up_one(&mut self, client: usize, local: Tick) {
        let asks = &mut self.clients[client].program.asks;
        if asks.is_empty() {
            return;
        }
        let at = self.random.index(asks.len());
        let (ticket, _) = asks.iter().nth(at).expect("one of them");
        let ticket = *ticket;
        let Some(ask) = asks.remove(&ticket) else { return };
        if let Some(session) = &mut self.clients[client].session {
            session.abandon(local, ask.place);
        }
        if let Some(held) = ask.converts {
            self.converted(client, &held);
        }
    }

    /// The oldest question that is not answered, in nanoseconds of age.
    pub(super) fn oldest_ask(&self) -> Option<(usize, u64)> {
        let ages =
            self.clients.iter().enumerate().flat_map(|(client, c)| {
                c.program.asks.values().map(move |ask| (client, self.now - ask.since))
            });
        ages.max_by_key(|(_, age)| *age)
    }
}
