//! Lock records and their side records: they come with the first holder and go with the last reason to remember.

use crate::chunks::NONE;
use crate::list::{self, Ends};
use crate::record::{Closed, Crowd, Extra, Grant, Lock, Notify};
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::{Digest, Mode, ModeSet, Resource, Tick};

impl Table {
    /// A new lock; `None` when too many namespaces are in use. The caller seats its first holder at once.
    pub(crate) fn create_lock(&mut self, digest: Digest, resource: Resource<'_>) -> Option<u32> {
        let (namespace, discipline) = self.namespaces.enter(resource.namespace)?;
        let name = self.names.insert(resource.name.as_bytes());
        let died = if self.marks.take(self.key, digest) { Lock::DIED } else { 0 };
        let flags = died | Lock::discipline(discipline);
        let slot = self.locks.insert(Lock { digest, name, head: NONE, crowd: NONE, namespace, flags });
        self.by_digest.insert(self.key.hash(digest.0[0], digest.0[1]), slot);
        Some(slot)
    }

    /// Forgets a lock that nobody holds, wants or is kept from.
    fn reclaim_lock(&mut self, slot: u32) {
        let lock = self.locks.remove(slot);
        assert!(lock.head == NONE && lock.crowd == NONE, "a lock in use is not reclaimed");
        self.by_digest.remove(self.key.hash(lock.digest.0[0], lock.digest.0[1]), slot);
        self.names.remove(lock.name);
        self.namespaces.leave(lock.namespace);
        if lock.has(Lock::DIED) {
            self.marks.insert(self.key, lock.digest);
        }
    }

    /// Drops the side record when the sole holder says it all, and the lock when nothing is left to say.
    pub(crate) fn trim_lock(&mut self, lock: u32) {
        let Lock { crowd, head, .. } = self.locks[lock];
        if crowd != NONE && self.is_dispensable(lock) {
            if head != NONE && self.grants[head].has(Grant::EXTRA) {
                let extra = self.extra_slot(head);
                self.extras[extra].notice = crate::list::Link::NONE;
                assert!(self.extras[extra].notify != Notify::Told, "nobody is blocked any more");
            }
            self.crowds.remove(crowd);
            self.locks[lock].crowd = NONE;
        }
        if head == NONE && self.locks[lock].crowd == NONE {
            self.reclaim_lock(lock);
        }
    }

    /// Whether a lock's side record says nothing that its sole holder, or nobody, does not say.
    fn is_dispensable(&self, lock: u32) -> bool {
        let Lock { crowd, head, .. } = self.locks[lock];
        let staked = self.locks[lock].has(Lock::STAKED);
        let crowd = &self.crowds[crowd];
        let run_is_plain =
            crowd.run_first == 0 || (head != NONE && self.grants[head].token == crowd.run_first);
        crowd.holders <= 1 && !crowd.is_waited_for() && crowd.closed.is_none() && !staked && run_is_plain
    }

    /// The side record of a lock, made when there is none yet.
    pub(crate) fn crowd(&mut self, lock: u32) -> u32 {
        let Lock { crowd, head, .. } = self.locks[lock];
        if crowd != NONE {
            return crowd;
        }
        let mut made = Crowd::new(lock);
        if head != NONE {
            let grant = self.grants[head];
            assert!(grant.beside.next == NONE, "several holders have a side record");
            (made.tail, made.holders) = (head, 1);
            made.held[grant.mode() as usize] = 1;
            made.run_first = if grant.mode() == Mode::PR { grant.token } else { 0 };
        }
        let crowd = self.crowds.insert(made);
        self.locks[lock].crowd = crowd;
        if head != NONE {
            self.hush(head);
        }
        crowd
    }

    /// The side record of a lock, if it has one.
    #[inline]
    pub(crate) fn crowd_of(&self, lock: u32) -> Option<&Crowd> {
        let crowd = self.locks[lock].crowd;
        (crowd != NONE).then(|| &self.crowds[crowd])
    }

    /// The modes held, or those held by all but one holder.
    #[inline]
    pub(crate) fn held_mask(&self, lock: u32, without: Option<u32>) -> ModeSet {
        let mode = |grant: u32| self.grants[grant].mode();
        match self.crowd_of(lock) {
            Some(crowd) => crowd.held_mask(without.map(mode)),
            None => match self.locks[lock].head {
                NONE => ModeSet::EMPTY,
                sole if without == Some(sole) => ModeSet::EMPTY,
                sole => ModeSet::EMPTY.with(mode(sole)),
            },
        }
    }

