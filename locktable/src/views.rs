//! What can be asked of a table without changing it: sessions, queues and counts, for the server's own decisions
//! and for people. Long answers come in pages: a visitor says when he has enough, a cursor says where to go on.

use crate::chunks::NONE;
use crate::command::{Attributes, Lease, SessionKey};
use crate::counts::Counts;
use crate::effect::Answer;
use crate::record::{Crowd, Grant, Waiter};
use crate::seat::since_tick;
use crate::table::Table;
use core::ops::ControlFlow;
use core::time::Duration;
use fairlock_protocol::{
    Digest, Discipline, FencingToken, GrantId, Mode, OwnerId, Priority, RequestId, Resource, Secret,
    SessionId, Tick, limits::INHERITANCE_STEPS_MAX,
};

/// A session as it is now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, none a state of another")]
pub struct SessionView<'a> {
    /// Its key at this table.
    pub key: SessionKey,
    /// Its id.
    pub id: SessionId,
    /// What a connection must show to act for it.
    pub secret: Secret,
    /// Length of its lease in milliseconds.
    pub ttl_ms: u32,
    /// What ends it.
    pub lease: Lease,
    /// Whether its home is another shard.
    pub visiting: bool,
    /// Who it is across restarts; empty for nobody in particular.
    pub identity: &'a [u8],
    /// For people.
    pub attributes: Attributes<'a>,
    /// Grants it holds here.
    pub grants: u32,
    /// Requests and conversions of it that wait here.
    pub waits: u32,
    /// Whether renewals are confirmed.
    pub renewable: bool,
    /// Whether another session has taken its identity.
    pub replaced: bool,
    /// Whether an operator has asked for its end.
    pub killed: bool,
    /// Highest request number seen.
    pub seen: RequestId,
    /// Kept answers ever sent.
    pub kept_sent: u64,
    /// Kept answers that the client has acknowledged.
    pub acknowledged: u64,
    /// End of its lease; `None` when this table does not end it by time.
    pub deadline: Option<Tick>,
}

impl SessionView<'_> {
    /// What is left of its lease; `None` when this table does not end it by time.
    pub fn expires_in(&self, now: Tick) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(now))
    }
}

/// A lock as it is now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LockView<'a> {
    /// Its digest.
    pub digest: Digest,
    /// What it locks.
    pub resource: Resource<'a>,
    /// How many hold it.
    pub holders: u32,
    /// How many conversions wait.
    pub conversions: u32,
    /// How many requests wait.
    pub waiters: u32,
    /// The strongest mode held; `None` when nobody holds it.
    pub mode: Option<Mode>,
    /// A delay after an expiry keeps others out until then.
    pub closed_until: Option<Tick>,
}

/// In which part of a lock's queue somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds the lock.
    Holder,
    /// Waits in the conversion queue (and is listed as a holder, too).
    Conversion,
    /// Waits in the wait queue.
    Waiter,
}

/// Somebody who holds a lock or waits for it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EntryView<'a> {
    /// Holder, conversion or waiter.
    pub role: Role,
    /// Position in that part, from 1.
    pub position: u32,
    /// Whose it is.
    pub session: SessionKey,
    /// Which thread or task of the session.
    pub owner: OwnerId,
    /// The mode held; `None` for a waiter that holds nothing.
    pub mode: Option<Mode>,
    /// The mode asked for; `None` for a holder.
    pub asked: Option<Mode>,
    /// The grant; `None` for a waiter that holds nothing.
    pub grant: Option<GrantId>,
    /// The grant's token; `None` for NL and for a waiter that holds nothing.
    pub token: Option<FencingToken>,
    /// Since when it holds or waits. A holder's moment is kept in steps of 16 ms, rounded up: the age of a hold is never
    /// over-stated, and up to 16 ms shorter than it was, 0 for a hold younger than that. A waiter's is exact.
    pub since: Tick,
    /// The waiting request; `None` for a holder.
    pub request: Option<RequestId>,
    /// Levels of re-entry of a holder, 1 when entered once; 0 for who waits.
    pub levels: u32,
    /// An operator took the grant and its client has not confirmed yet.
    pub broken: bool,
    /// The grant belongs to a request for several locks that waits for the rest: its client was not told yet.
    pub partial: bool,
    /// By what the wait queue of the lock goes.
    pub discipline: Discipline,
    /// The class asked for; the lowest for a holder.
    pub priority: Priority,
    /// The class of a waiter by now, by age and inheritance, under the discipline `priority`; else the lowest.
    pub class: Priority,
    /// How often a waiter was passed; 0 in a strict queue.
    pub passed: u32,
    /// The request's label.
    pub label: &'a [u8],
}

