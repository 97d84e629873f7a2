//! Whether what was read goes together, and everything that follows from it: indices, counts, who wants what of whom.
//!
//! Each list is walked once, from its first to its last, and each record must be in each of its lists exactly once: then
//! no later command runs into a record that is not there, or for ever in a circle. It is done a bounded number of records
//! at a time; only what one lock has, holders and queues, is looked at in one go.

use super::{BadSnapshot, sound};
use crate::chunks::NONE;
use crate::list::{Ends, Link};
use crate::record::{Crowd, Grant, Lock, Notify, Stake, Waiter};
use crate::slab::{Record, Slab};
use crate::table::Table;
use crate::turns::Rota;
use fairlock_protocol::Mode;
use fairlock_protocol::limits::PRIORITY_CLASSES;

/// Checks and completes a table of which every record is there.
#[derive(Debug, Default)]
pub(super) struct Check {
    step: Step,
    /// The next slot of this step.
    at: u32,
    /// Sessions that have an identity, and those found among their twins.
    known: u32,
    linked: u32,
    /// Holders of all locks, those who wait for them, and those of them who have a turn.
    holders: u32,
    queued: u32,
    turns: u32,
    /// Grants and waits of all sessions; grants that nobody was told of.
    grants: u32,
    waits: u32,
    partial: usize,
    own: Own,
    /// Waits of bundles, and what bundles have taken.
    bundle_waits: u32,
    taken: usize,
}

/// What is gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Identities,
    Locks,
    Sessions,
    /// The grants of one of the sessions.
    OwnGrants,
    Conversions,
    Bundles,
    Done,
}

/// How far the grants of one session were gone through.
#[derive(Debug, Default)]
struct Own {
    session: u32,
    /// The next grant, and the one before it.
    at: u32,
    before: u32,
    count: u32,
    broken: u32,
}

impl Check {
    /// Goes through about `left` records more, and says whether everything was gone through.
    pub(super) fn go_on(&mut self, table: &mut Table, left: &mut u32) -> Result<bool, BadSnapshot> {
        while *left > 0 && self.step != Step::Done {
            *left -= 1;
            match self.step {
                Step::Identities => self.identity(table)?,
                Step::Locks => self.lock(table, left)?,
                Step::Sessions => self.session(table)?,
                Step::OwnGrants => self.own_grant(table)?,
                Step::Conversions => self.conversion(table)?,
                Step::Bundles => self.bundle(table)?,
                Step::Done => {}
            }
        }
        Ok(self.step == Step::Done)
    }

    /// The next slot in use of a store; the next step when there is none.
    fn next<T: Record, const B: u32>(&mut self, slab: &Slab<T, B>, then: Step) -> Option<u32> {
        let next = slab.next_used(self.at);
        if let Some(slot) = next {
            self.at = slot.checked_add(1).expect("chunks end before the last slot number");
        } else {
            (self.step, self.at) = (then, 0);
        }
        next
    }

    /// Files a session by id and by identity.
    fn identity(&mut self, table: &mut Table) -> Result<(), BadSnapshot> {
        let Some(slot) = self.next(&table.sessions, Step::Locks) else {
            return sound(self.known == self.linked, "a session is not among its twins");
        };
        let session = &table.sessions[slot];
        let (id, twins) = (session.id, session.twins);
        sound(table.session(id).is_none(), "two sessions have one id")?;
        table.by_id.insert(table.key.hash(id.get(), 0), slot);
        let identity = &table.sessions[slot].about.identity;
        if identity.is_empty() {
            return sound(twins == Link::NONE, "a session of no identity is another's twin");
        }
        self.known += 1;
        if twins.prev != NONE {
            return Ok(());
        }
        sound(table.newest_twin(identity).is_none(), "two sessions are the newest of one identity")?;
        let mut at = slot;
        while at != NONE {
            let twin = table.sessions.get(at).ok_or(BadSnapshot::Unsound("a twin is no session"))?;
            sound(twin.about.identity == *identity, "twins are of one identity")?;
            let older = twin.twins.next;
            let back =
                if older == NONE { Some(at) } else { table.sessions.get(older).map(|twin| twin.twins.prev) };
            sound(back == Some(at) && self.linked < table.sessions.len(), "twins are not linked both ways")?;
            (self.linked, at) = (self.linked + 1, older);
        }
        let hash = table.identity_hash(identity);
        table.by_identity.insert(hash, slot);
        Ok(())
    }

