//! What a table remembers, record by record. A lock held by one and wanted by nobody else is a [`Lock`] of 32 and
//! a [`Grant`] of 48 bytes; everything rarer lies in records of its own that only those pay for who need it: a
//! [`Crowd`] while a lock has several holders, waiters or a delay, an [`Extra`] for a grant with a label, a longest
//! hold, a re-entry and the like, a [`Stake`] for finding an owner's grants among many holders.

use crate::chunks::NONE;
use crate::list::{Ends, Link};
use crate::names::NameRef;
use crate::slab::Record;
use alloc::boxed::Box;
use fairlock_protocol::{
    Digest, Discipline, FencingToken, Mode, ModeSet, OwnerId, Priority, RequestId, Tick,
};

/// A lock that somebody holds or waits for, or that a delay keeps closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub(crate) digest: Digest,
    pub(crate) name: NameRef,
    /// First of the holders, in the order they joined.
    pub(crate) head: u32,
    /// The side record; `NONE` exactly while one grant is all there is to say.
    pub(crate) crowd: u32,
    pub(crate) namespace: u16,
    pub(crate) flags: u16,
}

impl Lock {
    const VACANT: u16 = 1;
    /// A holder died holding a mode that writes; the next grants are told.
    pub(crate) const DIED: u16 = 2;
    /// Noted for a scan at the end of the present command.
    pub(crate) const TOUCHED: u16 = 4;
    /// The owners of all its grants are filed.
    pub(crate) const STAKED: u16 = 8;
    /// In a namespace with the discipline `phase`.
    pub(crate) const PHASE: u16 = 16;
    /// In a namespace with the discipline `priority`.
    pub(crate) const PRIORITY: u16 = 32;
    /// Its queue is not strict.
    pub(crate) const DISCIPLINED: u16 = Lock::PHASE | Lock::PRIORITY;

    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The flag of a discipline.
    pub(crate) const fn discipline(discipline: Discipline) -> u16 {
        match discipline {
            Discipline::Strict => 0,
            Discipline::Phase => Lock::PHASE,
            Discipline::Priority => Lock::PRIORITY,
        }
    }

    pub(crate) const fn assign(&mut self, flag: u16, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// One request's hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    /// The token's number; 0 for NL.
    pub(crate) token: u64,
    /// The owner, or the slot of the [`Extra`] that knows the owner.
    pub(crate) owner: u64,
    pub(crate) lock: u32,
    /// Session slot (24 bits), mode (3), flags (5).
    who: u32,
    /// 0 for a vacant record.
    pub(crate) generation: u32,
    /// In units of [`SINCE_NS`].
    pub(crate) since: u32,
    /// Among the holders of the lock.
    pub(crate) beside: Link,
    /// Among the grants of the session.
    pub(crate) sibling: Link,
}

/// Resolution of a grant's age: for people, and 2³² of it are two years.
pub(crate) const SINCE_NS: u64 = 16_000_000;
/// Session slots are below this: 24 bits.
pub(crate) const SESSION_SLOTS: u32 = 1 << 24;

const _: () =
    assert!(size_of::<Lock>() == 32 && size_of::<Grant>() == 48, "96 bytes a held lock, with the index");

impl Grant {
    /// `owner` is the slot of an [`Extra`].
    pub(crate) const EXTRA: u32 = 1 << 27;
    /// An operator took it; the client has not confirmed yet.
    pub(crate) const BROKEN: u32 = 1 << 28;
    /// Taken by a bundle that waits for more: nobody was told, nobody may name it.
    pub(crate) const PARTIAL: u32 = 1 << 29;
    /// A bundle's: it is to tell of the death of a holder before it.
    pub(crate) const HEIR: u32 = 1 << 30;

    pub(crate) const fn who(session: u32, mode: Mode) -> u32 {
        assert!(session < SESSION_SLOTS, "sessions are numbered in 24 bits");
        session | (mode as u32) << 24
    }

    pub(crate) const fn new(
        token: u64,
        owner: u64,
        lock: u32,
        who: u32,
        generation: u32,
        since: u32,
    ) -> Grant {
        let (beside, sibling) = (Link::NONE, Link::NONE);
        Grant { token, owner, lock, who, generation, since, beside, sibling }
    }

    /// Session, mode and flags as they are kept.
    pub(crate) const fn who_word(&self) -> u32 {
        self.who
    }

    /// Whether a number can be the session, mode and flags of a grant.
    pub(crate) const fn is_who(word: u32) -> bool {
        let known = 0x07FF_FFFF | Grant::EXTRA | Grant::BROKEN | Grant::PARTIAL | Grant::HEIR;
        word & !known == 0 && (word >> 24 & 7) < 6
    }

