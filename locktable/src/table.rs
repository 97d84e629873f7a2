//! The table itself: its stores, the one door through which it changes, and the clock's decisions.
//!
//! Everything is a record in a slab, addressed by number and linked by number; an index leads from names, session
//! ids and request numbers to records. [`Table::apply`] dispatches; each kind of command has its file.

use crate::bundle::Bundle;
use crate::chunks::NONE;
use crate::command::{Command, Ended, SessionKey, WaiterKey};
use crate::counts::Counts;
use crate::effect::{Answer, Effect, Effects};
use crate::index::{Index, IndexKey};
use crate::marks::Marks;
use crate::names::{Names, Namespaces};
use crate::record::{Crowd, Extra, Grant, Lock, SESSION_SLOTS, Stake, Waiter};
use crate::rolling::Rolling;
use crate::rules::NamespaceRules;
use crate::sessions::Session;
use crate::slab::Slab;
use crate::snapshot::Slices;
use crate::turns::{Rota, Turn};
use crate::wheel::{Alarm, Wheel};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;
use fairlock_protocol::ids::TOKEN_SEQ_END;
use fairlock_protocol::{
    Digest, Epoch, FencingToken, GrantId, Refusal, RequestId, SessionId, ShardId, Tick, limits,
};

/// Bounds of one table; each that is reached is a counted refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Grants and waits of one session.
    pub locks_per_session: u32,
    /// Sessions; at most 2²⁴.
    pub sessions: u32,
    /// Entries of the queues of one resource.
    pub waiters_per_resource: u32,
    /// Kept answers a session may leave unacknowledged.
    pub unacknowledged: usize,
    /// Times a grant can be re-entered.
    pub reentry: u32,
    /// Deaths remembered after their locks were reclaimed.
    pub death_marks: usize,
    /// Namespaces in use at a time.
    pub namespaces: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            locks_per_session: limits::LOCKS_PER_SESSION_MAX,
            sessions: limits::SESSIONS_MAX,
            waiters_per_resource: limits::WAITERS_PER_RESOURCE_MAX,
            unacknowledged: limits::UNACKNOWLEDGED_MAX,
            reentry: limits::REENTRY_MAX,
            death_marks: limits::DEATH_MARKS_MAX,
            namespaces: limits::NAMESPACES_MAX,
        }
    }
}

/// What a table is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The epoch of the first tokens.
    pub epoch: Epoch,
    /// Which shard this is.
    pub shard: ShardId,
    /// Private key of the positions in the indices; random, and never told to anybody.
    pub index_key: u64,
    /// Bounds.
    pub limits: Limits,
    /// Queue disciplines of namespaces that are not strict. The same on every node of a cell.
    pub rules: NamespaceRules,
}

/// Who holds what, and who is next, on one shard.
pub struct Table {
    pub(crate) epoch: Epoch,
    pub(crate) shard: ShardId,
    /// Number of the next token of this epoch.
    pub(crate) seq: u64,
    pub(crate) limits: Limits,
    pub(crate) key: IndexKey,
    pub(crate) locks: Slab<Lock, 12>,
    pub(crate) by_digest: Index,
    pub(crate) grants: Slab<Grant, 12>,
    pub(crate) extras: Slab<Extra, 8>,
    pub(crate) crowds: Slab<Crowd, 6>,
    pub(crate) waiters: Slab<Waiter, 8>,
    pub(crate) turns: Slab<Turn, 8>,
    pub(crate) rotas: Slab<Rota, 4>,
    /// Waiters by session and request number.
    pub(crate) pending: Index,
    pub(crate) bundles: Slab<Bundle, 4>,
    /// Bundles ever asked for.
    pub(crate) bundles_begun: u64,
    pub(crate) stakes: Slab<Stake, 8>,
    pub(crate) by_stake: Index,
    pub(crate) sessions: Slab<Session, 5>,
    pub(crate) by_id: Index,
    /// The newest session of each identity.
    pub(crate) by_identity: Index,
    pub(crate) names: Names,
    pub(crate) namespaces: Namespaces,
    pub(crate) wheel: Wheel,
    pub(crate) marks: Marks,
    pub(crate) generations: Generations,
    pub(crate) counts: Counts,
    /// Present in a cell of several nodes.
    pub(crate) rolling: Option<Rolling>,
    /// Tokens of a time before the table was lost whose grants are held on; until the first ordinary request.
    pub(crate) reasserted: BTreeSet<u64>,
    /// Locks to scan at the end of the present command; empty between commands.
    pub(crate) touched: Vec<u32>,
    /// Bundles that go on at the end of the present command, by age, with their slots; empty between commands.
    pub(crate) advancing: BTreeSet<(u64, u32)>,
    /// The snapshot that is told meanwhile.
    pub(crate) slices: Slices,
}

/// One counter a kind of record, so that a slot's tenants are told apart even when its memory came and went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Generations {
    pub(crate) grant: u32,
    pub(crate) waiter: u32,
    pub(crate) session: u32,
}