    fn lock(&mut self, table: &mut Table, left: &mut u32) -> Result<(), BadSnapshot> {
        let Some(lock) = self.next(&table.locks, Step::Sessions) else {
            sound(self.holders == table.grants.len(), "a grant is on no lock")?;
            let all = self.queued == table.waiters.len() && self.turns == table.turns.len();
            return sound(all, "a waiter is in no queue");
        };
        let holders = file_lock(table, lock)?;
        let (waiting, in_turn) = queues(table, lock)?;
        self.holders += holders;
        (self.queued, self.turns) = (self.queued + waiting, self.turns + in_turn);
        *left = left.saturating_sub(holders + waiting);
        Ok(())
    }

    fn session(&mut self, table: &mut Table) -> Result<(), BadSnapshot> {
        let Some(session) = self.next(&table.sessions, Step::Conversions) else {
            let all = self.grants == table.grants.len() && self.waits == table.waiters.len();
            return sound(all, "a grant or wait is nobody's");
        };
        self.waits += own_waits(table, session)?;
        self.own =
            Own { session, at: table.sessions[session].grants.head, before: NONE, count: 0, broken: 0 };
        self.step = Step::OwnGrants;
        Ok(())
    }

    /// Counts one grant of a session more, and finds out which of its owners hold what on locks with many holders.
    fn own_grant(&mut self, table: &mut Table) -> Result<(), BadSnapshot> {
        let Own { session: slot, at, before, .. } = self.own;
        if at == NONE {
            let session = &mut table.sessions[slot];
            sound(session.grants.tail == before, "a list does not end at its last")?;
            (session.grant_count, session.broken_count) = (self.own.count, self.own.broken);
            self.grants += self.own.count;
            self.step = Step::Sessions;
            return Ok(());
        }
        let grant = *table.grants.get(at).ok_or(BadSnapshot::Unsound("a list leads to no record"))?;
        let linked = grant.sibling.prev == before && self.own.count < table.grants.len();
        sound(linked, "a list is not linked both ways")?;
        let (partial, broken) = (grant.has(Grant::PARTIAL), grant.has(Grant::BROKEN));
        sound(grant.session() == slot, "a grant is another session's")?;
        sound(partial || !grant.has(Grant::HEIR), "a grant is to tell of a death, and was told itself")?;
        sound(!partial || !broken, "a grant was broken that nobody was told of")?;
        if table.locks[grant.lock].has(Lock::STAKED) {
            stake(table, at, before)?;
        }
        self.partial += usize::from(partial);
        self.own.broken += u32::from(broken);
        (self.own.count, self.own.before, self.own.at) = (self.own.count + 1, at, grant.sibling.next);
        Ok(())
    }

    /// Lets a grant know of its conversion.
    fn conversion(&mut self, table: &mut Table) -> Result<(), BadSnapshot> {
        let Some(slot) = self.next(&table.waiters, Step::Bundles) else { return Ok(()) };
        let waiter = table.waiters[slot];
        self.bundle_waits += u32::from(waiter.bundle != NONE);
        table.counts.conversions += u32::from(waiter.converts);
        if waiter.grant == NONE {
            return sound(!waiter.converts, "what converts is no grant");
        }
        let grant =
            table.grants.get(waiter.grant).ok_or(BadSnapshot::Unsound("what converts is no grant"))?;
        let own = (grant.lock, grant.session()) == (waiter.lock, waiter.session);
        let up = !grant.mode().covers(waiter.mode) && waiter.converts == (grant.mode() != Mode::NL);
        let known = grant.has(Grant::EXTRA) && !grant.has(Grant::PARTIAL);
        sound(own && up && known && waiter.bundle == NONE, "a conversion does not go with its grant")?;
        let extra = table.extra_slot(waiter.grant);
        sound(table.extras[extra].conversion == NONE, "a grant has two conversions")?;
        table.extras[extra].conversion = slot;
        Ok(())
    }