    pub(crate) const fn session(&self) -> u32 {
        self.who & (SESSION_SLOTS - 1)
    }

    pub(crate) const fn mode(&self) -> Mode {
        Mode::ALL[(self.who >> 24 & 7) as usize]
    }

    pub(crate) const fn set_mode(&mut self, mode: Mode) {
        self.who = self.who & !(7 << 24) | (mode as u32) << 24;
    }

    pub(crate) const fn has(&self, flag: u32) -> bool {
        self.who & flag != 0
    }

    pub(crate) const fn set(&mut self, flag: u32) {
        self.who |= flag;
    }

    pub(crate) const fn assign(&mut self, flag: u32, on: bool) {
        self.who = if on { self.who | flag } else { self.who & !flag };
    }

    pub(crate) const fn fencing_token(&self) -> Option<FencingToken> {
        FencingToken::from_raw(self.token)
    }
}

/// What only few grants have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra {
    pub(crate) owner: u64,
    /// Levels of re-entry, 1 for a grant entered once; 0 for a vacant record.
    pub(crate) levels: u32,
    pub(crate) hold_timer: u32,
    pub(crate) max_hold_ms: u32,
    /// Set while a broken grant waits for its client's confirmation.
    pub(crate) confirm_timer: u32,
    pub(crate) lock_delay_ms: u32,
    pub(crate) label: NameRef,
    /// The waiter that is this grant's conversion.
    pub(crate) conversion: u32,
    /// The bundle that has taken this grant and waits for more.
    pub(crate) bundle: u32,
    /// The grant this belongs to.
    pub(crate) grant: u32,
    pub(crate) notify: Notify,
    /// Among the grants of its lock that are to be told, or were.
    pub(crate) notice: Link,
}

/// Whether a grant is told that it blocks somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notify {
    /// It did not ask for it.
    Off,
    /// It will be, and is in its mode's list of the crowd (if there is a crowd).
    Quiet,
    /// It was, and is in its mode's other list.
    Told,
}

/// What there is to know about a lock beyond its sole holder.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    /// `NONE` for a vacant record.
    pub(crate) lock: u32,
    /// Last of the holders.
    pub(crate) tail: u32,
    pub(crate) holders: u32,
    /// Holders by mode.
    pub(crate) held: [u32; 6],
    /// Entries of C by mode asked for.
    pub(crate) converting: [u32; 6],
    /// Entries of W by mode asked for.
    pub(crate) waiting: [u32; 6],
    /// The conversion queue C.
    pub(crate) conversions: Ends,
    /// The wait queue W.
    pub(crate) waits: Ends,
    /// First token of the present unbroken run of PR holders; 0 when there is none.
    pub(crate) run_first: u64,
    /// Number of the next entry of W.
    pub(crate) enqueued: u64,
    /// Number of the entry of W granted last, while the queue is strict.
    pub(crate) served: u64,
    /// Holders to be told when they block somebody, by mode.
    pub(crate) quiet: [Ends; 6],
    /// Holders told already, and blocking somebody still, by mode.
    pub(crate) told: [Ends; 6],
    /// The side record of W when that is not strict and not empty.
    pub(crate) rota: u32,
    /// What keeps others out after an expiry.
    pub(crate) closed: Option<Box<Closed>>,
}

/// A delay after an expiry, and who is not kept out by it.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) until: Tick,
    pub(crate) timer: u32,
    pub(crate) identity: Box<[u8]>,
    pub(crate) reclaim_key: Box<[u8]>,
}

impl Crowd {
    pub(crate) fn new(lock: u32) -> Crowd {
        assert!(lock != NONE, "a crowd belongs to a lock");
        Crowd {
            lock,
            tail: NONE,
            holders: 0,
            held: [0; 6],
            converting: [0; 6],
            waiting: [0; 6],
            conversions: Ends::EMPTY,
            waits: Ends::EMPTY,
            run_first: 0,
            enqueued: 1,
            served: 0,
            quiet: [Ends::EMPTY; 6],
            told: [Ends::EMPTY; 6],
            rota: NONE,
            closed: None,
        }
    }

    /// Modes held by anybody, or by anybody but one holder of `without`.
    pub(crate) fn held_mask(&self, without: Option<Mode>) -> ModeSet {
        let mut mask = ModeSet::EMPTY;
        for (mode, &count) in Mode::ALL.into_iter().zip(&self.held) {
            if count > u32::from(without == Some(mode)) {
                mask = mask.with(mode);
            }
        }
        mask
    }