impl Generations {
    /// The next generation of `counter`: never 0, which marks a vacant record.
    pub(crate) fn next(counter: &mut u32) -> u32 {
        *counter = counter.checked_add(1).unwrap_or(1);
        *counter
    }
}

impl Table {
    /// An empty table.
    pub fn new(settings: Settings) -> Table {
        let mut limits = settings.limits;
        limits.sessions = limits.sessions.min(SESSION_SLOTS - 1);
        Table {
            epoch: settings.epoch,
            shard: settings.shard,
            seq: 1,
            limits,
            key: IndexKey::new(settings.index_key),
            locks: Slab::new(),
            by_digest: Index::new(10),
            grants: Slab::new(),
            extras: Slab::new(),
            crowds: Slab::new(),
            waiters: Slab::new(),
            turns: Slab::new(),
            rotas: Slab::new(),
            pending: Index::new(6),
            bundles: Slab::new(),
            bundles_begun: 0,
            stakes: Slab::new(),
            by_stake: Index::new(6),
            sessions: Slab::new(),
            by_id: Index::new(4),
            by_identity: Index::new(4),
            names: Names::new(),
            namespaces: Namespaces::new(limits.namespaces, settings.rules),
            wheel: Wheel::new(),
            marks: Marks::new(limits.death_marks),
            generations: Generations::default(),
            counts: Counts::default(),
            rolling: None,
            reasserted: BTreeSet::new(),
            touched: Vec::new(),
            advancing: BTreeSet::new(),
            slices: Slices::None,
        }
    }

    /// Carries out one command at `now` and appends what follows from it to `effects`.
    ///
    /// `now` never goes back from one call to the next, of this and of the other methods that take it. A take-over alone
    /// may come from before what [`Table::due`] and [`Table::renew`] were told; not from before what this was told.
    pub fn apply(&mut self, now: Tick, command: Command<'_>, effects: &mut Effects) {
        let before = effects.len();
        match command {
            Command::Open(open) => self.open(now, &open, effects),
            Command::Resume { session, received } => self.resume(session, received),
            Command::Acknowledge { session, received } => self.acknowledge(session, received),
            Command::End { session, why } => {
                if let Some(slot) = self.session_slot(session) {
                    self.end(now, slot, why, effects);
                }
            }
            Command::Acquire(acquire) => self.acquire(now, &acquire, effects),
            Command::AcquireAll(acquire) => self.acquire_all(now, &acquire, effects),
            Command::Reassert { ref acquire, token } => self.reassert(now, acquire, token, effects),
            Command::Release { session, request, grant } => {
                self.release(now, session, request, grant, effects);
            }
            Command::Convert { session, request, grant, mode, wait } => {
                self.convert(now, session, request, (grant, mode, wait), effects);
            }
            Command::Cancel { session, request, target } => {
                self.cancel(now, session, request, target, effects);
            }
            Command::Break { digest, force } => self.break_lock(now, digest, force, effects),
            Command::Kill { session, force } => self.kill(now, session, force, effects),
            Command::Confirm { session, grant } => self.confirm(now, session, grant, effects),
            Command::Cache { session, grant } => self.cache(session, grant, effects),
            Command::GiveBack { session, grant } => self.give_back(now, session, grant, effects),
            Command::WaitOver { waiter } => self.wait_over(now, waiter, effects),
            Command::HoldOver { grant } => self.hold_over(now, grant, effects),
            Command::DelayOver { digest } => self.delay_over(now, digest, effects),
            Command::Doom { session } => self.doom(now, session, effects),
            Command::Epoch(epoch) => self.begin_epoch(now, epoch, effects),
            Command::TakeOver(epoch) => self.take_over(now, epoch, effects),
        }
        if !(self.advancing.is_empty() && self.touched.is_empty()) {
            self.finish(now, effects);
        }
        debug_assert!(self.touched.is_empty(), "a command leaves no scan undone");
        if self.rolling.is_some() {
            self.roll(now, &command, &effects[before..]);
        }
    }