    /// Lets each grant know of the bundle that has taken it.
    fn bundle(&mut self, table: &mut Table) -> Result<(), BadSnapshot> {
        let Some(slot) = self.next(&table.bundles, Step::Done) else {
            sound(self.bundle_waits == table.bundles.len(), "a bundle waits in several places")?;
            return sound(self.partial == self.taken, "a grant of a bundle is no bundle's");
        };
        self.taken += bundle(table, slot)?;
        Ok(())
    }
}

/// Visits a list of at most as many records as there are, and gives its length.
fn walk<T: Record, const B: u32>(
    slab: &Slab<T, B>,
    ends: Ends,
    link: impl Fn(&T) -> Link,
    mut visit: impl FnMut(u32, &T) -> Result<(), BadSnapshot>,
) -> Result<u32, BadSnapshot> {
    let (mut count, mut prev, mut at) = (0, NONE, ends.head);
    while at != NONE {
        let record = slab.get(at).ok_or(BadSnapshot::Unsound("a list leads to no record"))?;
        sound(link(record).prev == prev && count < slab.len(), "a list is not linked both ways")?;
        visit(at, record)?;
        (count, prev, at) = (count + 1, at, link(record).next);
    }
    sound(ends.tail == prev, "a list does not end at its last")?;
    Ok(count)
}

/// Files a lock, and counts who holds it in which mode; gives how many they are.
fn file_lock(table: &mut Table, slot: u32) -> Result<u32, BadSnapshot> {
    let lock = table.locks[slot];
    sound(table.lock_slot(lock.digest).is_none(), "two locks have one digest")?;
    table.by_digest.insert(table.key.hash(lock.digest.0[0], lock.digest.0[1]), slot);
    let discipline = table.namespaces.reenter(lock.namespace);
    let flags = discipline.map(Lock::discipline);
    sound(flags == Some(lock.flags & Lock::DISCIPLINED), "a lock is in another namespace")?;
    let tail = table.crowd_of(slot).map_or(lock.head, |crowd| crowd.tail);
    let (mut held, mut oldest_reader) = ([0_u32; 6], u64::MAX);
    let ends = Ends { head: lock.head, tail };
    let count = walk(
        &table.grants,
        ends,
        |grant| grant.beside,
        |_, grant| {
            held[grant.mode() as usize] += 1;
            if grant.mode() == Mode::PR {
                oldest_reader = oldest_reader.min(grant.token);
            }
            sound(grant.lock == slot, "a holder holds another lock")
        },
    )?;
    for (a, &beside) in Mode::ALL.into_iter().zip(&held).filter(|(_, count)| **count > 0) {
        let conflicts = Mode::ALL.into_iter().any(|b| held[b as usize] > 0 && a != b && !a.compatible(b));
        sound(!conflicts && (beside == 1 || a.compatible(a)), "holders exclude each other")?;
    }
    if lock.crowd == NONE {
        sound(count == 1 && !lock.has(Lock::STAKED), "several holders have no side record")?;
        return Ok(count);
    }
    let crowd = &mut table.crowds[lock.crowd];
    (crowd.holders, crowd.held) = (count, held);
    let is_read = held[Mode::PR as usize] > 0;
    let run = is_read == (crowd.run_first > 0) && (!is_read || crowd.run_first <= oldest_reader);
    sound(run, "readers are in no run")?;
    let kept = count > 0 || crowd.is_waited_for() || crowd.closed.is_some();
    sound(kept, "a lock is remembered for nothing")?;
    Ok(count)
}