    /// Entries of both queues.
    pub(crate) fn queued(&self) -> u32 {
        self.converting.iter().chain(&self.waiting).sum()
    }

    /// Entries of both queues that a holder of `mode` keeps waiting.
    pub(crate) fn blocked_by(&self, mode: Mode) -> u32 {
        let conflicts = mode.conflicts();
        let asked = self.converting.iter().zip(&self.waiting).zip(Mode::ALL);
        asked.filter(|&(_, mode)| conflicts.has(mode)).map(|((c, w), _)| c + w).sum()
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        !self.conversions.is_empty() || !self.waits.is_empty()
    }
}

/// A waiting request or conversion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    /// 0 for a vacant record.
    pub(crate) generation: u32,
    pub(crate) lock: u32,
    pub(crate) session: u32,
    /// The grant that converts; `NONE` for a new request.
    pub(crate) grant: u32,
    /// The bundle that waits here; `NONE` for a single request.
    pub(crate) bundle: u32,
    pub(crate) request: RequestId,
    pub(crate) owner: OwnerId,
    pub(crate) since: Tick,
    /// Place in the order of W, or the slot of the [`Turn`](crate::turns::Turn) that knows it; 0 in C.
    pub(crate) number: u64,
    /// In C or W.
    pub(crate) queue: Link,
    /// Among the waits of the session.
    pub(crate) sibling: Link,
    pub(crate) timer: u32,
    pub(crate) label: NameRef,
    pub(crate) lock_delay_ms: u32,
    pub(crate) max_hold_ms: u32,
    pub(crate) mode: Mode,
    pub(crate) priority: Priority,
    pub(crate) notify: bool,
    /// In C rather than in W.
    pub(crate) converts: bool,
}

const _: () =
    assert!(size_of::<Crowd>() == 232 && size_of::<Waiter>() == 88, "strict queues pay for no other");

/// What one owner holds on a lock with many holders. Its grants follow one another in the session's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stake {
    /// `NONE` for a vacant record.
    pub(crate) lock: u32,
    pub(crate) session: u32,
    pub(crate) owner: u64,
    pub(crate) held: [u32; 6],
    /// First and last of its grants in the session's list.
    pub(crate) grants: Ends,
    pub(crate) count: u32,
}

/// Implements [`Record`] by a field that no record in use has at that value, and one that holds the link.
macro_rules! record {
    ($type:ident, $vacant:expr, |$r:ident| $test:expr, $link:expr) => {
        impl Record for $type {
            fn vacant(next: u32) -> $type {
                let make: fn(u32) -> $type = $vacant;
                make(next)
            }

            fn next_vacant(&self) -> Option<u32> {
                let $r = self;
                ($test).then_some($link)
            }
        }
    };
}

record!(
    Lock,
    |next| Lock {
        digest: Digest([0; 2]),
        name: NameRef::EMPTY,
        head: next,
        crowd: NONE,
        namespace: 0,
        flags: Lock::VACANT,
    },
    |r| r.has(Lock::VACANT),
    r.head
);
record!(Grant, |next| Grant::new(0, 0, next, 0, 0, 0), |r| r.generation == 0, r.lock);
record!(
    Extra,
    |next| Extra {
        owner: 0,
        levels: 0,
        hold_timer: NONE,
        max_hold_ms: 0,
        confirm_timer: NONE,
        lock_delay_ms: 0,
        label: NameRef::EMPTY,
        conversion: NONE,
        bundle: NONE,
        grant: next,
        notify: Notify::Off,
        notice: Link::NONE,
    },
    |r| r.levels == 0,
    r.grant
);
record!(
    Crowd,
    |next| {
        let mut crowd = Crowd::new(0);
        (crowd.lock, crowd.tail) = (NONE, next);
        crowd
    },
    |r| r.lock == NONE,
    r.tail
);
record!(
    Waiter,
    |next| Waiter {
        generation: 0,
        lock: next,
        session: NONE,
        grant: NONE,
        bundle: NONE,
        request: RequestId::NOTICE,
        owner: OwnerId(0),
        since: Tick::ZERO,
        number: 0,
        queue: Link::NONE,
        sibling: Link::NONE,
        timer: NONE,
        label: NameRef::EMPTY,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        mode: Mode::NL,
        priority: Priority::LOWEST,
        notify: false,
        converts: false,
    },
    |r| r.generation == 0,
    r.lock
);
record!(
    Stake,
    |next| Stake { lock: NONE, session: next, owner: 0, held: [0; 6], grants: Ends::EMPTY, count: 0 },
    |r| r.lock == NONE,
    r.session
);