    /// The next thing that time has decided by `now`. Apply it, and ask again until there is nothing: the same
    /// command is given until it was applied. A lease that was renewed meanwhile is only set anew.
    pub fn due(&mut self, now: Tick) -> Option<Command<'static>> {
        self.wheel.advance(now);
        let now = now.max(self.wheel.now());
        while let Some((timer, alarm)) = self.wheel.ripe() {
            match alarm {
                Alarm::Wait(slot) => {
                    let generation = self.waiters[slot].generation;
                    return Some(Command::WaitOver { waiter: WaiterKey { slot, generation } });
                }
                Alarm::Hold(slot) => return Some(Command::HoldOver { grant: self.grant_id(slot) }),
                Alarm::Delay(lock) => return Some(Command::DelayOver { digest: self.locks[lock].digest }),
                Alarm::Confirm(slot) => return Some(Command::Doom { session: self.session_key(slot) }),
                Alarm::Broken(slot) => {
                    let session = self.grants[slot].session();
                    if self.sessions[session].renewable {
                        return Some(Command::Doom { session: self.session_key(session) });
                    }
                    // Its session is doomed already; the lease decides.
                    self.wheel.disarm(timer);
                    let extra = self.extra_slot(slot);
                    self.extras[extra].confirm_timer = NONE;
                }
                Alarm::Lease(slot) => {
                    let deadline = self.sessions[slot].deadline;
                    if deadline <= now {
                        return Some(Command::End { session: self.session_key(slot), why: Ended::Expired });
                    }
                    self.wheel.rearm(timer, deadline);
                }
            }
        }
        None
    }

    /// A moment before which [`Table::due`] gives nothing; `None` when nothing depends on time.
    pub fn next_due(&self) -> Option<Tick> {
        self.wheel.next_due()
    }

    /// Which shard this is.
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The epoch of new tokens.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bytes that the table's own structures have taken from the allocator.
    pub fn memory(&self) -> usize {
        let slabs = self.locks.memory()
            + self.grants.memory()
            + self.extras.memory()
            + self.crowds.memory()
            + self.waiters.memory()
            + self.turns.memory()
            + self.rotas.memory()
            + self.bundles.memory()
            + self.stakes.memory()
            + self.sessions.memory();
        let indices = self.by_digest.memory()
            + self.pending.memory()
            + self.by_stake.memory()
            + self.by_id.memory()
            + self.by_identity.memory();
        let own: usize = self.sessions.slots().map(|slot| self.sessions[slot].memory()).sum();
        let bundles: usize = self.bundles.slots().map(|slot| self.bundles[slot].memory()).sum();
        let rest = self.names.memory() + self.namespaces.memory() + self.wheel.memory() + self.marks.memory();
        slabs + indices + own + bundles + rest + self.touched.capacity() * size_of::<u32>()
    }

    /// The next token of this epoch.
    pub(crate) fn next_token(&mut self) -> FencingToken {
        let token =
            FencingToken::new(self.epoch, self.seq).expect("who grants asked whether tokens are left");
        self.seq += 1;
        token
    }

    /// Whether this epoch has tokens left.
    pub(crate) const fn has_tokens(&self) -> bool {
        self.seq < TOKEN_SEQ_END
    }

    /// The id of the grant in `slot`.
    pub(crate) fn grant_id(&self, slot: u32) -> GrantId {
        let generation =
            NonZeroU32::new(self.grants[slot].generation).expect("a grant in use has a generation");
        GrantId::from_parts(slot, generation)
    }

    /// The slot of a grant that `session` holds and knows of.
    pub(crate) fn grant_of(&self, session: u32, grant: GrantId) -> Option<u32> {
        let found = self.grants.get(grant.slot())?;
        let is_its_own = found.generation == grant.generation() && found.session() == session;
        (is_its_own && !found.has(Grant::PARTIAL)).then_some(grant.slot())
    }

    /// The slot of the lock with this digest.
    pub(crate) fn lock_slot(&self, digest: Digest) -> Option<u32> {
        let hash = self.key.hash(digest.0[0], digest.0[1]);
        self.by_digest.find(hash, |slot| self.locks[slot].digest == digest)
    }

    /// Answers a request, and keeps the answer when it changed something.
    pub(crate) fn answer(&mut self, slot: u32, request: RequestId, answer: Answer, effects: &mut Effects) {
        let kept = answer.is_kept();
        match answer {
            Answer::Refused(refusal) => self.counts.refuse(refusal),
            Answer::Deadlock { .. } => {
                self.counts.deadlocks_total += 1;
                self.counts.refuse(Refusal::Deadlock);
            }
            _ => {}
        }
        let session = self.session_key(slot);
        if kept {
            self.sessions[slot].keep(request, answer);
        }
        effects.push(Effect::Answered { session, request, answer, kept });
    }

    /// The key of the session in `slot`.
    pub(crate) fn session_key(&self, slot: u32) -> SessionKey {
        SessionKey { slot, generation: self.sessions[slot].generation }
    }

    /// The slot of a session that is still there.
    pub(crate) fn session_slot(&self, key: SessionKey) -> Option<u32> {
        let session = self.sessions.get(key.slot)?;
        (session.generation == key.generation).then_some(key.slot)
    }

    /// The session with this id.
    pub fn session(&self, id: SessionId) -> Option<SessionKey> {
        let hash = self.key.hash(id.get(), 0);
        let slot = self.by_id.find(hash, |slot| self.sessions[slot].id == id)?;
        Some(self.session_key(slot))
    }

    /// Tokens come from another epoch from here on; an epoch that is not later is ignored.
    pub(crate) fn begin_epoch(&mut self, now: Tick, epoch: Epoch, effects: &mut Effects) {
        if epoch <= self.epoch {
            return;
        }
        let starved = !self.has_tokens();
        (self.epoch, self.seq) = (epoch, 1);
        if starved {
            // Who was next while no token was left is next now. This happens once in half a trillion grants.
            for lock in self.locks.slots().collect::<Vec<u32>>() {
                self.settle(now, lock, effects);
            }
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Table");
        shown.field("epoch", &self.epoch).field("shard", &self.shard).field("seq", &self.seq);
        shown
            .field("locks", &self.locks.len())
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}