/// Counts who waits for a lock, and gives everybody in W a turn where that is not strict. Says how many wait, and how
/// many have a turn.
fn queues(table: &mut Table, slot: u32) -> Result<(u32, u32), BadSnapshot> {
    let lock = table.locks[slot];
    if lock.crowd == NONE {
        return Ok((0, 0));
    }
    let (mut converting, mut waiting) = ([0_u32; 6], [0_u32; 6]);
    let Crowd { conversions, waits, enqueued, served, .. } = table.crowds[lock.crowd];
    let disciplined = lock.has(Lock::DISCIPLINED);
    let in_c = walk(
        &table.waiters,
        conversions,
        |waiter| waiter.queue,
        |_, waiter| {
            converting[waiter.mode as usize] += 1;
            sound(waiter.lock == slot && waiter.converts, "a conversion is in another queue")
        },
    )?;
    let mut last = if disciplined { 0 } else { served };
    let in_w = walk(
        &table.waiters,
        waits,
        |waiter| waiter.queue,
        |at, waiter| {
            waiting[waiter.mode as usize] += 1;
            sound(waiter.lock == slot && !waiter.converts, "a waiter is in another queue")?;
            let number = if disciplined { turn(table, at, waiter)?.number } else { waiter.number };
            sound(number > last && number < enqueued, "a queue is not in order")?;
            last = number;
            Ok(())
        },
    )?;
    let crowd = &mut table.crowds[lock.crowd];
    (crowd.converting, crowd.waiting) = (converting, waiting);
    if !disciplined || in_w == 0 {
        return Ok((in_c + in_w, 0));
    }
    take_turns(table, slot, waits.head)?;
    Ok((in_c + in_w, in_w))
}

/// The turn of one who waits in W.
fn turn<'a>(table: &'a Table, slot: u32, waiter: &Waiter) -> Result<&'a crate::turns::Turn, BadSnapshot> {
    let turn = u32::try_from(waiter.number).ok().and_then(|turn| table.turns.get(turn));
    turn.filter(|turn| turn.waiter == slot).ok_or(BadSnapshot::Unsound("a waiter has no turn"))
}

/// Makes the side record of a W that is not strict. It was walked before.
fn take_turns(table: &mut Table, lock: u32, head: u32) -> Result<(), BadSnapshot> {
    let mut rota = Rota::new(lock);
    let (mut passed, mut at) = (0_u64, head);
    let mut lasts = [NONE; PRIORITY_CLASSES as usize];
    while at != NONE {
        let waiter = table.waiters[at];
        let turn = table.turn_slot(at);
        passed += u64::from(table.turns[turn].behind);
        if table.locks[lock].has(Lock::PRIORITY) {
            let class = usize::from(waiter.priority.get());
            let before = core::mem::replace(&mut lasts[class], turn);
            table.turns[turn].rank.prev = before;
            if before == NONE {
                rota.classes[class].head = turn;
            } else {
                table.turns[before].rank.next = turn;
            }
            rota.classes[class].tail = turn;
        }
        at = waiter.queue.next;
    }
    sound(passed <= u64::from(table.rules(lock).bypass_budget), "somebody was passed too often")?;
    rota.passed = u32::try_from(passed).map_err(|_| BadSnapshot::Unsound("somebody was passed too often"))?;
    let crowd = table.locks[lock].crowd;
    table.crowds[crowd].rota = table.rotas.insert(rota);
    Ok(())
}

/// Counts a grant into its owner's stake: an owner's grants stand behind one another.
fn stake(table: &mut Table, slot: u32, before: u32) -> Result<(), BadSnapshot> {
    let grant = table.grants[slot];
    let (lock, session, owner) = (grant.lock, grant.session(), table.owner(slot));
    let stake = table.stake(lock, session, owner).unwrap_or_else(|| {
        let grants = Ends { head: slot, tail: before };
        let stake = table.stakes.insert(Stake { lock, session, owner, held: [0; 6], grants, count: 0 });
        table.by_stake.insert(table.stake_hash(lock, session, owner), stake);
        stake
    });
    let stake = &mut table.stakes[stake];
    sound(stake.grants.tail == before, "an owner's grants stand apart")?;
    stake.grants.tail = slot;
    stake.count += 1;
    stake.held[grant.mode() as usize] += 1;
    Ok(())
}