impl Table {
    /// A session as it is now; `None` when it is over.
    pub fn session_view(&self, key: SessionKey) -> Option<SessionView<'_>> {
        let session = &self.sessions[self.session_slot(key)?];
        Some(SessionView {
            key,
            id: session.id,
            secret: session.secret,
            ttl_ms: session.ttl_ms,
            lease: session.lease,
            visiting: session.visiting,
            identity: &session.about.identity,
            attributes: session.about.attributes(),
            grants: session.grant_count,
            waits: session.wait_count,
            renewable: session.renewable,
            replaced: session.replaced,
            killed: session.killed,
            seen: session.seen,
            kept_sent: session.kept_sent,
            acknowledged: session.acknowledged,
            deadline: (session.lease_timer != NONE).then_some(session.deadline),
        })
    }

    /// The kept answers that a session has not acknowledged, in the order they were first given; none when the
    /// session is over.
    pub fn unacknowledged(&self, key: SessionKey) -> impl Iterator<Item = (RequestId, Answer)> + '_ {
        let session = self.session_slot(key).map(|slot| &self.sessions[slot]);
        session.into_iter().flat_map(|session| session.kept.iter().copied())
    }

    /// The grants of a session that an operator took and its client has not confirmed, oldest first.
    ///
    /// Costs nothing when there are none; else a walk of the session's grants up to the last of them.
    pub fn broken_grants(&self, key: SessionKey) -> impl Iterator<Item = GrantId> + '_ {
        let session = self.session_slot(key).map(|slot| &self.sessions[slot]);
        let broken = session.filter(|session| session.broken_count > 0);
        let (head, count) = broken.map_or((NONE, 0), |session| (session.grants.head, session.broken_count));
        crate::list::walk(&self.grants, head, |grant| grant.sibling)
            .filter(|&slot| self.grants[slot].has(Grant::BROKEN))
            .map(|slot| self.grant_id(slot))
            .take(count as usize)
    }

    /// The mode of a grant of this session; `None` when it has no such grant.
    pub fn held_mode(&self, key: SessionKey, grant: GrantId) -> Option<Mode> {
        let slot = self.grant_of(self.session_slot(key)?, grant)?;
        Some(self.grants[slot].mode())
    }

    /// Whether a request of this number waits here, or has an answer that is kept.
    pub fn knows(&self, key: SessionKey, request: RequestId) -> bool {
        self.session_slot(key).is_some_and(|slot| {
            let mut kept = self.sessions[slot].kept.iter();
            self.pending_slot(slot, request).is_some() || kept.any(|(number, _)| *number == request)
        })
    }

    /// Fetches what look-ups of these resources will need, all at once. Changes nothing but how long they take.
    pub fn look_ahead(&self, digests: impl Iterator<Item = Digest>) {
        let glances = digests.map(|digest| self.by_digest.glance(self.key.hash(digest.0[0], digest.0[1])));
        core::hint::black_box(glances.fold(0, |all, found| all ^ found));
    }

    /// What a grant is held on; `None` when there is no such grant.
    pub fn digest_of(&self, grant: GrantId) -> Option<Digest> {
        let found = self.grants.get(grant.slot()).filter(|found| found.generation == grant.generation())?;
        Some(self.locks[found.lock].digest)
    }

    /// Whose a grant is, and on what; `None` when the session has no such grant.
    pub fn session_and_resource(
        &self,
        session: SessionKey,
        grant: GrantId,
    ) -> Option<(SessionId, Resource<'_>)> {
        let slot = self.session_slot(session)?;
        let found = self.grant_of(slot, grant)?;
        Some((self.sessions[slot].id, self.resource(self.grants[found].lock)))
    }

    /// Whether anybody waits for this resource.
    pub fn is_waited_for(&self, digest: Digest) -> bool {
        let crowd = self.lock_slot(digest).and_then(|lock| self.crowd_of(lock));
        crowd.is_some_and(Crowd::is_waited_for)
    }

    /// Whether a grant with this token is alive on this resource.
    ///
    /// A walk of the holders; for people and for checks after the fact, not for every write.
    pub fn is_current(&self, digest: Digest, token: FencingToken) -> bool {
        let Some(lock) = self.lock_slot(digest) else { return false };
        self.holders(lock).any(|grant| self.grants[grant].token == token.get())
    }

    /// Visits locks from `cursor` (0 at first) on until there are no more or the visitor breaks; gives the cursor
    /// to go on with, `None` at the end. A lock that stays is visited once; others may be missed.
    pub fn locks(&self, cursor: u64, mut visit: impl FnMut(LockView<'_>) -> ControlFlow<()>) -> Option<u64> {
        let mut at = u32::try_from(cursor).ok()?;
        while let Some(slot) = self.locks.next_used(at) {
            at = slot.checked_add(1)?;
            if visit(self.lock_view(slot)).is_break() {
                return Some(u64::from(at));
            }
        }
        None
    }

    /// One lock; `None` when it is free.
    pub fn lock(&self, digest: Digest) -> Option<LockView<'_>> {
        self.lock_slot(digest).map(|slot| self.lock_view(slot))
    }

    /// Visits sessions as [`Table::locks`] visits locks.
    pub fn sessions(
        &self,
        cursor: u64,
        mut visit: impl FnMut(SessionView<'_>) -> ControlFlow<()>,
    ) -> Option<u64> {
        let mut at = u32::try_from(cursor).ok()?;
        while let Some(slot) = self.sessions.next_used(at) {
            at = slot.checked_add(1)?;
            let view = self.session_view(self.session_key(slot));
            if view.is_some_and(|view| visit(view).is_break()) {
                return Some(u64::from(at));
            }
        }
        None
    }

    /// Visits who holds a lock, then who converts, then who waits, each in order, from `cursor` (0 at first) on
    /// until there are no more or the visitor breaks; gives the cursor to go on with, `None` at the end.
    ///
    /// Waiters come in the order in which they joined, also where that is not the order of service.
    /// The cursor counts entries: between two pages of a queue that moves, entries may be missed or seen twice.
    pub fn show(
        &self,
        digest: Digest,
        cursor: u64,
        mut visit: impl FnMut(EntryView<'_>) -> ControlFlow<()>,
    ) -> Option<u64> {
        let lock = self.lock_slot(digest)?;
        let queue = |conversions: bool| {
            let ends =
                self.crowd_of(lock).map(|crowd| if conversions { crowd.conversions } else { crowd.waits });
            let head = ends.map_or(NONE, |ends| ends.head);
            crate::list::walk(&self.waiters, head, |waiter| waiter.queue).zip(1..)
        };
        let holders = self.holders(lock).zip(1..).map(|(slot, position)| (Role::Holder, slot, position));
        let converting = queue(true).map(|(slot, position)| (Role::Conversion, slot, position));
        let waiting = queue(false).map(|(slot, position)| (Role::Waiter, slot, position));
        let entries = holders.chain(converting).chain(waiting);
        let rota = self.crowd_of(lock).map_or(NONE, |crowd| crowd.rota);
        let mut passed = if rota == NONE { 0 } else { self.rotas[rota].passed };
        for ((role, slot, position), seen) in entries.zip(1..) {
            let so_far = passed;
            if role == Role::Waiter && rota != NONE {
                passed -= self.turns[self.turn_slot(slot)].behind;
            }
            if seen <= cursor {
                continue;
            }
            let entry = match role {
                Role::Holder => self.holder_view(slot, position),
                Role::Conversion => self.waiter_view(role, slot, position),
                Role::Waiter => EntryView { passed: so_far, ..self.waiter_view(role, slot, position) },
            };
            if visit(entry).is_break() {
                return Some(seen);
            }
        }
        None
    }

    /// Gauges and totals.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        counts.locks = self.locks.len();
        counts.grants = self.grants.len();
        counts.waiters = self.waiters.len() - counts.conversions;
        counts.sessions = self.sessions.len();
        counts.timers = self.wheel.len();
        counts.tokens_issued = self.seq - 1;
        counts.tokens_half_used = self.seq > fairlock_protocol::ids::TOKEN_SEQ_END / 2;
        counts
    }

    /// What a lock locks.
    pub(crate) fn resource(&self, lock: u32) -> Resource<'_> {
        let record = &self.locks[lock];
        let name =
            fairlock_protocol::Name::new(self.names.bytes(record.name)).expect("checked before it was kept");
        Resource { namespace: self.namespaces.namespace(record.namespace), name }
    }

    fn lock_view(&self, lock: u32) -> LockView<'_> {
        let crowd = self.crowd_of(lock);
        let held = self.held_mask(lock, None);
        LockView {
            digest: self.locks[lock].digest,
            resource: self.resource(lock),
            holders: self.holder_count(lock),
            conversions: crowd.map_or(0, |crowd| crowd.converting.iter().sum()),
            waiters: crowd.map_or(0, |crowd| crowd.waiting.iter().sum()),
            mode: Mode::ALL.into_iter().rev().find(|&mode| held.has(mode)),
            closed_until: crowd.and_then(|crowd| crowd.closed.as_ref()).map(|closed| closed.until),
        }
    }

    fn holder_view(&self, slot: u32, position: u32) -> EntryView<'_> {
        let grant = &self.grants[slot];
        let extra = grant.has(Grant::EXTRA).then(|| self.extra(slot));
        EntryView {
            role: Role::Holder,
            position,
            session: self.session_key(grant.session()),
            owner: OwnerId(self.owner(slot)),
            mode: Some(grant.mode()),
            asked: None,
            grant: Some(self.grant_id(slot)),
            token: grant.fencing_token(),
            since: since_tick(grant.since, self.wheel.now()),
            request: None,
            levels: extra.map_or(1, |extra| extra.levels),
            broken: grant.has(Grant::BROKEN),
            partial: grant.has(Grant::PARTIAL),
            discipline: self.rules(grant.lock).discipline,
            priority: Priority::LOWEST,
            class: Priority::LOWEST,
            passed: 0,
            label: extra.map_or(&[], |extra| self.names.bytes(extra.label)),
        }
    }

    fn waiter_view(&self, role: Role, slot: u32, position: u32) -> EntryView<'_> {
        let Waiter { lock, session, owner, mode, priority, grant, since, request, label, .. } =
            self.waiters[slot];
        let discipline = self.rules(lock).discipline;
        let has_class = role == Role::Waiter && discipline == Discipline::Priority;
        let (now, mut steps) = (self.wheel.now(), INHERITANCE_STEPS_MAX);
        let held = (grant != NONE).then(|| &self.grants[grant]);
        EntryView {
            role,
            position,
            session: self.session_key(session),
            owner,
            mode: held.map(Grant::mode),
            asked: Some(mode),
            grant: held.map(|_| self.grant_id(grant)),
            token: held.and_then(Grant::fencing_token),
            since,
            request: Some(request),
            levels: 0,
            broken: false,
            partial: false,
            discipline,
            priority,
            class: if has_class { self.class_of(now, slot, &mut steps) } else { Priority::LOWEST },
            passed: 0,
            label: self.names.bytes(label),
        }
    }
}