    /// How many hold a lock.
    pub(crate) fn holder_count(&self, lock: u32) -> u32 {
        let sole = u32::from(self.locks[lock].head != NONE);
        self.crowd_of(lock).map_or(sole, |crowd| crowd.holders)
    }

    /// The holders, in the order they joined.
    pub(crate) fn holders(&self, lock: u32) -> impl Iterator<Item = u32> + '_ {
        list::walk(&self.grants, self.locks[lock].head, |grant| grant.beside)
    }

    /// Keeps everybody out until `until`, but for successors of `session`. The longest of several delays counts.
    pub(crate) fn close_lock(&mut self, until: Tick, lock: u32, session: u32) {
        let crowd = self.crowd(lock);
        let open_before = match &self.crowds[crowd].closed {
            Some(closed) if closed.until >= until => return,
            Some(closed) => Some(closed.timer),
            None => None,
        };
        let timer = match open_before {
            Some(timer) => {
                self.wheel.rearm(timer, until);
                timer
            }
            None => self.wheel.arm(until, Alarm::Delay(lock)),
        };
        let about = &self.sessions[session].about;
        let (identity, reclaim_key) = (about.identity.clone(), about.reclaim_key.clone());
        let closed = Closed { until, timer, identity, reclaim_key };
        self.crowds[crowd].closed = Some(alloc::boxed::Box::new(closed));
    }

    /// Whether a delay keeps this session out.
    #[inline]
    pub(crate) fn is_kept_out(&self, lock: u32, session: u32) -> bool {
        let Some(closed) = self.crowd_of(lock).and_then(|crowd| crowd.closed.as_ref()) else { return false };
        let about = &self.sessions[session].about;
        let succeeds = !about.identity.is_empty()
            && about.identity == closed.identity
            && about.reclaim_key == closed.reclaim_key;
        !succeeds
    }

    /// The side record of a grant that has one.
    #[inline]
    pub(crate) fn extra(&self, grant: u32) -> &Extra {
        &self.extras[self.extra_slot(grant)]
    }

    /// Its slot.
    pub(crate) fn extra_slot(&self, grant: u32) -> u32 {
        let record = &self.grants[grant];
        assert!(record.has(Grant::EXTRA), "grant {grant} has a side record");
        u32::try_from(record.owner).expect("the owner field holds a slot")
    }

    /// The slot of a grant's side record, made when there is none yet.
    pub(crate) fn ensure_extra(&mut self, grant: u32) -> u32 {
        if self.grants[grant].has(Grant::EXTRA) {
            return self.extra_slot(grant);
        }
        let extra = self.extras.insert(Extra {
            owner: self.grants[grant].owner,
            levels: 1,
            hold_timer: NONE,
            max_hold_ms: 0,
            confirm_timer: NONE,
            lock_delay_ms: 0,
            label: crate::names::NameRef::EMPTY,
            conversion: NONE,
            bundle: NONE,
            grant,
            notify: Notify::Off,
            notice: crate::list::Link::NONE,
        });
        self.grants[grant].owner = u64::from(extra);
        self.grants[grant].set(Grant::EXTRA);
        extra
    }

    /// The owner of a grant.
    #[inline]
    pub(crate) fn owner(&self, grant: u32) -> u64 {
        let record = &self.grants[grant];
        if record.has(Grant::EXTRA) { self.extra(grant).owner } else { record.owner }
    }

    /// The holders' list of a lock as it can be changed; put it back with [`Table::set_holder_ends`].
    #[inline]
    pub(crate) fn holder_ends(&self, lock: u32) -> Ends {
        let head = self.locks[lock].head;
        Ends { head, tail: self.crowd_of(lock).map_or(head, |crowd| crowd.tail) }
    }

    #[inline]
    pub(crate) fn set_holder_ends(&mut self, lock: u32, ends: Ends) {
        let crowd = self.locks[lock].crowd;
        self.locks[lock].head = ends.head;
        if crowd == NONE {
            assert_eq!(ends.head, ends.tail, "several holders have a side record");
        } else {
            self.crowds[crowd].tail = ends.tail;
        }
    }
}