/// Counts what a session waits for, and files it by request.
fn own_waits(table: &mut Table, slot: u32) -> Result<u32, BadSnapshot> {
    let ends = table.sessions[slot].waits;
    let count = walk(
        &table.waiters,
        ends,
        |waiter| waiter.sibling,
        |_, waiter| sound(waiter.session == slot, "a wait is another session's"),
    )?;
    let mut at = ends.head;
    while at != NONE {
        let Waiter { request, sibling, .. } = table.waiters[at];
        sound(table.pending_slot(slot, request).is_none(), "two waits are of one request")?;
        table.pending.insert(table.key.hash(u64::from(slot), request.0), at);
        at = sibling.next;
    }
    table.sessions[slot].wait_count = count;
    Ok(count)
}

/// One bundle; gives how much it has taken.
fn bundle(table: &mut Table, slot: u32) -> Result<usize, BadSnapshot> {
    let bundle = &table.bundles[slot];
    let (session, count) = (bundle.session, bundle.wanted.len());
    sound(table.sessions.get(session).is_some(), "a bundle is nobody's")?;
    let rising = (1..count).all(|at| bundle.wanted.item(at - 1).resource < bundle.wanted.item(at).resource);
    sound(rising && bundle.number <= table.bundles_begun, "a bundle is not in order")?;
    let waiter = table.pending_slot(session, bundle.request).map(|waiter| &table.waiters[waiter]);
    let waiter = waiter.ok_or(BadSnapshot::Unsound("a bundle waits nowhere"))?;
    let next = (table.locks[waiter.lock].digest, waiter.mode);
    let waits = waiter.bundle == slot && waiter.grant == NONE;
    let ends = (waiter.timer != NONE) == bundle.until.is_some();
    let wants = bundle.wanted.keys().nth(bundle.taken.len()) == Some(next);
    sound(waits && ends && wants, "a bundle waits for something else")?;
    let taken = bundle.taken.clone();
    for (at, &grant) in taken.iter().enumerate() {
        let key = table.bundles[slot].wanted.keys().nth(at);
        let record = table.grants.get(grant).ok_or(BadSnapshot::Unsound("a bundle has taken no grant"))?;
        let same = Some((table.locks[record.lock].digest, record.mode())) == key;
        let concealed = record.has(Grant::PARTIAL) && record.has(Grant::EXTRA) && record.session() == session;
        sound(same && concealed, "a bundle has taken something else")?;
        let extra = table.extra_slot(grant);
        sound(table.extras[extra].bundle == NONE, "two bundles have taken one grant")?;
        table.extras[extra].bundle = slot;
    }
    let count = u32::try_from(count).expect("at most 256");
    table.sessions[session].wait_answers += count - 1;
    Ok(taken.len())
}

/// One more among the waiters of its queue that may inherit a class.
pub(super) fn heir(table: &mut Table, slot: u32) -> Result<(), BadSnapshot> {
    let waiter = table.waiters.get(slot).ok_or(BadSnapshot::Unsound("an heir is no waiter"))?;
    let ranked = !waiter.converts && table.locks[waiter.lock].has(Lock::PRIORITY);
    sound(ranked && !table.turns[table.turn_slot(slot)].inherits, "an heir has no class, or comes twice")?;
    table.set_heir(slot, true);
    Ok(())
}

/// One more among the holders of its lock that want notices, or were told.
pub(super) fn notice(table: &mut Table, slot: u32, told: bool) -> Result<(), BadSnapshot> {
    let grant = table.grants.get(slot).ok_or(BadSnapshot::Unsound("who wants notices holds nothing"))?;
    let fits = grant.has(Grant::EXTRA) && table.extra(slot).notify == Notify::Off;
    let crowd = table.crowd_of(grant.lock);
    let blocks = crowd.is_some_and(|crowd| crowd.blocked_by(grant.mode()) > 0);
    sound(fits && (blocks || !told), "who was told blocks nobody, or comes twice")?;
    table.list_notice(slot, if told { Notify::Told } else { Notify::Quiet });
    Ok(())
}
